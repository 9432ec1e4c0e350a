"""Directions: ideas for a faster kernel, with their hypotheses and the evidence of each test; files of them."""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import msgspec

from avo.evaluator.target import ScoreKind
from avo.lineage_db.errors import BadMemory

FORMAT = "avo memory 1"
"""The ``format`` of a file of directions. Fields may be added to it; another number means that some have changed."""
MOST_BYTES = 20_000_000
"""Largest file that a run takes over."""
_LONGEST = 4_000
"""Most characters of a text, and entries of a list, in a file that a run takes over."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """One test of a direction: a look at a kernel, or attempts."""

    step: int
    kind: ScoreKind
    """Whether the speeds were predicted or measured."""
    gain: float | None = None
    """Gain over ``base``, 0.03 being 3 percent; None without a speed."""
    resolution: float | None = None
    """Least gain, either way, that the test tells apart from none; None where that is not known."""
    resolved: bool = False
    """Whether the gain or loss was told apart from none."""
    base: str = ""
    """The kernel that was edited, such as ``version 3``."""
    attempts: tuple[int, ...] = ()
    """Ids of the attempts; empty for a look, whose kernel was compiled and predicted but not executed."""
    said: str = ""
    """The fault, or what else was seen."""
    digest: str = ""
    """Digest of the kernel that was tested."""
    run: str = ""
    """Name of the run; empty in that run's own database."""
    problem: str = ""
    target: str = ""

    @property
    def words(self) -> str:
        """The outcome and where it was seen, on one line."""
        found = self.said
        if self.gain is not None:
            spread = "" if self.resolution is None else f" ± {self.resolution:.1%}"
            over = f" over {self.base}" if self.base else ""
            resolved = "" if self.resolved else "not resolved, "
            found = f"{resolved}{self.gain:+.1%}{spread}{over}, {self.kind}{f'; {self.said}' if self.said else ''}"
        named = f"{'attempt' if len(self.attempts) == 1 else 'attempts'} {', '.join(map(str, self.attempts))}"
        place = f"run {self.run}, {self.problem} on {self.target}" if self.run else f"step {self.step}"
        return f"{found} ({place}, {named if self.attempts else 'not executed'})"


@dataclass(frozen=True, slots=True)
class Direction:
    """A direction and what is known of it."""

    name: str
    hypothesis: str
    evidence: tuple[Evidence, ...] = ()
    """Oldest first; empty for one that was not tested."""
    run: str = ""
    """Name of the run that listed it; empty in that run's own database."""

    @property
    def words(self) -> str:
        """All of it in one paragraph, the outcome first."""
        found = "; ".join(each.words for each in self.evidence)
        found = found or ("not tested" if not self.run else f"not tested in run {self.run}")
        return f"{self.name}: {found.rstrip('.')}. Hypothesis: {self.hypothesis.strip().rstrip('.')}."

    def seen_in(self, step: int) -> "Direction":
        """Return the direction with all evidence of one step."""
        return replace(self, evidence=tuple(replace(each, step=step) for each in self.evidence))

    def placed(self, run: str, problem: str, target: str) -> "Direction":
        """Return the direction with its run, and the place of its tests, where it says of none."""
        evidence = (
            each if each.run else replace(each, run=run, problem=problem, target=target) for each in self.evidence
        )
        return replace(self, evidence=tuple(evidence), run=self.run or run)


def merged(found: Iterable[Direction]) -> list[Direction]:
    """Return the directions with those of one name as one, in the order in which each name came first."""
    by_name = dict[str, Direction]()
    for each in found:
        known = by_name.get(key := each.name.strip().lower())
        hypothesis = (known.hypothesis if known else "") or each.hypothesis
        evidence = dict.fromkeys((*(known.evidence if known else ()), *each.evidence))
        by_name[key] = replace(known or each, hypothesis=hypothesis, evidence=tuple(evidence))
    return list(by_name.values())


def to_file(directions: Sequence[Direction], run: str, problem: str, target: str) -> dict[str, Any]:
    """Return the directions of a run as plain data that ``from_file`` reads, each test with its place."""
    placed = [asdict(each.placed(run, problem, target)) for each in directions]
    return {"format": FORMAT, "run": run, "problem": problem, "target": target, "directions": placed}


def from_file(text: str | bytes) -> list[Direction]:
    """Return the directions of a file that ``avo memory RUN --json`` has written. Raises ``BadMemory``."""
    if len(text) > MOST_BYTES:
        raise BadMemory(f"it is larger than {MOST_BYTES // 1_000_000} MB: write it with --limit 100")
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        raise BadMemory("it is not JSON: is it whole?") from None
    named = data.get("format") if isinstance(data, dict) else None
    if named != FORMAT:
        raise BadMemory(f"its format is {named!r:.60}, not {FORMAT!r}: write it with avo memory RUN --json")
    try:
        found = msgspec.convert(data.get("directions"), list[Direction])
    except msgspec.ValidationError as error:
        raise BadMemory(f"its directions are not as avo memory writes them: {error}") from None
    for each in found:
        values = [each.name, each.hypothesis, each.run, each.evidence]
        values += [getattr(one, name.name) for one in each.evidence for name in fields(one)]
        long = any(isinstance(value, str | tuple) and len(value) > _LONGEST for value in values)
        if not each.name.strip() or long or any(isinstance(v, float) and not math.isfinite(v) for v in values):
            what = f"no name, over {_LONGEST} characters in a text or entries in a list, or a figure that is no number"
            raise BadMemory(f"direction {each.name!r:.60} has {what}")
    if not all(one.run for each in found for one in each.evidence):
        raise BadMemory("a test does not say of which run it is: write the file with avo memory RUN --json")
    return found
