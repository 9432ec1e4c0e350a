"""How an ablation is made and kept: what each edit of a version is worth in it."""

from typing import TYPE_CHECKING, Any

from avo.cli.common import err, open_store, telling
from avo.watch.tables import one_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from avo.lineage_db.ablated import Ablation
    from avo.lineage_db.records import Run, Version


def tried(
    run: "Run", versions: "Sequence[Version]", number: int, known: "Ablation | None", db: str | None, **settings: Any
) -> "Ablation | None":
    """Return what ``ablated`` does; None where it cannot be found out, which is said in one line."""
    from avo.errors import NotReproduced
    from avo.search.ablation import unablated

    why = unablated(run, versions[number])
    try:
        if not why:
            return ablated(run, versions, number, known, db, **settings)
    except NotReproduced as error:
        why = str(error)
    err.print(f"avo: {one_line(why)}")
    return None


def ablated(
    run: "Run", versions: "Sequence[Version]", number: int, known: "Ablation | None", db: str | None, **settings: Any
) -> "Ablation":
    """Return the ablation of a version: the one that is ``known``, if the releases that are installed here made it;
    else its edits are judged, and what came of it is kept in the database. ``settings`` overlay those of the run.
    Raises ``NotReproduced``.
    """
    from datetime import UTC, datetime

    from avo.config import RunConfig
    from avo.lineage_db.errors import StoreError
    from avo.search.ablation import ablate_version
    from avo.search.judging import Judging, releases

    if known and known.releases == releases():
        return known
    with (
        telling(f"taking away the edits of {run.name}@{number}") as tell,
        Judging.of(RunConfig.stored(run, settings)).start() as judge,
    ):
        made = ablate_version(run, versions, number, judge, tell)
    try:
        with open_store(db) as store:
            store.ablations.keep(run.id, made, now=datetime.now(UTC))
    except StoreError as error:
        err.print(f"avo: what the edits of {run.name}@{number} are worth is not kept: {one_line(str(error))}")
    return made
