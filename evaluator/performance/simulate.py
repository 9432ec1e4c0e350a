"""One SM, clock by clock: plays warps' instruction streams through its schedulers, scoreboards and pipes.

Four warps of a CTA that run the same stream, one on each sub-partition, are played as one: they go through the same
pipes at the same time. At the SM's own pipes they take turns, and each waits for its own result only. This is four
times as fast, and an approximation: on an SM the four fall out of step there, and one computes while another waits for
its turn. Both plays take at least as long as one warp alone, and longer by at most what the other three take those
pipes for. Where a stream uses no pipe of the SM's they agree.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import chain, pairwise
from operator import attrgetter
from typing import Any, ClassVar, cast

import numpy as np
from numba import njit

from avo.evaluator.performance.clockwork import (
    COPIES,
    DONE,
    EVERY,
    FIRST_COPY,
    KIND,
    MBARRIER,
    NAME,
    READ_LATENCY,
    TURN,
    Floats,
    compiled,
)
from avo.evaluator.performance.clockwork import play as loop
from avo.evaluator.performance.pipes import PARTITIONS, Kind, Op

_MOST_GROUPS = 2**22
"""Groups of products or copies, times warps, for which there is room: no honest kernel comes near."""
_STAGGER = 2000.0
"""Clocks within which CTAs that run together start, where starts are jittered."""
_LATE = 1000.0
"""Clocks by which the roles of a CTA start late, where starts are jittered."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in a stream whose time is recorded under ``name``."""

    name: int
    turn: int = 0
    """If positive, the number of passes through loops that the stream has done here."""
    copies: Mapping[int, int] | None = None
    """At the end of a loop: phases of bulk copies issued so far, by mbarrier. Later ones are not waited for next."""
    kind: ClassVar[Kind] = Kind.MARK


@dataclass(frozen=True)
class Team:
    """Warps of one CTA that run the same stream."""

    cta: int
    first_warp: int
    """Position of the first warp on the SM: warp w belongs to sub-partition w mod 4."""
    warps: int
    stream: Sequence[Op | Mark]


