"""What the commands share: options, the database, RUN@VERSION and RUN#ATTEMPT, how data and errors are printed."""

import json
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from typer.core import TyperGroup

from avo.cli import completion
from avo.cli.database import database_url
from avo.watch.tables import one_line

if TYPE_CHECKING:
    from avo.evaluator.evaluators import Progress, Tell
    from avo.lineage_db.records import Attempt, Run, Version
    from avo.lineage_db.store import Store

PIPED_WIDTH = 240
"""Width of a table that is not printed on a terminal, where COLUMNS is not set: wide enough that no line is folded."""
TELL_S = 10.0
"""Seconds between lines that say how far something is, where they do not go to a terminal."""
MAX_SOURCE_CHARS = 10**6
"""Longest kernel source that is read from a file: a hundred times the length of our own kernels."""


def piped_width(environment: Mapping[str, str]) -> int:
    """Return how wide tables are printed when not on a terminal: COLUMNS, where that is a number."""
    columns = environment.get("COLUMNS", "")
    return int(columns) if columns.isdecimal() and int(columns) > 0 else PIPED_WIDTH


class Output(Console):
    """A console whose lines end where their text ends, unless they go to a terminal: tables are padded there only."""

    def print(self, *objects: Any, **options: Any) -> None:
        """Print like ``Console.print``."""
        if self.is_terminal:
            super().print(*objects, **options)
            return
        with self.capture() as captured:
            super().print(*objects, **options)
        self.file.write(re.sub(" +$", "", captured.get(), flags=re.MULTILINE))


console = Output(
    markup=False,
    highlight=False,
    emoji=False,
    soft_wrap=False,
    width=None if sys.stdout.isatty() else piped_width(os.environ),
)
"""Prints data on stdout. Markup is off: operators and candidates choose what changes and messages say."""
err = Console(stderr=True, markup=False, highlight=False, emoji=False, soft_wrap=True)
"""Prints text for the user on stderr."""

DbOption = Annotated[
    str | None,
    typer.Option(
        "--db",
        metavar="URL",
        help="Database: an SQLAlchemy URL or an SQLite file. Default: $AVO_DB, else .avo/lineage.db.",
    ),
]
LogOption = Annotated[
    Path | None,
    typer.Option(
        "--log",
        metavar="FILE",
        help="Append what happens as JSON lines, as avo log --json prints it.",
        rich_help_panel="Watching",
    ),
]
MetricsOption = Annotated[
    str | None,
    typer.Option(
        metavar="[HOST:]PORT",
        help="Serve metrics to Prometheus at this address, by default on 127.0.0.1 alone.",
        rich_help_panel="Watching",
    ),
]
OtlpOption = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="Send the same metrics to an OpenTelemetry collector, such as http://127.0.0.1:4318.",
        rich_help_panel="Watching",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, unrounded.")]

_WHOLE = 1000
"""Characters of a help's first sentence that are shown: all."""
_REFERENCE = re.compile(r"(?P<run>[^@#\s]+)(@v?(?P<version>\d{1,9})|@(?P<fastest>measured)|#(?P<attempt>\d{1,9}))?")


class Group(TyperGroup):
    """A group of commands whose help says what each does in a whole sentence."""

    def sections(self) -> Mapping[str, Sequence[str]]:
        """Return the names of the commands, by the title that they stand below."""
        return {"Commands": list(self.commands)}

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the list of commands for the help."""
        for title, names in self.sections().items():
            found = [(name, self.get_command(ctx, name)) for name in names]
            with formatter.section(title):
                formatter.write_dl([(name, command.get_short_help_str(_WHOLE)) for name, command in found if command])


def fail(message: str) -> NoReturn:
    """Print ``avo: message`` on stderr and leave with exit code 2."""
    err.print(f"avo: {one_line(message)}")
    raise typer.Exit(2)


@contextmanager
def telling(what: str) -> "Iterator[Tell]":
    """Show that ``what`` is being done while the context lasts; yield what tells how far it is.

    A terminal shows it in one line that changes; elsewhere each change becomes a line of its own, ``TELL_S`` apart.
    """
    from avo.watch.wording import how_far

    now, done = f"{what} ...", Event()

    def tell(progress: "Progress") -> None:
        nonlocal now
        now = f"{what}: {how_far(progress)}"
        status.update(now)

    def repeat() -> None:
        said = ""
        while not done.wait(TELL_S):
            if now != said:
                err.print(said := now)

    with err.status(now) as status, ThreadPoolExecutor(1) as threads:
        if not err.is_terminal:
            threads.submit(repeat)
        try:
            yield tell
        finally:
            done.set()


def run_name(text: str | None) -> str | None:
    """Return the name of a run as given; refuse RUN@VERSION and RUN#ATTEMPT, for a command about a whole run."""
    for sign, what in (("@", "version"), ("#", "attempt")):
        if text is not None and sign in text:
            name = text.partition(sign)[0] or "RUN"
            fail(
                f"{text!r} names {'an' if what == 'attempt' else 'a'} {what}, and this command is about a whole run: "
                f"write {name} without {sign}{what.upper()}"
            )
    return text


