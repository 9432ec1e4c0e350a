"""A timeline: two passes of a loop as they were played, one lane for each pipe and each group of four warps.

Where several roles or CTAs use the tensor cores or the exponentials, each also has a lane there, which shows whether
they take turns.
"""

from collections import defaultdict
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
_COPIES = "l2: copies and loads"
"""The lane of bytes that L2 delivers."""
_WATCHED = ("tensor", "exp")
"""Lanes that each role and CTA has one of too, where several use the pipe."""


def draw(recorders: Sequence[Recorder], passed: Pass, name: str, *, loop: bool) -> Timeline | None:
    """Return two steady passes through a ``loop``, or all of a play for code outside: of the recorded play in which
    these take most nearly what they take in the mean. None for what was not played.
    """
    instructions = max((part for part, _ in passed.parts), key=len, default=())
    members = frozenset(i.index for i in instructions)
    found = [stretch for recorder in recorders if (stretch := _stretch(recorder, members, loop=loop))]
    if not found:
        return None
    play, (start, *between, stop) = min(found, key=lambda each: abs(each[1][-1] - each[1][0] - 2 * passed.clocks))
    edges = np.linspace(start, stop, CELLS + 1)
    begun = tuple(mark - start for mark in (start, *between)) if between else ()
    return Timeline(name, stop - start, begun, _pipes(play, edges), _warps(play, edges))


def _stretch(recorder: Recorder, members: frozenset[int], *, loop: bool) -> tuple[Recorded, list[float]] | None:
    """Return a play of ``members``, and where the first two steady passes begin and end, or else all of it."""
    for play in recorder.plays:
        for number, team in enumerate(play.teams):
            if pieces := passes(team.stream, members):
                bounds = [pieces[0].start - 1, pieces[0].stop, pieces[1].stop] if loop and len(pieces) > 1 else []
                marks = [play.played.marks[number, bound] for bound in bounds if (number, bound) in play.played.marks]
                return play, marks if len(marks) == 3 else [0.0, play.played.end]
    return None


def _pipes(play: Recorded, edges: npt.NDArray[np.float64]) -> tuple[PipeLane, ...]:
    spans: dict[str, list[tuple[float, float, float]]] = defaultdict(list)
    teams: dict[str, dict[int, list[tuple[float, float, float]]]] = defaultdict(lambda: defaultdict(list))
    delivered = 0.0
    for issue in play.trace:
        op = play.teams[issue.team].stream[issue.place]
        assert isinstance(op, Op)
        warps = 1 if op.leader else issue.warps
        if op.l2:  # one request after the other
            begun = max(delivered, issue.start)
            delivered = begun + op.l2 * warps
            spans[_COPIES].append((begun, delivered, 1.0))
        if issue.issued > edges[-1] or issue.done < edges[0]:
            continue
        spans["issue"].append((issue.issued, issue.issued + 1, warps / PARTITIONS))
        if op.pipe:
            share, times = (1.0, warps) if op.pipe >= Pipe.SHARED else (warps / PARTITIONS, 1)
            name, span = PIPE_NAMES[op.pipe], (issue.start, issue.start + op.busy * times, share)
            spans[name].append(span)
            teams[name][issue.team].append(span)
        if op.shared:
            spans["shared"].append((issue.start, issue.start + op.shared * warps, 1.0))
    order: list[tuple[str, Sequence[tuple[float, float, float]]]] = []
    for name in (*_WATCHED, _COPIES, "fma", "alu", "shared", "lsu", "tensor_memory", "issue"):
        order.append((name, spans[name]))
        if name in _WATCHED and 1 < len(teams[name]) <= MOST_GROUPS:
            order += [(f"{name} of {_called(play, number)}", own) for number, own in sorted(teams[name].items())]
    lanes = [PipeLane(name, tuple(_busy(own, edges))) for name, own in order if own]
    return tuple(lane for lane in lanes if max(lane.busy))


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
            lanes.append(WarpLane(f"{_called(play, number)} {warps}", tuple(names[i] for i in most.tolist())))
    return tuple(lanes)


def _called(play: Recorded, number: int) -> str:
    """Return the name of a team: its CTA, and its role if there are several."""
    team = play.teams[number]
    roles = [i for i, other in enumerate(play.teams) if other.cta == team.cta]
    return f"CTA {team.cta}" + (f" role {roles.index(number)}" if len(roles) > 1 else "")
