"""The workbench: the state of a step, kept exactly even when the conversation is compacted."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import msgspec

from avo.agents.directions import NAMED
from avo.agents.tools.editing import Passage
from avo.lineage_db.records import Attempt, Submission

WORKING = "working source"
"""What the working source is called beside versions and attempts."""


@dataclass(frozen=True, slots=True)
class StepAttempt:
    """An attempt of this step, or of the interrupted step that it resumes."""

    attempt_id: int
    hypothesis: str
    change: str
    expected: str
    outcome: str
    """The score or the fault, in words."""
    tflops: float
    """The score; 0.0 for a faulty candidate."""
    acceptable: bool = False
    """Whether it would have been accepted when it was evaluated."""
    built_on: int | None = None
    """As in ``Attempt``."""

    @property
    def line(self) -> str:
        """The whole attempt on one line."""
        said = f"{self.hypothesis} (expected {self.expected})"
        return f"attempt {self.attempt_id}: {self.outcome} [{self.change}] hypothesis: {said}"


@dataclass(frozen=True, slots=True)
class Base:
    """A source to work from, and what it was made from itself."""

    source: str
    name: str
    """What it is called."""
    parents: tuple[int, ...]
    built_on: int | None = None
    follows: int | None = None
    """These three as in ``Workbench``."""


@dataclass(frozen=True, slots=True)
class Varied:
    """The variants that were looked at last: a source, and what each of them replaces in it."""

    source: str
    passages: dict[str, tuple[Passage, ...]]
    """By the variant's name."""
    directions: bool = False
    """Whether they are the tests of directions, by the names of these."""
    direction: str = ""
    """Name of the direction that the source follows; empty: none."""
    parents: tuple[int, ...] = ()
    """As in ``Base``, with the next two; empty: on record from before they were kept."""
    built_on: int | None = None
    follows: int | None = None


@dataclass(frozen=True, slots=True)
class Started:
    """An evaluation that was begun and whose result nobody has read."""

    number: int
    """From 1, within the step."""
    source: str
    change: str
    hypothesis: str
    expected: str
    parents: tuple[int, ...]
    built_on: int | None = None
    """As in ``Attempt``."""
    follows: int | None = None
    """Number of the evaluation whose source was edited, while that is under way itself."""


