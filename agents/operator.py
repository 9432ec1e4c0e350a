"""The variation operator: ``Vary(P_t) = Agent(P_t, K, f)`` of the AVO paper (arXiv 2603.24517).

An operator gets a brief (lineage P_t, knowledge base K, scoring function f) and returns a proposal.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeAlias

from avo.agents.desk import Desk, FakeDesk
from avo.evaluator.candidate import Candidate
from avo.evaluator.catalogue import name_of
from avo.evaluator.evaluation import Fault
from avo.evaluator.inspection import Findings
from avo.evaluator.problem import Problem
from avo.evaluator.target import Target
from avo.knowledge_base.library import Library
from avo.lineage_db.decision import Ruling
from avo.lineage_db.directions import Direction
from avo.lineage_db.entries import Intervention, Memory, Message, PaidStep
from avo.lineage_db.looked import Looked
from avo.lineage_db.records import Attempt, AttemptSummary, Run, Step, Submission, Version

if TYPE_CHECKING:
    from avo.evaluator.profile import Profile

COMMAND_OPERATOR = "command"
"""Name of the operator that starts a program of the user's for each step."""
SEED_OPERATOR = "seed"
"""Name of the operator whose steps do not count against a budget."""
UNRESOLVED = 5
"""Number of unresolved attempts that an operator is shown."""


BuiltOn: TypeAlias = int | Callable[[], int | None] | None
"""The id of the attempt that was edited, where that is none of the parents, or what returns it once it is known."""


class Scorer(Protocol):
    """The scoring function f; it records each attempt."""

    def __call__(
        self,
        candidate: Candidate,
        *,
        change: str,
        parents: tuple[int, ...],
        hypothesis: str = "",
        built_on: BuiltOn = None,
    ) -> Attempt:
        """Evaluate and record ``candidate``; ``parents`` are the version numbers it was made from, ``hypothesis`` says
        why the change should help.

        ``built_on`` is called once there is a verdict: the attempt that was edited may be under evaluation itself.

        A candidate that the run already has is not evaluated again. Raises ``CandidateTaken`` while another worker
        evaluates it, ``BudgetSpent`` for one that is new to a run that may make no more attempts, and
        ``EvaluatorUnavailable``.
        """
        ...


@dataclass(frozen=True, slots=True)
class Variation:
    """A candidate, and how it was made."""

    candidate: Candidate
    change: str
    """What was changed, in the operator's words."""
    parents: tuple[int, ...]
    """Numbers of the versions it was made from."""


class Looker(Protocol):
    """Looks at candidates: compiles them and predicts their speed, but executes nothing, so any may still be wrong."""

    def __call__(self, variations: Sequence[Variation]) -> Sequence[Findings]:
        """Return what is seen of each, in order: a score with the launch plans' digest, or a fault; and resources.

        Where speed is measured, the score is the prediction for that card. Looks are recorded and counted against the
        step's budget, each candidate once. The evaluators that are free work on them side by side.

        Raises ``LooksSpent`` where fewer looks are left than candidates are new to the step, and
        ``EvaluatorUnavailable``.
        """
        ...


class Explain(Protocol):
    """Explains a candidate's predicted speed. A call takes seconds and is not recorded."""

    def __call__(self, candidate: Candidate, case: str | None = None) -> "tuple[Profile, ...] | Fault":
        """Return a profile of each benchmark case, or of the one called ``case``; numbers are not checked.

        Raises ``UnknownProblem`` for a case that does not exist, and ``EvaluatorUnavailable``.
        """
        ...


@dataclass(frozen=True)
class Transferred:
    """The lineage of another problem, from which a run starts."""

    run: Run
    """The run that the lineage belongs to."""
    versions: Sequence[Version]
    """The lineage from the seed to the version that was named, or was the parent of what was named; never empty."""
    attempt: Attempt | None = None
    """What was named, if it is an attempt that is no version."""

    @property
    def source(self) -> str:
        """The source of what was named. It defines the entry function of ``run.problem``."""
        return (self.attempt or self.versions[-1].attempt).source


@dataclass(frozen=True)
class Previous:
    """The last step of the same worker, whose conversation this step may go on with."""

    step: Step
    transcript: Sequence[Message]
    model: str
    """Name of the model that was asked last; empty if that is not known."""


