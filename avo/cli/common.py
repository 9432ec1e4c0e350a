"""What the commands share: options, the database, RUN@VERSION, and how data and errors are printed."""

import json
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console

from avo.watch.tables import one_line

if TYPE_CHECKING:
    from lineage_db.records import Run, Version
    from lineage_db.store import Store

PIPED_WIDTH = 240
"""Columns of a table whose reader is not a terminal and does not set COLUMNS: wide enough that no line is folded."""
MAX_SOURCE_CHARS = 10**6
"""Longest kernel source that is read from a file: a hundred times as long as a kernel of ours."""


def piped_width(environment: Mapping[str, str]) -> int:
    """Return how wide tables are printed when the reader is not a terminal: COLUMNS, where it is a number."""
    columns = environment.get("COLUMNS", "")
    return int(columns) if columns.isdecimal() and int(columns) > 0 else PIPED_WIDTH


console = Console(
    markup=False,
    highlight=False,
    emoji=False,
    soft_wrap=False,
    width=None if sys.stdout.isatty() else piped_width(os.environ),
)
"""Data, on stdout. Markup is off: changes and messages are words of operators and candidates."""
err = Console(stderr=True, markup=False, highlight=False, emoji=False, soft_wrap=True)
"""Words, on stderr."""

DbOption = Annotated[
    str | None,
    typer.Option(
        "--db",
        metavar="URL",
        help="Database: an SQLAlchemy URL or an SQLite file. Default: $AVO_DB, else .avo/lineage.db.",
        show_default=False,
    ),
]
SandboxOption = Annotated[
    str | None,
    typer.Option(
        metavar="auto|require",
        help="require: refuse to start where candidates cannot be kept in namespaces. Default: auto.",
        show_default=False,
    ),
]
EvaluatorCommandOption = Annotated[
    str | None,
    typer.Option(
        metavar="COMMAND",
        help="Judge with what this starts, e.g. 'ssh gpu-box python -m evaluator'. Default: on this machine.",
        show_default=False,
    ),
]
WorkersOption = Annotated[
    int | None,
    typer.Option(metavar="N", help="Operators that work side by side. Default: one per CPU, at most 8."),
]
EvaluatorsOption = Annotated[
    int | None, typer.Option(metavar="M", help="Evaluators that they share. Default: as many as workers.")
]
EvaluatorResourcesOption = Annotated[
    str | None,
    typer.Option(
        metavar="JSON",
        help="""Ray resources that each evaluator takes, e.g. '{"H100": 1}' to choose a kind of GPU. Default: none.""",
        show_default=False,
    ),
]
RayAddressOption = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="Join a Ray cluster: auto, HOST:PORT or ray://HOST:PORT. Default: local, this machine alone.",
        show_default=False,
    ),
]
CascadeOption = Annotated[
    str | None,
    typer.Option(
        metavar="FRACTION|off",
        help="With --target cuda: time nothing predicted slower than the best by this, at its fastest. Default: 0.25.",
        show_default=False,
    ),
]
ModelOption = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        metavar="NAME",
        help="Model that operators agent and single_turn ask; more settings under [[models]]. May be repeated.",
        show_default=False,
    ),
]
MaxStepsOption = Annotated[
    int | None, typer.Option(metavar="N", help="Stop after so many steps of the whole run.", show_default=False)
]
MaxTokensOption = Annotated[
    int | None,
    typer.Option(metavar="N", help="Stop once models have used so many tokens in the whole run.", show_default=False),
]
MaxUsdOption = Annotated[
    float | None,
    typer.Option(metavar="USD", help="Stop once models have cost so much. Models need prices.", show_default=False),
]
StepEvaluationsOption = Annotated[
    int | None,
    typer.Option(metavar="N", help="Candidates that agent may evaluate in a step. Default: 12.", show_default=False),
]
StepTokensOption = Annotated[
    int | None, typer.Option(metavar="N", help="Tokens that a step may use.", show_default=False)
]
StepUsdOption = Annotated[float | None, typer.Option(metavar="USD", help="What a step may cost.", show_default=False)]
StepMinutesOption = Annotated[
    float | None, typer.Option(metavar="MINUTES", help="How long a step may take.", show_default=False)
]
NotifyOption = Annotated[
    str | None,
    typer.Option(
        metavar="COMMAND",
        help="""Run this on a new best, a stall, a failure or the end, e.g. 'notify-send "$AVO_TEXT"'.""",
        show_default=False,
    ),
]
LogOption = Annotated[
    Path | None,
    typer.Option("--log", metavar="FILE", help="Append what happens as JSON lines, as avo log --json prints it."),
]
MetricsOption = Annotated[
    str | None,
    typer.Option(
        metavar="[HOST:]PORT", help="Answer Prometheus there, by default on 127.0.0.1 alone.", show_default=False
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, unrounded.")]

_REFERENCE = re.compile(r"(?P<run>[^@\s]+)(@v?(?P<number>\d{1,9}))?")


def fail(message: str) -> NoReturn:
    """Print ``avo: message`` on stderr and leave with exit code 2."""
    err.print(f"avo: {one_line(message)}")
    raise typer.Exit(2)


def run_name(text: str | None) -> str | None:
    """Return the name of a run as it was given; refuse RUN@VERSION, for a command that is about the whole run."""
    if text is not None and "@" in text:
        name = text.partition("@")[0]
        fail(f"{text!r} names a version, and this command is about a whole run: write {name or 'RUN'} without @VERSION")
    return text


RunArgument = Annotated[
    str, typer.Argument(metavar="RUN", callback=run_name, help="Name of a run, as avo runs shows it.")
]


def database_url(db: str | None) -> str:
    """Return the database to use: the option, else AVO_DB, else .avo/lineage.db below the current folder."""
    return db or os.environ.get("AVO_DB") or str(Path(".avo") / "lineage.db")


def open_store(db: str | None, create: bool = False) -> "Store":
    """Open the database; raise the store's errors."""
    from lineage_db.store import Store

    return Store.open(database_url(db), create=create)


def parse_version_ref(text: str) -> tuple[str, int | None]:
    """Split RUN@VERSION into the run's name and the version's number, None for RUN alone. ``v3`` is 3."""
    match = _REFERENCE.fullmatch(text)
    if match is None:
        fail(f"{text!r} does not name a version: write RUN or RUN@NUMBER, e.g. mha-h100@3")
    number = match["number"]
    return match["run"], None if number is None else int(number)


def load_version(store: "Store", text: str) -> "tuple[Run, Version]":
    """Return the run and version that RUN@VERSION names; RUN alone is the best version. Raises the store's errors."""
    name, number = parse_version_ref(text)
    run = store.run(name)
    return run, store.version(run.id, number)


def read_source(file: Path) -> str:
    """Return the text of a kernel's file; leave with one line when it is none, or too long for one."""
    try:
        with file.open(encoding="utf-8") as stream:
            text = stream.read(MAX_SOURCE_CHARS + 1)
    except OSError as error:
        fail(f"cannot read {file}: {error.strerror}")
    except UnicodeDecodeError:
        fail(f"cannot read {file}: not UTF-8 text")
    if len(text) > MAX_SOURCE_CHARS:
        fail(f"cannot read {file}: over 1 MB, which is no kernel source")
    if "\0" in text:
        fail(f"cannot read {file}: it holds NUL bytes, so it is no Python source")
    return text


def print_json(data: Any) -> None:
    """Print ``data`` as JSON on stdout."""
    print(json.dumps(data, indent=2, allow_nan=False))
