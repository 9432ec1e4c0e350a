"""Parts of a kernel played side by side: clocks per pass through each loop, the mean of as many plays as it takes."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean, stdev

import numpy as np

from avo.evaluator.performance.mbarriers import ORDERED
from avo.evaluator.performance.pipes import AT_MBARRIERS, Costs, Op
from avo.evaluator.performance.roles import ARRIVALS, WAITS, Role, passes_in_step
from avo.evaluator.performance.sass import Instruction
from avo.evaluator.performance.simulate import Mark, Played, Team, Teams, play
from avo.evaluator.performance.streams import Stream
from avo.evaluator.performance.structure import Loop

_PLAYED_ISSUES = 60_000
"""Approximate number of instructions of a kernel's loops that are played; long bodies are passed fewer times."""
_PASSES = 6
"""Passes played of a loop: two to warm up, and the last is cut short. Many plays are averaged, so few passes do."""
_OF_ROLES = 4
"""How many times as much is played of roles. Until each does its part while the others do theirs, passes take longer:
of six, by up to a fifth. With 24, 48 and 96 the speeds of the seeds in Gluon are within 1%."""
_SURE = 0.01
"""Standard error of the mean of plays, as a share of it, with which no more are made."""
MOST_PACE = 16
"""Most passes of a role's loop that are played for one of another's, or the other way round."""
Player = Callable[[Sequence[Team]], Played]