class Teams(tuple[Team, ...]):
    """Teams that are played side by side, for several plays."""

    @cached_property
    def table(self) -> "_Table":
        """What they do, in numbers."""
        return _Table(self)


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

    A scheduler issues one instruction a clock: from the warp that issued in the clock before if it can, else from the
    youngest that can (Huerta et al., "Analyzing Modern NVIDIA GPU cores", arXiv:2503.20481). A warp is ready when its
    last instruction's stall count has passed and the scoreboard barriers in its wait mask are clear. An instruction
    then waits for its pipe. Bytes from L2 arrive at the SM's share of its bandwidth, one request after the other. A
    warp's n-th wait at an mbarrier is for its n-th phase. Where all warps of a CTA wait, the slots of a ring that no
    one has used yet are free: what waits for them goes on, those who load before those who multiply, and these before
    the others. Teams of one CTA whose streams count turns stay within two passes of each other.

    Every issue is appended to ``trace``, if given. A scheduler is taken for ``issue_clocks`` by each. With a ``seed``,
    chance decides when CTAs start, how long latencies and, in each pass of one of several teams, stalls are, and which
    teams are younger (an odd seed reverses what the even one before it drew): else kernels whose roles or CTAs take
    turns are timed by the rhythm that they happen to fall into.
    """
    chance = None if seed is None else random.Random(seed // 2)
    begins = {team.cta: 0.0 if chance is None else chance.uniform(0, _STAGGER) for team in teams}
    ctas = {cta: place for place, cta in enumerate(begins)}
    oldest_first = [*range(len(teams))] if chance is None else chance.sample(range(len(teams)), len(teams))
    roles = len(teams) > len(ctas)
    delays = [chance.uniform(0, _LATE) if roles and chance else 0.0 for _ in teams]
    table = (teams if isinstance(teams, Teams) else Teams(teams)).table
    warps = []
    for index in reversed(oldest_first) if seed and seed % 2 else oldest_first:
        team = teams[index]
        for first, width in _rows(team.warps):
            place = team.first_warp + first
            partition = EVERY if width == PARTITIONS else place % PARTITIONS
            warps.append((index, ctas[team.cta], *table.parts[index], width, partition, first == 0, place))
    if not warps:
        return Played(0.0, {})
    if len(warps) * table.groups > _MOST_GROUPS:
        raise ValueError("too many groups of products or copies")
    of_teams = [(len(_rows(team.warps)), rank) for team, rank in zip(teams, table.ranks, strict=True)]
    steps = sum(end - begin for _, _, begin, end, *_ in warps)
    sums, counts = np.zeros((len(teams), len(table.names))), np.zeros((len(teams), len(table.names)), np.int64)
    issues = np.zeros((0 if trace is None else steps, DONE + 1))
    end, issued = _run(
        table.stream,
        table.ops,
        table.clocks,
        table.copies,
        np.array([warp[:-1] for warp in warps], np.int64),
        np.array(of_teams, np.int64),
        np.array([begins[teams[index].cta] + delays[index] for index, *_ in warps]),
        np.array([begins[teams[index].cta] for index, *_ in warps]),
        np.zeros(0) if chance is None else _numbers(chance, steps),
        float(issue_clocks),
        sums,
        counts,
        table.mbarriers,
        table.groups,
        issues,
    )
    if trace is not None:
        trace += _issues(issues[:issued], warps)
    marks = {
        (team, name): float(sums[team, at] / counts[team, at])
        for team in range(len(teams))
        for name, at in table.names.items()
        if counts[team, at]
    }
    return Played(end, marks)


_COLUMNS = attrgetter(
    # the whole numbers but for the mbarrier, then the clocks
    "kind", "pipe", "waits", "write_barrier", "read_barrier", "count", "leader", "in_turn",
    "busy", "latency", "shared", "l2", "stall", "queue", "read_latency",
)  # fmt: skip
_CLOCKS = READ_LATENCY + 1


class _Table:
    """The streams of all teams in numbers: an instruction that they have several times is one row."""

    def __init__(self, teams: Sequence[Team]) -> None:
        streams = list({id(team.stream): team.stream for team in teams}.values())
        names = [list(map(id, stream)) for stream in streams]
        distinct = dict(zip(chain(*names), chain(*streams), strict=True))
        marks = {name: mark for name, mark in distinct.items() if isinstance(mark, Mark)}
        ops = {name: op for name, op in distinct.items() if isinstance(op, Op)}
        rows = {name: row for row, name in enumerate(chain(ops, marks))}
        self.stream = np.fromiter(map(rows.__getitem__, chain(*names)), np.int64)
        self.names = {name: place for place, name in enumerate({mark.name for mark in marks.values()})}
        copies = [[*(mark.copies or {}).items()] for mark in marks.values()]
        firsts = np.cumsum([0, *map(len, copies)])
        columns = np.fromiter(chain(*map(_COLUMNS, ops.values())), np.float64).reshape(-1, MBARRIER + _CLOCKS)
        self.ops = np.zeros((len(distinct), MBARRIER + 1), np.int64)
        self.ops[: len(ops), :MBARRIER] = columns[:, :MBARRIER]
        of_marks = self.ops[len(ops) :]
        of_marks[:, KIND] = Kind.MARK
        of_marks[:, NAME] = [self.names[mark.name] for mark in marks.values()]
        of_marks[:, TURN] = [mark.turn for mark in marks.values()]
        of_marks[:, FIRST_COPY], of_marks[:, COPIES] = firsts[:-1], np.diff(firsts)
        self.clocks = np.zeros((len(distinct), _CLOCKS))
        self.clocks[: len(ops)] = columns[:, MBARRIER:]
        pairs = [*chain(*copies)]
        named = chain((op.mbarrier for op in ops.values()), (name for name, _ in pairs))
        mbarriers = {name: place for place, name in enumerate(dict.fromkeys(named))}
        self.ops[: len(ops), MBARRIER] = [mbarriers[op.mbarrier] for op in ops.values()]
        self.copies = np.array([(mbarriers[name], phases) for name, phases in pairs], np.int64).reshape(-1, 2)
        self.mbarriers = len(mbarriers)
        parts = [*pairwise(np.cumsum([0, *map(len, streams)]).tolist())]
        kinds = self.ops[self.stream, KIND] - Kind.MARK
        counts = [np.bincount(kinds[begin:end], minlength=len(Kind))[-Kind.MARK :].tolist() for begin, end in parts]
        self.groups = max([1, *(each[Kind.WGMMA] + each[Kind.COPY_COMMIT] for each in counts)])
        place = {id(stream): place for place, stream in enumerate(streams)}
        self.parts = [parts[place[id(team.stream)]] for team in teams]
        self.ranks = [_rank(counts[place[id(team.stream)]]) for team in teams]


def _run(*arguments: Any) -> tuple[float, int]:
    """Run the compiled loop. Its machine code is kept on the disk, unless that cannot be written or read."""
    try:
        return cast(tuple[float, int], _kept(loop)(*arguments))
    except (RuntimeError, OSError, EOFError):
        return cast(tuple[float, int], compiled(loop)(*arguments))


_kept = cache(njit(cache=True, nogil=True))


def _numbers(chance: random.Random, count: int) -> Floats:
    """Return what ``chance.random()`` would return so many times."""
    _, (*key, position), _ = chance.getstate()
    same = np.random.RandomState()
    same.set_state(("MT19937", np.array(key, np.uint32), position, 0, 0.0))
    return same.random_sample(count)


def _issues(rows: Floats, warps: Sequence[tuple[int, ...]]) -> Iterator[Issue]:
    for warp, place, *times in rows.tolist():
        team, _, begin, _, width, _, _, first = warps[int(warp)]
        yield Issue(team, first, width, int(place) - begin, *times)


def _rows(warps: int) -> Sequence[tuple[int, int]]:
    """Return first and number of the warps of a CTA that are played as one."""
    whole = warps - warps % PARTITIONS
    return [(first, PARTITIONS) for first in range(0, whole, PARTITIONS)] + [(w, 1) for w in range(whole, warps)]


def _rank(counts: Sequence[int]) -> int:
    """Return the order of precedence when all wait, from how many instructions of each kind there are: 0 for those who
    load.
    """
    return 0 if counts[Kind.BULK_COPY] else 1 if counts[Kind.TENSOR_MMA] else 2
