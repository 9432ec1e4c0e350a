"""One step of a run: claim it, let the operator vary the lineage, conclude with what it proposes."""

import contextlib
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from agents.agentic import chat_models
from agents.desk import Desk
from agents.errors import ModelRefused, StepLeft
from agents.operator import Brief, Proposal, VariationOperator
from agents.review import Advice, advise
from agents.settings import Settings
from agents.supervisor import Diagnosis, Patience, Trajectory
from avo.errors import CanaryFault
from avo.search import canary
from avo.search.acceptance import accepts, outdated
from avo.search.budget import SEED_OPERATOR, UNLIMITED, Allowance
from avo.search.desk import desk
from avo.search.leases import renewed
from avo.search.population import Home, Lineage, Population, settle
from avo.search.scoring import RecordingScorer
from avo.search.supervision import supervise
from avo.search.transfer import transferred
from evaluator.candidate import Candidate
from evaluator.catalogue import get_problem
from evaluator.errors import EvaluatorUnavailable
from evaluator.evaluation import Status
from evaluator.evaluators import Evaluator
from evaluator.target import Target
from knowledge_base.library import Library
from lineage_db.errors import DatabaseUnavailable, IncompatibleDatabase, StepNotRunning
from lineage_db.records import Attempt, Intervention, Run, Step, StepState, Version
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


_LINEAGE = Lineage()


class SeedOperator:
    """The operator of a run's first step: it submits the seed. The only one that meets an empty lineage.

    Where a run goes on with a judge that may be another, it submits the seed again, for the judge's sake.
    """

    name = SEED_OPERATOR

    def __init__(self, source: str) -> None:
        self._source = source

    def vary(self, brief: Brief) -> Proposal:
        """Submit the seed."""
        candidate = brief.candidate(self._source)
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
    alpha: float,
    clock: Callable[[], datetime],
    knowledge: Library,
    patience: Patience | None = None,
    population: Population = _LINEAGE,
    allowance: Allowance = UNLIMITED,
    adviser: Settings | None = None,
) -> StepOutcome:
    """Perform one step of ``run`` as ``worker`` and return how it ended.

    ``min_gain``, ``alpha``, ``patience``, which is the supervisor's, and ``population`` are as in the run's
    configuration; ``allowance`` is what the step may use; the models of ``adviser`` review the trajectory for the
    supervisor. A step of ``SeedOperator`` fails unless the judge sees
    through the variants of the seed that ``canary`` makes; before that the seed is no version.

    An operator that raises, or names versions and attempts that are none, fails its step. Raises
    ``EvaluatorUnavailable``, with the step abandoned if it was begun, when no verdict can be had, and
    ``DatabaseUnavailable`` when the database fails.
    """
    target = evaluator.target
    step = store.claims.claim(run.id, worker=worker, operator=operator.name, now=clock())
    with renewed(lambda: store.claims.keep(step.id, now=clock())):
        taken_up = _taken_up(store, step)
        origin = taken_up[-1] if taken_up else step
        seed = step_seed(run.seed, origin.worker, origin.turn)
        home = settle(store, run, step, origin, population, seed, clock)
        scorer = RecordingScorer(store, run, step, evaluator, alpha, clock, home.rivals)
        own = desk(store, run, step, evaluator, allowance, taken_up=taken_up, clock=clock)
        interventions: Sequence[Intervention] = ()
        if patience:
            advice = None if adviser is None else partial(_advise, store, run, target, own, adviser, seed)
            interventions = supervise(store, run, target, patience, knowledge, clock, advice)
        brief = _brief(store, run, step, taken_up, seed, evaluator, scorer, knowledge, interventions, home, own)
        return _perform(store, run, step, operator, scorer, brief, home, min_gain, alpha, clock)


def _perform(
    store: Store,
    run: Run,
    step: Step,
    operator: VariationOperator,
    scorer: RecordingScorer,
    brief: Brief,
    home: Home,
    min_gain: float,
    alpha: float,
    clock: Callable[[], datetime],
) -> StepOutcome:
    """Let the operator work and conclude the step, as ``perform_step`` says."""

    def give_up(state: StepState, reason: str) -> StepOutcome:
        with contextlib.suppress(StepNotRunning):  # abandoned meanwhile by the process that drives the run
            store.claims.fail(step.id, state=state, reason=reason, now=clock())
        return StepOutcome(step.number, state, scorer.tried, None, reason)

    try:
        proposal = operator.vary(brief)
        attempt, reason = proposal.attempt, proposal.reason
        if attempt is not None and attempt.evaluation.score is not None and isinstance(operator, SeedOperator):
            candidate = Candidate(run.problem, attempt.source)
            reason += f"; {canary.examine(scorer, candidate, attempt.evaluation.score, alpha)}"
        version, reason = _conclude(store, run, step, scorer, proposal, reason, min_gain, clock, home)
    except EvaluatorUnavailable as error:
        give_up(StepState.ABANDONED, f"no verdict: {error}")
        raise
    except StepNotRunning as error:  # abandoned meanwhile by the process that drives the run
        return StepOutcome(step.number, StepState.ABANDONED, scorer.tried, None, str(error))
    except StepLeft as error:
        return give_up(StepState.ABANDONED, str(error))
    except (CanaryFault, ModelRefused) as error:
        return give_up(StepState.FAILED, str(error))
    except (DatabaseUnavailable, IncompatibleDatabase):
        raise
    except Exception as error:  # an operator may be anyone's code: it fails its step, never the run
        return give_up(StepState.FAILED, f"{type(error).__name__}: {error}")
    return StepOutcome(step.number, StepState.DONE, scorer.tried, version.number if version else None, reason)