def play_parts(
    parts: Sequence[tuple[Sequence[Instruction | Loop], int]],
    costs: Costs,
    resident: int,
    players: Sequence[Player] = (play,),
    roles: Sequence[Role] = (),
    paces: Mapping[Loop, float] | None = None,
    peeled: Mapping[Loop, float] | None = None,
) -> tuple[dict[Loop, float], float, dict[Loop, int]]:
    """Play (items, warps) parts side by side in each of ``resident`` CTAs, with one player after the other until their
    mean is sure: warps that take turns fall into one rhythm or another by chance.

    ``roles`` says so if they are roles, ``paces`` how often they pass loops for each pass of the others, and ``peeled``
    how many passes more, or below 0 fewer, they make than that.

    Returns clocks per pass of each loop, inner loops not included, the clocks of the whole, and how often each loop
    was passed.
    """
    passes = max(3, min(_PASSES, _PLAYED_ISSUES // max(1, _issues(parts, resident))))
    passes *= _OF_ROLES if roles else 1
    most = MOST_PACE * max((turns(role) for role in roles), default=1)
    limited = {loop: min(max(pace, 1 / MOST_PACE), most) if pace else 0.0 for loop, pace in (paces or {}).items()}
    passes = max(passes, round(3 / min(filter(None, limited.values()), default=1)))
    asked = {loop: round(passes * pace + (peeled or {}).get(loop, 0.0)) for loop, pace in limited.items()}
    in_step = passes_in_step(roles, costs, passes) | {loop: max(1, count) for loop, count in asked.items()}
    untied = len(parts) > 1 and not tied(parts, costs)
    streams = []
    for items, _ in parts:
        stream = Stream(costs, passes, untied, len(parts) == 1, in_step)
        stream.extend(items)
        streams.append(stream)
    teams = _teams([(stream.ops, warps) for stream, (_, warps) in zip(streams, parts, strict=True)], resident)
    counts: Counter[Loop] = Counter()
    for stream in streams:
        for visit in stream.visits:
            counts[visit.loop] += len(visit.marks) - 1
    found: list[tuple[dict[Loop, float], float]] = []
    for player in players:
        played = player(teams)
        found.append((_clocks(played, streams, len(teams)), played.end))
        if len(teams) == 1 or _sure([sum(clocks[loop] * counts[loop] for loop in counts) for clocks, _ in found]):
            break
    clocks = {loop: fmean(each[loop] for each, _ in found) for loop in counts}
    return clocks, fmean(end for _, end in found), counts


def _teams(streams: Sequence[tuple[Sequence[Op | Mark], int]], resident: int) -> Teams:
    """Return the teams of all CTAs, from the (stream, warps) of each part."""
    teams: list[Team] = []
    for cta in range(resident):
        for ops, warps in streams:
            first = teams[-1].first_warp + teams[-1].warps if teams else 0
            teams.append(Team(cta, first, warps, ops))
    return Teams(teams)


def _sure(values: Sequence[float]) -> bool:
    """Return whether the mean of the values is known well enough."""
    return len(values) > 1 and stdev(values) <= _SURE * fmean(values) * math.sqrt(len(values))


def _clocks(played: Played, streams: Sequence[Stream], teams: int) -> dict[Loop, float]:
    """Return the clocks per pass of each loop, in its last run where a stream has several."""
    clocks: dict[Loop, float] = {}
    runs: dict[Loop, int] = {}
    for part, stream in enumerate(streams):
        same = range(part, teams, len(streams))
        for visit in reversed(stream.visits):  # inner loops follow outer ones
            loop = visit.loop
            if loop not in clocks:
                runs[loop] = len(visit.marks) - 1
                steady = visit.marks[: len(visit.marks) - max(1, visit.drained)]  # the last is cut short
                whole = _clocks_per_pass([[played.marks[team, mark] for mark in steady] for team in same])
                clocks[loop] = max(1.0, whole - _clocks_inside(loop, clocks, runs))
    return clocks


def _issues(parts: Sequence[tuple[Sequence[Instruction | Loop], int]], resident: int) -> int:
    """Return the number of instructions in a pass through all loops of all CTAs."""
    tops = [(top, warps) for items, warps in parts for top in items if isinstance(top, Loop)]
    return sum(resident * warps * len(loop.own) for top, warps in tops for loop in top.tree())


def tied(parts: Sequence[tuple[Sequence[Instruction | Loop], int]], costs: Costs) -> bool:
    """Whether every role waits, in its loops, for what another does at an mbarrier that both are known to use."""
    waits, arrives = [], []
    for items, _ in parts:
        own = (i for top in items if isinstance(top, Loop) for loop in top.tree() for i in loop.own)
        ops = [costs.op(i) for i in own if i.base in AT_MBARRIERS]
        waits.append({op.mbarrier for op in ops if op.kind in WAITS} - {ORDERED})
        arrives.append({op.mbarrier for op in ops if op.kind in ARRIVALS})
    return all(
        any(own & other for place, other in enumerate(arrives) if place != part) for part, own in enumerate(waits)
    )


def _clocks_per_pass(times: Sequence[Sequence[float]]) -> float:
    """Return the clocks in which every CTA does one pass, from the [CTAs][passes + 1] times at which passes began and
    ended.

    The count starts when the first CTA has warmed up, in two passes or a third of many, and ends when the first one is
    done, so that all compete for the SM: CTAs need not progress alike.
    """
    passes = len(times[0]) - 1
    start = min(of_cta[min(max(2, passes // 3), passes - 1)] for of_cta in times)
    stop = min(of_cta[-1] for of_cta in times)
    done = sum(
        float(np.interp(stop, of_cta, range(passes + 1)) - np.interp(start, of_cta, range(passes + 1)))
        for of_cta in times
    )
    return len(times) * (stop - start) / max(done, 1e-9)


def _clocks_inside(loop: Loop, clocks: Mapping[Loop, float], runs: Mapping[Loop, int]) -> float:
    """Return the clocks that one pass through ``loop`` spends in inner loops at any depth, with ``runs`` passes of
    each.
    """
    return sum(runs[inner] * (clocks[inner] + _clocks_inside(inner, clocks, runs)) for inner in loop.inner)


def turns(role: Role) -> int:
    """Return how often loops of a role without others inside are played, in multiples of a single one's passes."""
    return sum(2 ** (len(path) - 1) for path, loop in role.paths().items() if not loop.inner)
