"""The speeds of a run's versions, prepared for the figures."""

from collections.abc import Sequence

from avo.evaluator.problem import Baseline
from avo.lineage_db.records import Version
from avo.report.figures import Bar, BarGroup
from avo.watch.scores import scored
from avo.watch.trajectory import cases_of


def bars_of(seed: Version, best: Version, baselines: Sequence[Baseline]) -> tuple[BarGroup, ...]:
    """Return the bars of each case that both versions have; only those of the best if the seed is the best."""
    shown = {"best": best} if seed.number == best.number else {"seed": seed, "best": best}
    scores = {style: {case.case: case for case in scored(version).cases} for style, version in shown.items()}
    groups = []
    for name in cases_of([scored(version) for version in shown.values()]):
        bars = []
        for style, version in shown.items():
            case = scores[style][name]
            words = "seed" if version.number == seed.number else f"best, v{version.number}"
            bars.append(Bar(words, style, case.tflops, case.low_tflops, case.high_tflops))
        bars += [Bar(b.name, "published", b.tflops[name]) for b in baselines if name in b.tflops]
        groups.append(BarGroup(name, tuple(bars)))
    return tuple(groups)
