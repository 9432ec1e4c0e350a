"""How an ablation is made and printed: what each edit of a version is worth in it."""

from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from avo.cli.common import err, fail
from avo.evaluator.target import CUDA
from avo.watch.headline import verdict_of
from avo.watch.tables import one_line, row, table
from avo.watch.wording import counted, cut, percent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from avo.evaluator.units import Unit
    from avo.lineage_db.records import Run, Version
    from avo.search.ablation import Ablation

_MOST = 160
"""Characters of an edit in the table."""


def ablated(run: "Run", versions: "Sequence[Version]", number: int) -> "Ablation":
    """Return the ablation of a version; leave with one line for a seed and for a run whose speeds are measured."""
    from avo.config import RunConfig
    from avo.search.ablation import ablate_version
    from avo.search.judging import Judging

    if run.target == CUDA:
        fail(f"--ablate: run {run.name!r} was measured, and edits are predicted: name a run for a card such as h100")
    if not versions[number].parents:
        fail(f"--ablate: {run.name}@{number} is a seed, which has no edits: name a later version")
    with (
        err.status(f"taking away the edits of {run.name}@{number} ...") as status,
        Judging.of(RunConfig.stored(run, {})).start() as judge,
    ):
        found = ablate_version(run, versions, number, judge, lambda words: status.update(f"judging {one_line(words)}"))
    assert found is not None, "it has a parent"
    return found


def render(found: "Ablation", unit: "Unit") -> RenderableType:
    """Return an ablation as text and a table."""
    kind = "moves" if found.moves else "hunks of its difference to the seed"
    title = f"{found.run}@{found.version}: what each of its {kind} is worth in it"
    if found.merged:
        title += f", of the line {', '.join(f'v{number}' for number in found.line)}: other parents are not followed"
    made = table("EDIT", ">WORTH", "", title=title)
    for each in found.edits:
        words = each.why if each.worth is None else verdict_of(each.worth, found.width)
        row(made, cut(one_line(each.edit), _MOST), percent(each.worth, found.width), cut(one_line(words), _MOST))
    parts: list[RenderableType] = [made]
    if found.left_out:
        parts.append(Text(f"{found.left_out} more edits were kept"))
    if found.dropped:
        parts.append(
            Text(
                f"Without {len(found.dropped)} of them the minimal kernel has {unit.said(found.minimal_tflops)}, "
                f"the version {unit.said(found.tflops)}: avo show {found.run}@{found.version} --ablate --source"
            )
        )
    else:
        slower = sum(each.worth is not None and each.worth < -found.width for each in found.edits)
        but = f", though {counted(slower, 'edit')} alone made it slower" if slower else ""
        parts.append(Text(f"No edit can go: the version is its own minimal kernel{but}"))
    return Group(*parts)
