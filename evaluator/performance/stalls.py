"""Where a loop's clocks go: every clock of a played warp is charged to one instruction, for one reason.

The sum over a loop's instructions is a warp's time for one pass, so shares show what there is to gain.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from itertools import pairwise
from operator import itemgetter

from avo.evaluator.performance.passes import Pass
from avo.evaluator.performance.pipes import Kind, Op
from avo.evaluator.performance.simulate import Issue, Mark, Played, Team, play

_WARM_UP = 2
"""Number of first passes that are not steady yet."""
_DRAIN = 2
"""Number of last passes that may copy less than others; see ``kernel``."""


class Reason(StrEnum):
    """The reasons for which a warp waits."""

    SCOREBOARD = "scoreboard"
    """Waits for the result of an earlier instruction, or until that has read its operands."""
    PIPE = "pipe"
    """Waits while other instructions occupy the pipe."""
    ISSUE = "issue slot"
    """Waits while the scheduler issues other warps' instructions."""
    FIXED = "fixed latency"
    """The clocks that the compiler placed between this instruction and the next."""
    CTA_BARRIER = "CTA barrier"
    """Waits for other warps of the CTA."""
    PRODUCT = "matrix product"
    """Waits for asynchronous products."""
    COPIES = "copies"
    """Waits for asynchronous copies."""
    ROLE = "other role"
    """Waits for another role of the CTA."""


BLOCKS = {
    Kind.CTA_BARRIER: Reason.CTA_BARRIER,
    Kind.WGMMA_WAIT: Reason.PRODUCT,
    Kind.COUNT_WAIT: Reason.COPIES,
}
"""Why an instruction that was issued keeps its warp longer than its stall count."""
MBARRIERS = {
    Kind.MBARRIER_WAIT_COPY: Reason.COPIES,
    Kind.MBARRIER_WAIT_TENSOR: Reason.PRODUCT,
    Kind.MBARRIER_WAIT_ROLE: Reason.ROLE,
}
"""What is waited for at an mbarrier, by the instruction that asks it or by who waits for the answer."""


_Cause = tuple[int, Reason, int | None]
"""An instruction, why it costs time, and the instruction that is waited for, if known."""


@dataclass(frozen=True, slots=True)
class Charge:
    """The clocks of a pass that one instruction costs a warp for one reason."""

    index: int
    """Index of the instruction in its code."""
    reason: Reason
    setter: int | None
    """The instruction that is waited for, if known."""
    share: float
    """Share of the warp's time, 0 to 1; the charges of a part add up to 1."""


@dataclass(frozen=True, slots=True)
class Span:
    """The clocks that one warp spent on one instruction for one reason."""

    place: int
    """Position of the instruction's op in the stream."""
    index: int
    reason: Reason
    setter: int | None
    start: float
    stop: float


@dataclass(frozen=True)
class Recorded:
    """The trace of one play."""

    teams: Sequence[Team]
    trace: Sequence[Issue]
    played: Played

    def by_warp(self) -> Iterator[tuple[int, int, Sequence[Issue]]]:
        """Yield (team, position of the warp on the SM, what it issued in order) for each warp."""
        warps: dict[tuple[int, int], list[Issue]] = defaultdict(list)
        for issue in self.trace:
            warps[issue.team, issue.warp].append(issue)
        for (team, warp), issues in warps.items():
            yield team, warp, issues

    @cached_property
    def spans(self) -> tuple[tuple[int, int, tuple[Span, ...]], ...]:
        """The team, the position on the SM and the time spent, for each warp."""
        return tuple(
            (team, warp, tuple(account(self.teams[team].stream, issues))) for team, warp, issues in self.by_warp()
        )


@dataclass
class Recorder:
    """A player that keeps its plays, which are jittered by the ``seed`` if there is one."""

    seed: int | None = None
    plays: list[Recorded] = field(default_factory=list)

    def __call__(self, teams: Sequence[Team]) -> Played:
        """Play the teams and keep the trace."""
        trace: list[Issue] = []
        played = play(teams, trace, seed=self.seed)
        self.plays.append(Recorded(teams, trace, played))
        return played


def charge(recorders: Sequence[Recorder], passed: Pass, *, loop: bool = True) -> tuple[tuple[Charge, ...], ...]:
    """Return for each part of ``passed`` what its instructions cost in all recorded plays together, most first; nothing
    for one that was not played.

    If ``passed`` is a ``loop``, its first and last passes do not count.
    """
    return tuple(
        _charge_part(recorders, frozenset(i.index for i in instructions), loop) for instructions, _ in passed.parts
    )


