"""A world without kernels for the tests of the run: a source says how fast it is, and operators change that number."""

import random
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from avo.agents.operator import Brief, Proposal, VariationOperator
from avo.config import START, RunConfig
from avo.evaluator.candidate import Candidate
from avo.evaluator.evaluation import CaseScore, Evaluation, Score, Status
from avo.evaluator.evaluators import Evaluator
from avo.evaluator.fake import FakeEvaluator
from avo.evaluator.target import ScoreKind
from avo.knowledge_base.library import Library
from avo.lineage_db.records import Attempt, Run
from avo.lineage_db.store import Store
from avo.search.budget import UNLIMITED, Allowance
from avo.search.run import WorkerReport, worker_name
from avo.search.seeding import seed_operator
from avo.search.step import Work

SEED = "tflops = 100.0"
NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def judge(candidate: Candidate) -> Evaluation:
    """``tflops = X`` is correct and that fast, its canary variants wrong and slow; anything else does not parse."""
    line, _, more = candidate.source.partition("\n")
    name, _, value = line.partition(" = ")
    if name != "tflops":
        return Evaluation(Status.PARSE_ERROR, f"not a kernel: {candidate.source}", "h100", "quick", 0.1)
    if "canary_kernel" in more:
        return Evaluation(Status.INCORRECT, "a wrong number", "h100", "quick", 0.1)
    return correct(float(value) * (0.5 if "canary" in more else 1.0))


def correct(
    tflops: float, *, target: str = "h100", suite: str = "quick", kind: ScoreKind = ScoreKind.PREDICTED, plan: str = ""
) -> Evaluation:
    """Return a correct evaluation; equally fast ones lower to the same plan unless ``plan`` says otherwise."""
    score = Score(kind, target, (CaseScore("one", tflops, 1.0, "tensor"),))
    return Evaluation(Status.CORRECT, "", target, suite, 0.1, score, plan_digest=plan or f"plan of {tflops}")


def evaluator() -> Evaluator:
    """Return an evaluator that knows this world."""
    return FakeEvaluator(judge)


def submit(brief: Brief, source: str, parents: tuple[int, ...] = (0,)) -> Attempt:
    """Evaluate ``source`` in the step of ``brief``."""
    return brief.evaluate(Candidate(brief.problem.name, source), change=source, parents=parents)


class Climber:
    """Tries a speed around the best so far, about two in three are faster; never one it has seen tried."""

    name = "climber"

    def vary(self, brief: Brief) -> Proposal:
        """Submit one candidate."""
        best = max(brief.versions, key=lambda version: version.attempt.evaluation.geomean_tflops)
        tried = {attempt.digest for attempt in brief.attempts}
        choose = random.Random(brief.seed).uniform
        while True:
            source = f"tflops = {best.attempt.evaluation.geomean_tflops * choose(0.9, 1.2):.6f}"
            if Candidate(brief.problem.name, source).digest not in tried:
                return Proposal(submit(brief, source, (best.number,)), f"one of {len(tried)} more")


class Scripted:
    """Runs one function per step, in order; the last one is repeated."""

    name = "scripted"

    def __init__(self, *script: Callable[[Brief], Proposal]) -> None:
        self.script = script
        self.briefs: list[Brief] = []

    def vary(self, brief: Brief) -> Proposal:
        """Follow the script."""
        self.briefs.append(brief)
        return self.script[min(len(self.briefs), len(self.script)) - 1](brief)


def proposing(source: str) -> Callable[[Brief], Proposal]:
    """Return a line of a script that submits ``source``."""
    return lambda brief: Proposal(submit(brief, source), "as told")


def make_run(store: Store, config: RunConfig | None = None, name: str = "fake", seeds: Sequence[str] = (SEED,)) -> Run:
    """Create a run of this world."""
    config = config or RunConfig()
    return store.create_run(
        name=name,
        problem=config.problem,
        target=config.target,
        suite=config.suite,
        operator=config.operator,
        seed=config.seed,
        config={**config.model_dump(), START: [{"origin": f"{n}.py", "source": seed} for n, seed in enumerate(seeds)]},
        now=NOW,
    )


UNSUPERVISED = RunConfig(min_gain=0.002, supervisor="off")


def make_work(store: Store, run: Run, judge: Evaluator, config: RunConfig = UNSUPERVISED, **others: Any) -> Work:
    """Return what steps of ``run`` share, by default without a supervisor or a knowledge base."""
    return Work(store, run, config, judge, **{"knowledge": Library(()), "clock": lambda: NOW, **others})


class InlineCrew:
    """Workers that perform their steps one after the other, in this process, when somebody waits for them."""

    def __init__(
        self,
        store: Store,
        run: Run,
        operator: VariationOperator,
        judge: Evaluator,
        deaths: Container[int] = (),
        allowance: Allowance = UNLIMITED,
    ) -> None:
        """``deaths``: which of the steps, counted from 0, cost their worker's life."""
        self.store = store
        self.run = run
        self.operator = operator
        self.evaluator = judge
        self.deaths = deaths
        self.allowance = allowance
        self.begun = 0
        self.under_way: list[tuple[int, bool]] = []
        self.most_at_work = 0

    def start(self, worker: int, seeding: bool) -> None:
        """Remember the step."""
        self.under_way.append((worker, seeding))
        self.most_at_work = max(self.most_at_work, len(self.under_way))

    def wait(self, timeout_s: float) -> Sequence[WorkerReport]:
        """Perform the oldest step."""
        if not self.under_way:
            return []
        worker, seeding = self.under_way.pop(0)
        name, number = worker_name(worker), self.begun
        self.begun += 1
        if number in self.deaths:
            self.store.claims.claim(self.run.id, worker=name, operator="any", now=NOW)
            return [WorkerReport(worker, None, "the operator's process died")]
        operator = seed_operator(self.run) if seeding else self.operator
        outcome = make_work(self.store, self.run, self.evaluator, allowance=self.allowance).perform(operator, name)
        return [WorkerReport(worker, outcome)]

    def replace(self, worker: int) -> None:
        """Forget the worker's step."""
        self.under_way = [each for each in self.under_way if each[0] != worker]

    @contextmanager
    def hire(self) -> Iterator["InlineCrew"]:
        """Yield itself."""
        yield self
