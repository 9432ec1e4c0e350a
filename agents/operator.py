"""The variation operator: ``Vary(P_t) = Agent(P_t, K, f)`` of the AVO paper (arXiv 2603.24517).

An operator gets a brief (lineage P_t, knowledge base K, scoring function f) and returns a proposal.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from evaluator.candidate import Candidate
from evaluator.evaluation import Fault
from evaluator.problem import Problem
from evaluator.target import Target
from knowledge_base.library import Library
from lineage_db.records import Attempt, Intervention, Run, Trial, Version

if TYPE_CHECKING:
    from evaluator.performance import Profile


class Scorer(Protocol):
    """The scoring function f, recording on the way."""

    def __call__(self, candidate: Candidate, *, change: str, parents: tuple[int, ...]) -> Attempt:
        """Evaluate and record ``candidate``; ``parents`` are the version numbers it was made from.

        A candidate that the run has already is not evaluated again. Raises ``CandidateTaken`` while another worker
        evaluates it, and ``EvaluatorUnavailable``.
        """
        ...


class Explain(Protocol):
    """Says why a candidate is as fast as predicted. Takes seconds, and is recorded nowhere."""

    def __call__(self, candidate: Candidate, case: str | None = None) -> "tuple[Profile, ...] | Fault":
        """Return a profile of each benchmark case, or of the one called ``case``; numbers are not checked.

        Raises ``UnknownProblem`` for a case that is none, and ``EvaluatorUnavailable``.
        """
        ...


@dataclass(frozen=True)
class Transferred:
    """The lineage of another problem that a run starts from."""

    run: Run
    """The one it is from."""
    versions: Sequence[Version]
    """Up to the one that was named, seed first: what each changed and gained. Never empty."""

    @property
    def source(self) -> str:
        """Of the version that was named. It defines the entry function of ``run.problem``."""
        return self.versions[-1].attempt.source


@dataclass(frozen=True)
class Brief:
    """What an operator gets for one step."""

    problem: Problem
    target: Target
    suite: str
    seed: int
    """Of this step: the operator's only source of randomness."""
    versions: Sequence[Version]
    """The lineage, or the part of the population that the step works on, by number. Never empty."""
    trials: Sequence[Trial]
    """Every attempt of the run so far, failed ones too, oldest first."""
    knowledge: Library
    evaluate: Scorer
    profile: Explain
    transferred: Transferred | None = None
    """What was taken over from another problem. Where that problem has the same entry function the first version is
    ``transferred.source`` as it is, else one of the problem's own seeds: the source has to be adapted.
    """
    focus: int | None = None
    """Number of the version that the population asks to vary; None: the operator chooses, the last is the best."""
    interventions: Sequence[Intervention] = ()
    """What the supervisor has said since the lineage last grew, oldest first."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """What an operator returns: the attempt it submits, or None, and why."""

    attempt: Attempt | None
    reason: str
    """What was tried and seen, for the record."""


class VariationOperator(Protocol):
    """Varies the lineage, one step a call."""

    name: str

    def vary(self, brief: Brief) -> Proposal:
        """Propose the next version. Exceptions fail the step, never the run."""
        ...
