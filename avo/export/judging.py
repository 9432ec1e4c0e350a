"""Judging again: a version is exported only if it passes now, as it is exported and on held-out shapes too."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from avo.evaluator.candidate import Candidate
from avo.evaluator.evaluation import Evaluation, Score
from avo.evaluator.evaluators import Evaluator
from avo.evaluator.problem import HELD_OUT, Baseline, Problem
from avo.evaluator.target import Target
from avo.export.choosing import Chosen
from avo.export.errors import NotExported
from avo.seeds import seed_source, seeds_of

OpenJudge = Callable[[str, str], AbstractContextManager[Evaluator]]
"""Opens a judge for a target and a suite, by their names."""


@dataclass(frozen=True, slots=True)
class Passed:
    """A chosen version that has passed."""

    chosen: Chosen
    target: Target
    """The target of the judgement, with the figures of its GPU where speed was measured."""
    evaluations: tuple[Evaluation, ...]
    """One evaluation for each suite, all correct."""

    seed: str = ""
    """Name of the seed that was judged beside it, see ``rival``."""
    of_seed: tuple[Evaluation, ...] = ()
    """The verdicts on that seed, one for each suite; none where it is the version itself."""
    libraries: tuple[Baseline, ...] = ()
    """What libraries, torch's backends among them, reached on the same GPU; none where speed is predicted."""

    @property
    def scores(self) -> tuple[Score, ...]:
        """One score for each suite, that of the version's run first."""
        return tuple(each.score for each in self.evaluations if each.score is not None)


def judge(versions: Sequence[Chosen], open_judge: OpenJudge) -> tuple[Passed, ...]:
    """Judge each version, and its problem's ``rival`` beside it, on the suites of its own run and of its rivals' runs,
    and on the held-out suite.

    Raises ``NotExported``, with a line for each version that does not pass, and the judge's errors.
    """
    evaluations: dict[str, list[Evaluation]] = {version.label: [] for version in versions}
    targets: dict[str, Target] = {}
    seeds: dict[str, list[Evaluation]] = {version.label: [] for version in versions}
    faults: dict[str, str] = {}
    for target, suite in dict.fromkeys(
        (each.run.target, suite) for each in versions for suite in _suites(each, versions)
    ):
        judged: dict[Candidate, Evaluation] = {}
        with open_judge(target, suite) as evaluator:
            for each in versions:
                if each.run.target != target or suite not in _suites(each, versions) or each.label in faults:
                    continue
                evaluation = evaluator.evaluate(Candidate(each.run.problem, each.source))
                if not evaluation.correct:
                    found = f"{evaluation.status.words} in suite {suite}: {evaluation.message}"
                    faults[each.label] = f"{each.label} is not exported: {' '.join(found.split())}"
                evaluations[each.label].append(evaluation)
                targets[each.label] = evaluator.target
                if not faults and (seed := _beside(each)):
                    judged[seed] = judged.get(seed) or evaluator.evaluate(seed)
                    seeds[each.label].append(judged[seed])
    if faults:
        raise NotExported("\n".join(faults.values()))
    return tuple(
        Passed(each, targets[each.label], tuple(evaluations[each.label]), rival(each.problem), tuple(seeds[each.label]))
        for each in versions
    )


def rival(problem: Problem) -> str:
    """Return the name of the seed that kernels for a problem are shown beside: the one that stands for earlier work,
    else the default one; empty where a problem has none.
    """
    return next((each.seed for each in problem.baselines if each.seed), next(iter(seeds_of(problem.name)), ""))


def _beside(version: Chosen) -> Candidate | None:
    """Return the seed that a version is shown beside; None where its problem has none, or the version is that seed."""
    name = rival(version.problem)
    seed = Candidate(version.run.problem, seed_source(version.problem.name, name)) if name else None
    return seed if seed and seed.digest != version.attempt.digest else None


def _suites(version: Chosen, versions: Sequence[Chosen]) -> tuple[str, ...]:
    """Return the suites that a version is judged on: those of all its rivals, so that their speeds can be compared."""
    rivals = [v for v in versions if (v.run.problem, v.run.target) == (version.run.problem, version.run.target)]
    suites = dict.fromkeys((version.run.suite, *(rival.run.suite for rival in rivals), HELD_OUT))
    return tuple(suite for suite in suites if suite in version.problem.suites)
