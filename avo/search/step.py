"""One step of a run: claim it, let the operator vary the lineage, conclude with what it proposes."""

import contextlib
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from avo.agents.bandit import MOST_STEPS
from avo.agents.desk import Left
from avo.agents.errors import ModelRefused, ProgramFailed, StepLeft
from avo.agents.operator import SEED_OPERATOR, Brief, Previous, Proposal, VariationOperator
from avo.agents.relay import chat_models
from avo.agents.review import Advice, advise
from avo.agents.settings import Settings
from avo.agents.supervisor import Diagnosis, SearchTrajectory
from avo.config import RunConfig
from avo.errors import CanaryFault
from avo.evaluator.candidate import Candidate
from avo.evaluator.catalogue import get_problem
from avo.evaluator.errors import EvaluatorUnavailable
from avo.evaluator.evaluation import Evaluation, Status
from avo.evaluator.evaluators import Evaluator
from avo.evaluator.renamed import with_new_name
from avo.evaluator.target import ScoreKind, Target
from avo.knowledge_base.library import Library
from avo.lineage_db.decision import Decision, Ruling, ending, final, timed
from avo.lineage_db.entries import Intervention, PaidStep
from avo.lineage_db.errors import (
    DatabaseUnavailable,
    IncompatibleDatabase,
    StepNotRunning,
)  # fmt: skip
from avo.lineage_db.records import Attempt, Run, Step, StepState, Version
from avo.lineage_db.seen import Seen
from avo.lineage_db.store import Store
from avo.search import seeding
from avo.search.acceptance import Thresholds, decide, outdated
from avo.search.ahead import Ahead
from avo.search.budget import UNLIMITED, Allowance
from avo.search.desk import make_desk
from avo.search.leases import renewed
from avo.search.looking import RecordingLooks
from avo.search.population import Home, Population, population
from avo.search.scoring import RecordingScorer
from avo.search.seeding import SeedOperator
from avo.search.supervision import supervise
from avo.search.transfer import taken_over, transferred


@dataclass(frozen=True, slots=True)
class StepOutcome:
    """How a step ended."""

    number: int
    state: StepState
    tried: int
    """Attempts evaluated and recorded in this step."""
    version: int | None
    """Number of the version that the step added to the lineage."""
    reason: str


@dataclass(frozen=True, slots=True)
class Work:
    """What all steps of one worker share."""

    store: Store
    run: Run
    config: RunConfig
    evaluator: Evaluator
    knowledge: Library
    clock: Callable[[], datetime]
    allowance: Allowance = UNLIMITED
    """What the run and each step may use."""
    adviser: Settings | None = None
    """The models that review the trajectory for the supervisor. None: the supervisor asks no model."""
    population: Population | None = None
    """Replaces the population of the configuration. A replay makes the choices that are on record."""
    ahead: Ahead = field(default_factory=Ahead, init=False, compare=False)
    """Examines attempts closely while steps go on."""

    def perform(self, operator: VariationOperator, worker: str) -> StepOutcome:
        """Perform one step as ``worker`` and return how it ended.

        A step of ``SeedOperator`` fails unless the judge sees through the variants of the seed that ``canary`` makes;
        until then the seed is no version. An operator that raises, or names versions or attempts that do not exist,
        fails its step.

        Raises ``EvaluatorUnavailable`` when there is no verdict, after abandoning the step if it had begun, and
        ``DatabaseUnavailable`` when the database fails.
        """
        target = self.evaluator.target  # where no judge answers, no step is claimed
        step = self.store.claims.claim(self.run.id, worker=worker, operator=operator.name, now=self.clock())
        with renewed(lambda: self.store.claims.keep(step.id, now=self.clock())):
            return _OpenStep(self, step, target).perform(operator)