RunArgument = Annotated[
    str,
    typer.Argument(
        metavar="RUN", callback=run_name, help="Name of a run, as avo runs shows it.", autocompletion=completion.runs
    ),
]


def open_store(db: str | None, create: bool = False) -> "Store":
    """Open the database to write to it; raise the store's errors."""
    from avo.lineage_db.store import Store

    return Store.open(database_url(db), create=create)


def read_store(db: str | None) -> "Store":
    """Open the database to read it only; raise the store's errors."""
    from avo.lineage_db.store import Store

    return Store.read(database_url(db))


@dataclass(frozen=True, slots=True)
class Named:
    """A version or another attempt of a run, as the command line names it."""

    run: "Run"
    attempt: "Attempt"
    version: "Version | None"
    """None for an attempt that is no version."""

    @property
    def label(self) -> str:
        """``mha-h100@3``, or ``mha-h100#38`` for an attempt that is no version."""
        return f"{self.run.name}@{self.version.number}" if self.version else f"{self.run.name}#{self.attempt.id}"


def load(store: "Store", text: str) -> Named:
    """Return what RUN@VERSION or RUN#ATTEMPT names; RUN alone is the best version, RUN@measured what was measured
    fastest. Raises the store's errors.
    """
    match = _REFERENCE.fullmatch(text)
    if match is None:
        fail(
            f"{text!r} names neither a version nor an attempt: write RUN, RUN@VERSION or RUN#ATTEMPT, "
            "e.g. mha-h100@3 or mha-h100#38"
        )
    run = store.run(match["run"])
    if match["attempt"] is None and match["fastest"] is None:
        version = store.version(run.id, None if match["version"] is None else int(match["version"]))
        return Named(run, version.attempt, version)
    wanted = store.measurements.fastest(run) if match["fastest"] else int(match["attempt"])
    attempt = store.attempt(run.id, wanted)
    (summary,) = store.pages.attempts(run.id, [attempt.id])
    return Named(run, attempt, None if summary.version is None else store.version(run.id, summary.version))


def read_source(file: Path) -> str:
    """Return the text of a kernel's file; leave with one line when it is a model's configuration, not text, or too long
    for a kernel.
    """
    try:
        if file.suffix == ".json" or (file / "config.json").is_file():
            _refuse_model(file)
        with file.open(encoding="utf-8") as stream:
            text = stream.read(MAX_SOURCE_CHARS + 1)
    except OSError as error:
        fail(f"cannot read {file}: {error.strerror}")
    except UnicodeDecodeError:
        fail(f"cannot read {file}: not UTF-8 text")
    if len(text) > MAX_SOURCE_CHARS:
        fail(f"cannot read {file}: over 1 MB, too long for a kernel's source")
    if "\0" in text:
        fail(f"cannot read {file}: it holds NUL bytes, so it is not Python source")
    return text


def _refuse_model(file: Path) -> None:
    """Leave with the commands that take a model where ``file`` is a model's configuration, or that it is none."""
    from avo.errors import ConfigError
    from avo.model_config import read_model

    try:
        problem = read_model(file, "prefill").problem
    except ConfigError:
        if file.is_file():
            fail(
                f"{file} is neither a kernel's source nor a model's configuration that can be read: name a Python file"
            )
        return
    fail(
        f"{file} is a model's configuration, not a kernel: avo run --for {file} makes a kernel for it; "
        f"a kernel that you have is judged with --problem {problem}"
    )


def print_json(data: Any) -> None:
    """Print ``data`` as JSON on stdout."""
    print(json.dumps(data, indent=2, allow_nan=False))
