"""Schedules: when the last program of a launch ends.

Programs that wait for each other are played on all SMs, each from one wait to the next. Who waits for whom is what the
executor saw where programs started in order. A program's clocks are those of its passes and of what it does outside
loops, up to each wait and each release; while others of its SM wait, it goes faster.
"""

import heapq
import math
from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from avo.evaluator.performance.sass import ModelError
from avo.evaluator.work import VERSION, LaunchWork, Waits

_SCHEDULED_ONE_BY_ONE = 300_000
_NEARLY = 1e-6
"""Clocks that are less than the shortest way from one event to another."""


def list_schedule(clocks: npt.NDArray[np.float64], slots: int) -> float:
    """Return the clocks until all programs are done when each free slot takes the next one in launch order.

    For very many unequal programs this is Graham's bound on that schedule: the mean load plus the longest program.
    """
    count = len(clocks)
    longest = float(clocks.max())
    if longest - float(clocks.min()) < 1e-9 * longest:
        return math.ceil(count / slots) * longest
    if count <= slots:
        return longest
    if count > _SCHEDULED_ONE_BY_ONE:
        return float(clocks.sum()) / slots + longest * (1 - 1 / slots)
    free = clocks[:slots].tolist()
    heapq.heapify(free)
    for clock in clocks[slots:].tolist():
        heapq.heapreplace(free, free[0] + clock)
    return float(max(free))


@dataclass(frozen=True)
class Room:
    """Where programs run."""

    places: int
    """SMs, or groups of as many as a program takes."""
    each: int
    """Programs that one of these holds at once."""
    alone: float
    """Clocks of a program that has one of these for itself, relative to those while all share it."""
    flag: float
    """Clocks from a release until who waits for it goes on."""

    def rate(self, running: int) -> float:
        """Return how fast programs go where so many share a place, 1 where all do."""
        others = max(running - 1, 0) / (self.each - 1) if self.each > 1 else 1.0
        return 1 / (self.alone + (1 - self.alone) * others)


def schedule(launch: LaunchWork, clocks: npt.NDArray[np.float64], room: Room) -> float:
    """Return the clocks until all programs of a launch are done, which has ``waits``.

    ``clocks`` are those outside loops and in each loop, [1 + loops, programs], while all share a place. Raises
    ``ModelError`` where programs wait for others that have no room.
    """
    waits = launch.waits
    assert waits is not None
    passes = np.array([np.ones(launch.programs), *(loop.trips for loop in launch.loops)])
    owners = np.where(waits.programs == VERSION, 0, waits.programs)
    each = (clocks / np.maximum(passes, 1)).T[owners]
    ends = clocks.sum(0)
    played = _Play(waits, np.minimum((waits.places * each).sum(1), ends[owners]), ends, room)
    if played.left:
        raise ModelError(
            f"programs of kernel {launch.binary.name} wait for ever: an SM holds {room.each}, and others have no room"
        )
    return played.now


@dataclass
class _Place:
    """An SM, or several that run one program."""

    running: dict[int, float] = field(default_factory=dict)
    """The clocks of each program until its next node, or its end, while all share the place."""
    since: float = 0.0
    """When these were right."""
    stamp: int = 0


class _Play:
    """What happens from the first program's start to the last one's end."""

    def __init__(self, waits: Waits, at: npt.NDArray[np.float64], ends: npt.NDArray[np.float64], room: Room) -> None:
        self.now = 0.0
        self.left = len(ends)
        self._room = room
        self._ends = ends.tolist()
        self._owners = waits.programs.tolist()
        self._at = at.tolist()
        self._nodes: dict[int, list[int]] = defaultdict(list)
        for node, program in enumerate(self._owners):
            self._nodes[program].append(node)
        self._later: dict[int, list[int]] = defaultdict(list)
        self._missing = [0] * len(self._owners)
        for earlier, later in waits.after.tolist():
            self._later[earlier].append(later)
            self._missing[later] += 1
        self._ready = [0.0] * len(self._owners)
        self._done = [0.0] * len(ends)
        """Clocks that each program has done."""
        self._next = [0] * len(ends)
        """How many nodes it has passed."""
        self._place = [0] * len(ends)
        self._waiting: set[int] = set()
        self._places = [_Place() for _ in range(room.places)]
        self._events: list[tuple[float, int, int, int]] = []
        """Time, place, and either its stamp and -1, or 0 and a program that goes on."""
        self._fresh = iter(range(len(ends)))
        for i in range(min(len(ends), room.places * room.each)):
            self._start(i % room.places)
        for place in range(room.places):
            self._plan(place)
        while self._events:
            self._happen(*heapq.heappop(self._events))

    def _happen(self, time: float, place: int, stamp: int, program: int) -> None:
        here = self._places[place]
        if program < 0 and stamp != here.stamp:
            return
        self.now = time
        gone = (time - here.since) * self._room.rate(len(here.running))
        here.since = time
        for each in here.running:
            here.running[each] -= gone
        if program >= 0:
            self._go_on(program)
        for each in [each for each, rest in here.running.items() if rest < _NEARLY]:
            del here.running[each]
            self._go_on(each)
        self._plan(place)

    def _plan(self, place: int) -> None:
        """Note when the next program of a place reaches a node or its end."""
        here = self._places[place]
        here.stamp += 1
        if here.running:
            first = min(here.running.values()) / self._room.rate(len(here.running))
            heapq.heappush(self._events, (here.since + first, place, here.stamp, -1))

    def _start(self, place: int) -> None:
        program = next(self._fresh, None)
        if program is not None:
            self._place[program] = place
            self._go_on(program)

    def _go_on(self, program: int) -> None:
        """Let a program that has reached its next node, or its end, go on from there until the next but one."""
        nodes = self._nodes[program]
        while self._next[program] < len(nodes):
            node = nodes[self._next[program]]
            if self._run(program, self._at[node]):
                return
            if self._missing[node] or self._ready[node] > self.now:
                self._waiting.add(node)
                if not self._missing[node]:
                    self._wake(node)
                return
            self._next[program] += 1
            self._happened(node, self.now)
        if not self._run(program, self._ends[program]):
            self.left -= 1
            self._start(self._place[program])

    def _run(self, program: int, until: float) -> bool:
        """Let a program run to a place in its work; return False if it is there."""
        rest = until - self._done[program]
        self._done[program] = max(self._done[program], until)
        if rest < _NEARLY:
            return False
        self._places[self._place[program]].running[program] = rest
        return True

    def _wake(self, node: int) -> None:
        self._waiting.discard(node)
        program = self._owners[node]
        heapq.heappush(self._events, (max(self.now, self._ready[node]), self._place[program], 0, program))

    def _happened(self, node: int, time: float) -> None:
        """Note that a node has happened, and what that makes happen: versions, and programs that go on."""
        happened = [(node, time)]
        while happened:
            node, time = happened.pop()
            for later in self._later[node]:
                version = self._owners[later] == VERSION
                self._ready[later] = max(self._ready[later], time + (0.0 if version else self._room.flag))
                self._missing[later] -= 1
                if not self._missing[later]:
                    if version:
                        happened.append((later, self._ready[later]))
                    elif later in self._waiting:
                        self._wake(later)