class _OpenStep:
    """A step that has been claimed and has not ended.

    A step that was left unfinished is redone once: the step that redoes it gets its seed and does not see its attempts,
    so that it makes the same candidates. Those with a verdict are not evaluated again, but can still be accepted. After
    a second failure the worker moves on, so that a candidate that crashes the judge does not come back forever.

    A step that left a transcript is not redone but continued: the next step gets the transcript and sees its attempts.
    """

    def __init__(self, work: Work, step: Step, target: Target) -> None:
        self._work, self._step, self._target = work, step, target
        self._earlier = _unfinished(work.store, step)
        self._origin = self._earlier[-1] if self._earlier else step
        self._seed = step_seed(work.run.seed, self._origin.worker, self._origin.turn)
        self._home = self._choose_home()
        most = None if step.operator == SEED_OPERATOR else work.allowance.max_attempts
        rivals, alpha = self._home.rivals, work.config.alpha
        self._scorer = RecordingScorer(
            work.store, work.run, step, work.evaluator, alpha, work.clock, rivals, self._decide, most
        )
        transcripts = (work.store.journal.messages(part.id) for part in reversed(self._earlier))
        self._transcript = next((messages for messages in transcripts if messages), [])
        continued = self._earlier if self._transcript else ()
        most = work.allowance.step_looks
        self._looks = RecordingLooks(
            work.store, step, work.evaluator, self._scorer.activity, work.clock, most, continued
        )
        self._desk = make_desk(work.store, step, work.evaluator, work.clock, self._left, work.ahead.news)

    def _left(self) -> Left:
        work = self._work
        found = work.allowance.left(work.store, work.run, (*self._earlier, self._step), work.clock())
        return replace(found, looks=self._looks.left)

    def perform(self, operator: VariationOperator) -> StepOutcome:
        """Let the operator work and conclude the step, as ``Work.perform`` says."""
        with contextlib.closing(self._work.ahead):
            return self._perform(operator)

    def _perform(self, operator: VariationOperator) -> StepOutcome:
        run, step, scorer = self._work.run, self._step, self._scorer
        brief = self._brief(self._supervise())
        try:
            proposal = operator.vary(brief)
            reason = proposal.reason
            if proposal.attempt is not None and isinstance(operator, SeedOperator):
                alpha = self._work.config.alpha
                reason += f"; {seeding.examine(scorer, proposal, run.problem, alpha, operator.judges)}"
            version, reason = self._conclude(proposal, reason)
        except EvaluatorUnavailable as error:
            self._give_up(StepState.ABANDONED, f"no verdict: {error}")
            raise
        except StepNotRunning as error:  # abandoned in the meantime by the process that drives the run
            return StepOutcome(step.number, StepState.ABANDONED, scorer.tried, None, str(error))
        except StepLeft as error:
            return self._give_up(StepState.ABANDONED, str(error))
        except (CanaryFault, ModelRefused, ProgramFailed) as error:
            return self._give_up(StepState.FAILED, str(error))
        except (DatabaseUnavailable, IncompatibleDatabase):
            raise
        except Exception as error:  # an operator may be anyone's code: it fails its step, never the run
            return self._give_up(StepState.FAILED, with_new_name(f"{type(error).__name__}: {error}"))
        return StepOutcome(step.number, StepState.DONE, scorer.tried, version.number if version else None, reason)

    def _give_up(self, state: StepState, reason: str) -> StepOutcome:
        with contextlib.suppress(StepNotRunning):  # abandoned in the meantime by the process that drives the run
            self._work.store.claims.fail(self._step.id, state=state, reason=reason, now=self._work.clock())
        return StepOutcome(self._step.number, state, self._scorer.tried, None, reason)

    def _evaluate(self, candidate: Candidate, **told: Any) -> Attempt:
        """Have a candidate judged and recorded, and examined ahead where another evaluator can do that meanwhile."""
        attempt = self._scorer(candidate, **told)
        side_by_side = self._work.evaluator.at_once > 1 and self._target.kind is ScoreKind.PREDICTED
        if side_by_side and self._step.operator != SEED_OPERATOR:  # seeds are examined as they are submitted
            self._work.ahead.begin(attempt, self._scorer.examine)
        return attempt

    def _decide(self, versions: Sequence[Version], evaluation: Evaluation) -> Decision | None:
        """Return what acceptance says of an attempt; None where that is open, or the attempt faulty."""
        rivals, config = self._home.rivals(versions, evaluation), self._work.config
        if outdated(versions, evaluation, rivals):
            return None
        return decide(versions, evaluation, Thresholds(config.min_gain, config.min_share), rivals)

    def _conclude(self, proposal: Proposal, reason: str) -> tuple[Version | None, str]:
        """Finish the step. Return the version that it adds, and the reason with that of a refusal.

        An attempt that was compared with a version that another worker has surpassed since is first compared with the
        new best one, as often as it wins and others are quicker. One that would become a version is examined first.
        """
        attempt = proposal.attempt
        refusals: dict[int, Decision] = {}
        decided: Decision | None = None

        def last_word(versions: Sequence[Version], submitted: Attempt) -> Decision | None:
            nonlocal decided
            if not submitted.evaluation.correct:
                return None
            decision = refusals.get(submitted.id) or self._decide(versions, submitted.evaluation)
            if decision is None:
                raise _OutdatedError(submitted, self._home.rivals(versions, submitted.evaluation)[-1])
            if decision.ruling is Ruling.ACCEPTABLE:
                if submitted.evaluation.examined is not Status.CORRECT:
                    raise _UnexaminedError(submitted)
                decision = replace(decision, ruling=Ruling.ACCEPTED)
            decided = final(submitted.decision, decision)
            return decision

        while True:
            try:
                version = self._work.store.results.conclude(
                    self._step.id,
                    attempt_id=attempt.id if attempt else None,
                    parents=attempt.parents if attempt else (),
                    reason=reason,
                    now=self._work.clock(),
                    decide=last_word,
                    submission=proposal.submission,
                    niche=self._home.niche,
                    before=[each.id for each in proposal.before],
                )
            except _OutdatedError as error:
                if self._scorer.compare(error.attempt, error.best) is None:
                    refusals[error.attempt.id] = timed(None, error.best.number)
            except _UnexaminedError as error:
                if refusal := self._work.ahead.result(error.attempt, self._scorer.examine):
                    refusals[error.attempt.id] = refusal
            else:
                if attempt is not None:
                    self._work.ahead.take(attempt)  # its examination may have ended before anybody asked for it
                return version, ending(reason, decided)

    def _choose_home(self) -> Home:
        """Choose what the step works on, and record that. A step that redoes another works on the same."""
        store, kind = self._work.store, self._work.population or population(self._work.config)
        if self._step.operator == SEED_OPERATOR:
            return Home(kind, None, seeding=True)
        selection, versions = self._origin.selection, store.versions(self._work.run.id)
        if selection is None and versions:
            earlier = store.steps_before(self._step, limit=kind.looks_back)
            selection = kind.select(versions, earlier, self._seed)
        if selection is not None:
            store.claims.select(self._step.id, selection, now=self._work.clock())
        return Home(kind, selection)

    def _supervise(self) -> Sequence[Intervention]:
        work, patience = self._work, self._work.config.patience
        if patience is None:
            return ()
        advise = None if work.adviser is None else self._advise
        return supervise(work.store, work.run, self._target, patience, work.knowledge, work.clock, advise)

    def _advise(self, trajectory: SearchTrajectory, diagnosis: Diagnosis) -> Advice | None:
        run, adviser = self._work.run, self._work.adviser
        assert adviser is not None
        return advise(
            adviser.models,
            chat_models(adviser),
            self._desk,
            get_problem(run.problem),
            run.suite,
            self._target,
            self._work.config.requirement,
            trajectory,
            self._work.store.journal.memories(run.id),
            diagnosis,
            self._seed,
        )

    def _brief(self, interventions: Sequence[Intervention]) -> Brief:
        work, run, journal = self._work, self._work.run, self._work.store.journal
        history = work.store.history(run.id)
        hidden = self._origin.number if self._earlier and not self._transcript else None
        memories = journal.memories(run.id)
        minutes = work.allowance.minutes_left(self._step, work.clock())
        brief = Brief(
            problem=get_problem(run.problem),
            target=self._target,
            suite=run.suite,
            seed=self._seed,
            versions=self._home.shown(history.versions),
            attempts=history.attempts if hidden is None else [t for t in history.attempts if t.step_number != hidden],
            knowledge=work.knowledge,
            evaluate=self._evaluate,
            profile=work.evaluator.profile,
            at_once=work.evaluator.at_once,
            look=self._looks,
            looks=history.looks if hidden is None else [look for look in history.looks if look.step_number != hidden],
            minutes=minutes,
            transferred=transferred(work.store, run),
            directions=taken_over(run),
            requirement=work.config.requirement,
            focus=self._home.selection.focus if self._home.selection else None,
            interventions=interventions,
            desk=self._desk,
            paid=self._paid(),
            memories=memories,
            transcript=self._transcript,
            previous=None if self._transcript else self._previous(),
        )
        seen = Seen(
            versions=len(history.versions),
            attempts=history.attempts[-1].attempt_id if history.attempts else 0,
            memories=memories[-1].id if memories else 0,
            interventions=tuple(made.id for made in interventions),
            unresolved=tuple(attempt.attempt_id for attempt in brief.unresolved) if brief.versions else (),
            examined=tuple(made.attempt_id for made in brief.attempts if made.ruling is Ruling.EXAMINED),
            hidden=hidden,
            looks=history.looks[-1].look_id if history.looks else 0,
            minutes=minutes,
        )
        work.store.claims.see(self._step.id, seen, now=work.clock())
        return brief

    def _paid(self) -> Sequence[PaidStep]:
        """Return what steps paid and gained before this one began; a step that redoes another sees what that saw."""
        run, pages = self._work.run, self._work.store.pages
        several = len(self._work.config.models) > 1
        return pages.paid(run.id, last=MOST_STEPS, before=self._origin.started) if several else ()

    def _previous(self) -> Previous | None:
        """Return the worker's last step, where the operator may go on with its conversation."""
        store, step = self._work.store, self._earlier[0] if self._earlier else self._step
        last = store.step_before(step) if self._work.config.continue_steps > 1 else None
        if last is None or last.state is not StepState.DONE or last.operator != step.operator:
            return None
        calls = store.journal.calls(step.run_id, step_id=last.id)
        return Previous(last, store.journal.messages(last.id), calls[-1].model if calls else "")


class _UnexaminedError(Exception):
    """The attempt under decision has to be examined first."""

    def __init__(self, attempt: Attempt) -> None:
        super().__init__(attempt)
        self.attempt = attempt


class _OutdatedError(Exception):
    """The attempt under decision has to be compared with ``best`` first."""

    def __init__(self, attempt: Attempt, best: Version) -> None:
        super().__init__(attempt, best)
        self.attempt, self.best = attempt, best


def _unfinished(store: Store, step: Step) -> list[Step]:
    """Return the unfinished steps that ``step`` redoes or continues, oldest first: one may redo another."""
    found: list[Step] = []
    number = step.redoes
    while number is not None and (earlier := store.step(step.run_id, number)) is not None:
        found.insert(0, earlier)
        number = earlier.redoes
    return found


def step_seed(seed: int, worker: str, turn: int) -> int:
    """Return 64 bits that differ for each step of a run, and depend on the arguments alone."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{worker}/{turn}".encode()).digest()[:8])