def _conclude(
    store: Store,
    run: Run,
    step: Step,
    scorer: RecordingScorer,
    proposal: Proposal,
    reason: str,
    min_gain: float,
    clock: Callable[[], datetime],
    home: Home,
) -> tuple[Version | None, str]:
    """Finish the step and return the version it adds, and the reason with what is to be said of a closer look.

    An attempt that was compared with a version that another worker has surpassed meanwhile is compared with the new
    best one first, for as long as it wins and others are quicker. One that would become a version is examined first.
    """
    attempt = proposal.attempt

    def decide(versions: Sequence[Version], submitted: Attempt) -> bool:
        rivals = home.rivals(versions, submitted)
        if outdated(versions, submitted, rivals):
            raise _OutdatedError(rivals[-1])
        accepted = accepts(versions, submitted, min_gain, rivals)
        if accepted and submitted.evaluation.examined is not Status.CORRECT:
            raise _UnexaminedError
        return accepted

    while True:
        try:
            version = store.results.conclude(
                step.id,
                attempt_id=attempt.id if attempt else None,
                parents=attempt.parents if attempt else (),
                reason=reason,
                now=clock(),
                decide=decide,
                submission=proposal.submission,
                niche=home.niche,
            )
        except _OutdatedError as error:
            assert attempt is not None
            attempt = scorer.compare(attempt, error.best)
        except _UnexaminedError:
            assert attempt is not None
            attempt, found = scorer.examine(attempt)
            if found is not Status.CORRECT:  # of the message nothing is told: it names the shapes
                attempt = None
                reason += f"; not accepted: correct on the suite, but {found} at other shapes or in a larger sample"
        else:
            return version, reason


class _UnexaminedError(Exception):
    """The attempt under decision has to be examined first."""


class _OutdatedError(Exception):
    """The attempt under decision has to be compared with ``best`` first."""

    def __init__(self, best: Version) -> None:
        super().__init__(best)
        self.best = best


def _brief(
    store: Store,
    run: Run,
    step: Step,
    taken_up: Sequence[Step],
    seed: int,
    evaluator: Evaluator,
    scorer: RecordingScorer,
    knowledge: Library,
    interventions: Sequence[Intervention],
    home: Home,
    own: Desk,
) -> Brief:
    """Return the brief of ``step``, which does the last of the steps ``taken_up`` over, where there is any.

    A step that was left unfinished is done over, once: the step that does gets its seed and does not see its attempts,
    so that it comes to the same candidates. Those evaluated already are not evaluated again, but can still be accepted.
    After a second failure to finish the worker moves on, lest a candidate that brings the judge down come back forever.

    A step that left a transcript is not done over but taken up: the next gets the transcript, and sees its attempts.
    """
    history = store.history(run.id)
    origin = taken_up[-1] if taken_up else step
    earlier = (store.journal.messages(other.id) for other in reversed(taken_up))
    transcript = next((messages for messages in earlier if messages), [])
    hidden = None if origin is step or transcript else origin.number
    return Brief(
        problem=get_problem(run.problem),
        target=evaluator.target,
        suite=run.suite,
        seed=seed,
        versions=home.shown(history.versions),
        attempts=history.attempts if hidden is None else [t for t in history.attempts if t.step_number != hidden],
        knowledge=knowledge,
        evaluate=scorer,
        profile=evaluator.profile,
        transferred=transferred(store, run),
        focus=home.selection.focus if home.selection else None,
        interventions=interventions,
        desk=own,
        memories=store.journal.memories(run.id),
        transcript=transcript,
    )


def _advise(
    store: Store,
    run: Run,
    target: Target,
    own: Desk,
    adviser: Settings,
    seed: int,
    trajectory: Trajectory,
    diagnosis: Diagnosis,
) -> Advice | None:
    memories = store.journal.memories(run.id)
    problem, models = get_problem(run.problem), chat_models(adviser)
    return advise(adviser.models, models, own, problem, run.suite, target, trajectory, memories, diagnosis, seed)


def _taken_up(store: Store, step: Step) -> list[Step]:
    """Return the steps that ``step`` goes on with: the one it does over, the one that did over, and so on."""
    found: list[Step] = []
    number = step.redoes
    while number is not None and (earlier := store.step(step.run_id, number)) is not None:
        found.insert(0, earlier)
        number = earlier.redoes
    return found


def step_seed(seed: int, worker: str, turn: int) -> int:
    """Return 64 bits that differ for each step of a run, and depend on nothing but the arguments."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{worker}/{turn}".encode()).digest()[:8])
