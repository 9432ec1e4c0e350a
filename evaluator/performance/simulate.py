"""One SM, clock by clock: plays warps' instruction streams through its schedulers, scoreboards and pipes.

Four warps of a CTA that run the same stream, one on each sub-partition, are played as one: they go through the same
pipes at the same time. At the SM's own pipes they take turns, and each waits for its own result only. This is four
times as fast, and an approximation: on an SM the four fall out of step there, and one computes while another waits for
its turn. Both plays take at least as long as one warp alone, and longer by at most what the other three take those
pipes for. Where a stream uses no pipe of the SM's they agree.
"""

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import accumulate, chain, pairwise
from operator import attrgetter
from typing import ClassVar, NamedTuple

import numpy as np
from numba import njit

from avo.evaluator.performance import records
from avo.evaluator.performance.clockwork import OPTIONS, compiled
from avo.evaluator.performance.clockwork import play as loop
from avo.evaluator.performance.mbarriers import ORDERED
from avo.evaluator.performance.pipes import PARTITIONS, SCOREBOARDS, Kind, Op, Pipe
from avo.evaluator.performance.records import EVERY, Floats, Integers, Records, Sm
from avo.evaluator.performance.roles import ARRIVALS, WAITS

_MOST_GROUPS = 2**25
"""Groups of products or copies, times warps, for which there is room: no honest kernel comes near."""
_MOST_PHASES = 2**25
"""Phases of mbarriers, of all CTAs, for which there is room: no honest kernel comes near."""
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
    table = (teams if isinstance(teams, Teams) else Teams(teams)).table
    ctas, warps = _ctas_and_warps(teams, table, chance, reverse=bool(seed and seed % 2))
    if not len(warps):
        return Played(0.0, {})
    sm = _sm(table, ctas, warps, chance, traced=trace is not None)
    sm.chip["issue_clocks"] = issue_clocks
    _run(sm)
    if trace is not None:
        trace += _issues(sm)
    names = [*table.names]
    passed = np.argwhere(sm.counts).tolist()
    return Played(
        float(sm.chip["end"][0]),
        {(team, names[at]): float(sm.sums[team, at] / sm.counts[team, at]) for team, at in passed},
    )


def _ctas_and_warps(
    teams: Sequence[Team], table: "_Table", chance: random.Random | None, *, reverse: bool
) -> tuple[Records, Records]:
    """Return the CTAs, and the warps that are played, the youngest last."""
    begins = {team.cta: 0.0 if chance is None else chance.uniform(0, _STAGGER) for team in teams}
    numbers = {cta: number for number, cta in enumerate(begins)}
    oldest_first = [*range(len(teams))] if chance is None else chance.sample(range(len(teams)), len(teams))
    roles = len(teams) > len(begins)
    delays = [chance.uniform(0, _LATE) if roles and chance else 0.0 for _ in teams]
    rows = []
    for index in reversed(oldest_first) if reverse else oldest_first:
        team = teams[index]
        for first, width in _rows(team.warps):
            place = team.first_warp + first
            partition = EVERY if width == PARTITIONS else place % PARTITIONS
            rows.append((index, numbers[team.cta], *table.parts[index][:2], width, partition, first == 0, place))
    ctas, warps = np.zeros(len(begins), records.CTA), _filled(records.WARP, rows)
    ctas["begin"] = [*begins.values()]
    warps["time"] = ctas["begin"][warps["cta"]] + np.array(delays)[warps["team"]]
    return ctas, warps


def _filled(kind: np.dtype[np.void], rows: Sequence[Sequence[float]]) -> Records:
    """Return records whose first fields are given; the others are 0."""
    found = np.zeros(len(rows), kind)
    for name, column in zip(kind.names or (), zip(*rows, strict=True), strict=False):
        found[name] = column
    return found


