"""One step of a run: claim it, let the operator vary the lineage, record every attempt, conclude."""

import contextlib
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from agents.errors import CandidateTaken
from agents.operator import Brief, Proposal, VariationOperator
from avo.acceptance import accepts
from evaluator.candidate import Candidate
from evaluator.errors import EvaluatorUnavailable
from evaluator.evaluation import Evaluation
from evaluator.evaluators import Evaluator
from evaluator.problem import get_problem
from evaluator.target import get_target
from knowledge_base.library import Library
from lineage_db.errors import DatabaseUnavailable, IncompatibleDatabase, StepNotRunning
from lineage_db.records import Attempt, Run, Step, StepState
from lineage_db.store import Store

EVALUATOR_TRIES = 3
"""How often one candidate is given to an evaluator that is unavailable before the step is abandoned."""


@dataclass(frozen=True, slots=True)
class StepOutcome:
    """How a step ended."""

    number: int
    state: StepState
    tried: int
    """Attempts evaluated and recorded in this step."""
    version: int | None
    """Number of the version it added to the lineage."""
    reason: str


class SeedOperator:
    """The operator of a run's first step: it submits the seed. The only one that meets an empty lineage."""

    name = "seed"

    def __init__(self, source: str) -> None:
        self._source = source

    def vary(self, brief: Brief) -> Proposal:
        """Submit the seed."""
        candidate = Candidate(brief.problem.name, self._source)
        attempt = brief.evaluate(candidate, change="seed", parents=())
        evaluation = attempt.evaluation
        return Proposal(attempt, "seed" if evaluation.correct else f"{evaluation.status}: {evaluation.message}")


def perform_step(
    store: Store,
    run: Run,
    operator: VariationOperator,
    evaluator: Evaluator,
    *,
    worker: str,
    min_gain: float,
    clock: Callable[[], datetime],
    knowledge: Library,
) -> StepOutcome:
    """Perform one step of ``run`` as ``worker`` and return how it ended.

    An operator that raises, or names versions and attempts that are none, fails its step. Raises
    ``EvaluatorUnavailable``, with the step abandoned, when no verdict can be had, and ``DatabaseUnavailable`` when the
    database fails.
    """
    step = store.claim_step(run.id, worker=worker, operator=operator.name, now=clock())
    scorer = _RecordingScorer(store, run, step, evaluator, clock)
    brief = _brief(store, run, step, scorer, knowledge)

    def give_up(state: StepState, reason: str) -> StepOutcome:
        with contextlib.suppress(StepNotRunning):  # abandoned meanwhile by the process that drives the run
            store.fail_step(step.id, state=state, reason=reason, now=clock())
        return StepOutcome(step.number, state, scorer.tried, None, reason)

    try:
        proposal = operator.vary(brief)
        attempt = proposal.attempt
        version = store.conclude_step(
            step.id,
            attempt_id=attempt.id if attempt else None,
            parents=attempt.parents if attempt else (),
            reason=proposal.reason,
            now=clock(),
            decide=lambda versions, submitted: accepts(versions, submitted, min_gain),
        )
    except EvaluatorUnavailable as error:
        give_up(StepState.ABANDONED, f"no verdict: {error}")
        raise
    except StepNotRunning as error:  # abandoned meanwhile by the process that drives the run
        return StepOutcome(step.number, StepState.ABANDONED, scorer.tried, None, str(error))
    except (DatabaseUnavailable, IncompatibleDatabase):
        raise
    except Exception as error:  # an operator may be anyone's code: it fails its step, never the run
        return give_up(StepState.FAILED, f"{type(error).__name__}: {error}")
    return StepOutcome(step.number, StepState.DONE, scorer.tried, version.number if version else None, proposal.reason)


class _RecordingScorer:
    """Evaluates the candidates of one step that are new to the run, and records each before the operator sees it."""

    def __init__(self, store: Store, run: Run, step: Step, evaluator: Evaluator, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._run = run
        self._step = step
        self._evaluator = evaluator
        self._clock = clock
        self._known: dict[str, int] = {}
        self._last_attempt = 0
        self.tried = 0

    def __call__(self, candidate: Candidate, *, change: str, parents: tuple[int, ...]) -> Attempt:
        """Return the attempt of ``candidate``, the recorded one where the run has it already: see ``Scorer``."""
        started = self._clock()
        # In this order no candidate slips through: whoever had it before has either recorded it or still announces it.
        if not self._store.announce(self._step.id, candidate.digest, now=started):
            raise CandidateTaken
        for trial in self._store.trials(self._run.id, after=self._last_attempt):
            self._known[trial.digest] = self._last_attempt = trial.attempt_id
        if candidate.digest in self._known:
            return self._store.attempt(self._run.id, self._known[candidate.digest])
        evaluation = self._evaluate(candidate)
        attempt = self._store.record_attempt(
            step_id=self._step.id,
            candidate=candidate,
            change=change,
            parents=parents,
            evaluation=evaluation,
            started=started,
            finished=self._clock(),
        )
        self.tried += 1
        return attempt

    def _evaluate(self, candidate: Candidate) -> Evaluation:
        for _ in range(EVALUATOR_TRIES - 1):
            try:
                return self._evaluator.evaluate(candidate)
            except EvaluatorUnavailable:
                continue
        return self._evaluator.evaluate(candidate)


def _brief(store: Store, run: Run, step: Step, scorer: _RecordingScorer, knowledge: Library) -> Brief:
    """Return the brief of ``step``.

    A step that this worker left unfinished is done over, once: the next gets its seed and does not see its attempts, so
    that it comes to the same candidates. Those evaluated already are not evaluated again, but can still be accepted.
    After a second failure to finish the worker moves on, lest a candidate that brings the judge down come back forever.
    """
    earlier = [other for other in store.steps(run.id) if other.worker == step.worker and other.number < step.number]
    finished = [other for other in earlier if other.state is not StepState.ABANDONED]
    last_finished = finished[-1].number if finished else -1
    unfinished = [other.number for other in earlier if other.number > last_finished]
    hidden = unfinished if len(unfinished) == 1 else []
    return Brief(
        problem=get_problem(run.problem),
        target=get_target(run.target),
        suite=run.suite,
        seed=_step_seed(run.seed, step.worker, len(finished), max(len(unfinished) - 1, 0)),
        versions=store.versions(run.id),
        trials=[trial for trial in store.trials(run.id) if trial.step_number not in hidden],
        knowledge=knowledge,
        evaluate=scorer,
    )


def _step_seed(seed: int, worker: str, finished: int, moves_on: int) -> int:
    """Return 64 bits that differ for each step of a run, and depend on nothing but the arguments."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{worker}/{finished}/{moves_on}".encode()).digest()[:8])
