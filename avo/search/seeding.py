"""Seeding: the first step of a run judges its seeds, tests the judge on one, and makes a version of each."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from avo.agents.operator import SEED_OPERATOR, Brief, Proposal
from avo.config import START
from avo.evaluator.candidate import Candidate
from avo.lineage_db.records import Attempt, Run
from avo.lineage_db.store import Store
from avo.search import canary
from avo.search.scoring import RecordingScorer


class SeedOperator:
    """The operator of a run's first step: it submits the seeds. No other operator meets an empty lineage.

    Where a run is resumed with a judge that may be another, it submits them again, to test that judge.
    """

    name = SEED_OPERATOR

    def __init__(self, *sources: str, names: Sequence[str] = (), judges: int = 1) -> None:
        """``names`` are what the record calls the seeds; ``judges`` is how many of them are judged at a time."""
        self.judges = judges
        self._sources = sources
        self._names = [f"seed {name}" for name in names] or ["seed"] * len(sources)

    def vary(self, brief: Brief) -> Proposal:
        """Submit the fastest seed, and those that are slower before it. Seeds that are not correct are left out."""

        def judge(source: str, name: str) -> Attempt:
            return brief.evaluate(brief.candidate(source), change=name, parents=())

        with ThreadPoolExecutor(self.judges) as pool:
            judged = list(pool.map(judge, self._sources, self._names))
        correct = sorted((each for each in judged if each.evaluation.correct), key=_speed)
        if correct:
            return Proposal(correct[-1], "seed", before=correct[:-1])
        return Proposal(None, "; ".join(f"{each.status.words}: {each.evaluation.message}" for each in judged))


def seed_operator(run: Run, judges: int = 1) -> SeedOperator:
    """Return the operator that submits the seeds with which ``run`` was started."""
    start: Sequence[Mapping[str, str]] = run.config[START]
    return SeedOperator(*(each["source"] for each in start), names=[each["origin"] for each in start], judges=judges)


def examine(scorer: RecordingScorer, proposal: Proposal, problem: str, alpha: float, judges: int) -> str:
    """Examine the proposed seeds closely, and test the judge on the one that it judged most quickly.

    Returns in words what came of the test. Raises ``CanaryFault`` and ``EvaluatorUnavailable``.
    """
    proposed = [each for each in (proposal.attempt, *proposal.before) if each is not None]
    quickest = min(proposed, key=lambda attempt: attempt.evaluation.seconds)
    assert quickest.evaluation.score is not None
    candidate, score = Candidate(problem, quickest.source), quickest.evaluation.score

    def test() -> str:
        with scorer.activity.during("testing the judge on a wrong and a slow variant of a seed") as tell:
            return canary.examine(partial(scorer.evaluate, tell=tell), candidate, score, alpha)

    with ThreadPoolExecutor(judges) as pool:
        tested = pool.submit(test)
        looks = [pool.submit(scorer.examine, each) for each in proposed if not each.evaluation.examined]
        said = tested.result()
        for look in looks:
            look.result()
        return said


def no_versions(store: Store, run: Run) -> list[str]:
    """Return a line for each seed of ``run`` that is no version."""
    return [
        f"{each.change} is no version: "
        f"{each.decision.told if each.decision else f'{each.status.words}: {each.message}'}"
        for each in store.history(run.id).attempts
        if not each.parents and each.version is None
    ]


def _speed(attempt: Attempt) -> float:
    return attempt.evaluation.geomean_tflops