def _sm(table: "_Table", ctas: Records, warps: Records, chance: random.Random | None, *, traced: bool) -> Sm:
    """Return an SM on which nothing has been played yet."""
    groups = (len(warps), SCOREBOARDS + 1, table.groups)
    if math.prod(groups) > _MOST_GROUPS:
        raise ValueError("too many groups of products or copies")
    room = np.zeros((len(ctas), table.mbarriers), np.int64)
    shape = (len(warps), table.mbarriers)
    arrived, awaited = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    for w, warp in enumerate(warps):
        part = table.parts[warp["team"]]
        room[warp["cta"]] += part.phases
        arrived[w], awaited[w] = part.joined + part.led * warp["leader"], part.awaited
    mbarriers = _mbarriers(arrived, awaited, warps["cta"], room.shape)
    phases = (*room.shape, int(room.max(initial=0)))
    if math.prod(phases) > _MOST_PHASES:
        raise ValueError("too many phases of mbarriers")
    steps = int((warps["end"] - warps["begin"]).sum())
    marks = (len(table.parts), len(table.names))
    return Sm(
        table.stream,
        table.ops,
        table.marks,
        table.copies,
        warps,
        _filled(records.TEAM, [(part.warps, part.rank, 1.0) for part in table.parts]),
        ctas,
        mbarriers=mbarriers,
        phases=np.zeros(phases),
        waited=np.zeros(shape, np.int64),
        arrived=np.where((arrived > 0) & (mbarriers["wanted"][warps["cta"]] == 0), 0, -1),
        groups=np.zeros(groups[:2], records.GROUPS),
        group_ends=np.zeros(groups),
        pipes=np.zeros(len(Pipe), records.PIPE),
        chip=np.zeros(1, records.CHIP),
        sums=np.zeros(marks),
        counts=np.zeros(marks, np.int64),
        chance=np.zeros(0) if chance is None else _numbers(chance, steps),
        following=np.zeros(len(warps), records.ISSUE),
        trace=np.zeros(steps if traced else 0, records.ISSUE),
    )


def _mbarriers(arrived: Integers, awaited: Integers, ctas: Integers, shape: tuple[int, int]) -> Records:
    """Return the mbarriers of all CTAs, from how often each warp arrives and waits there."""
    mbarriers = np.zeros(shape, records.MBARRIER)
    for cta in range(shape[0]):
        own, waits = arrived[ctas == cta], awaited[ctas == cta].max(axis=0)
        # As many arrivals complete a phase as there are for each that is waited for.
        for_each = np.rint(own.sum(axis=0) / np.maximum(waits, 1))
        mbarriers["wanted"][cta] = np.where(
            (waits > 0) & (for_each < (own > 0).sum(axis=0)), np.maximum(for_each, 1), 0
        )
    return mbarriers


_FIELDS = records.OP.names or ()


class _Part(NamedTuple):
    """The part of a team in the stream of all."""

    begin: int
    end: int
    warps: int
    """Those that are played apart."""
    rank: int
    """Its place among those who all wait, first of all 0: those who load, then those who multiply."""
    phases: Integers
    """[mbarriers]: most that one of the warps completes."""
    joined: Integers
    """[mbarriers]: how often each warp arrives there."""
    led: Integers
    """[mbarriers]: how often one warp does so for all."""
    awaited: Integers
    """[mbarriers]: how often each warp waits for a phase."""


