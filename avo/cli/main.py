"""The command ``avo``: its commands, its version, and how our own errors become one line and exit code 2."""

import codecs
import sys
from collections.abc import Callable
from importlib.metadata import version
from typing import Annotated, Any, NoReturn

import typer
from typer.exceptions import TyperException

from avo.agents.errors import AgentError
from avo.cli.asking import pause, stop
from avo.cli.attempts import attempts
from avo.cli.baselines import baselines
from avo.cli.calibrate import calibrate
from avo.cli.common import Group, fail
from avo.cli.compare import compare
from avo.cli.diff import diff
from avo.cli.doctor import doctor
from avo.cli.evaluate import evaluate
from avo.cli.export import export
from avo.cli.git import git
from avo.cli.ingest import ingest
from avo.cli.kb import kb
from avo.cli.lineage import lineage
from avo.cli.log import log
from avo.cli.mcp import mcp
from avo.cli.memory import memory
from avo.cli.moves import moves
from avo.cli.options import command_class
from avo.cli.profile import profile
from avo.cli.replay import replay
from avo.cli.report import report
from avo.cli.resume import resume
from avo.cli.run import run
from avo.cli.runs import runs
from avo.cli.serve import serve
from avo.cli.service import service
from avo.cli.shortlist import shortlist
from avo.cli.show import show
from avo.cli.status import status
from avo.cli.tune import tune
from avo.cli.ui import ui
from avo.cli.upkeep import backup, migrate, prune
from avo.errors import AvoError
from avo.evaluator.errors import EvaluatorError
from avo.knowledge_base.errors import LibraryError
from avo.lineage_db.errors import StoreError

GROUPS: dict[str, tuple[Callable[..., None], ...]] = {
    "Run a search": (run, resume, pause, stop, mcp, replay),
    "Watch it": (status, log, runs, ui, serve),
    "Understand what it found": (lineage, attempts, show, diff, compare, memory, profile),
    "Try kernels of your own": (evaluate, tune, baselines, moves),
    "Take the result home": (report, export, git),
    "Ask a card": (shortlist, ingest, calibrate),
    "Look after the installation": (doctor, service, backup, prune, migrate),
}
"""The commands, by what a person is about."""
_SIGNS = (
    str.maketrans("●○◦★◆▸•·┄─━╸╺│┃▕▏┤├┬└╭╮╰╯┏┓┗┛", "ooo*#>..--===||||++++++++++++")
    | str.maketrans("▁▂▃▄▅▆▇█▉▔⏎", "_########->")
    | str.maketrans({"…": "...", "→": "->"})
)
"""What stands for our signs where a locale knows ASCII only."""
_OF_TYPERS = {"kb": "Understand what it found"}
"""Where groups of commands of their own belong."""


class Commands(Group):
    """The group of commands: a wrong call, or an error raised on purpose, is one line, never a traceback."""

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        """Read the options before the command; leave with exit code 2 on an unknown one."""
        try:
            return super().make_context(*args, **kwargs)
        except TyperException as error:
            _refuse(error)

    def invoke(self, ctx: Any) -> Any:
        """Run the command; leave with exit code 2 on one of our own errors or a wrong call."""
        try:
            return super().invoke(ctx)
        except TyperException as error:
            _refuse(error)
        except (AvoError, AgentError, EvaluatorError, LibraryError, StoreError) as error:
            fail(str(error))

    def sections(self) -> dict[str, list[str]]:
        """Return the names of the commands, by what a person is about."""
        names = {title: [function.__name__ for function in functions] for title, functions in GROUPS.items()}
        for name, title in _OF_TYPERS.items():
            names[title].append(name)
        return names


def _refuse(error: TyperException) -> NoReturn:
    """Say in one line what is wrong with a call and where its help is."""
    said, context = error.format_message().replace("Value error, ", ""), getattr(error, "ctx", None)
    if "\n" in said:  # the help, where nothing is asked for
        raise error
    if context and context.info_name == "tune" and said.startswith("No such option"):
        said += " (those of the script stand behind --)"
    fail(f"{said.rstrip('.')}: see {context.command_path if context else 'avo'} --help")


app = typer.Typer(name="avo", cls=Commands, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"avo {version('avo-kernels')}")
        raise typer.Exit


@app.callback()
def _group(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Evolve attention kernels: an automated search that needs no GPU and no API key.

    Start with: avo run. Look further with: avo runs, avo lineage RUN, avo ui.
    """


for _commands in GROUPS.values():
    for _command in _commands:
        app.command(cls=command_class(_command))(_command)
app.add_typer(kb, name="kb")


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    """Return what stands for characters that a stream cannot encode, and where the rest begins (``codecs``)."""
    assert isinstance(error, UnicodeEncodeError), "it is an error handler of output"
    words = error.object[error.start : error.end].translate(_SIGNS)
    return words.encode("ascii", "replace").decode(), error.end


def main() -> None:
    """Entry point of the ``avo`` script."""
    codecs.register_error("avo-signs", _in_ascii)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="avo-signs")  # type: ignore[union-attr]
    app()
