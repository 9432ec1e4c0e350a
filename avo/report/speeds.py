"""The speeds of a run's versions, prepared for the figures."""

from collections.abc import Sequence

from avo.report.data import cut
from avo.report.figures import Bar, BarGroup, BaselineLevel, CaseSpeeds, Figure
from avo.watch.scores import scored
from avo.watch.wording import unit
from evaluator.catalogue import get_problem, get_suite
from evaluator.errors import EvaluatorError
from evaluator.evaluation import Score, geometric_mean
from evaluator.problem import Baseline
from lineage_db.records import Run, Version

_GROUPS = (("full", False), ("causal", True))
"""Names of the groups of cases, in the order of their figures, and whether their cases are causal."""


def cases_of(scores: Sequence[Score]) -> list[str]:
    """Return the names of the cases that all scores have, in order."""
    common = set.intersection(*({case.case for case in score.cases} for score in scores))
    return [case.case for case in scores[-1].cases if case.case in common]


def trajectories_of(run: Run, versions: Sequence[Version], baselines: Sequence[Baseline]) -> tuple[Figure, ...]:
    """Return a figure for the full and one for the causal cases that all ``versions`` have; empty without versions.

    A baseline that lacks one of a figure's cases is left out of it.
    """
    if not versions:
        return ()
    scores = [scored(version) for version in versions]
    found = []
    for name, cases in _grouped(run, cases_of(scores)).items():
        lines = tuple(CaseSpeeds(case, tuple(_tflops(score)[case] for score in scores)) for case in cases)
        levels = (
            BaselineLevel(baseline.name, geometric_mean(baseline.tflops[case] for case in cases))
            for baseline in baselines
            if baseline.tflops.keys() >= set(cases)
        )
        found.append(
            Figure(
                name,
                unit(scores[-1]),
                tuple(version.number for version in versions),
                tuple(geometric_mean(line.values[place] for line in lines) for place in range(len(versions))),
                tuple(cut(version.change, 120) for version in versions),
                lines,
                tuple(levels),
            )
        )
    return tuple(found)


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


def _grouped(run: Run, cases: Sequence[str]) -> dict[str, list[str]]:
    """Return full and causal cases as separate groups; one group if this installation does not have the problem."""
    try:
        causal = {case.name: case.causal for case in get_suite(get_problem(run.problem), run.suite)}
    except EvaluatorError:
        causal = {}
    if not causal.keys() >= set(cases):
        return {"all": list(cases)} if cases else {}
    groups = {name: [case for case in cases if causal[case] == wanted] for name, wanted in _GROUPS}
    return {name: group for name, group in groups.items() if group}


def _tflops(score: Score) -> dict[str, float]:
    return {case.case: case.tflops for case in score.cases}
