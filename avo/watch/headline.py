"""The sentence on top of every page about a kernel: how fast it is, than what, and by which kind of evidence."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from avo.evaluator.confirmation import Confirmation
from avo.evaluator.evaluation import Score
from avo.evaluator.problem import Baseline
from avo.evaluator.resolution import between
from avo.evaluator.target import TARGETS, ScoreKind
from avo.evaluator.units import Unit
from avo.watch.scores import BaselineComparison, compare
from avo.watch.wording import first_line, place

if TYPE_CHECKING:
    from avo.lineage_db.measurements import Measured

ELSEWHERE = 0.05
"""How far two cards of a kind and their drivers may differ, an estimate: what is measured here is compared with
figures that were published from other machines.
"""
_VERDICTS = ("faster than", "not distinguishable from", "slower than")


def headline(
    score: Score, unit: Unit, baselines: Sequence[Baseline], told: "Measured | None" = None, seed: Score | None = None
) -> str:
    """Return how fast a kernel is: ``Predicted 590 (443 to 707) TFLOPS on H100: likely faster than FlashAttention-2
    and Triton, not distinguishable from cuDNN and FlashAttention-3, not measured.``

    ``told`` is what a card measured of the kernel: if it confirms or refutes it, the figure is the measured one.
    Where nothing published covers its cases, it is compared with the ``seed``.
    """
    finding = told.finding if told and told.finding.confirmation is not Confirmation.UNMEASURED else None
    if told and finding and finding.measured is None:  # it failed there, and has no speed
        return first_line(f"Refuted on {told.card}: {finding.reason}.")
    if told and finding and (speed := finding.measured):
        moved = {case: each.tflops for case, each in finding.cases.items()}
        figure, ends, kind, where = speed.tflops, (speed.low, speed.high), ScoreKind.MEASURED, told.card
    else:
        moved = {case.case: case.tflops for case in score.cases}
        figure, ends, kind, where = score.geomean_tflops, score.ends, score.kind, place(score)
    measured = kind is ScoreKind.MEASURED
    where = where.upper() if where in TARGETS else first_line(where)
    parts = list(_against(compare(score, baselines, moved), sure=measured))
    if not parts and seed is not None and not finding:
        parts.append(_over_seed(score, seed))
    if finding and told:
        parts = [f"{finding.confirmation}: {finding.reason}", *parts]
        parts.append(f"predicted {unit.said(score.geomean_tflops, between=unit.between(*score.ends))}")
    elif not measured:
        parts.append("not measured")
    words = f"{kind.capitalize()} {unit.said(figure, between=unit.between(*ends))} on {where}"
    return first_line(f"{words}: {', '.join(parts)}." if parts else f"{words}.")


def _against(comparisons: Sequence[BaselineComparison], *, sure: bool) -> list[str]:
    """Return what the kernel is faster than, and so on; ``sure`` of its own speed, as measured ones are."""
    found: Mapping[str, list[str]] = {verdict: [] for verdict in _VERDICTS}
    for each in comparisons:
        if not (sure or each.low):  # predicted before releases knew the range
            continue
        low, high = (each.ours / (1 + ELSEWHERE), each.ours * (1 + ELSEWHERE)) if sure else (each.low, each.high)
        place = 0 if low > each.published else 2 if high < each.published else 1
        on = "" if each.shared == each.total else f" (on {each.shared} of {each.total} cases)"
        found[_VERDICTS[place]].append(f"{each.name}{on}")
    return [
        f"{'' if verdict == _VERDICTS[1] else 'likely '}{verdict} {_listed(names)}"
        for verdict, names in found.items()
        if names
    ]


def _over_seed(score: Score, seed: Score) -> str:
    """Return how many times as fast as the seed it is, with what the model can tell apart of two kernels."""
    times, width = score.geomean_tflops / seed.geomean_tflops, between(score, seed)
    if width and abs(math.log(times)) < width:
        return f"not distinguishable from its seed, within the resolution of {width:.1%}"
    return f"{times:.2f}{f' ±{times * width:.2f}' if width else ''} times as fast as its seed"


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}" if names[1:] else names[0]
