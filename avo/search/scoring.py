"""The scoring function of one step: it has candidates judged, compared where speed is measured, and recorded."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from threading import Lock
from typing import TypeVar

from avo.agents.errors import BudgetSpent, CandidateTaken
from avo.agents.operator import BuiltOn
from avo.evaluator.candidate import Candidate, Incumbent
from avo.evaluator.errors import EvaluatorUnavailable
from avo.evaluator.evaluation import REFUSED, Comparison, Evaluation, Score, Verdict
from avo.evaluator.evaluators import Evaluator, Tell
from avo.evaluator.problem import HELD_OUT
from avo.evaluator.target import ScoreKind
from avo.lineage_db.decision import LASTING, Decision, Ruling, failed, final, repeated
from avo.lineage_db.errors import AlreadyRecorded, AttemptsSpent
from avo.lineage_db.records import Attempt, Run, Step, Version
from avo.lineage_db.store import Store
from avo.search.acceptance import share_of_alpha
from avo.search.activity import Activity

EVALUATOR_TRIES = 3
"""How often a candidate is given to an unavailable evaluator before the step is abandoned."""

_Answer = TypeVar("_Answer")


class RecordingScorer:
    """Evaluates those candidates of one step that are new to the run, and records each before the operator sees it.

    ``alpha`` is the run's probability of error over all comparisons of measured speeds.
    """

    def __init__(
        self,
        store: Store,
        run: Run,
        step: Step,
        evaluator: Evaluator,
        alpha: float,
        clock: Callable[[], datetime],
        rivals: Callable[[Sequence[Version]], Sequence[Version]] = lambda versions: versions,
        decide: Callable[[Sequence[Version], Evaluation], Decision | None] = lambda versions, evaluation: None,
        most: int | None = None,
    ) -> None:
        """``rivals`` selects the versions that a candidate is compared with, the best last. ``decide`` says whether an
        attempt would be accepted; None where that is open. ``most`` attempts may be made in the whole run.
        """
        self._store = store
        self._run = run
        self._step = step
        self._evaluator = evaluator
        self._alpha = alpha
        self._clock = clock
        self._rivals = rivals
        self._decide = decide
        self._most = most
        self.activity = Activity(store, step, clock)
        self.tried = 0
        self._recording = Lock()

    def __call__(
        self,
        candidate: Candidate,
        *,
        change: str,
        parents: tuple[int, ...],
        hypothesis: str = "",
        built_on: BuiltOn = None,
    ) -> Attempt:
        """Return the attempt of ``candidate``, or the recorded one where the run has had it before: see ``Scorer``."""
        started = self._clock()
        try:
            if self._store.claims.announce(self._step.id, candidate.digest, now=started, most=self._most):
                return self._evaluated(candidate, change, parents, hypothesis, built_on, started)
        except AttemptsSpent as error:
            self._store.claims.answer(self._step.id, candidate.digest, None, now=started, spent=True)
            raise BudgetSpent(str(error)) from None
        except AlreadyRecorded as error:
            self._store.claims.answer(self._step.id, candidate.digest, error.attempt.id, now=self._clock())
            return self._as_of_now(error.attempt)
        except Exception:  # the step may go on with another
            self._store.claims.withdraw(self._step.id, candidate.digest)
            raise
        self._store.claims.answer(self._step.id, candidate.digest, None, now=started)
        raise CandidateTaken

    def _evaluated(
        self,
        candidate: Candidate,
        change: str,
        parents: tuple[int, ...],
        hypothesis: str,
        built_on: BuiltOn,
        started: datetime,
    ) -> Attempt:
        versions = self._store.versions(self._run.id)
        rivals = self._rivals(versions)
        with self.activity.during(f"judging {_named(change)}") as tell:
            evaluation = self._judge(candidate, rivals[-1] if rivals else None, tell)
        edited = built_on() if callable(built_on) else built_on
        with self._recording:  # each knows the attempts before it that have its launch plans
            known = self._with_plan(evaluation.plan_digest)
            evaluation = _shared(evaluation, known)
            attempt = self._store.results.record_attempt(
                step_id=self._step.id,
                candidate=candidate,
                change=change,
                parents=parents,
                evaluation=evaluation,
                started=started,
                finished=self._clock(),
                hypothesis=hypothesis,
                decision=with_twins(self._decide(versions, evaluation), known),
                built_on=edited,
                once=True,
            )
            self.tried += 1
            return attempt

    def _as_of_now(self, attempt: Attempt) -> Attempt:
        """Return a recorded attempt with the last word on it if it were submitted now; None where that is open."""
        if attempt.decision is None or attempt.decision.ruling in LASTING:
            return attempt
        refusal = _refusal(self._with_plan(attempt.plan_digest))
        now = refusal or self._decide(self._store.versions(self._run.id), attempt.evaluation)
        return replace(attempt, decision=final(attempt.decision, now))

    def compare(self, attempt: Attempt, best: Version) -> Attempt | None:
        """Compare a recorded attempt with ``best``, a newer version than it was compared with, and record that.

        Returns the attempt as it is recorded now, or None when the evaluator finds fault with it this time, or finds
        that it lowers to other launch plans than before.
        """
        comparison = _with(best.attempt.plan_digest, _scores(self._with_plan(attempt.plan_digest)))
        if comparison is None:
            what = f"comparing {_named(attempt.change)} with version {best.number}"
            with self.activity.during(what) as tell:
                evaluation = self._judge(Candidate(self._run.problem, attempt.source), best, tell)
            score = evaluation.score
            if score is None or score.comparison is None or evaluation.plan_digest != attempt.plan_digest:
                return None
            comparison = score.comparison
        return self._store.results.record_comparison(self._step.id, attempt.id, comparison, now=self._clock())

    def examine(self, attempt: Attempt) -> Decision | None:
        """Examine a correct attempt more closely and record the verdict; return why it is refused, if it is.

        Launch plans that the run has refused once are not examined again.
        """
        if refusal := _refusal(self._with_plan(attempt.plan_digest)):
            return refusal
        candidate = Candidate(self._run.problem, attempt.source)
        what = f"attempt {attempt.id}" if attempt.parents else _named(attempt.change)
        with self.activity.during(f"examining {what} closely") as tell:
            found = persistently(lambda: self._evaluator.verify(candidate, attempt.plan_digest, tell))
        refusal = None if found.correct else failed(found.status, found.compiled)
        if found.correct or found.refused:
            tflops = found.score.own_tflops if found.score and found.suite == HELD_OUT else None
            record = self._store.results.record_examination
            record(self._step.id, attempt.id, found, tflops, refusal, now=self._clock())
        return refusal

    def evaluate(self, candidate: Candidate, incumbent: Incumbent | None = None, *, tell: Tell) -> Evaluation:
        """Return the verdict without recording it, of which ``tell`` hears; ask again when the evaluator is
        unavailable.
        """
        return persistently(lambda: self._evaluator.evaluate(candidate, incumbent, tell))

    def _judge(self, candidate: Candidate, best: Version | None, tell: Tell) -> Evaluation:
        """Return the verdict, with a comparison with ``best`` where speed is measured, of which ``tell`` hears."""
        former = None if best is None else best.attempt.evaluation.score
        if best is None or former is None or former.kind is not ScoreKind.MEASURED:
            return self.evaluate(candidate, tell=tell)
        # A number is used up whatever comes of it: what is spent must not depend on what is seen.
        number = self._store.results.number_comparison(self._step.id, now=self._clock())
        incumbent = Incumbent(Candidate(self._run.problem, best.attempt.source), share_of_alpha(self._alpha, number))
        evaluation = self.evaluate(candidate, incumbent, tell=tell)
        if evaluation.score is not None:
            _check(evaluation.score, former, best.attempt.plan_digest, incumbent.alpha)
        return evaluation

    def _with_plan(self, plan_digest: str | None) -> list[Attempt]:
        """Return the run's attempts with these launch plans, oldest first."""
        return [] if plan_digest is None else self._store.attempts_of_plan(self._run.id, plan_digest)


