"""The loop of a play, compiled by numba: instruction streams go through an SM's schedulers, scoreboards and pipes.

All that is compiled, and every constant in it, is in this file: numba keeps the machine code until the file changes.
Nothing checks indices there: what comes from a listing is bounded before.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, TypeAlias, TypeVar, cast

import numpy as np
import numpy.typing as npt
from numba import njit

Integers: TypeAlias = npt.NDArray[np.int64]
Floats: TypeAlias = npt.NDArray[np.float64]
_Sm: TypeAlias = tuple[Integers, Floats, Floats, Floats, Integers, Floats, Integers, Integers]
"""The arrays of ``play`` by which a warp is queued: state, at, barriers, following, warps, begins, stream, ops."""
_Function = TypeVar("_Function", bound=Callable[..., Any])


@cache
def compiled(function: _Function) -> _Function:
    """Compile the function when it is first called."""
    return cast(_Function, njit(nogil=True)(function))


EVERY = -1
"""The sub-partition of warps that are on all of them."""
_AHEAD = 2
"""Passes by which a role may lead another through unknown mbarriers: two buffers, as Triton makes (estimate)."""
_SPREAD = 0.25
"""Share by which latencies vary, up and down, where they are jittered."""
_UNEVEN = 0.3
"""Share by which stall counts of one of several teams vary from pass to pass, where starts are jittered (why so much:
docs/performance-model.md). As none can be shorter than a clock, those of one clock take 1.075 in the mean."""
_FIXED_LATENCY = 16.0
"""Latencies up to this many clocks are those of arithmetic, which do not vary."""
_MOST_PHASES = 2**23
"""Room for phases of mbarriers, in numbers of eight bytes: no honest kernel comes near."""
_LATEST = 1e12
"""More clocks than any play takes."""

# The numbers of ``pipes.py``.
_MARK, _CTA_BARRIER, _WGMMA, _WGMMA_WAIT, _COPY, _COPY_COMMIT, _COUNT_WAIT, _BULK_COPY = -1, *range(1, 8)
_TENSOR_MMA, _TENSOR_COMMIT, _WAIT_COPY, _WAIT_TENSOR, _WAIT_ROLE, _ARRIVE, _INIT = range(8, 15)
_SHARED, _PIPES, _PARTITIONS, _SCOREBOARDS = 6, 9, 4, 6

# Columns of the whole numbers of an instruction or mark.
KIND, PIPE, WAITS, WRITE_BARRIER, READ_BARRIER, COUNT, LEADER, IN_TURN, MBARRIER = range(9)
# Those of a mark, which waits for nothing.
NAME, TURN, FIRST_COPY, COPIES = 1, 3, 4, 5
# Columns of its clocks.
BUSY, LATENCY, OPERANDS, L2, STALL, QUEUE, READ_LATENCY = range(7)
# Columns of a warp, or of four that are played as one.
TEAM, CTA, BEGIN, END, WIDTH, PARTITION, IS_LEADER = range(7)
# Columns of a team: its warps that are played apart, and its place among those who all wait, first of all 0.
ROWS, RANK = range(2)
# Columns of an issue in a trace. ``PLACE`` is the position in the stream of all.
WARP, PLACE, DUE, READY, QUEUED, ISSUED, START, READ, DONE = range(9)
# Columns of the state of a warp.
_PC, _WAITS_FOR, _LATE, _PASSES, _SINCE = range(5)
# Columns of its times: when it may go on, its place among those that take turns, when it asked, when its copies end.
_TIME, _FIRST, _ASKED, _COPIED = range(4)
# What it waits for: nothing more, its turn, a phase, a role behind it, all roles, its team.
_NOTHING, _TURN, _PHASE, _BEHIND, _ROLES, _TEAM = range(6)


@compiled
def multiply(memory: Floats, start: float, end: float, clocks: float) -> float:
    """Read the operands of a product that the tensor cores do from ``start`` to ``end``; return when it is done.

    ``memory`` is the time until which shared memory is taken by operands, and by what was served beside them; and the
    clocks of other accesses still to be served then. Where both wait, others get a clock for each clock of operands.
    """
    first = max(memory[0], start)
    memory[1] = max(0.0, memory[1] - (first - memory[0]))
    last = first + clocks
    end = max(end, last + min(memory[1], clocks))
    beside = min(memory[1], end - last)
    memory[1] -= beside
    memory[0] = last + beside
    return float(end)


@compiled
def _complete(phases: Floats, done: Integers, cta: int, mbarrier: int, at: float) -> Floats:
    """Complete a phase; return all phases, enlarged if they were full."""
    count = done[cta, mbarrier]
    if count == phases.shape[2]:
        if phases.size > _MOST_PHASES:
            raise ValueError("too many phases of mbarriers")
        more = np.zeros((phases.shape[0], phases.shape[1], 2 * count))
        more[:, :, :count] = phases
        phases = more
    phases[cta, mbarrier, count] = at
    done[cta, mbarrier] += 1
    return phases


@compiled
def _queue(w: int, earliest: float, issued: float, sm: _Sm) -> float:
    """Queue the warp, or say that it is done: the clocks since its CTA began, or 0 while it is not.

    Its next instruction may issue when the scoreboard barriers that it waits for are clear.
    """
    state, at, barriers, following, warps, begins, stream, ops = sm
    if state[w, _PC] == warps[w, END]:
        state[w, _WAITS_FOR] = _NOTHING
        return earliest - begins[w]  # type: ignore[no-any-return]
    row = stream[state[w, _PC]]
    due = earliest
    for barrier in range(_SCOREBOARDS):
        if ops[row, WAITS] >> barrier & 1:
            earliest = max(earliest, barriers[w, barrier])
    if ops[row, KIND] != _MARK:
        if following[w, PLACE] != state[w, _PC]:
            following[w] = 0.0
            following[w, WARP], following[w, PLACE], following[w, DUE] = w, state[w, _PC], due
        following[w, READY] = earliest
    state[w, _WAITS_FOR] = _TURN
    state[w, _LATE] = earliest > issued + 1
    at[w, _TIME], at[w, _FIRST] = earliest, 0.0
    return 0.0


@compiled
def _waiting(what: int, cta: int, team: int, sm: _Sm) -> Integers:
    """Return the warps of a CTA, or of one of its teams unless it is negative, that wait for that."""
    state, warps = sm[0], sm[4]
    found = (state[:, _WAITS_FOR] == what) & (warps[:, CTA] == cta)
    return np.nonzero(found & ((warps[:, TEAM] == team) | (team < 0)))[0]


@compiled
def _first(state: Integers, at: Floats) -> int:
    """Return the warp whose turn is next, or -1: the earliest. Among equally early ones it is one that has just issued,
    then the first that asked for its turn, then the youngest.
    """
    first = -1
    for w in range(len(state)):
        if state[w, _WAITS_FOR] != _TURN or (first >= 0 and at[w, _TIME] > at[first, _TIME]):
            continue
        sooner = first < 0 or at[w, _TIME] < at[first, _TIME] or state[w, _LATE] < state[first, _LATE]
        if sooner or (state[w, _LATE] == state[first, _LATE] and at[w, _FIRST] <= at[first, _FIRST]):
            first = w
    return first


@compiled
def _free_slots(
    awaiting: Integers, cta: int, now: float, phases: Floats, done: Integers, freed: Integers, waited: Integers,
    teams: Integers, sm: _Sm,
) -> Floats:  # fmt: skip
    """Complete the phases that the first of the blocked roles waits for: as many as the ring has slots.

    They are free once, before anyone used them. Phases that copies complete belonged to copies that are not played.
    """
    state, _, _, _, warps, _, stream, ops = sm
    precedence = np.zeros(len(awaiting), np.int64)
    for place, w in enumerate(awaiting):
        precedence[place] = 4 * freed[cta, ops[stream[state[w, _PC]], MBARRIER]] + teams[warps[w, TEAM], RANK]
    for place in np.argsort(state[awaiting, _SINCE]):
        w = awaiting[place]
        row = stream[state[w, _PC]]
        mbarrier = ops[row, MBARRIER]
        if precedence[place] == precedence.min() and waited[w, mbarrier] >= done[cta, mbarrier]:
            for _ in range(max(1, ops[row, COUNT])):
                phases = _complete(phases, done, cta, mbarrier, now)
            freed[cta, mbarrier] = 1
    return phases


def play(
    stream: Integers, ops: Integers, clocks: Floats, copies: Integers, warps: Integers, teams: Integers,
    starts: Floats, begins: Floats, chance: Floats, issue_clocks: float, sums: Floats, counts: Integers,
    mbarriers: int, groups: int, trace: Floats,
) -> tuple[float, int]:  # fmt: skip
    """Play all warps' streams to their end; return the longest time from the start of a CTA, and the issues traced.

    ``stream`` has the rows of ``ops`` and ``clocks`` of all streams, one after the other, and a warp its part of it;
    ``copies`` the pairs of mbarrier and phases of all marks. Columns are named above; times are in clocks. A warp
    starts at ``starts``, its CTA began at ``begins``. ``chance`` has as many numbers from 0 to 1 as may be drawn, or
    none. ``sums`` and ``counts``, of teams x names of marks, get the times at which marks were passed. ``mbarriers`` is
    the number of mbarriers, ``groups`` the most groups of products or copies in a stream. ``trace`` has a row for each
    issue, or none.
    """
    number, ctas = len(warps), warps[:, CTA].max() + 1
    jittered, traced = len(chance) > 0, len(trace) > 0
    several = len(teams) > ctas  # roles; a stream alone counts what it copied over all phases
    issues, drawn, moment, end, now = 0, 0, 0, 0.0, 0.0

    # For each warp: where it is, what is under way for it, and the issue that follows.
    state, at = np.zeros((number, 5), np.int64), np.zeros((number, 4))
    barriers, waited = np.zeros((number, 8)), np.zeros((number, mbarriers), np.int64)
    products = np.zeros((number, groups))
    first_product, products_end = np.zeros(number, np.int64), np.zeros(number, np.int64)
    copied = np.zeros((number, _SCOREBOARDS, groups))
    first_copied, copied_end = np.zeros((number, _SCOREBOARDS), np.int64), np.zeros((number, _SCOREBOARDS), np.int64)
    following = np.zeros((number, DONE + 1))
    sm = (state, at, barriers, following, warps, begins, stream, ops)
    # For each CTA and mbarrier: when its phases were complete, and what has arrived for the next.
    phases, done = np.zeros((ctas, mbarriers, 16)), np.zeros((ctas, mbarriers), np.int64)
    arrived, last_arrived = np.zeros((ctas, mbarriers), np.int64), np.zeros((ctas, mbarriers))
    freed = np.zeros((ctas, mbarriers), np.int64)
    # For each CTA: its warps, and when its products on tensor memory are done.
    members = np.zeros(ctas, np.int64)
    tensor_done, tensor_committed = np.zeros(ctas), np.zeros(ctas)
    stretch = np.ones(len(teams))
    # When schedulers and pipes are free. For a single warp: its sub-partition's, and not before four warps together had
    # all of them. For four: the last of all. A pipe of the SM's has only that.
    scheduler, schedulers_taken, schedulers_free = np.zeros(_PARTITIONS), 0.0, 0.0
    pipes, pipes_taken, pipes_free = np.zeros((_PIPES, _PARTITIONS)), np.zeros(_PIPES), np.zeros(_PIPES)
    l2 = 0.0  # when L2 has delivered all that the SM asked for so far
    memory = np.zeros(2)

    for w in range(number):
        members[warps[w, CTA]] += 1
        state[w, _PC] = following[w, PLACE] = warps[w, BEGIN]
        following[w, WARP] = w
        if warps[w, BEGIN] < warps[w, END]:
            state[w, _WAITS_FOR], state[w, _LATE], at[w, _TIME] = _TURN, 1, starts[w]

    while True:
        w = _first(state, at)
        if w < 0:
            blocked = False
            for cta in range(ctas):
                awaiting = _waiting(_PHASE, cta, -1, sm)
                phases = _free_slots(awaiting, cta, now, phases, done, freed, waited, teams, sm)
                for other in awaiting:
                    blocked = True
                    end = max(end, _queue(other, now, -1.0, sm))
            if blocked:
                continue
            if state[:, _WAITS_FOR].max() <= _TURN:
                return end, issues
            for other in range(number):
                if state[other, _WAITS_FOR] > _TURN:  # a warp that still waits for others waits for no one
                    end = max(end, _queue(other, now, -1.0, sm))
            continue
        now, issued = at[w, _TIME], -1.0 if state[w, _LATE] else at[w, _TIME] - 1
        cta, team, row = warps[w, CTA], warps[w, TEAM], stream[state[w, _PC]]
        kind = ops[row, KIND]
        if kind == _MARK:
            sums[team, ops[row, NAME]] += now
            counts[team, ops[row, NAME]] += 1
            if jittered and len(teams) > 1 and warps[w, IS_LEADER]:
                stretch[team] = (1 - _UNEVEN) + ((1 + _UNEVEN) - (1 - _UNEVEN)) * chance[drawn]
                drawn += 1
            for pair in range(ops[row, FIRST_COPY], ops[row, FIRST_COPY] + ops[row, COPIES]):
                waited[w, copies[pair, 0]] = copies[pair, 1]
            if ops[row, TURN]:
                state[w, _PASSES] = ops[row, TURN]
                state[w, _PC] += 1
                state[w, _WAITS_FOR] = _BEHIND
                slowest = state[w, _PASSES]
                for other in range(number):
                    if warps[other, CTA] == cta:
                        slowest = min(slowest, state[other, _PASSES])
                for other in _waiting(_BEHIND, cta, -1, sm):
                    if state[other, _PASSES] - slowest <= _AHEAD:
                        end = max(end, _queue(other, now, -1.0, sm))
                continue
        elif warps[w, IS_LEADER] or not ops[row, LEADER]:
            mbarrier, count = ops[row, MBARRIER], ops[row, COUNT]
            waits = kind in (_WAIT_COPY, _WAIT_ROLE)
            if waits and waited[w, mbarrier] >= done[cta, mbarrier]:
                state[w, _WAITS_FOR] = _PHASE  # until the copy is issued or the role arrives
                state[w, _SINCE] = moment
                moment += 1
                continue
            pipe, busy, operands = ops[row, PIPE], clocks[row, BUSY], clocks[row, OPERANDS]
            width = 1 if ops[row, LEADER] else warps[w, WIDTH]
            partition, taken = warps[w, PARTITION], 0.0
            free = slot = schedulers_free if partition < 0 else max(scheduler[partition], schedulers_taken)
            if pipe:
                whole = partition < 0 or pipe >= _SHARED
                taken = pipes_free[pipe] if whole else max(pipes[pipe, partition], pipes_taken[pipe])
                free = max(free, taken - clocks[row, QUEUE])
            if free > now:
                if pipe and taken - clocks[row, QUEUE] >= slot:
                    following[w, QUEUED] += free - now
                at[w, _FIRST] = 0.0
                if ops[row, IN_TURN]:
                    if at[w, _ASKED] == 0.0:
                        at[w, _ASKED] = now
                    at[w, _FIRST] = at[w, _ASKED] - _LATEST
                at[w, _TIME], state[w, _LATE] = free, 1
                continue
            at[w, _ASKED] = 0.0
            start = now
            if pipe:
                start = max(start, taken)
                taken = start + busy * (width if pipe >= _SHARED else 1)
                if kind in (_WGMMA, _TENSOR_MMA):
                    taken = multiply(memory, start, taken, operands * width)
                elif pipe == _SHARED:
                    memory[1] += taken - start
                if pipe >= _SHARED:
                    pipes_free[pipe] = taken
                elif partition < 0:
                    pipes_taken[pipe] = pipes_free[pipe] = taken
                else:
                    pipes[pipe, partition] = taken
                    pipes_free[pipe] = max(pipes_free[pipe], taken)
            if operands and kind in (_COPY, _BULK_COPY):
                memory[1] += operands * width
                pipes_free[_SHARED] = max(pipes_free[_SHARED], start) + operands * width
            if partition < 0:
                schedulers_taken = schedulers_free = now + issue_clocks
            else:
                scheduler[partition] = now + issue_clocks
                schedulers_free = max(schedulers_free, now + issue_clocks)
            latency = clocks[row, LATENCY]
            if jittered and latency > _FIXED_LATENCY:
                latency *= (1 - _SPREAD) + ((1 + _SPREAD) - (1 - _SPREAD)) * chance[drawn]
                drawn += 1
            ready = start + busy + latency
            if clocks[row, L2]:
                l2 = max(l2, start) + clocks[row, L2] * width
                ready = max(ready, l2 + latency)
            until = now + clocks[row, STALL] * stretch[team]
            completed = False
            write_barrier = ops[row, WRITE_BARRIER]
            if kind == _WGMMA:
                if count:
                    products[w, products_end[w]] = taken + latency
                    products_end[w] += 1
            elif kind == _WGMMA_WAIT:
                if products_end[w] - first_product[w] > count:
                    first_product[w] = products_end[w] - count
                    until = max(until, products[w, first_product[w] - 1])
            elif kind == _COPY:
                at[w, _COPIED] = max(at[w, _COPIED], ready)
            elif kind == _COPY_COMMIT:
                copied[w, write_barrier % _SCOREBOARDS, copied_end[w, write_barrier % _SCOREBOARDS]] = at[w, _COPIED]
                copied_end[w, write_barrier % _SCOREBOARDS] += 1
            elif kind == _COUNT_WAIT:
                outstanding = copied_end[w, write_barrier] - first_copied[w, write_barrier]
                if outstanding > count:
                    first_copied[w, write_barrier] = copied_end[w, write_barrier] - count
                    until = max(until, copied[w, write_barrier, first_copied[w, write_barrier] - 1])
                elif not count:
                    until = max(until, barriers[w, write_barrier])
            elif kind == _TENSOR_MMA:
                tensor_done[cta] = taken + latency
            elif kind == _WAIT_TENSOR:
                ready = max(ready, tensor_committed[cta])
            elif waits:
                ready = max(ready, phases[cta, mbarrier, waited[w, mbarrier]] + clocks[row, LATENCY])
                waited[w, mbarrier] += 1
            elif kind == _INIT and several:
                done[cta, mbarrier] = arrived[cta, mbarrier] = freed[cta, mbarrier] = 0
                for other in range(number):
                    if warps[other, CTA] == cta:
                        waited[other, mbarrier] = 0
            elif kind in (_BULK_COPY, _ARRIVE, _TENSOR_COMMIT):
                when, wanted = now, 1
                if kind == _BULK_COPY:
                    when, wanted = ready, max(1, count)
                elif kind == _TENSOR_COMMIT:
                    tensor_committed[cta] = tensor_done[cta]
                    when = max(now, tensor_done[cta])
                elif not ops[row, LEADER]:
                    wanted = teams[team, ROWS]
                arrived[cta, mbarrier] += 1
                if arrived[cta, mbarrier] == 1 or when > last_arrived[cta, mbarrier]:
                    last_arrived[cta, mbarrier] = when
                if arrived[cta, mbarrier] >= wanted:
                    phases = _complete(phases, done, cta, mbarrier, last_arrived[cta, mbarrier])
                    arrived[cta, mbarrier] = 0
                    completed = True
            if traced:
                following[w, ISSUED], following[w, START], following[w, DONE] = now, start, ready
                following[w, READ] = start + busy + clocks[row, READ_LATENCY]
                trace[issues] = following[w]
                issues += 1
            if completed:  # those who wait for a phase look again
                for other in _waiting(_PHASE, cta, -1, sm):
                    end = max(end, _queue(other, now + 1, -1.0, sm))
            if kind == _CTA_BARRIER:
                state[w, _PC] += 1
                state[w, _WAITS_FOR] = what = _ROLES if count else _TEAM
                joined = _waiting(what, cta, -1 if count else team, sm)
                if len(joined) == (members[cta] if count else teams[team, ROWS]):
                    for other in joined:
                        end = max(end, _queue(other, now + clocks[row, LATENCY], -1.0, sm))
                continue
            if write_barrier < _SCOREBOARDS and kind != _COPY_COMMIT and kind != _COUNT_WAIT:
                barriers[w, write_barrier] = max(barriers[w, write_barrier], ready)
            if ops[row, READ_BARRIER] < _SCOREBOARDS:
                read = start + busy + clocks[row, READ_LATENCY]
                barriers[w, ops[row, READ_BARRIER]] = max(barriers[w, ops[row, READ_BARRIER]], read)
            state[w, _PC] += 1
            end = max(end, _queue(w, until, now, sm))
            now = until
            continue
        state[w, _PC] += 1
        end = max(end, _queue(w, now, issued, sm))
