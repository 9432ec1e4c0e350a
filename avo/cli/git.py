"""``avo git``: the lineage of a run as a git repository."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from avo.cli import completion
from avo.cli.common import DbOption, err, load, read_store, run_name

if TYPE_CHECKING:
    from avo.lineage_db.records import Version
    from avo.lineage_db.store import Store


def git(
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN[#ATTEMPT]",
            help="Name of a run, or one of its attempts to add to its lineage.",
            autocompletion=completion.attempts,
        ),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder to write; must be empty or not exist.")],
    db: DbOption = None,
) -> None:
    """Write the lineage of a run as a git repository.

    Each version is a commit with its parents, tagged with its number; its message has what changed, the hypothesis, and
    the scores as trailers, what a card measured too; its README.md has a row for each version. The same lineage and
    measurements give the same commits. RUN#38 also has attempt 38, on a branch of its own.

    Example: avo git mha-h100 --out lineage && git -C lineage log --graph
    """
    from avo.export.repository import KERNEL, write_repository
    from avo.watch.wording import counted

    with read_store(db) as store:
        record = load(store, run).run if "#" in run else store.run(run_name(run) or run)
        versions = store.versions(record.id)
        attempt = _unaccepted(store, run, len(versions)) if "#" in run else None
        steps = {step.number: step for step in store.steps(record.id)}
        said, measured = store.journal.interventions(record.id), store.measurements.told(record.id)
        write_repository(record, versions, steps, said, measured, out, attempt)
    commits = len(versions) + (attempt is not None)
    err.print(f"{out}: {counted(commits, 'commit')} of {KERNEL}; next: git -C {out} log --graph --stat --all")


def _unaccepted(store: "Store", text: str, number: int) -> "Version | None":
    """Return the attempt that RUN#ATTEMPT names in the form of a version ``number``; None where it is a version."""
    from avo.lineage_db.records import Version

    named = load(store, text)
    if named.version:
        return None
    (summary,) = store.pages.attempts(named.run.id, [named.attempt.id])
    made = named.attempt.finished
    return Version(named.run.id, number, named.attempt.parents, made, named.attempt, step_number=summary.step_number)
