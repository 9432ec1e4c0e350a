"""A run's long memory: notes, directions, how hypotheses ended and what steps handed over, ranked or found by words."""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from avo.agents.descent import Base, Descent
from avo.agents.directions import FAILURE, effect, kind_of_scores, weight
from avo.evaluator.target import ScoreKind
from avo.evaluator.units import figure
from avo.knowledge_base.index import Index
from avo.knowledge_base.note import Note
from avo.lineage_db.directions import Direction
from avo.lineage_db.entries import Memory
from avo.lineage_db.records import AttemptSummary, Version

_HALF_LIFE_STEPS = 20
"""Half-life of a lesson's weight, in steps."""
_RELEVANCE = 2.0
"""Weight of relevance for a lesson whose every word is about the matter at hand."""
_NOTE = 0.6
"""Weight of a note: an operator thought it worth keeping."""
_FAILURES_AT_HAND = 5
_WORD = re.compile(r"[a-z_][a-z_0-9.]{2,}")


@dataclass(frozen=True, slots=True)
class Lesson:
    """One line of the run's memory."""

    step: int
    attempt_id: int | None
    """The attempt that tested the hypothesis; None for notes and directions."""
    text: str
    weight: float
    """How much the lesson matters by itself, whatever the next step is about."""
    kind: str = ""
    """What it is, such as ``note``; empty for the outcome of a hypothesis."""

    @property
    def line(self) -> str:
        """The lesson after its step and kind."""
        return f"step {self.step}{f', {self.kind}' if self.kind else ''}: {self.text}"


@dataclass(frozen=True, slots=True)
class Handover:
    """What a step left to the next."""

    step: int
    version: int | None
    """The last version that an attempt of the step became."""
    text: str

    @property
    def of(self) -> str:
        """The step, and what came of it."""
        return f"step {self.step}, which made {'no version' if self.version is None else f'version {self.version}'}"


def lessons(
    memories: Iterable[Memory],
    attempts: Iterable[AttemptSummary],
    versions: Sequence[Version],
    taken: Iterable[Direction] = (),
) -> list[Lesson]:
    """Return the notes, the directions that steps listed, those ``taken`` over from other runs as of step 0, and the
    outcomes of all hypotheses, in the order of their steps.

    The text of an outcome begins with what came of the edit, against the kernel that was edited.
    """
    attempts = list(attempts)
    descent, kind = Descent(versions, attempts), kind_of_scores(versions)
    found = [Lesson(0, None, each.words, weight(each), "taken over") for each in taken]
    for memory in memories:
        if memory.direction is not None:
            of_direction = weight(memory.direction)
            found.append(Lesson(memory.step_number, None, memory.text, of_direction, "direction"))
        elif not memory.handover:
            found.append(Lesson(memory.step_number, None, memory.text, _NOTE, "note"))
    found += [_outcome(attempt, descent, kind) for attempt in attempts if attempt.hypothesis]
    return sorted(found, key=lambda lesson: lesson.step)


def matter_at_hand(parent: Version, attempts: Sequence[AttemptSummary]) -> str:
    """Return the words that describe the next step: its parent, what limits the parent, and the latest failures."""
    score = parent.attempt.evaluation.score
    critical = [case.critical or case.limiter for case in score.cases] if score else []
    failures = [attempt for attempt in attempts if not attempt.geomean_tflops][-_FAILURES_AT_HAND:]
    said = (parent.change, parent.attempt.hypothesis, *critical)
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


def handed_over(memories: Sequence[Memory], attempts: Sequence[AttemptSummary], limit: int) -> list[Handover]:
    """Return the last ``limit`` handovers, the newest first."""
    latest = {memory.step_number: memory.text for memory in memories if memory.handover}
    versions = {attempt.step_number: attempt.version for attempt in attempts if attempt.version is not None}
    return [Handover(step, versions.get(step), latest[step]) for step in sorted(latest, reverse=True)[:limit]]


def recalled(
    query: str,
    memories: Sequence[Memory],
    attempts: Sequence[AttemptSummary],
    versions: Sequence[Version],
    taken: Sequence[Direction],
    limit: int,
) -> list[str]:
    """Return what all steps have learnt, taken over and handed over that shares words with ``query``, best first, each
    in full.
    """
    texts = [lesson.line for lesson in lessons(memories, attempts, versions, taken)]
    texts += [f"handed over by {each.of}: {each.text}" for each in handed_over(memories, attempts, len(memories))]
    return [texts[place] for place in matching(query, texts)[:limit]]


def matching(query: str, texts: Sequence[str]) -> list[int]:
    """Return the places of the ``texts`` that share a word with ``query``, best first."""
    passages = [Note(str(place), "", (), (), (), "", text) for place, text in enumerate(texts)]
    return [int(note.id) for note in Index(passages).ranked(query)]


def _outcome(attempt: AttemptSummary, descent: Descent, kind: ScoreKind) -> Lesson:
    """Return what came of an attempt, the outcome first.

    All that a version changes is compared with its parent, an attempt's edit with the kernel that was edited.
    """
    whole = bool(attempt.whole_change)
    base = descent.parent(attempt.parents) if whole else descent.base(attempt)
    outcome, of_outcome = f"{attempt.status.words}: {attempt.message}", FAILURE
    if attempt.geomean_tflops:
        outcome = _effect(attempt.geomean_tflops, base, kind)
        of_outcome = effect(attempt.geomean_tflops / base.tflops - 1) if base else 0.0
    if attempt.version is not None:
        outcome += f", version {attempt.version}"
    elif attempt.decision and attempt.decision.refused:
        outcome += f", {attempt.decision.told}"
    said = [f"attempt {attempt.attempt_id}: {outcome}", f"Changed: {attempt.whole_change or attempt.change}"]
    if attempt.seen:
        said.append(f"Seen: {attempt.seen}")
    if whole and attempt.built_on is not None:
        last = _effect(attempt.geomean_tflops, descent.base(attempt), kind)
        said.append(f"The last edit alone: {last}: {attempt.change}")
    said.append(f"Hypothesis: {attempt.hypothesis}")
    text = " ".join(f"{each.strip().rstrip('.')}." for each in said)
    return Lesson(attempt.step_number, attempt.attempt_id, text, of_outcome)


def _effect(tflops: float, base: Base | None, kind: ScoreKind) -> str:
    found = f"{figure(tflops)} {kind} TFLOPS"
    return f"{figure(base.tflops)} -> {found} ({tflops / base.tflops - 1:+.1%}) over {base.name}" if base else found


def _words(text: str) -> set[str]:
    return set(_WORD.findall(text.lower()))
