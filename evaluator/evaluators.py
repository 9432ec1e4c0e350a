"""The seam between search and judge: an ``Evaluator`` answers requests about candidates.

The *judge* decides, in the process that it runs in: ``avo.evaluator.judging.judge.Judge``. An *evaluator* is a judge,
or passes requests on to one: ``avo.evaluator.judges`` makes judges in this process and in others, and a search shares
several of these among its workers. They differ in ``ask`` alone.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self, TypeAlias, get_args

from avo.evaluator.candidate import Candidate, Incumbent
from avo.evaluator.catalogue import get_cases, get_problem
from avo.evaluator.evaluation import Evaluation, Fault
from avo.evaluator.inspection import Findings, Inspection, Look
from avo.evaluator.problem import HELD_OUT
from avo.evaluator.profile import Profile
from avo.evaluator.target import Target

WALL_S = 300.0
"""How long an answer may take by default."""
CLOSELY = 4
"""How many times as long an examination before acceptance may take: it looks at many more cases."""
TO_COMPARE = 0.7
"""How long a comparison of measured speeds may take, as a share of that, and on top of it: it ends undecided then."""
EQUIVALENCE_MARGIN = 0.005
"""Measured speeds that differ by less than this fraction count as equal by default."""
CASCADE = 0.25
"""By default, a candidate whose optimistic prediction is further than this fraction below the incumbent's is not timed.
"""
Clock: TypeAlias = Literal["sustained", "burst"]
"""Which clock speeds are measured at: the one under lasting work, as published figures are, or that of single runs."""
CLOCKS: tuple[Clock, ...] = get_args(Clock)
"""The default first."""


@dataclass(frozen=True, slots=True)
class EvaluateRequest:
    """Judge a candidate on the evaluator's suite; the answer is an ``Evaluation``."""

    candidate: Candidate
    incumbent: Incumbent | None = None
    """Where speed is measured, the candidate is timed in turn with it; elsewhere it does not matter."""


@dataclass(frozen=True, slots=True)
class VerifyRequest:
    """Examine a candidate closely before it is accepted; the answer is an ``Evaluation``."""

    candidate: Candidate
    plan_digest: str | None = None
    """What identified its launch plans when it was scored on the evaluator's suite: they must be the same now. None:
    it was not scored before.
    """


@dataclass(frozen=True, slots=True)
class ProfileRequest:
    """Explain a candidate's predicted speed; the answer is ``tuple[Profile, ...]`` or a ``Fault``."""

    candidate: Candidate
    case: str | None = None
    """The benchmark case; None for all."""


AnyRequest: TypeAlias = EvaluateRequest | VerifyRequest | ProfileRequest | Inspection
"""The answer to an ``Inspection`` is ``Findings``."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an answer is."""

    done: int = 0
    of: int = 0
    """How many checks, timed parts or rounds are done, of how many at most; 0 of 0 where that is not known."""
    words: str = ""
    """What a judge that measures says of it: case, round, ratio, time left. Others count checks."""
    waits: bool = False
    """Whether it waits for other judges, until it tells more: no limit of time counts that."""


Tell: TypeAlias = Callable[[Progress], None]
"""Hears how far an answer is."""


class Evaluator(ABC):
    """Answers requests about candidates for one target and suite. ``close`` it, or use it in a ``with``.

    A candidate's fault is a value. All methods raise ``EvaluatorUnavailable`` when there is no answer, and
    ``UnknownProblem`` for a problem, suite or case that does not exist.
    """

    @property
    @abstractmethod
    def target(self) -> Target:
        """What it judges for, with the figures of its GPU where speed is measured."""

    @property
    def at_once(self) -> int:
        """How many requests of several threads are answered side by side."""
        return 1

    @abstractmethod
    def ask(self, request: AnyRequest) -> Any:
        """Return the answer, of the type that the class of ``request`` names."""

    def follow(self, request: AnyRequest, tell: Tell) -> Any:
        """Return the answer like ``ask``; meanwhile ``tell`` hears how far it is, if this evaluator knows that."""
        return self.ask(request)

    def evaluate(
        self, candidate: Candidate, incumbent: Incumbent | None = None, tell: Tell | None = None
    ) -> Evaluation:
        """Return the verdict; where speed is measured, the score is compared with that of ``incumbent``.

        ``tell`` hears how far it is.
        """
        request = EvaluateRequest(candidate, incumbent)
        evaluation: Evaluation = self.follow(request, tell) if tell else self.ask(request)
        return evaluation

    def verify(self, candidate: Candidate, plan_digest: str | None = None, tell: Tell | None = None) -> Evaluation:
        """Return a new verdict, at shapes and lengths that no variation operator is shown and in larger samples.

        ``plan_digest`` is that of the candidate's earlier evaluation, if there was one.

        The samples are those of the evaluator's own suite. The score is that of the suite ``HELD_OUT``, or of the
        evaluator's own where the problem has none. ``tell`` hears how far it is.
        """
        request = VerifyRequest(candidate, plan_digest)
        evaluation: Evaluation = self.follow(request, tell) if tell else self.ask(request)
        return evaluation

    def profile(self, candidate: Candidate, case: str | None = None) -> tuple[Profile, ...] | Fault:
        """Return why ``candidate`` is as fast as predicted, for each benchmark case or the one called ``case``.

        Whether its numbers are right is not checked.
        """
        profiles: tuple[Profile, ...] | Fault = self.ask(ProfileRequest(candidate, case))
        return profiles

    def inspect(self, inspection: Inspection) -> Findings:
        """Return what is seen of a candidate or a script, without a verdict."""
        findings: Findings = self.ask(inspection)
        return findings

    def inspect_all(self, inspections: Sequence[Inspection]) -> list[Findings]:
        """Return what ``inspect`` does of each; an evaluator that has several judges lets them work side by side."""
        return [self.inspect(each) for each in inspections]

    def close(self) -> None:  # noqa: B027 - most have nothing to end
        """End what was started to answer."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def suite_of(request: AnyRequest, suite: str) -> str:
    """Return the suite that an evaluator of ``suite`` answers ``request`` for.

    Raises ``UnknownProblem`` for a problem, suite or case that does not exist, and ``InvalidProblem``.
    """
    if isinstance(request, Inspection):
        suite = request.suite or suite
        if request.look is not Look.SCRIPT:
            get_cases(get_problem(request.problem), suite, request.case)
        return suite
    problem = get_problem(request.candidate.problem)
    if isinstance(request, VerifyRequest) and HELD_OUT in problem.suites:
        suite = HELD_OUT
    get_cases(problem, suite, request.case if isinstance(request, ProfileRequest) else None)
    return suite
