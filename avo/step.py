"""One step of a run: claim it, let the operator vary the lineage, conclude with what it proposes."""

import contextlib
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from agents.desk import Desk
from agents.errors import ModelRefused
from agents.operator import Brief, Explain, Proposal, VariationOperator
from avo import canary
from avo.acceptance import accepts, outdated
from avo.budget import SEED_OPERATOR, UNLIMITED, Allowance
from avo.desk import desk
from avo.errors import CanaryFault
from avo.scoring import RecordingScorer
from avo.transfer import transferred
from evaluator.candidate import Candidate
from evaluator.errors import EvaluatorUnavailable
from evaluator.evaluators import Judging
from evaluator.problem import get_problem
from evaluator.target import Target
from knowledge_base.library import Library
from lineage_db.errors import DatabaseUnavailable, IncompatibleDatabase, StepNotRunning
from lineage_db.records import Attempt, Run, Step, StepState, Submission, Version
from lineage_db.store import Store


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
    """The operator of a run's first step: it submits the seed. The only one that meets an empty lineage.

    Where a run goes on with a judge that may be another, it submits the seed again, for the judge's sake.
    """

    name = SEED_OPERATOR

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
    evaluator: Judging,
    *,
    worker: str,
    min_gain: float,
    alpha: float,
    clock: Callable[[], datetime],
    knowledge: Library,
    allowance: Allowance = UNLIMITED,
) -> StepOutcome:
    """Perform one step of ``run`` as ``worker`` and return how it ended.

    ``min_gain`` and ``alpha`` are the run's, as in its configuration; ``allowance`` is what it may use. A step of
    ``SeedOperator`` fails unless the judge sees through the variants of the seed that ``canary`` makes; before that the
    seed is no version.

    An operator that raises, or names versions and attempts that are none, fails its step. Raises
    ``EvaluatorUnavailable``, with the step abandoned if it was begun, when no verdict can be had, and
    ``DatabaseUnavailable`` when the database fails.
    """
    target = evaluator.target
    step = store.claim_step(run.id, worker=worker, operator=operator.name, now=clock())
    scorer = RecordingScorer(store, run, step, evaluator, alpha, clock)
    finished, unfinished = _earlier(store, step)
    own = desk(store, run, step, evaluator, allowance, taken_up=unfinished, clock=clock)
    brief = _brief(store, run, step, target, scorer, evaluator.profile, knowledge, own, finished, unfinished)

    def give_up(state: StepState, reason: str) -> StepOutcome:
        with contextlib.suppress(StepNotRunning):  # abandoned meanwhile by the process that drives the run
            store.fail_step(step.id, state=state, reason=reason, now=clock())
        return StepOutcome(step.number, state, scorer.tried, None, reason)

    try:
        proposal = operator.vary(brief)
        attempt, reason = proposal.attempt, proposal.reason
        if attempt is not None and attempt.evaluation.score is not None and isinstance(operator, SeedOperator):
            candidate = Candidate(run.problem, attempt.source)
            reason += f"; {canary.examine(scorer, candidate, attempt.evaluation.score, alpha)}"
        version = _conclude(store, step, scorer, attempt, reason, min_gain, clock, proposal.submission)
    except EvaluatorUnavailable as error:
        give_up(StepState.ABANDONED, f"no verdict: {error}")
        raise
    except StepNotRunning as error:  # abandoned meanwhile by the process that drives the run
        return StepOutcome(step.number, StepState.ABANDONED, scorer.tried, None, str(error))
    except (CanaryFault, ModelRefused) as error:
        return give_up(StepState.FAILED, str(error))
    except (DatabaseUnavailable, IncompatibleDatabase):
        raise
    except Exception as error:  # an operator may be anyone's code: it fails its step, never the run
        return give_up(StepState.FAILED, f"{type(error).__name__}: {error}")
    return StepOutcome(step.number, StepState.DONE, scorer.tried, version.number if version else None, reason)


def _conclude(
    store: Store,
    step: Step,
    scorer: RecordingScorer,
    attempt: Attempt | None,
    reason: str,
    min_gain: float,
    clock: Callable[[], datetime],
    submission: Submission | None,
) -> Version | None:
    """Finish the step and return the version it adds.

    An attempt that was compared with a version that another worker has surpassed meanwhile is compared with the new
    best one first, for as long as it wins and others are quicker.
    """

    def decide(versions: Sequence[Version], submitted: Attempt) -> bool:
        if outdated(versions, submitted):
            raise _OutdatedError(versions[-1])
        return accepts(versions, submitted, min_gain)

    while True:
        try:
            return store.conclude_step(
                step.id,
                attempt_id=attempt.id if attempt else None,
                parents=attempt.parents if attempt else (),
                reason=reason,
                now=clock(),
                decide=decide,
                submission=submission,
            )
        except _OutdatedError as error:
            assert attempt is not None
            attempt = scorer.compare(attempt, error.best)


class _OutdatedError(Exception):
    """The attempt under decision has to be compared with ``best`` first."""

    def __init__(self, best: Version) -> None:
        super().__init__(best)
        self.best = best


def _brief(
    store: Store,
    run: Run,
    step: Step,
    target: Target,
    scorer: RecordingScorer,
    profile: Explain,
    knowledge: Library,
    own: Desk,
    finished: int,
    unfinished: Sequence[Step],
) -> Brief:
    """Return the brief of ``step``.

    A step that this worker left unfinished is done over, once: the next gets its seed and does not see its attempts, so
    that it comes to the same candidates. Those evaluated already are not evaluated again, but can still be accepted.
    After a second failure to finish the worker moves on, lest a candidate that brings the judge down come back forever.

    A step that left a transcript is not done over but taken up: the next gets the transcript, and sees its attempts.
    """
    transcript = store.journal.messages(unfinished[-1].id) if unfinished else []
    hidden = [other.number for other in unfinished] if len(unfinished) == 1 and not transcript else []
    return Brief(
        problem=get_problem(run.problem),
        target=target,
        suite=run.suite,
        seed=_step_seed(run.seed, step.worker, finished, max(len(unfinished) - 1, 0)),
        versions=store.versions(run.id),
        trials=[trial for trial in store.trials(run.id) if trial.step_number not in hidden],
        knowledge=knowledge,
        evaluate=scorer,
        profile=profile,
        transferred=transferred(store, run),
        desk=own,
        memories=store.journal.memories(run.id),
        transcript=transcript,
    )


def _earlier(store: Store, step: Step) -> tuple[int, list[Step]]:
    """Return how many steps the worker of ``step`` has finished, and those that it left unfinished since."""
    steps = store.steps(step.run_id)
    earlier = [other for other in steps if other.worker == step.worker and other.number < step.number]
    finished = [other for other in earlier if other.state is not StepState.ABANDONED]
    last_finished = finished[-1].number if finished else -1
    return len(finished), [other for other in earlier if other.number > last_finished]


def _step_seed(seed: int, worker: str, finished: int, moves_on: int) -> int:
    """Return 64 bits that differ for each step of a run, and depend on nothing but the arguments."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{worker}/{finished}/{moves_on}".encode()).digest()[:8])