@dataclass
class Workbench:
    """The state of a step that is under way."""

    source: str
    """The working source."""
    parents: tuple[int, ...]
    """Numbers of the versions that the working source is made from."""
    attempts: list[StepAttempt] = field(default_factory=list)
    results: dict[str, str] = field(default_factory=dict)
    """The last result of each of the tools check, evaluate, profile and try_variants, by name."""
    submission: Submission | None = None
    varied: Varied | None = None
    """None: none were looked at."""
    done: bool = False
    """Whether a submission, of an attempt or of nothing, has ended the step."""
    reason: str = ""
    """The reason given for submitting nothing."""
    built_on: int | None = None
    """Id of the attempt that the working source is edited from; None: that of the first parent."""
    handover: str = ""
    """What the model hands over to the next step, in its own words."""
    started: list[Started] = field(default_factory=list)
    """The evaluations under way, oldest first."""
    begun: int = 0
    """How many evaluations were started in this way."""
    follows: int | None = None
    """Number of the evaluation under way that the working source is edited from, if it is."""
    direction: str = ""
    """Name of the explored direction that the working source follows; empty: none."""

    @property
    def lines(self) -> list[str]:
        """The attempts and the evaluations under way, a line each."""
        under_way = (f"evaluation {each.number}, under way [{each.change}]" for each in self.started)
        return [*(each.line for each in self.attempts), *under_way]

    @property
    def best(self) -> StepAttempt | None:
        """The fastest attempt that would be accepted; if there is none, the fastest correct one."""
        correct = (each for each in self.attempts if each.tflops > 0)
        return max(correct, key=lambda each: (each.acceptable, each.tflops), default=None)

    def add(self, attempt: Attempt, hypothesis: str, expected: str, outcome: str) -> None:
        """Add an evaluated attempt to the others."""
        tflops = attempt.evaluation.geomean_tflops
        self.attempts = [each for each in self.attempts if each.attempt_id != attempt.id]
        acceptable = attempt.decision is not None and not attempt.decision.refused
        self.attempts.append(
            StepAttempt(attempt.id, hypothesis, attempt.change, expected, outcome, tflops, acceptable, attempt.built_on)
        )

    def start(self, what: Started) -> None:
        """Note that an evaluation of the working source is under way."""
        self.started.append(what)
        self.begun = what.number
        self.edited_from(self.built_on, what.number)

    def end(self, number: int, attempt_id: int | None) -> None:
        """Note that an evaluation has ended, and which attempt it has come to. If to none, what was edited from its
        source was edited from what that was edited from.
        """
        ended = next((each for each in self.started if each.number == number), None)
        built_on, follows = (ended.built_on, ended.follows) if ended and attempt_id is None else (attempt_id, None)
        self.started = [
            replace(each, built_on=built_on, follows=follows) if each.follows == number else each
            for each in self.started
            if each.number != number
        ]
        if self.follows == number:
            self.built_on, self.follows = built_on, follows
        if self.varied is not None and self.varied.follows == number:
            self.varied = replace(self.varied, built_on=built_on, follows=follows)

    def edited_from(self, built_on: int | None, follows: int | None) -> None:
        """Note the attempt or evaluation of the working source, from which it and variants of it are edited now."""
        self.built_on, self.follows = built_on, follows
        if self.varied is not None and self.varied.source == self.source:
            self.varied = replace(self.varied, built_on=built_on, follows=follows)

    def start_from(self, base: Base) -> None:
        """Make the source of a version or attempt the working source."""
        self.source, self.parents, self.built_on, self.follows = base.source, base.parents, base.built_on, base.follows
        self.direction = ""

    def take(self, variant: str, source: str) -> None:
        """Make a variant, which has this source, the working source; it is made from what its base was made from."""
        self.source = source
        if self.varied is not None:
            self.direction = variant if self.varied.directions else self.varied.direction
            if self.varied.parents:
                self.parents = self.varied.parents
                self.built_on, self.follows = self.varied.built_on, self.varied.follows

    def named(self, change: str) -> str:
        """Return an attempt's ``change`` after the name of the direction that it follows, if any."""
        follows = self.direction and not change.lower().startswith(f"{self.direction}{NAMED}".lower())
        return f"{self.direction}{NAMED}{change}" if follows else change

    def submit(self, attempt: StepAttempt, change: str, seen: str) -> None:
        """End the step with an attempt."""
        self.submission = Submission(attempt.attempt_id, change, attempt.hypothesis, attempt.expected, seen)
        self.done = True

    def whole_change(self, attempt: StepAttempt) -> str:
        """Return what an attempt changes against its parents: the edits of this step that led to it, in order."""
        known = {each.attempt_id: each for each in self.attempts}
        changes = [attempt.change]
        while (number := attempt.built_on) in known:
            attempt = known[number]
            changes.insert(0, attempt.change)
        return "; then ".join([*(() if number is None else (f"attempt {number}",)), *changes])

    def to_json(self) -> dict[str, Any]:
        """Return plain data that ``from_json`` reads. Its keys are on record: they do not change."""
        data = asdict(self)
        data["tries"] = data.pop("attempts")
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Workbench":
        """Rebuild a workbench from the data of ``to_json``."""
        return msgspec.convert({**data, "attempts": data["tries"]}, cls)


def numbered(source: str, first: int = 1, last: int | None = None) -> str:
    """Return lines ``first`` to ``last`` of a source with their numbers."""
    lines: Sequence[str] = source.splitlines()
    chosen = list(enumerate(lines, start=1))[first - 1 : last]
    return "\n".join(f"{number:>4} {line}" for number, line in chosen)
