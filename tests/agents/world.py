"""A step in memory for operators with models: sources say how fast they are, and everything written down is kept."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from avo.agents.desk import FakeDesk, Left
from avo.agents.errors import CandidateTaken, LooksSpent
from avo.agents.operator import Brief, BuiltOn, Explain, Variation
from avo.evaluator.candidate import Candidate
from avo.evaluator.catalogue import get_problem
from avo.evaluator.evaluation import Evaluation, Fault, Resources, Status
from avo.evaluator.inspection import Findings
from avo.evaluator.resolution import Difference
from avo.evaluator.targets import get_target
from avo.knowledge_base.library import Library
from avo.lineage_db.decision import Decision, Lead
from avo.lineage_db.records import Attempt, AttemptSummary, Version
from tests.avo.fakes import NOW, SEED, judge

UNRESOLVED = Lead(0, Difference(0.056, 0.71)).decide(0.01, 0.9)
WHY = {"hypothesis": "fewer instructions are issued in the hot loop", "change": "a number", "expected": "+10%"}


def no_profile(candidate: Candidate, case: str | None = None) -> Fault:
    """Explain nothing."""
    return Fault(Status.UNSUPPORTED, "no prediction")


def predicted(variation: Variation) -> Findings:
    """Return a look at a source of this world: its speed, or that it is no kernel."""
    found = judge(variation.candidate)
    kernel = Resources("kernel", 168, 16, 1024, 0, 4, 1)
    return Findings(None if found.correct else Fault(found.status, found.message), "", (kernel,), score=found.score)


@dataclass
class World:
    """A run with a seed of 100 TFLOPS; ``evaluations`` limits those of the step."""

    evaluations: int | None = None
    spent: str = ""
    desk: FakeDesk = field(default_factory=lambda: FakeDesk(findings=Findings(text="looked")))
    versions: list[Version] = field(default_factory=list)
    attempts: list[AttemptSummary] = field(default_factory=list)
    tried: list[str] = field(default_factory=list)
    looks: int | None = None
    """Limits the looks of the step."""
    looked: list[Variation] = field(default_factory=list)
    taken: bool = False
    """Whether another worker has every candidate."""

    def __post_init__(self) -> None:
        self.accept(SEED)

    def accept(self, source: str, parents: tuple[int, ...] = (), hypothesis: str = "") -> Version:
        """Add a version."""
        attempt = self._attempt(source, f"to {source}", parents, hypothesis)
        version = Version(1, len(self.versions), parents, NOW, attempt)
        self.versions.append(version)
        self.attempts.append(self._summary(attempt, version.number))
        return version

    def fail(
        self,
        source: str = "nonsense",
        hypothesis: str = "",
        decision: Decision | None = None,
        built_on: int | None = None,
    ) -> None:
        """Add an attempt that is no version."""
        attempt = replace(self._attempt(source, f"to {source}", (0,), hypothesis, built_on), decision=decision)
        self.desk.attempts[attempt.id] = attempt
        self.attempts.append(self._summary(attempt, None))

    def evaluate(
        self,
        candidate: Candidate,
        *,
        change: str,
        parents: tuple[int, ...],
        hypothesis: str = "",
        built_on: BuiltOn = None,
    ) -> Attempt:
        """Judge and record."""
        if self.taken:
            raise CandidateTaken
        for attempt in self.desk.attempts.values():
            if attempt.digest == candidate.digest:
                return attempt
        self.tried.append(candidate.source)
        if self.evaluations is not None:
            self.evaluations -= 1
        self.limit()
        edited = built_on() if callable(built_on) else built_on
        return self._attempt(candidate.source, change, parents, hypothesis, edited)

    def look(self, variations: Sequence[Variation]) -> Sequence[Findings]:
        """Predict what the judge would find."""
        if self.looks is not None and len(variations) > self.looks:
            raise LooksSpent(len(variations), self.looks)
        self.looks = None if self.looks is None else self.looks - len(variations)
        self.looked += variations
        self.limit()
        return list(map(predicted, variations))

    def limit(self, **left: float) -> None:
        """Set what is left."""
        self.desk.budget = replace(Left(evaluations=self.evaluations, looks=self.looks, spent=self.spent), **left)

    def brief(self, explain: Explain = no_profile, **more: object) -> Brief:
        """Return the brief of a step that begins now."""
        self.limit()
        brief = Brief(
            problem=get_problem("mha"),
            target=get_target("h100"),
            suite="quick",
            seed=7,
            versions=tuple(self.versions),
            attempts=tuple(self.attempts),
            knowledge=Library.load(),
            evaluate=self.evaluate,
            look=self.look,
            profile=explain,
            desk=self.desk.desk,
        )
        return replace(brief, **more)  # type: ignore[arg-type]

    def kinds(self) -> Sequence[str]:
        """Return the kinds of the transcript's entries."""
        return [kind for kind, _ in self.desk.entries]

    def _attempt(
        self, source: str, change: str, parents: tuple[int, ...], hypothesis: str, built_on: int | None = None
    ) -> Attempt:
        candidate, number = Candidate("mha", source), len(self.desk.attempts) + 1
        evaluation: Evaluation = judge(candidate)
        attempt = Attempt(
            number, 1, number, candidate.digest, source, change, parents, evaluation, NOW, NOW, hypothesis,
            built_on=built_on,
        )  # fmt: skip
        self.desk.attempts[number] = attempt
        return attempt

    def _summary(self, attempt: Attempt, version: int | None) -> AttemptSummary:
        found = attempt.evaluation
        return AttemptSummary(
            attempt.id, attempt.step_id, attempt.digest, attempt.plan_digest, attempt.status, found.geomean_tflops,
            found.message, attempt.change, attempt.parents, version, 1.0, NOW, attempt.hypothesis, attempt.decision,
            attempt.built_on,
        )  # fmt: skip
