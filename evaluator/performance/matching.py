"""Which loop of the machine code stands for which loop of the IR."""

from collections.abc import Sequence

from evaluator.performance.kernel import Pass, PlayedKernel
from evaluator.work import LoopWork


def match_loops(loops: Sequence[LoopWork], kernel: PlayedKernel) -> list[Pass | None]:
    """Return, for each loop of the IR, the pass in SASS that stands for it; None for a loop that was unrolled.

    As many loops in SASS as in the IR, with matrix products wherever the IR has some: they match in order. Otherwise
    loops with products match among themselves, and so do the others. Where SASS has fewer with products, the smallest
    ones whose products are found outside loops were unrolled. Where counts still differ, those that are nested as deep
    match among themselves. Where even there they differ, each is charged as the slowest one.
    """
    kinds = [bool(loop.body.dot_flops) for loop in loops]
    scalar = not any(passed.flops for passed in kernel.loops)
    if len(loops) == len(kernel.loops) and (
        scalar or all(passed.flops or not kind for passed, kind in zip(kernel.loops, kinds, strict=True))
    ):
        return list(kernel.loops)
    depths = _depths(loops)
    depth_of = dict(zip(map(id, kernel.loops), kernel.depths, strict=False))
    matched: list[Pass | None] = [None] * len(loops)
    for products in (True, False):
        wanted = [i for i, kind in enumerate(kinds) if kind == products]
        found = [passed for passed in kernel.loops if bool(passed.flops) == products]
        if products and found:
            room = kernel.outside.flops
            for i in sorted(wanted, key=lambda i: _most_flops(loops[i])):
                room -= _most_flops(loops[i])
                if len(wanted) > len(found) and room >= 0:
                    wanted.remove(i)
        for position, i in enumerate(wanted):
            if len(found) == len(wanted):
                matched[i] = found[position]
            elif found:
                alike = [passed for passed in found if depth_of.get(id(passed)) == depths[i]]
                same = [other for other in wanted if depths[other] == depths[i]]
                exact = len(alike) == len(same)
                matched[i] = alike[same.index(i)] if exact else max(alike or found, key=lambda each: each.clocks)
    return matched


def _depths(loops: Sequence[LoopWork]) -> list[int]:
    """Return for each loop the number of loops around it."""
    depths: list[int] = []
    for loop in loops:  # a parent comes before its children
        depths.append(0 if loop.parent is None else depths[loop.parent] + 1)
    return depths


def _most_flops(loop: LoopWork) -> float:
    """Return the FLOPs of matrix products in the program that runs the loop most often."""
    return float(loop.trips.max(initial=0)) * loop.body.dot_flops
