"""How an ablation is made, kept and printed: what each edit of a version is worth in it."""

from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from avo.cli.common import err, open_store, telling
from avo.watch.tables import one_line, row, table
from avo.watch.wording import cut, minimal_kernel, percent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from avo.evaluator.units import Unit
    from avo.lineage_db.ablated import Ablation
    from avo.lineage_db.records import Run, Version

_MOST = 160
"""Characters of an edit in the table."""


def ablated(
    run: "Run", versions: "Sequence[Version]", number: int, known: "Ablation | None", db: str | None
) -> "Ablation":
    """Return the ablation of a version: the one that is ``known``, if the releases that are installed here made it;
    else its edits are judged, and what came of it is kept in the database. Raises ``NotReproduced``.
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
        Judging.of(RunConfig.stored(run, {})).start() as judge,
    ):
        made = ablate_version(run, versions, number, judge, tell)
    try:
        with open_store(db) as store:
            store.ablations.keep(run.id, made, now=datetime.now(UTC))
    except StoreError as error:
        err.print(f"avo: what the edits of {run.name}@{number} are worth is not kept: {one_line(str(error))}")
    return made


def render(found: "Ablation", unit: "Unit") -> RenderableType:
    """Return an ablation as text and a table."""
    made = table("EDIT", ">WORTH", "", title=found.title)
    for each in found.edits:
        row(made, cut(one_line(each.name), _MOST), percent(each.worth, each.width), cut(one_line(each.words), _MOST))
    parts: list[RenderableType] = [made]
    if found.left_out:
        parts.append(Text(f"{found.left_out} more edits were kept"))
    how = f": avo show {found.run}@{found.version} --ablate --source" if found.dropped else ""
    return Group(*parts, Text(f"{minimal_kernel(found, unit)}{how}"))
