"""A run that a test records attempt by attempt: the verdict is given, no evaluator takes part."""

from datetime import datetime, timedelta
from typing import Any

from avo.evaluator.candidate import Candidate
from avo.evaluator.evaluation import Evaluation, Status
from avo.lineage_db.decision import Decision
from avo.lineage_db.looked import Looked
from avo.lineage_db.records import Attempt, Run, RunState, Step, StepState, Submission
from avo.lineage_db.store import Store
from tests.avo.sample_run import START, make_evaluation
from tests.decisions import decided

HOUR = timedelta(hours=1)


class Recorded:
    """A run of ``mha`` whose clock stands still unless told to move; its settings are ``config``."""

    def __init__(
        self, store: Store, name: str = "live", target: str = "h100", now: datetime = START, **config: Any
    ) -> None:
        self.store = store
        self.now = now
        self.run: Run = store.create_run(
            name=name, problem="mha", target=target, suite="quick", operator="mutate", seed=0, config=config, now=now
        )

    def drive(self) -> None:
        """Be there as the run's driver, for an hour."""
        self.store.driving.take(self.run.id, "driver-0", now=self.now, lease=HOUR)

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.now += timedelta(seconds=seconds)

    def claim(self, worker: str = "worker-0") -> Step:
        """Begin a step and leave it running."""
        return self.store.claims.claim(self.run.id, worker=worker, operator="mutate", now=self.now)

    def look(self, step: Step, *digests: str) -> None:
        """Record looks in a step."""
        seen = [Looked(0, 0, digest, None, None, 90.0, 1.0, "", (), self.now) for digest in digests]
        self.store.results.record_looks(step.id, seen, now=self.now)

    def evaluate(
        self,
        step: Step,
        verdict: Evaluation | Status | float,
        parents: tuple[int, ...],
        change: str = "",
        source: str = "",
        decision: Decision | None = None,
        built_on: int | None = None,
    ) -> Attempt:
        """Record an attempt in a step."""
        if not isinstance(verdict, Evaluation):
            verdict = make_evaluation(verdict)
        return self.store.results.record_attempt(
            step_id=step.id,
            candidate=Candidate("mha", source or f"# step {step.number}\nx = {step.number}\n"),
            change=change,
            parents=parents,
            evaluation=verdict,
            started=self.now,
            finished=self.now,
            decision=decision,
            built_on=built_on,
        )

    def conclude(self, step: Step, attempt: Attempt, accept: bool, seen: str = "", change: str = "") -> None:
        """End a step; ``seen`` makes it one of a model, which says so, and that ``change`` is all that it did."""
        self.store.results.conclude(
            step.id,
            attempt_id=attempt.id,
            parents=attempt.parents,
            reason="",
            now=self.now,
            decide=lambda versions, attempt: decided(attempt, accept),
            submission=Submission(attempt.id, change or attempt.change, "", "", seen) if seen else None,
        )

    def step(
        self,
        verdict: Evaluation | Status | float,
        parents: tuple[int, ...] = (),
        change: str = "",
        *,
        accept: bool | None = None,
        seconds: float = 6.0,
        source: str = "",
        decision: Decision | None = None,
        seen: str = "",
    ) -> None:
        """Claim, evaluate and conclude; accepted if correct unless told otherwise."""
        step = self.claim()
        self.wait(seconds)
        attempt = self.evaluate(step, verdict, parents, change, source, decision)
        self.conclude(step, attempt, attempt.evaluation.correct if accept is None else accept, seen)

    def abandon(self, step: Step) -> None:
        """End a step as a dead worker's is ended."""
        self.store.claims.fail(step.id, state=StepState.ABANDONED, reason="worker died", now=self.now)

    def finish(self) -> None:
        """End the run."""
        self.store.set_run_state(self.run.id, RunState.FINISHED, now=self.now)