def _charge_part(recorders: Sequence[Recorder], members: frozenset[int], loop: bool) -> tuple[Charge, ...]:
    clocks: dict[_Cause, float] = defaultdict(float)
    for recorder in recorders:
        found: Mapping[_Cause, float]
        found = next(filter(None, (_clocks(played, members, loop) for played in recorder.plays)), {})
        for cause, time in found.items():
            clocks[cause] += time
    total = sum(clocks.values())
    return tuple(
        Charge(index, reason, setter, time / total)
        for (index, reason, setter), time in sorted(clocks.items(), key=lambda item: (-item[1], item[0][0]))
        if time > 0
    )


def _clocks(played: Recorded, members: frozenset[int], loop: bool) -> Mapping[_Cause, float]:
    """Return what each of ``members`` cost in a play."""
    clocks: dict[_Cause, float] = defaultdict(float)
    kept = [
        frozenset(place for piece in passes(team.stream, members, loop=loop) for place in piece)
        for team in played.teams
    ]
    for team, _, spans in played.spans:
        if kept[team]:
            for span in spans:
                if span.index in members and span.place in kept[team]:
                    clocks[span.index, span.reason, span.setter] += span.stop - span.start
    return clocks


def passes(stream: Sequence[Op | Mark], members: frozenset[int], *, loop: bool = True) -> list[range]:
    """Return the places between marks at which the stream passes instructions of ``members``, in order.

    In a ``loop``, only the passes in which it runs steadily are returned, if there are enough of them.
    """
    bounds = [-1, *(place for place, op in enumerate(stream) if isinstance(op, Mark)), len(stream)]
    pieces = [range(start + 1, stop) for start, stop in pairwise(bounds)]
    found = [piece for piece in pieces if any(isinstance(op := stream[at], Op) and op.index in members for at in piece)]
    stop = max(_WARM_UP + 2, len(found) - _DRAIN)
    return found[_WARM_UP:stop] if loop and len(found) > _WARM_UP + 2 else found


def account(stream: Sequence[Op | Mark], issues: Sequence[Issue]) -> Iterator[Span]:
    """Yield what a warp's time from when it could first issue to its last issue was spent on, in order."""
    last: Issue | None = None
    setters: list[tuple[float, Op | None]] = [(0.0, None)] * 6
    product: int | None = None  # the first since the last wait for products, and the one waited for there
    waited_for: int | None = None
    for issue in issues:
        op = stream[issue.place]
        assert isinstance(op, Op)
        if last is not None:
            yield from _held(stream, last, issue, waited_for)
        waited = (setter for barrier, setter in enumerate(setters) if op.waits >> barrier & 1)
        clear, setter = max(waited, default=(0.0, None), key=itemgetter(0))
        clear = min(max(clear, issue.due), issue.ready)
        taken = min(issue.ready + issue.queued, issue.issued)
        asked = MBARRIERS.get(setter.kind, Reason.SCOREBOARD) if setter else Reason.SCOREBOARD
        known = setter.index if setter and asked is Reason.SCOREBOARD else None
        for reason, of, start, stop in (
            (asked, known, issue.due, clear),
            (MBARRIERS.get(op.kind, Reason.ROLE), None, clear, issue.ready),
            (Reason.PIPE, None, issue.ready, taken),
            (Reason.ISSUE, None, taken, issue.issued),
        ):
            if stop > start:
                yield Span(issue.place, op.index, reason, of, start, stop)
        if op.write_barrier < 6 and op.kind not in (Kind.COPY_COMMIT, Kind.COUNT_WAIT):
            setters[op.write_barrier] = max(setters[op.write_barrier], (issue.done, op), key=itemgetter(0))
        if op.read_barrier < 6:
            setters[op.read_barrier] = max(setters[op.read_barrier], (issue.read, op), key=itemgetter(0))
        if op.kind == Kind.WGMMA:
            product = product or op.index
        elif op.kind == Kind.WGMMA_WAIT:
            waited_for, product = product, None
        last = issue


def _held(stream: Sequence[Op | Mark], last: Issue, issue: Issue, product: int | None) -> Iterator[Span]:
    """Yield what the time between an issue and when the next one is due was spent on."""
    op = stream[last.place]
    assert isinstance(op, Op)
    go_on = min(last.issued + op.stall, issue.due)
    yield Span(last.place, op.index, Reason.FIXED, None, last.issued, go_on)
    if issue.due > go_on:
        reason = BLOCKS.get(op.kind, Reason.FIXED)
        if any(isinstance(item, Mark) and item.turn for item in stream[last.place + 1 : issue.place]):
            reason = Reason.ROLE
        setter = product if reason is Reason.PRODUCT else None
        yield Span(last.place, op.index, reason, setter, go_on, issue.due)
