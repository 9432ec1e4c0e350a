"""The speeds of a run's versions, prepared for the figures."""

from collections.abc import Sequence

from avo.evaluator.problem import Baseline
from avo.evaluator.units import TFLOPS, rooflines_us, units_of
from avo.lineage_db.records import Run, Version
from avo.report.figures import Bar, BarGroup
from avo.watch.scores import scored, unit_for
from avo.watch.trajectory import cases_of


def bars_of(run: Run, seed: Version, best: Version, baselines: Sequence[Baseline]) -> tuple[BarGroup, ...]:
    """Return the bars of each case that both versions have; only those of the best if the seed is the best.

    Where nothing was published for a case there is the card's roofline.
    """
    shown = {"best": best} if seed.number == best.number else {"seed": seed, "best": best}
    scores = {style: {case.case: case for case in scored(version).cases} for style, version in shown.items()}
    groups = []
    card = scored(best).card
    units = units_of(run.problem, run.suite, run.target, card) if unit_for(run, scored(best)).nbytes else {}
    rooflines = rooflines_us(run.problem, run.suite, run.target, card)
    for name in cases_of([scored(version) for version in shown.values()]):
        bars, value = [], units.get(name, TFLOPS).value
        for style, version in shown.items():
            case = scores[style][name]
            words = "seed" if version.number == seed.number else f"best, v{version.number}"
            bars.append(Bar(words, style, *map(value, (case.tflops, case.low_tflops, case.high_tflops))))
        published = [Bar(b.name, "published", value(b.tflops[name])) for b in baselines if name in b.tflops]
        if not published and name in rooflines:
            useful = scores["best"][name].tflops * scores["best"][name].time_us
            published = [Bar("roofline", "roofline", value(useful / rooflines[name]))]
        bars += published
        groups.append(BarGroup(name, tuple(bars)))
    return tuple(groups)
