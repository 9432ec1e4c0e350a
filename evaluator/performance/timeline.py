"""A timeline: two passes of a loop as they were played, one lane for each pipe and each group of four warps."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from avo.evaluator.performance.passes import Pass
from avo.evaluator.performance.pipes import PARTITIONS, PIPE_NAMES, Op, Pipe
from avo.evaluator.performance.stalls import Reason, Recorded, Recorder, passes
from avo.evaluator.profile import RUNNING, PipeLane, Timeline, WarpLane

CELLS = 240
"""Number of cells that the time is divided into."""
GROUP = 4
"""Warps per lane: on Hopper, these multiply matrices together."""
MOST_GROUPS = 12
"""Most lanes of warps."""


def draw(recorder: Recorder, passed: Pass, name: str, *, loop: bool) -> Timeline | None:
    """Return two steady passes through a ``loop``, or all of a play for code outside; None for what was not played."""
    instructions = max((part for part, _ in passed.parts), key=len, default=())
    members = frozenset(i.index for i in instructions)
    for play in recorder.plays:
        for number, team in enumerate(play.teams):
            pieces = passes(team.stream, members)
            if pieces:
                return _draw(play, number, pieces if loop else [], name)
    return None


def _draw(play: Recorded, number: int, pieces: Sequence[range], name: str) -> Timeline:
    """Draw the first two of the team's passes, or all when there are fewer."""
    bounds = [pieces[0].start - 1, pieces[0].stop, pieces[1].stop] if len(pieces) > 1 else []
    marks = [play.played.marks[number, bound] for bound in bounds if (number, bound) in play.played.marks]
    looped = len(marks) == 3
    start, stop = (marks[0], marks[2]) if looped else (0.0, play.played.end)
    edges = np.linspace(start, stop, CELLS + 1)
    return Timeline(
        name,
        stop - start,
        tuple(mark - start for mark in marks[:2]) if looped else (),
        _pipes(play, edges),
        _warps(play, edges),
    )


def _pipes(play: Recorded, edges: npt.NDArray[np.float64]) -> tuple[PipeLane, ...]:
    spans: dict[str, list[tuple[float, float, float]]] = {}
    for issue in play.trace:
        if issue.issued > edges[-1] or issue.done < edges[0]:
            continue
        op = play.teams[issue.team].stream[issue.place]
        assert isinstance(op, Op)
        warps = 1 if op.leader else issue.warps
        spans.setdefault("issue", []).append((issue.issued, issue.issued + 1, warps / PARTITIONS))
        if op.pipe >= Pipe.SHARED:
            spans.setdefault(PIPE_NAMES[op.pipe], []).append((issue.start, issue.start + op.busy * warps, 1.0))
        elif op.pipe:
            spans.setdefault(PIPE_NAMES[op.pipe], []).append((issue.start, issue.start + op.busy, warps / PARTITIONS))
        if op.shared:
            spans.setdefault("shared", []).append((issue.start, issue.start + op.shared * warps, 1.0))
    lanes = {name: _busy(found, edges) for name, found in spans.items()}
    order = ["tensor", "exp", "fma", "alu", "shared", "lsu", "tensor_memory", "issue"]
    return tuple(PipeLane(name, tuple(lanes[name])) for name in order if name in lanes and max(lanes[name]))


def _busy(spans: Sequence[tuple[float, float, float]], edges: npt.NDArray[np.float64]) -> list[float]:
    """Return how much of each cell (start, stop, share) spans cover, at most 1."""
    return [round(min(1.0, part), 3) for part in (_covered(spans, edges) / np.diff(edges)).tolist()]


def _covered(spans: Sequence[tuple[float, float, float]], edges: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the clocks of each cell that (start, stop, share) spans cover, times their share."""
    starts, stops, shares = np.array(spans, dtype=np.float64).T
    before = np.clip(edges[:, None] - starts, 0.0, stops - starts) @ shares  # [edges]: covered until there
    return np.diff(before)


def _warps(play: Recorded, edges: npt.NDArray[np.float64]) -> tuple[WarpLane, ...]:
    groups: dict[tuple[int, int], dict[str, list[tuple[float, float, float]]]] = {}
    for number, warp, spans in play.spans:
        team = play.teams[number]
        states = groups.setdefault((number, (warp - team.first_warp) // GROUP), {})
        for span in spans:
            if span.stop > edges[0] and span.start < edges[-1]:
                state = RUNNING if span.reason is Reason.FIXED else span.reason.value
                states.setdefault(state, []).append((span.start, span.stop, 1.0))
    lanes = []
    for (number, group), states in sorted(groups.items())[:MOST_GROUPS]:
        team = play.teams[number]
        names = list(states)
        if names:
            most = np.argmax([_covered(states[name], edges) for name in names], axis=0)
            first = group * GROUP
            last = min(first + GROUP, team.warps) - 1
            warps = f"warps {first}-{last}" if last > first else f"warp {first}"
            roles = [i for i, other in enumerate(play.teams) if other.cta == team.cta]
            role = f" role {roles.index(number)}" if len(roles) > 1 else ""
            lanes.append(WarpLane(f"CTA {team.cta}{role} {warps}", tuple(names[i] for i in most.tolist())))
    return tuple(lanes)
