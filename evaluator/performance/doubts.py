"""What the model does not know about a kernel, in words, and how far that may change the kernel's time."""

from collections.abc import Iterator
from dataclasses import dataclass

from avo.evaluator.performance.passes import Pass, PlayedKernel

_MUCH_SKIPPED = 0.05
"""Share of a loop's instructions above which a doubt is raised."""
_BUSY_SHARED = 0.5
_MUCH_SHORT = 0.5
"""Share of what HBM is charged for from which on short pieces raise a doubt."""


@dataclass(frozen=True, slots=True)
class Doubt:
    """One unknown. Its factors are estimates, on the generous side."""

    reason: str
    slower: float
    """Factor on the time at the slow end, 1 or more."""
    faster: float
    """Factor on the time at the fast end, 1 or less."""


def doubts(
    kernel: PlayedKernel, hot: Pass, limiter: str, *, guessed_loops: bool, unrolled: bool, short: float = 0.0
) -> tuple[Doubt, ...]:
    """Return the doubts about a launch.

    ``hot`` takes most of its time and ``limiter`` limits it. ``guessed_loops`` says that loops of the binary could not
    be matched with those of the IR, ``unrolled`` that some loops were unrolled completely. ``short`` is the share of
    what HBM is charged for that are pieces shorter than a sector.
    """
    return tuple(_doubts(kernel, hot, limiter, guessed_loops=guessed_loops, unrolled=unrolled, short=short))


def _doubts(
    kernel: PlayedKernel, hot: Pass, limiter: str, *, guessed_loops: bool, unrolled: bool, short: float
) -> Iterator[Doubt]:
    strange = {i.base for instructions, _ in hot.parts for i in instructions if i.index in kernel.unknown}
    if strange:
        yield Doubt(f"costs of {', '.join(sorted(strange))} in the hot loop are guessed", 1.15, 0.95)
    if kernel.untied:
        yield Doubt("roles are kept in step by order: the mbarriers between them could not be followed", 1.2, 1.0)
    if guessed_loops:
        yield Doubt("loops that could not be told apart are charged as the slowest of their kind", 1.1, 0.75)
    if unrolled:
        yield Doubt("an unrolled loop is charged by its products", 1.1, 0.9)
    if hot.skipped > _MUCH_SKIPPED:
        share = f"{hot.skipped:.0%}"
        reason = f"branches go around {share} of the hot loop, all charged as often as the one that is entered most"
        yield Doubt(reason, 1.0, 1 - hot.skipped)
    unseen = sum(i.index in kernel.unfollowed for instructions, _ in hot.parts for i in instructions)
    if unseen and hot.usage.get("shared", 0.0) > _BUSY_SHARED:
        yield Doubt(f"bank conflicts of {unseen} accesses to shared memory are not known: it is busy", 1.1, 1.0)
    if kernel.serialised:
        yield Doubt("the compiler serialised warpgroup products; what that costs is an estimate", 1.05, 1.0)
    if limiter == "l2":
        yield Doubt("L2 limits it, and how well CTAs share what they read is not seen", 1.05, 0.95)
    if limiter == "hbm" and short > _MUCH_SHORT:
        yield Doubt("HBM reads pieces shorter than a sector, and which of them share one in time is not seen", 1.1, 0.3)