def _named(change: str) -> str:
    return change.strip().partition("\n")[0] or "a candidate"


def with_twins(decision: Decision | None, twins: Sequence[Attempt]) -> Decision | None:
    """Return what acceptance says of an attempt whose score it decided on, with ``twins``: earlier attempts of the run
    that have its launch plans.
    """
    if decision is None or decision.ruling is Ruling.REPEATED or not twins:
        return decision
    if decision.refused:
        return repeated(f"attempt {twins[0].id}")
    return _refusal(twins) or decision


def _refusal(twins: Sequence[Attempt]) -> Decision | None:
    """Return the decision on launch plans that one of ``twins`` was refused for, if one was."""
    found = (one.evaluation for one in twins)
    return next((failed(each.refused, each.compiled) for each in found if each.refused), None)


def _shared(evaluation: Evaluation, twins: Sequence[Attempt]) -> Evaluation:
    """Replace new samples by what the run knows of the same launch plans, by ``twins``: a fault, or earlier samples.

    Otherwise the same plans could be submitted under other names until a sample is lucky.
    """
    score = evaluation.score
    if score is None:
        return evaluation
    if refused := [one.evaluation for one in twins if one.status in REFUSED]:
        return replace(refused[0], seconds=evaluation.seconds)
    scores = _scores(twins)
    if score.kind is not ScoreKind.MEASURED:
        known = next((each.neighbours for each in scores if each.neighbours), ())
        return replace(evaluation, score=replace(score, neighbours=known))
    if not scores:
        return evaluation
    comparison = score.comparison
    if comparison is not None:
        before = _with(comparison.plan_digest, scores)
        if before is None and comparison.verdict is Verdict.FASTER:  # what lost was scored in one pass, and this in all
            return evaluation
        comparison = before or comparison
    return replace(evaluation, score=replace(scores[0], comparison=comparison))


