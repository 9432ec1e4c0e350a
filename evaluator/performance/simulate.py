"""One SM, clock by clock: plays warps' instruction streams through its schedulers, scoreboards and pipes."""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

from evaluator.performance.pipes import Kind, Op, Pipe

PARTITIONS = 4
_QUEUE = {Pipe.SHARED: 64.0, Pipe.LSU: 64.0, Pipe.TENSOR_SM: 1e9}
"""Clocks of work that a pipe accepts ahead of time; other pipes hold the warp until they are free (estimate)."""
_WGMMA_QUEUE = 128.0
_AHEAD = 2
"""Passes that one role of a CTA may be ahead of another: two buffers between them, as Triton makes (estimate)."""
_OPERANDS_READ = 12.0
"""Clocks until a queued instruction has read its registers (estimate)."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in a stream whose time is recorded under ``name``."""

    name: int
    turn: int = 0
    """When positive, how many passes through loops the stream has done here."""
    copies: int | None = None
    """Where a loop ends: how many bulk copies the stream has issued. Those ahead of the loop's last pass are not what
    is waited for next."""


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
    """Times in clocks."""

    end: float
    """When the last warp is done."""
    marks: dict[tuple[int, int], float]
    """Mean time over warps at which (team, mark) was passed."""


class _Warp:
    __slots__ = (
        "barriers",
        "copied",
        "counted",
        "leader",
        "loads_seen",
        "pc",
        "place",
        "team",
        "turn",
        "wgmma_done",
        "wgmma_open",
    )

    def __init__(self, team: int, place: int, leader: bool) -> None:
        self.team = team
        self.place = place
        self.leader = leader
        self.pc = 0
        self.barriers = [0.0] * 8
        self.counted: list[list[float]] = [[] for _ in range(6)]
        self.copied = 0.0
        self.wgmma_open = 0.0
        self.wgmma_done: list[float] = []
        self.loads_seen = 0
        self.turn = 0


class _Cta:
    __slots__ = ("awaiting", "held", "loads", "tensor_committed", "tensor_done", "warps")

    def __init__(self) -> None:
        self.warps: list[_Warp] = []
        self.held: list[int] = []
        self.awaiting: list[int] = []
        self.loads: list[float] = []
        self.tensor_done = 0.0
        self.tensor_committed = 0.0


