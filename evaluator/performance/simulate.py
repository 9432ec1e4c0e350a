"""One SM, clock by clock: plays warps' instruction streams through its schedulers, scoreboards and pipes.

Four warps of a CTA that run the same stream, one on each sub-partition, are played as one: they go through the same
pipes at the same time. At the SM's own pipes they take turns, and each waits for its own result only. This is four
times as fast, and an approximation: on an SM the four fall out of step there, and one computes while another waits for
its turn. Both plays take at least as long as one warp alone, and longer by at most what the other three take those
pipes for. Where a stream uses no pipe of the SM's they agree.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from heapq import heapify, heappop, heappush, heappushpop
from operator import attrgetter
from typing import ClassVar

from evaluator.performance.pipes import Kind, Op, Pipe
from evaluator.performance.shared_memory import SharedMemory
from evaluator.performance.warps import Cta, Warp

PARTITIONS = 4
_AHEAD = 2
"""Passes by which a role may lead another through unknown mbarriers: two buffers, as Triton makes (estimate)."""
_STAGGER = 2000.0
"""Clocks within which CTAs that run together start, where starts are jittered."""
_LATE = 1000.0
"""Clocks by which the roles of a CTA start late, where starts are jittered."""
_SPREAD = 0.25
"""Share by which latencies vary, up and down, where they are jittered."""
_UNEVEN = 0.3
"""Share by which stall counts of one of several teams vary from pass to pass, where starts are jittered (why so much:
docs/performance-model.md). As none can be shorter than a clock, those of one clock take 1.075 in the mean."""
_FIXED_LATENCY = 16.0
"""Latencies up to this many clocks are those of arithmetic, which do not vary."""
_EVERY = -1
_KIND = attrgetter("kind")
# A look-up in an enumeration is slow.
_CTA_BARRIER, _WGMMA, _WGMMA_WAIT = Kind.CTA_BARRIER, Kind.WGMMA, Kind.WGMMA_WAIT
_COPY, _COPY_COMMIT, _COUNT_WAIT, _BULK_COPY = Kind.COPY, Kind.COPY_COMMIT, Kind.COUNT_WAIT, Kind.BULK_COPY
_TENSOR_MMA, _TENSOR_COMMIT, _ARRIVE = Kind.TENSOR_MMA, Kind.TENSOR_COMMIT, Kind.MBARRIER_ARRIVE
_WAIT_COPY, _WAIT_TENSOR = Kind.MBARRIER_WAIT_COPY, Kind.MBARRIER_WAIT_TENSOR
_WAIT_ROLE, _INIT = Kind.MBARRIER_WAIT_ROLE, Kind.MBARRIER_INIT
_LATEST = 1e12
"""More clocks than any play takes."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in a stream whose time is recorded under ``name``."""

    name: int
    turn: int = 0
    """If positive, the number of passes through loops that the stream has done here."""
    copies: Mapping[int, int] | None = None
    """At the end of a loop: phases of bulk copies issued so far, by mbarrier. Later ones are not waited for next."""
    kind: ClassVar[None] = None
    waits: ClassVar[tuple[int, ...]] = ()


@dataclass(frozen=True)
class Team:
    """Warps of one CTA that run the same stream."""

    cta: int
    first_warp: int
    """Position of the first warp on the SM: warp w belongs to sub-partition w mod 4."""
    warps: int
    stream: Sequence[Op | Mark]


@dataclass(frozen=True)
class Played:
    """The result of a play. Times in clocks."""

    end: float
    """Longest time from the start of a CTA until its last warp is done."""
    marks: dict[tuple[int, int], float]
    """Mean time, over warps, at which each (team, mark) was passed."""


@dataclass(slots=True)
class Issue:
    """One instruction issued by warps that are played as one, and what delayed it. Times in clocks."""

    team: int
    warp: int
    """Position of the first of the warps on the SM."""
    warps: int
    """Number of warps."""
    place: int
    """Position of the op in its team's stream."""
    due: float
    """Time at which the warp's last instruction let it continue."""
    ready: float = 0.0
    """Time at which the scoreboard barriers it waits for were clear, or its other wait was over."""
    queued: float = 0.0
    """Clocks between ready and issued in which its pipe was occupied; in the others its scheduler was."""
    issued: float = 0.0
    start: float = 0.0
    """Time at which its pipe began."""
    read: float = 0.0
    """Time at which it had read its operands."""
    done: float = 0.0
    """Time at which its result was available."""