class _Table:
    """The streams of all teams in numbers: an instruction that they have several times is one row."""

    def __init__(self, teams: Sequence[Team]) -> None:
        streams = {id(team.stream): team.stream for team in teams}
        places = [np.fromiter(map(id, stream), np.int64, len(stream)) for stream in streams.values()]
        everything = list(chain(*streams.values()))
        # Few are distinct. Their rows follow each other as they are met first, instructions before marks.
        _, firsts, numbers = np.unique(
            np.concatenate([np.zeros(0, np.int64), *places]), return_index=True, return_inverse=True
        )
        marked = np.array([isinstance(everything[first], Mark) for first in firsts.tolist()], bool)
        order = np.lexsort((firsts, marked))
        self.stream = np.argsort(order)[numbers]
        distinct = [everything[first] for first in firsts[order].tolist()]
        ops = [each for each in distinct if isinstance(each, Op)]
        marks = [each for each in distinct[len(ops) :] if isinstance(each, Mark)]
        self.names = {name: place for place, name in enumerate({mark.name for mark in marks})}
        copies = [[*(mark.copies or {}).items()] for mark in marks]
        named = chain((op.mbarrier for op in ops), (name for name, _ in chain(*copies)))
        mbarriers = {name: place for place, name in enumerate(dict.fromkeys(named))}
        self.mbarriers, self.ordered = len(mbarriers), mbarriers.get(ORDERED, -1)
        self.copies = _filled(records.COPIES, [(mbarriers[name], phases) for name, phases in chain(*copies)])
        of_marks = zip(marks, accumulate(map(len, copies), initial=0), map(len, copies), strict=False)
        self.marks = _filled(records.MARK, [(self.names[mark.name], mark.turn, *own) for mark, *own in of_marks])
        self.ops = np.zeros(len(distinct), records.OP)
        columns = np.fromiter(chain(*map(attrgetter(*_FIELDS), ops)), np.float64).reshape(-1, len(_FIELDS))
        for name, column in zip(_FIELDS, columns.T, strict=True):
            self.ops[name][: len(ops)] = column
        self.ops["mbarrier"][: len(ops)] = [mbarriers[op.mbarrier] for op in ops]
        self.ops["kind"][len(ops) :], self.ops["count"][len(ops) :] = Kind.MARK, range(len(marks))
        bounds = pairwise(accumulate(map(len, places), initial=0))
        parts = {stream: self._part(*bound) for stream, bound in zip(streams, bounds, strict=True)}
        self.groups = max([1, *(groups for _, groups in parts.values())])
        self.parts = [parts[id(team.stream)][0]._replace(warps=len(_rows(team.warps))) for team in teams]

    def _part(self, begin: int, end: int) -> tuple[_Part, int]:
        """Return the part of a stream, but for its warps, and how many groups of products or copies it ends."""
        rows = np.bincount(self.stream[begin:end], minlength=len(self.ops))  # how often each is passed
        kinds, mbarriers = self.ops["kind"], self.ops["mbarrier"]
        has = set(kinds[rows > 0].tolist())
        rank = 0 if Kind.BULK_COPY in has else 1 if Kind.TENSOR_MMA in has else 2
        most = np.where(np.isin(kinds, WAITS + ARRIVALS), np.maximum(self.ops["count"], 1), 0)
        phases = np.bincount(mbarriers, rows * most, self.mbarriers).astype(np.int64)
        known = rows * (mbarriers != self.ordered)
        arrives, leader = np.isin(kinds, (Kind.MBARRIER_ARRIVE, Kind.TENSOR_COMMIT)), self.ops["leader"] > 0
        joined, led, awaited = (
            np.bincount(mbarriers, known * those, self.mbarriers).astype(np.int64)
            for those in (arrives & ~leader, arrives & leader, np.isin(kinds, WAITS))
        )
        groups = int(rows[np.isin(kinds, (Kind.WGMMA, Kind.COPY_COMMIT))].sum())
        return _Part(begin, end, 0, rank, phases, joined, led, awaited), groups


def _run(sm: Sm) -> None:
    """Run the compiled loop. Its machine code is kept on the disk, unless that cannot be written or read."""
    try:
        _kept(loop)(sm)
    except (RuntimeError, OSError, EOFError):
        _compiled(loop)(sm)


_kept = cache(njit(cache=True, **OPTIONS))
_compiled = cache(compiled)


def _numbers(chance: random.Random, count: int) -> Floats:
    """Return what ``chance.random()`` would return so many times."""
    _, (*key, position), _ = chance.getstate()
    same = np.random.RandomState()
    same.set_state(("MT19937", np.array(key, np.uint32), position, 0, 0.0))
    return same.random_sample(count)


def _issues(sm: Sm) -> Iterator[Issue]:
    warps = sm.warps[["team", "place", "width", "begin"]].tolist()
    for w, place, *times in sm.trace[: sm.chip["issues"][0]].tolist():
        team, first, width, begin = warps[w]
        yield Issue(team, first, width, place - begin, *times)


def _rows(warps: int) -> Sequence[tuple[int, int]]:
    """Return first and number of the warps of a CTA that are played as one."""
    whole = warps - warps % PARTITIONS
    return [(first, PARTITIONS) for first in range(0, whole, PARTITIONS)] + [(w, 1) for w in range(whole, warps)]
