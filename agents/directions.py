"""The directions that a run knows: those that its steps listed, the hypotheses of its attempts, and other runs'."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

from avo.agents.descent import Descent
from avo.evaluator.resolution import ALONE
from avo.evaluator.target import ScoreKind
from avo.lineage_db.decision import OPEN, Ruling
from avo.lineage_db.directions import Direction, Evidence, merged
from avo.lineage_db.entries import Memory
from avo.lineage_db.records import AttemptSummary, Version

NAMED = ": "
"""What stands between a direction's name and what was changed, in the ``change`` of an attempt that follows it."""
MOST_TAKEN = 100
"""Most directions that a run takes over from another: every reader of its configuration reads them."""
_MOST_TESTS = 5
"""Most tests of a direction that a run takes over: that of the largest weight, and the latest."""
FAILURE = 0.3
"""Weight of what failed, or was not tested."""
_GAIN = 10.0
"""Weight per unit of log speed-up, good or bad; it reaches 1 at about 10 percent."""
_TIE = 0.1


def directions(
    memories: Iterable[Memory],
    attempts: Iterable[AttemptSummary],
    versions: Sequence[Version],
    taken: Sequence[Direction] = (),
) -> list[Direction]:
    """Return all directions of a run with their evidence, those of one name as one; ``taken`` are other runs'.

    An attempt belongs to the direction whose name its change begins with, or whose test made the same source. Any other
    attempt with a hypothesis is a direction of its own.
    """
    attempts = list(attempts)
    descent, kind = Descent(versions, attempts), kind_of_scores(versions)
    listed = [memory.direction for memory in memories if memory.direction is not None]
    names = {f"{each.name}{NAMED}".lower(): each.name for each in sorted(listed, key=lambda each: -len(each.name))}
    tested = {one.digest: each.name for each in listed for one in each.evidence}
    made = []
    for attempt in attempts:
        begun = attempt.change.lower()
        name = next((names[each] for each in names if begun.startswith(each)), None) or tested.get(attempt.digest)
        if name or attempt.hypothesis:
            words = name or attempt.whole_change or attempt.change
            made.append(Direction(words, attempt.hypothesis, (_evidence(attempt, descent, kind),)))
    found = merged([*listed, *made, *taken])
    # The name and the hypothesis are the run's own; its tests are later than those that were taken over.
    return [replace(each, evidence=tuple(sorted(each.evidence, key=lambda one: not one.run))) for each in found]


def weight(direction: Direction) -> float:
    """Return how much a direction matters, 0 to 1: by its largest resolved gain or loss."""
    return max((_weight(one) for one in direction.evidence if one.gain is not None), default=FAILURE)


def strongest(found: Sequence[Direction]) -> list[Direction]:
    """Return the ``MOST_TAKEN`` directions that matter most, the first first, each with the tests that say most."""
    chosen = sorted(found, key=weight, reverse=True)[:MOST_TAKEN]
    return [replace(each, evidence=_telling(each.evidence)) for each in chosen]


def _telling(tests: tuple[Evidence, ...]) -> tuple[Evidence, ...]:
    latest, best = tests[-_MOST_TESTS:], max(tests, key=_weight, default=None)
    known = max(map(_weight, latest), default=0.0)
    return latest if best is None or _weight(best) <= known else (best, *latest[1:])


def _weight(test: Evidence) -> float:
    return FAILURE if test.gain is None else effect(test.gain) if test.resolved else _TIE


def effect(gain: float) -> float:
    """Return the weight of a gain or loss, 0.03 being 3 percent, from 0 to 1."""
    return min(1.0, _GAIN * abs(math.log1p(gain))) if gain > -1 else 1.0


def kind_of_scores(versions: Sequence[Version]) -> ScoreKind:
    """Return whether a run's speeds are predicted or measured."""
    score = versions[0].attempt.evaluation.score if versions else None
    return score.kind if score else ScoreKind.PREDICTED


def _evidence(attempt: AttemptSummary, descent: Descent, kind: ScoreKind) -> Evidence:
    """Return what an attempt shows of its direction, against the kernel that was edited.

    The resolution is that of its comparison with the best version then, and ``ALONE`` where that is not known. What is
    measured was compared in turn: it is resolved if it was shown to be faster.
    """
    base = descent.parent(attempt.parents) if attempt.whole_change else descent.base(attempt)
    decision = attempt.decision
    gain = attempt.geomean_tflops / base.tflops - 1 if attempt.geomean_tflops and base else None
    resolution = None
    if kind is ScoreKind.MEASURED:
        resolved = attempt.ruling in (*OPEN, Ruling.NOT_SUBMITTED)
    else:
        known = decision.resolution if decision else None
        resolution = None if gain is None else ALONE if known is None else known
        resolved = gain is not None and resolution is not None and abs(gain) > resolution
    if attempt.geomean_tflops:
        said = [decision.told if decision and decision.refused else "", attempt.seen]
    else:
        said = [f"{attempt.status.words}: {attempt.message}"]
    return Evidence(
        step=attempt.step_number,
        kind=kind,
        gain=gain,
        resolution=resolution,
        resolved=resolved,
        base=base.name if base else "",
        attempts=(attempt.attempt_id,),
        said="; ".join(filter(None, said)),
        digest=attempt.digest,
    )
