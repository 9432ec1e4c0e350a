"""``avo backup``, ``avo prune`` and ``avo migrate``: looking after a database."""

from pathlib import Path
from typing import Annotated

import typer

from avo.cli import completion
from avo.cli.common import DbOption, console, fail, open_store, read_store, run_name
from avo.cli.database import database_url
from avo.watch.wording import counted


def backup(
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="File to write; must not exist.", show_default=False)
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="The same as FILE.")] = None,
    db: DbOption = None,
) -> None:
    """Copy an SQLite database to a file, as it is at one moment, also while runs go on.

    Another command opens the copy with --db FILE. For PostgreSQL, use pg_dump.

    Example: avo backup lineage-backup.db
    """
    if (file is None) is (out is None):
        fail("name one file to write: avo backup FILE")
    copy = file or out
    assert copy is not None
    if copy.exists():
        fail(f"{copy} exists: choose another file")
    with read_store(db) as store:
        store.upkeep.back_up(copy)
    console.print(f"{copy}: {megabytes(copy)}", soft_wrap=True)


def prune(
    runs: Annotated[
        list[str], typer.Argument(metavar="RUN", help="Names of one or more runs.", autocompletion=completion.runs)
    ],
    db: DbOption = None,
) -> None:
    """Drop the transcripts of runs, which is most of what an agent's run takes; keep lineage, attempts and verdicts.

    Such a run can be continued, but no longer replayed without a model. Runs that are going on are refused.

    Example: avo prune mha-h100
    """
    from avo.search.run import utc_now

    for run in runs:
        run_name(run)  # refuses a version
    with open_store(db) as store:
        for record in [store.run(run) for run in dict.fromkeys(runs)]:
            dropped = store.upkeep.drop_transcripts(record.id, now=utc_now())
            console.print(f"{record.name}: {counted(dropped, 'message')} dropped", soft_wrap=True)
        store.upkeep.shrink()


def migrate(db: DbOption = None) -> None:
    """Bring a database that an older AVO wrote up to date.

    Commands that only read a database never change it, and say so when it needs this. End its runs first: an older AVO
    cannot go on with it.

    Example: avo migrate --db .avo/lineage.db
    """
    with open_store(db):
        console.print(f"{database_url(db)} is up to date", soft_wrap=True)


def megabytes(file: Path) -> str:
    """Return the size of a file in words."""
    return f"{file.stat().st_size / 1e6:.1f} MB"
