"""The state of one warp and of one CTA while an SM is played."""

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from evaluator.performance.pipes import Op

if TYPE_CHECKING:
    from evaluator.performance.simulate import Mark


class Warp:
    """One warp, or four that are played as one."""

    __slots__ = (
        "asked",
        "barriers",
        "copied",
        "counted",
        "cta",
        "leader",
        "partition",
        "pc",
        "place",
        "stream",
        "team",
        "turn",
        "waited",
        "wgmma_done",
        "wgmma_open",
        "width",
    )

    def __init__(
        self, team: int, cta: "Cta", stream: "Sequence[Op | Mark]", place: int, width: int, partition: int, leader: bool
    ) -> None:
        """``partition`` is -1 for warps on all of them."""
        self.team = team
        self.cta = cta
        self.stream = stream
        self.place = place
        self.width = width
        self.partition = partition
        self.leader = leader
        self.pc = 0
        self.asked = 0.0
        self.barriers = [0.0] * 8
        self.counted: list[list[float]] = [[] for _ in range(6)]
        self.copied = 0.0
        self.wgmma_open = 0.0
        self.wgmma_done: list[float] = []
        self.turn = 0
        self.waited: dict[int, int] = defaultdict(int)


class Cta:
    __slots__ = (
        "arrivals",
        "awaiting",
        "freed",
        "held",
        "joining",
        "phases",
        "tensor_committed",
        "tensor_done",
        "warps",
    )

    def __init__(self) -> None:
        self.warps: list[Warp] = []
        self.held: list[int] = []
        self.joining: list[int] = []
        self.awaiting: list[int] = []
        self.freed: set[int] = set()
        self.phases: dict[int, list[float]] = defaultdict(list)
        self.arrivals: dict[int, list[float]] = defaultdict(list)
        self.tensor_done = 0.0
        self.tensor_committed = 0.0

    def arrive(self, mbarrier: int, at: float, wanted: int) -> bool:
        """Note an arrival; return whether it completes a phase, which takes as many as are wanted."""
        arrivals = self.arrivals[mbarrier]
        arrivals.append(at)
        if len(arrivals) < wanted:
            return False
        self.phases[mbarrier].append(max(arrivals))
        arrivals.clear()
        return True

    def initialise(self, mbarrier: int) -> None:
        """Begin the phases of an mbarrier anew, for all who wait for them or arrive."""
        self.phases[mbarrier].clear()
        self.arrivals[mbarrier].clear()
        self.freed.discard(mbarrier)
        for warp in self.warps:
            warp.waited[mbarrier] = 0