def play(
    teams: Sequence[Team], trace: list[Issue] | None = None, issue_clocks: float = 1.0, seed: int | None = None
) -> Played:
    """Play all teams' streams to their end on one SM.

    A scheduler issues one instruction a clock: of the warp that issued in the clock before if it can, else of the
    youngest that can (Huerta et al., "Analyzing Modern NVIDIA GPU cores", arXiv:2503.20481). A warp is ready when its
    last instruction's stall count has passed and the scoreboard barriers in its wait mask are clear. An instruction
    then waits for its pipe. Bytes from L2 arrive at the SM's share of its bandwidth, one request after the other. A
    warp's n-th wait at an mbarrier is for its n-th phase. Where all warps of a CTA wait, the slots of a ring that no
    one has used yet are free: what waits for them goes on, those who load before those who multiply, and these before
    the others. Teams of one CTA whose streams count turns stay within ``_AHEAD`` of each other.

    Every issue is appended to ``trace``, if given. A scheduler is taken for ``issue_clocks`` by each. With a ``seed``,
    chance decides when CTAs start, how long latencies and, in each pass of one of several teams, stalls are, and which
    teams are younger (an odd seed reverses what the even one before it drew): else kernels whose roles or CTAs take
    turns are timed by the rhythm that they happen to fall into.
    """
    chance = None if seed is None else random.Random(seed // 2)
    begins = {team.cta: 0.0 if chance is None else chance.uniform(0, _STAGGER) for team in teams}
    ctas = {team.cta: Cta() for team in teams}
    rows = [len(_rows(team.warps)) for team in teams]
    warps: list[Warp] = []
    oldest_first = [*range(len(teams))] if chance is None else chance.sample(range(len(teams)), len(teams))
    for index in reversed(oldest_first) if seed and seed % 2 else oldest_first:
        team = teams[index]
        for first, width in _rows(team.warps):
            place = team.first_warp + first
            partition = _EVERY if width == PARTITIONS else place % PARTITIONS
            warps.append(Warp(index, ctas[team.cta], team.stream, place, width, partition, first == 0))
            ctas[team.cta].warps.append(warps[-1])
    shared = Pipe.SHARED  # and all after it
    # When schedulers and pipes are free. For a single warp: its sub-partition's, and not before four warps together had
    # all of them. For four: the last of all. A pipe of the SM's has only that.
    scheduler, schedulers_taken, schedulers_free = [0.0] * PARTITIONS, 0.0, 0.0
    pipes, pipes_taken, pipes_free = [[0.0] * PARTITIONS for _ in Pipe], [0.0] * len(Pipe), [0.0] * len(Pipe)
    l2 = 0.0  # when L2 has delivered all that the SM asked for so far
    memory = SharedMemory()
    at_barrier: list[list[int]] = [[] for _ in teams]
    sums: dict[tuple[int, int], list[float]] = {}
    several = len(teams) > len(ctas)  # roles; a stream alone counts what it copied over all phases
    delays = [chance.uniform(0, _LATE) if several and chance else 0.0 for _ in teams]
    stretch = [1.0] * len(teams)
    # when, unless just issued, who asked first if the pipe is taken in turn, youngest first
    ready = [
        (begins[teams[warp.team].cta] + delays[warp.team], True, 0.0, -w)
        for w, warp in enumerate(warps)
        if teams[warp.team].stream
    ]
    heapify(ready)
    end = 0.0
    following: list[Issue] = []  # traced: each warp's next
    rank = cache(lambda team: _rank(teams[team].stream))
    if trace is not None:
        following = [Issue(warp.team, warp.place, warp.width, 0, 0.0) for warp in warps]

    def turn_of(index: int, earliest: float, issued: float = -1.0) -> tuple[float, bool, float, int] | None:
        """Return the warp's place in the queue: when its next instruction may issue as far as its own dependences go.

        None if the warp is done.
        """
        nonlocal end
        warp = warps[index]
        if warp.pc == len(warp.stream):
            end = max(end, earliest - begins[teams[warp.team].cta])
            return None
        op = warp.stream[warp.pc]
        due = earliest
        for barrier in op.waits:
            if warp.barriers[barrier] > earliest:
                earliest = warp.barriers[barrier]
        if trace is not None and isinstance(op, Op):
            if following[index].place != warp.pc:
                following[index] = Issue(warp.team, warp.place, warp.width, warp.pc, due)
            following[index].ready = earliest
        return earliest, earliest > issued + 1, 0.0, -index

    def resume(index: int, earliest: float) -> None:
        """Queue the warp."""
        if place := turn_of(index, earliest):
            heappush(ready, place)

    def complete(cta: Cta, at: float) -> None:
        """Let those look again who wait for a phase of an mbarrier."""
        awaiting, cta.awaiting = cta.awaiting, []
        for waiting in awaiting:
            resume(waiting, at)

    now = 0.0
    again: tuple[float, bool, float, int] | None = None  # the warp that was just looked at, if it goes on
    while True:
        if again:
            now, late, _, youth = heappushpop(ready, again)
        elif ready:
            now, late, _, youth = heappop(ready)
        else:
            blocked = [cta for cta in ctas.values() if cta.awaiting]
            for cta in blocked:
                _free_slots(cta, [warps[index] for index in cta.awaiting], rank, now)
                complete(cta, now)
            if blocked:
                continue
            queues = [*at_barrier, *(queue for cta in ctas.values() for queue in (cta.held, cta.joining))]
            stuck = [index for waiting in queues for index in waiting]
            if not stuck:
                break
            for waiting in queues:  # a warp that still waits for others waits for no one
                waiting.clear()
            for index in stuck:
                resume(index, now)
            continue
        again = None
        index = -youth
        issued = -1.0 if late else now - 1
        warp = warps[index]
        op = warp.stream[warp.pc]
        if op.kind is None:
            times = sums.setdefault((warp.team, op.name), [])
            times.append(now)
            if chance and len(teams) > 1 and warp.leader:
                stretch[warp.team] = chance.uniform(1 - _UNEVEN, 1 + _UNEVEN)
            if op.copies is not None:
                warp.waited.update(op.copies)
            if op.turn:
                cta = warp.cta
                warp.turn = op.turn
                warp.pc += 1
                held, cta.held = [*cta.held, index], []
                slowest = min(other.turn for other in cta.warps)
                for other_index in held:
                    if warps[other_index].turn - slowest > _AHEAD:
                        cta.held.append(other_index)
                    else:
                        resume(other_index, now)
                continue
        elif op.leader and not warp.leader:
            pass
        else:
            kind = op.kind
            waits = kind is _WAIT_COPY or kind is _WAIT_ROLE
            if waits and warp.waited[op.mbarrier] >= len(warp.cta.phases[op.mbarrier]):
                warp.cta.awaiting.append(index)  # until the copy is issued or the role arrives
                continue
            pipe = op.pipe
            width = 1 if op.leader else warp.width
            partition = warp.partition
            free = slot = schedulers_free if partition < 0 else max(scheduler[partition], schedulers_taken)
            if pipe:
                whole = partition < 0 or pipe >= shared
                taken = pipes_free[pipe] if whole else max(pipes[pipe][partition], pipes_taken[pipe])
                if taken - op.queue > free:
                    free = taken - op.queue
            if free > now:
                if trace is not None and pipe and taken - op.queue >= slot:
                    following[index].queued += free - now
                if op.in_turn:
                    warp.asked = warp.asked or now
                again = free, True, warp.asked - _LATEST if op.in_turn else 0.0, youth
                if ready and ready[0] < again:
                    continue
                again, now, issued = None, free, -1.0  # no one comes before it
            warp.asked = 0.0
            issued = start = now
            if pipe:
                if taken > now:
                    start = taken
                taken = start + op.busy * (width if pipe >= shared else 1)
                if kind is _WGMMA or kind is _TENSOR_MMA:
                    taken = memory.multiply(start, taken, op.shared * width)
                elif pipe == shared:
                    memory.access(taken - start)
                if pipe >= shared:
                    pipes_free[pipe] = taken
                elif partition < 0:
                    pipes_taken[pipe] = pipes_free[pipe] = taken
                else:
                    pipes[pipe][partition] = taken
                    pipes_free[pipe] = max(pipes_free[pipe], taken)
            if op.shared and (kind is _COPY or kind is _BULK_COPY):
                memory.access(op.shared * width)
                pipes_free[shared] = max(pipes_free[shared], start) + op.shared * width
            passed = now + issue_clocks
            if partition < 0:
                schedulers_taken = schedulers_free = passed
            else:
                scheduler[partition] = passed
                schedulers_free = max(schedulers_free, passed)
            latency = op.latency
            if chance is not None and latency > _FIXED_LATENCY:
                latency *= chance.uniform(1 - _SPREAD, 1 + _SPREAD)
            done = start + op.busy + latency
            if op.l2:
                l2 = max(l2, start) + op.l2 * width
                done = max(done, l2 + latency)
            until = now + op.stall * stretch[warp.team]
            counts = False
            if kind:
                if kind is _WGMMA:
                    warp.wgmma_open = taken + latency
                    if op.count:
                        warp.wgmma_done.append(warp.wgmma_open)
                elif kind is _WGMMA_WAIT:
                    if len(warp.wgmma_done) > op.count:
                        until = max(until, warp.wgmma_done[-1 - op.count])
                        del warp.wgmma_done[: len(warp.wgmma_done) - op.count]
                elif kind is _COPY:
                    warp.copied = max(warp.copied, done)
                elif kind is _COPY_COMMIT:
                    counts = True
                    warp.counted[op.write_barrier % 6].append(warp.copied)
                elif kind is _COUNT_WAIT:
                    counts = True
                    counted = warp.counted[op.write_barrier]
                    if counted and len(counted) > op.count:
                        until = max(until, counted[-1 - op.count])
                        del counted[: len(counted) - op.count]
                    elif not op.count:
                        until = max(until, warp.barriers[op.write_barrier])
                elif kind is _BULK_COPY:
                    cta = warp.cta
                    if cta.arrive(op.mbarrier, done, max(1, op.count)):
                        complete(cta, now + 1)
                elif kind is _ARRIVE:
                    cta = warp.cta
                    if cta.arrive(op.mbarrier, now, 1 if op.leader else rows[warp.team]):
                        complete(cta, now + 1)
                elif kind is _INIT and several:
                    warp.cta.initialise(op.mbarrier)
                elif kind is _TENSOR_MMA:
                    warp.cta.tensor_done = taken + latency
                elif kind is _TENSOR_COMMIT:
                    cta = warp.cta
                    cta.tensor_committed = cta.tensor_done
                    if cta.arrive(op.mbarrier, max(now, cta.tensor_done), 1):
                        complete(cta, now + 1)
                elif waits:
                    done = max(done, warp.cta.phases[op.mbarrier][warp.waited[op.mbarrier]] + op.latency)
                    warp.waited[op.mbarrier] += 1
                elif kind is _WAIT_TENSOR:
                    done = max(done, warp.cta.tensor_committed)
                elif kind is _CTA_BARRIER:
                    waiting = warp.cta.joining if op.count else at_barrier[warp.team]
                    waiting.append(index)
                    if trace is not None:
                        _record(trace, following[index], now, start, start + op.busy + op.read_latency, done)
                    warp.pc += 1
                    if len(waiting) == (len(warp.cta.warps) if op.count else rows[warp.team]):
                        for other in waiting:
                            resume(other, now + op.latency)
                        waiting.clear()
                    continue
            if trace is not None:
                _record(trace, following[index], now, start, start + op.busy + op.read_latency, done)
            barriers = warp.barriers
            if op.write_barrier < 6 and not counts and done > barriers[op.write_barrier]:
                barriers[op.write_barrier] = done
            if op.read_barrier < 6:
                barriers[op.read_barrier] = max(barriers[op.read_barrier], start + op.busy + op.read_latency)
            now = until
        warp.pc += 1
        again = turn_of(index, now, issued)
    return Played(end, {key: sum(times) / len(times) for key, times in sums.items()})


def _rows(warps: int) -> Sequence[tuple[int, int]]:
    """Return first and number of the warps of a CTA that are played as one."""
    whole = warps - warps % PARTITIONS
    return [(first, PARTITIONS) for first in range(0, whole, PARTITIONS)] + [(w, 1) for w in range(whole, warps)]


def _free_slots(cta: Cta, awaiting: Sequence[Warp], rank: Callable[[int], int], now: float) -> None:
    """Complete the phases that the first of the blocked roles waits for: as many as the ring has slots.

    They are free once, before anyone used them. Phases that copies complete belonged to copies that are not played.
    """
    ops = [op for warp in awaiting if isinstance(op := warp.stream[warp.pc], Op)]
    order = [(op.mbarrier in cta.freed, rank(warp.team)) for op, warp in zip(ops, awaiting, strict=True)]
    for op, warp, place in zip(ops, awaiting, order, strict=True):
        if place == min(order) and warp.waited[op.mbarrier] >= len(cta.phases[op.mbarrier]):
            cta.phases[op.mbarrier] += [now] * max(1, op.count)
            cta.freed.add(op.mbarrier)


def _rank(stream: Sequence[Op | Mark]) -> int:
    """Return the order of precedence when all wait: 0 for those who load."""
    kinds = set(map(_KIND, stream))
    return 0 if Kind.BULK_COPY in kinds else 1 if Kind.TENSOR_MMA in kinds else 2


def _record(trace: list[Issue], issue: Issue, now: float, start: float, read: float, done: float) -> None:
    issue.issued, issue.start, issue.read, issue.done = now, start, read, done
    trace.append(issue)
