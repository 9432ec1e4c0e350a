"""``avo ui``: the terminal UI."""

import os
import shlex
import sys
from typing import Annotated

import typer

from avo.cli import completion
from avo.cli.common import DbOption, fail, run_name
from avo.cli.database import database_url


def ui(
    run: Annotated[
        str | None,
        typer.Argument(
            metavar="RUN",
            callback=run_name,
            help="Name of a run; without it, choose one.",
            autocompletion=completion.runs,
        ),
    ] = None,
    db: DbOption = None,
) -> None:
    """Open the terminal UI, live while a run is driven.

    Example: avo ui mha-h100
    """
    if not sys.stdout.isatty():
        fail("avo ui needs a terminal: avo lineage and avo show print the same as text")
    if os.environ.get("TERM") in (None, "", "dumb", "unknown"):
        fail("avo ui needs a terminal that can move its cursor, see TERM: avo lineage and avo show print text")
    from avo.tui.app import run_ui

    run_ui(database_url(db), run, f" --db {shlex.quote(db)}" if db else "")
