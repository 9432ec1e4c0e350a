"""What a program is charged: how often it passes each loop times the clocks of a pass."""

import numpy as np
import numpy.typing as npt

from avo.evaluator.performance.matching import Matched
from avo.evaluator.performance.passes import Pass, PlayedKernel
from avo.evaluator.target import Target
from avo.evaluator.work import LaunchWork

_PER_LANE = 4
"""Most floating-point operations of a lane in a clock: multiply-adds of two packed numbers."""
_SHARED_BYTES = 128
"""Bytes of an SM's shared memory in a clock: 32 banks of four (CUDA C++ Programming Guide 12, compute capabilities)."""


def program_clocks(
    launch: LaunchWork, kernel: PlayedKernel, matched: Matched, target: Target
) -> tuple[npt.NDArray[np.float64], Pass]:
    """Return [1 + loops, programs] clocks outside loops and in each loop while the SM is shared, and the pass that
    takes most of them.
    """
    clocks = np.zeros((1 + len(launch.loops), launch.programs))
    clocks[0] = kernel.outside.clocks + matched.made[0]
    hot, most = kernel.outside, kernel.outside.clocks * launch.programs
    unrolled = np.zeros(launch.programs)
    for row, (loop, passed) in enumerate(zip(launch.loops, matched.passes, strict=True), 1):
        flops = loop.body.dot_flops / launch.binary.ctas_per_program
        if passed is not None:
            each = _charge(passed, flops, loop.body.entered)
            clocks[row] = loop.trips * (each + matched.made[row])
            rest = matched.remainders[row - 1]
            if rest is not None:
                entries = 1 if loop.parent is None else np.maximum(1, launch.loops[loop.parent].trips)
                left = entries * (loop.trips / entries % passed.copies)
                clocks[row] += left * (_charge(rest, flops, loop.body.entered) - each)
            if clocks[row].sum() > most:
                hot, most = passed, float(clocks[row].sum())
        elif kernel.outside.flops:
            unrolled += loop.trips * float(flops)
        else:  # products made of scalar multiply-adds
            clocks[row] = loop.trips * (kernel.resident * flops / (2 * target.fp32_lanes))
    if kernel.outside.flops:
        clocks *= np.maximum(1.0, unrolled / kernel.outside.flops)
    together = kernel.resident / launch.binary.ctas_per_program
    clocks *= np.maximum(1.0, together * _least_clocks(launch, target) / clocks.sum(0))
    # Partitions that pass their loops apart are counted in means, which hold for all programs together only.
    shared = together * launch.total("shared_bytes") / _SHARED_BYTES
    return clocks * max(1.0, shared / clocks.sum()), hot


def _charge(passed: Pass, flops: float, entered: float) -> float:
    """Return the clocks of a mean pass of the IR's loop whose products do ``flops``: more than were played where the
    compiler unrolled less, and less where a branch goes around them some of the time, or around other work. Then
    ``entered`` is the share of passes that go through.
    """
    return _charge_of_code(passed, flops * passed.copies, entered) / passed.copies


def _charge_of_code(passed: Pass, flops: float, entered: float) -> float:
    light = passed.light
    if light is None:
        return passed.clocks * (max(1.0, flops / passed.flops) if passed.flops else 1.0)
    entered = max(entered, light.entered)
    if light.flops == passed.flops:
        return float(np.interp(entered, (0, 1), sorted((light.clocks, passed.clocks))))
    taken = (flops - light.flops) / (passed.flops - light.flops)
    more = max(1.0, flops / max(light.flops, passed.flops))
    if min(entered, taken) >= 1:
        return more * passed.clocks
    ends = light.clocks, passed.clocks
    return more * max(float(np.interp(share, (0, 1), ends)) for share in (entered, taken))


def _least_clocks(launch: LaunchWork, target: Target) -> npt.NDArray[np.float64]:
    """Return [programs] clocks that an SM needs at least for what the IR asks for, however it was compiled."""
    exponentials = np.full(launch.programs, float(launch.outside.exponentials))
    arithmetic = np.full(launch.programs, float(launch.outside.arithmetic))
    for loop in launch.loops:
        exponentials += loop.trips * loop.body.exponentials
        arithmetic += loop.trips * loop.body.arithmetic
    return np.maximum(exponentials / target.sfu_lanes, arithmetic / (_PER_LANE * target.fp32_lanes))