def play(teams: Sequence[Team]) -> Played:
    """Play all teams' streams to their end on one SM.

    A scheduler issues one instruction a clock: of the warp that issued in the clock before if it can, else of the
    youngest that can (Huerta et al., "Analyzing Modern NVIDIA GPU cores", arXiv:2503.20481). A warp is ready when its
    last instruction's stall count has passed and the scoreboard barriers in its wait mask are clear. An instruction
    then waits for its pipe. Bytes from L2 arrive at the SM's share of its bandwidth, one request after the other. Warps
    wait for bulk copies in the order in which these are issued. Teams of one CTA stay within ``_AHEAD`` turns of each
    other.
    """
    ctas = {team.cta: _Cta() for team in teams}
    warps: list[_Warp] = []
    for index, team in enumerate(teams):
        for w in range(team.warps):
            warps.append(_Warp(index, team.first_warp + w, w == 0))
            ctas[team.cta].warps.append(warps[-1])
    scheduler = [0.0] * PARTITIONS
    pipes = [[0.0] * len(Pipe) for _ in range(PARTITIONS)]
    shared_pipes = [0.0] * len(Pipe)
    l2 = 0.0  # when L2 has delivered all that the SM asked for so far
    operands = 0.0  # when shared memory has delivered the operands of all warpgroup products so far
    at_barrier: list[list[int]] = [[] for _ in teams]
    sums: dict[tuple[int, int], list[float]] = {}
    ready = [(0.0, True, -w) for w in range(len(warps))]  # when, unless just issued, youngest first
    heapq.heapify(ready)
    end = 0.0

    def resume(index: int, earliest: float, issued: float = -1.0) -> None:
        """Queue the warp for when its next instruction may issue as far as its own dependences go."""
        nonlocal end
        warp = warps[index]
        stream = teams[warp.team].stream
        if warp.pc == len(stream):
            end = max(end, earliest)
            return
        op = stream[warp.pc]
        if isinstance(op, Op):
            for barrier in op.waits:
                if warp.barriers[barrier] > earliest:
                    earliest = warp.barriers[barrier]
        heapq.heappush(ready, (earliest, earliest > issued + 1, -index))

    now = 0.0
    while True:
        if not ready:  # whoever still waits for other warps waits for no one
            queues = [*at_barrier, *(queue for cta in ctas.values() for queue in (cta.held, cta.awaiting))]
            stuck = [index for waiting in queues for index in waiting]
            if not stuck:
                break
            for cta in ctas.values():
                if cta.awaiting:
                    cta.loads.append(now)
            for waiting in queues:
                waiting.clear()
            for index in stuck:
                resume(index, now)
            continue
        now, late, youth = heapq.heappop(ready)
        index = -youth
        issued = -1.0 if late else now - 1
        warp = warps[index]
        team = teams[warp.team]
        stream = team.stream
        op = stream[warp.pc]
        if isinstance(op, Mark):
            times = sums.setdefault((warp.team, op.name), [])
            times.append(now)
            if op.copies is not None:
                warp.loads_seen = op.copies
            if op.turn:
                cta = ctas[team.cta]
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
            if op.kind == Kind.MBARRIER_WAIT_COPY and warp.loads_seen >= len(ctas[team.cta].loads):
                ctas[team.cta].awaiting.append(index)  # until the copy is issued
                continue
            partition = warp.place % PARTITIONS
            free = scheduler[partition]
            pipe = op.pipe
            own = pipes[partition] if pipe < Pipe.SHARED else shared_pipes
            start = now
            if pipe:
                accepted = own[pipe] - (_WGMMA_QUEUE if op.kind == Kind.WGMMA else _QUEUE.get(pipe, 0.0))
                free = max(free, accepted)
            if free > now:
                heapq.heappush(ready, (free, True, -index))
                continue
            scheduler[partition] = now + 1
            issued = now
            if pipe:
                start = max(now, own[pipe])
                own[pipe] = start + op.busy
            done = start + op.busy + op.latency
            if op.l2:
                l2 = max(l2, start) + op.l2
                done = max(done, l2 + op.latency)
            kind = op.kind
            until = now + op.stall
            if kind:
                if kind == Kind.WGMMA:
                    operands = max(operands, start) + op.shared
                    own[pipe] = max(own[pipe], operands)
                    warp.wgmma_open = own[pipe] + op.latency
                    if op.count:
                        warp.wgmma_done.append(warp.wgmma_open)
                elif kind == Kind.WGMMA_WAIT:
                    if len(warp.wgmma_done) > op.count:
                        until = max(until, warp.wgmma_done[-1 - op.count])
                        del warp.wgmma_done[: len(warp.wgmma_done) - op.count]
                elif kind == Kind.COPY:
                    warp.copied = max(warp.copied, done)
                elif kind == Kind.COPY_COMMIT:
                    warp.counted[op.write_barrier % 6].append(warp.copied)
                elif kind == Kind.COUNT_WAIT:
                    counted = warp.counted[op.write_barrier]
                    if counted and len(counted) > op.count:
                        until = max(until, counted[-1 - op.count])
                        del counted[: len(counted) - op.count]
                    elif not op.count:
                        until = max(until, warp.barriers[op.write_barrier])
                elif kind == Kind.BULK_COPY:
                    cta = ctas[team.cta]
                    cta.loads.append(done)
                    awaiting, cta.awaiting = cta.awaiting, []
                    for other_index in awaiting:
                        resume(other_index, now + 1)
                elif kind == Kind.TENSOR_MMA:
                    ctas[team.cta].tensor_done = done
                elif kind == Kind.TENSOR_COMMIT:
                    ctas[team.cta].tensor_committed = ctas[team.cta].tensor_done
                elif kind == Kind.MBARRIER_WAIT_COPY:
                    done = max(done, ctas[team.cta].loads[warp.loads_seen] + op.latency)
                    warp.loads_seen += 1
                elif kind == Kind.MBARRIER_WAIT_TENSOR:
                    done = max(done, ctas[team.cta].tensor_committed)
                elif kind == Kind.CTA_BARRIER:
                    at_barrier[warp.team].append(index)
                    warp.pc += 1
                    if len(at_barrier[warp.team]) == team.warps:
                        for other in at_barrier[warp.team]:
                            resume(other, now + op.latency)
                        at_barrier[warp.team] = []
                    continue
            if op.write_barrier < 6 and kind not in (Kind.COPY_COMMIT, Kind.COUNT_WAIT):
                warp.barriers[op.write_barrier] = max(warp.barriers[op.write_barrier], done)
            if op.read_barrier < 6:
                warp.barriers[op.read_barrier] = max(warp.barriers[op.read_barrier], start + op.busy + _OPERANDS_READ)
            now = until
        warp.pc += 1
        resume(index, now, issued)
    return Played(end, {key: sum(times) / len(times) for key, times in sums.items()})