@dataclass(frozen=True)
class Brief:
    """What an operator gets for one step."""

    problem: Problem
    target: Target
    suite: str
    seed: int
    """The step's random seed: the operator's only source of randomness."""
    versions: Sequence[Version]
    """The lineage, or the part of the population that the step works on, by number. Never empty."""
    attempts: Sequence[AttemptSummary]
    """Every attempt of the run so far, failed ones too, oldest first."""
    knowledge: Library
    evaluate: Scorer
    profile: Explain
    look: Looker | None = None
    """None: the operator can only evaluate."""
    looks: Sequence[Looked] = ()
    """Everything that the run has looked at so far, oldest first."""
    at_once: int = 0
    """How many evaluations may be under way while the operator goes on."""
    minutes: float | None = None
    """Minutes that were left of the step or of the session when the step began; None: no limit."""
    transferred: Transferred | None = None
    """The lineage of another problem that the run starts from, if any.

    If that problem has the same signature, the run's first version is ``transferred.source``. Otherwise the first
    versions are the problem's own seeds, and the operator has to adapt ``transferred.source``.
    """
    focus: int | None = None
    """Number of the version that the population asks to vary. None: the operator chooses; the last is the best."""
    interventions: Sequence[Intervention] = ()
    """The supervisor's interventions since the lineage last grew, oldest first."""
    desk: Desk = field(default_factory=lambda: FakeDesk().desk)
    paid: Sequence[PaidStep] = ()
    """What the run's last steps paid for models and gained, oldest first; empty where there is one model."""
    memories: Sequence[Memory] = ()
    """Notes, directions and handovers that earlier steps of the run left, oldest first."""
    directions: Sequence[Direction] = ()
    """Directions of other runs that this one has taken over, with their evidence."""
    requirement: str = ""
    """What a version of the run has to be, in words."""
    transcript: Sequence[Message] = ()
    """The transcript of the interrupted step that this one resumes; its attempts are in ``attempts``. Empty: none."""
    previous: Previous | None = None
    """The worker's last step; None if this step has to begin a conversation of its own."""

    def candidate(self, source: str) -> Candidate:
        """Return ``source`` as a candidate for the problem, under the name by which every process finds the problem."""
        return Candidate(name_of(self.problem), source)

    @property
    def asked(self) -> Version | None:
        """The version that the population, or else the supervisor's last intervention, asks to vary, if either does."""
        number = self.focus
        if number is None and self.interventions:
            number = self.interventions[-1].restart_from
        return next((version for version in self.versions if version.number == number), None)

    @property
    def unresolved(self) -> Sequence[AttemptSummary]:
        """The fastest attempts that are better than the best version in the mean, but not in enough draws of the
        model's constants to be accepted, at most ``UNRESOLVED``; the fastest first.
        """
        best = max(version.attempt.evaluation.geomean_tflops for version in self.versions)
        found = [
            attempt
            for attempt in self.attempts
            if attempt.ruling is Ruling.UNRESOLVED and attempt.geomean_tflops > best
        ]
        return sorted(found, key=lambda attempt: attempt.geomean_tflops, reverse=True)[:UNRESOLVED]

    @property
    def not_accepted(self) -> Sequence[AttemptSummary]:
        """The attempts that are neither versions nor among those in ``unresolved``, oldest first."""
        apart = {attempt.attempt_id for attempt in self.unresolved}
        return [each for each in self.attempts if each.version is None and each.attempt_id not in apart]

    @property
    def parent(self) -> Version:
        """The version to begin with: the one asked for, else the best."""
        return self.asked or self.versions[-1]


@dataclass(frozen=True, slots=True)
class Proposal:
    """What an operator returns: the attempt it submits, or None, and why."""

    attempt: Attempt | None
    reason: str
    """What was tried and seen, in the operator's words, for the record."""
    submission: Submission | None = None
    """The operator's own account of the attempt, if it gives one."""
    before: Sequence[Attempt] = ()
    """Attempts to become versions before it, slowest first: only the seeds of a run have company."""


class VariationOperator(Protocol):
    """Varies the lineage; each call is one step."""

    name: str

    def vary(self, brief: Brief) -> Proposal:
        """Propose the next version. An exception fails the step, never the run."""
        ...
