"""A run's long memory: notes that operators left, and how their hypotheses ended, ranked for the next step."""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from evaluator.target import ScoreKind
from lineage_db.records import AttemptSummary, Memory, Version

_HALF_LIFE_STEPS = 20
"""Half-life of a lesson's weight, in steps."""
_RELEVANCE = 2.0
"""Weight of relevance for a lesson whose every word is about the matter at hand."""
_NOTE = 0.6
"""Weight of a note: an operator thought it worth keeping."""
_FAILURE = 0.3
_GAIN = 10.0
"""Weight of a hypothesis per unit of log speed-up, good or bad; it reaches 1 at about 10 percent."""
_FAILURES_AT_HAND = 5
_WORD = re.compile(r"[a-z_][a-z_0-9.]{2,}")


@dataclass(frozen=True, slots=True)
class Lesson:
    """One line of the run's memory."""

    step: int
    attempt_id: int | None
    """The attempt that tested the hypothesis; None for a note."""
    text: str
    weight: float
    """How much the lesson matters by itself, whatever the next step is about."""


def lessons(
    memories: Iterable[Memory], attempts: Iterable[AttemptSummary], versions: Sequence[Version]
) -> list[Lesson]:
    """Return the notes and the outcomes of all hypotheses, in the order of their steps."""
    speeds = {version.number: version.attempt.evaluation.geomean_tflops for version in versions}
    score = versions[0].attempt.evaluation.score if versions else None
    kind = score.kind if score else ScoreKind.PREDICTED
    found = [Lesson(memory.step_number, None, memory.text, _NOTE) for memory in memories]
    found += [_outcome(attempt, speeds, kind) for attempt in attempts if attempt.hypothesis]
    return sorted(found, key=lambda lesson: lesson.step)


def matter_at_hand(parent: Version, attempts: Sequence[AttemptSummary]) -> str:
    """Return the words that describe the next step: its parent, what limits the parent, and the latest failures."""
    score = parent.attempt.evaluation.score
    critical = [case.critical or case.limiter for case in score.cases] if score else []
    failures = [attempt for attempt in attempts if not attempt.geomean_tflops][-_FAILURES_AT_HAND:]
    said = (parent.attempt.change, parent.attempt.hypothesis, *critical)
    return " ".join((*said, *(f"{attempt.change} {attempt.message}" for attempt in failures)))


def ranked(found: Sequence[Lesson], about: str, limit: int) -> list[Lesson]:
    """Return the ``limit`` most useful lessons: recent, about the words in ``about``, and of large effect."""
    newest = max((lesson.step for lesson in found), default=0)
    wanted = _words(about)

    def worth(lesson: Lesson) -> float:
        words = _words(lesson.text)
        relevance = len(words & wanted) / len(words) if words else 0.0
        recency = math.pow(0.5, (newest - lesson.step) / _HALF_LIFE_STEPS)
        return lesson.weight + _RELEVANCE * relevance + recency

    return sorted(found, key=worth, reverse=True)[:limit]


def _outcome(attempt: AttemptSummary, speeds: dict[int, float], kind: ScoreKind) -> Lesson:
    before = max((speeds.get(number, 0.0) for number in attempt.parents), default=0.0)
    start = f"attempt {attempt.attempt_id}: {attempt.hypothesis} [{attempt.change}]"
    if not attempt.geomean_tflops:
        return Lesson(
            attempt.step_number, attempt.attempt_id, f"{start} -> {attempt.status}: {attempt.message}", _FAILURE
        )
    effect, weight = f"{attempt.geomean_tflops:.1f}", 0.0
    if before:
        change = attempt.geomean_tflops / before
        effect, weight = f"{before:.1f} -> {effect}", min(1.0, _GAIN * abs(math.log(change)))
        effect = f"{effect} {kind} TFLOPS ({change - 1:+.1%})"
    became = f", version {attempt.version}" if attempt.version is not None else ""
    if attempt.decision and attempt.decision.refused:
        became = f", {attempt.decision.told}"
    return Lesson(attempt.step_number, attempt.attempt_id, f"{start} -> {effect}{became}", weight)


def _words(text: str) -> set[str]:
    return set(_WORD.findall(text.lower()))
