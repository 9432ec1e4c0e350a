"""What playing a kernel on one SM gives: clocks per pass through each of its loops, and clocks outside them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

from avo.evaluator.performance.sass import Instruction


@dataclass(frozen=True)
class LightPass:
    """A pass that skips what branches go around. It is played when its clocks are asked for: often they never are."""

    flops: float
    play: Callable[[], float]
    entered: float = 0.0
    """Share of the passes, 0 to 1, that are known to make a good part of what is skipped here."""

    @cached_property
    def clocks(self) -> float:
        """Clocks like those of ``Pass``. Raises ``ModelError`` where instructions lack operands."""
        return self.play()


@dataclass(frozen=True)
class Pass:
    """One pass through a loop's own body, or through the code outside all loops, by all CTAs resident on an SM."""

    clocks: float
    flops: float
    """FLOPs of the matrix instructions that were passed, per CTA."""
    usage: Mapping[str, float]
    """Busy fraction of each pipe, 0 to 1."""
    parts: tuple[tuple[tuple[Instruction, ...], int], ...] = ()
    """The instructions that were passed, and by how many warps of a CTA: one part, or one for each role."""
    light: LightPass | None = None
    skipped: float = 0.0
    """Share of the instructions that branches sometimes skip, not counting products."""
    copies: float = 1.0
    """Passes of the IR's loop that one pass of this code makes: above 1 where ptxas unrolled the loop."""
    lines: tuple[int, ...] = ()
    """For a loop, the lines of IR that its jumps back were made from, as far as known; with roles, those of the leading
    role's loop."""


@dataclass(frozen=True)
class PlayedKernel:
    """Clocks of a kernel's passes while ``resident`` CTAs share the SM."""

    resident: int
    outside: Pass
    loops: tuple[Pass, ...]
    """Loops in address order, outer before inner. Under warp specialisation there are as many as in the IR: each stands
    for the loops of all roles, which run side by side.
    """
    unknown: frozenset[int] = frozenset()
    """Indices of instructions whose costs are guessed."""
    serialised: bool = False
    """Whether ptxas made each warpgroup's product wait for the one before it."""
    untied: bool = False
    """Whether there are roles with unknown mbarriers between them."""
    depths: tuple[int, ...] = ()
    """For each loop the number of loops around it; empty where no loop is inside another."""
    unfollowed: frozenset[int] = frozenset()
    """Indices of accesses to shared memory with unknown bank conflicts."""