def _scores(attempts: Sequence[Attempt]) -> list[Score]:
    return [attempt.evaluation.score for attempt in attempts if attempt.evaluation.score is not None]


def persistently(ask: Callable[[], _Answer]) -> _Answer:
    """Return the answer; ask again, ``EVALUATOR_TRIES`` times in all, when the evaluator is unavailable."""
    for _ in range(EVALUATOR_TRIES - 1):
        try:
            return ask()
        except EvaluatorUnavailable:
            continue
    return ask()


def _with(plan_digest: str | None, scores: list[Score]) -> Comparison | None:
    """Return the comparison with the incumbent of these launch plans, where one of ``scores`` has it. One that ended
    undecided is none: it may have run out of time, and a new one spends its own share of alpha.
    """
    drawn = [score.comparison for score in scores if score.comparison is not None]
    decided = [each for each in drawn if each.verdict is not Verdict.UNDECIDED]
    return next((comparison for comparison in decided if comparison.plan_digest == plan_digest), None)


def _check(score: Score, former: Score, plan_digest: str | None, alpha: float) -> None:
    """Raise ``EvaluatorUnavailable`` unless ``score`` holds the comparison that was asked for."""
    comparison = score.comparison
    if score.card != former.card:
        raise EvaluatorUnavailable(
            f"the versions of this run were measured on {former.card}, this is {score.card}: "
            "resume it there, or start a new run from its best version with --from"
        )
    if comparison is None or comparison.alpha != alpha:
        raise EvaluatorUnavailable("the judge did not make the comparison it was asked for: install the same AVO there")
    if comparison.plan_digest != plan_digest:
        raise EvaluatorUnavailable(
            "the best version lowers to other launch plans than when it was judged, as Triton or AVO is another: "
            "start a new run from it with --from"
        )
