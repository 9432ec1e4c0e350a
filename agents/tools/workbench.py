"""The workbench: what a step has in hand, kept exactly whatever the conversation forgets."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import msgspec

from lineage_db.records import Attempt, Submission


@dataclass(frozen=True, slots=True)
class Try:
    """A candidate that was evaluated in this step, or before it was taken up again."""

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
    tries: list[Try] = field(default_factory=list)
    results: dict[str, str] = field(default_factory=dict)
    """By tool, what the last check, evaluation and profile said."""
    submission: Submission | None = None
    done: bool = False
    """Whether the step was ended by a submission, of an attempt or of nothing."""
    reason: str = ""
    """What was said of a submission of nothing."""

    @property
    def best(self) -> Try | None:
        """The fastest correct try."""
        return max((each for each in self.tries if each.tflops > 0), key=lambda each: each.tflops, default=None)

    def add(self, attempt: Attempt, hypothesis: str, expected: str, outcome: str) -> None:
        """Put an evaluated attempt beside the others."""
        tflops = attempt.evaluation.geomean_tflops
        self.tries = [each for each in self.tries if each.attempt_id != attempt.id]
        self.tries.append(Try(attempt.id, hypothesis, attempt.change, expected, outcome, tflops))

    def submit(self, tried: Try, change: str, seen: str) -> None:
        """End the step with an attempt."""
        self.submission = Submission(tried.attempt_id, change, tried.hypothesis, tried.expected, seen)
        self.done = True

    def to_json(self) -> dict[str, Any]:
        """Plain data; ``from_json`` takes it back."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Workbench":
        """Rebuild from ``to_json``'s data."""
        return msgspec.convert(data, cls)


def numbered(source: str, first: int = 1, last: int | None = None) -> str:
    """Return lines of a source with their numbers."""
    lines: Sequence[str] = source.splitlines()
    chosen = list(enumerate(lines, start=1))[first - 1 : last]
    return "\n".join(f"{number:>4} {line}" for number, line in chosen)
