"""The workbench: what a step has in hand, kept exactly whatever the conversation forgets."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from lineage_db.records import Attempt, Submission


@dataclass(frozen=True, slots=True)
class StepAttempt:
    """An attempt of this step, also one from before the step was resumed, as the agent knows it."""

    attempt_id: int
    hypothesis: str
    change: str
    expected: str
    outcome: str
    """In words, the score or the fault."""
    tflops: float
    """0.0 for a faulty one."""

    @property
    def line(self) -> str:
        """All of it in a line."""
        said = f"{self.hypothesis} (expected {self.expected})"
        return f"attempt {self.attempt_id}: {self.outcome} [{self.change}] hypothesis: {said}"


@dataclass
class Workbench:
    """What changes while a step goes on."""

    source: str
    """The working source."""
    parents: tuple[int, ...]
    """Numbers of the versions that it is made from."""
    attempts: list[StepAttempt] = field(default_factory=list)
    results: dict[str, str] = field(default_factory=dict)
    """By tool, what the last check, evaluation and profile said."""
    submission: Submission | None = None
    done: bool = False
    """Whether the step was ended by a submission, of an attempt or of nothing."""
    reason: str = ""
    """What was said of a submission of nothing."""

    @property
    def best(self) -> StepAttempt | None:
        """The fastest correct attempt."""
        return max((each for each in self.attempts if each.tflops > 0), key=lambda each: each.tflops, default=None)

    def add(self, attempt: Attempt, hypothesis: str, expected: str, outcome: str) -> None:
        """Put an evaluated attempt beside the others."""
        tflops = attempt.evaluation.geomean_tflops
        self.attempts = [each for each in self.attempts if each.attempt_id != attempt.id]
        self.attempts.append(StepAttempt(attempt.id, hypothesis, attempt.change, expected, outcome, tflops))

    def submit(self, attempt: StepAttempt, change: str, seen: str) -> None:
        """End the step with an attempt."""
        self.submission = Submission(attempt.attempt_id, change, attempt.hypothesis, attempt.expected, seen)
        self.done = True

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data, which ``from_json`` takes back. Its keys are on record: they do not change."""
        data = asdict(self)
        data["tries"] = data.pop("attempts")
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Workbench":
        """Rebuild from ``to_json``'s data."""
        submission = data["submission"]
        return cls(
            data["source"],
            tuple(data["parents"]),
            [StepAttempt(**each) for each in data["tries"]],
            dict(data["results"]),
            None if submission is None else Submission(**submission),
            data["done"],
            data["reason"],
        )


def numbered(source: str, first: int = 1, last: int | None = None) -> str:
    """Return lines of a source with their numbers."""
    lines: Sequence[str] = source.splitlines()
    chosen = list(enumerate(lines, start=1))[first - 1 : last]
    return "\n".join(f"{number:>4} {line}" for number, line in chosen)
