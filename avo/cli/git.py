"""``avo git``: the lineage of a run as a git repository."""

from pathlib import Path
from typing import Annotated

import typer

from avo.cli.common import DbOption, RunArgument, err, open_store


def git(
    run: RunArgument,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder to write; must be empty or not exist.")],
    db: DbOption = None,
) -> None:
    """Write the lineage of a run as a git repository.

    Each version is a commit with its parents, tagged with its number; its message has what changed, the hypothesis, and
    the scores as trailers. The same lineage gives the same commits.

    Example: avo git mha-h100 --out lineage && git -C lineage log --graph
    """
    from avo.export.repository import KERNEL, write_repository

    with open_store(db) as store:
        record = store.run(run)
        versions = store.versions(record.id)
        steps = {step.number: step for step in store.steps(record.id)}
        write_repository(record, versions, steps, store.journal.interventions(record.id), out)
    err.print(f"{out}: {len(versions)} commits of {KERNEL}; next: git -C {out} log --graph --stat")
