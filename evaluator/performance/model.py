"""The prediction: launches scheduled over the whole chip, held against the limits of memory and tensor cores."""

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from evaluator.binary import Binary
from evaluator.evaluation import CaseScore
from evaluator.performance.kernel import Kernel, Pass, measure
from evaluator.performance.sass import ModelError
from evaluator.performance.simulate import PARTITIONS
from evaluator.target import Target
from evaluator.work import LaunchWork, LoopWork

BUSY = 0.6
"""Above this fraction the busiest pipe is called the limiter; below, latency is."""
_SCHEDULED_ONE_BY_ONE = 300_000
_REGISTER_UNIT = 256
"""Registers are given to warps in units of this many (CUDA occupancy calculator, compute capability 8.0 to 10.0)."""
_RESERVED_SHARED = 1024
"""Bytes of shared memory the system keeps per CTA (CUDA C++ Programming Guide, compute capability 8.0 and later)."""
_SHARED_UNIT = 128


def ctas_per_sm(binary: Binary, target: Target) -> int:
    """Return how many CTAs of ``binary`` are resident on one SM together; 0 when not even one fits."""
    warps = -(-binary.threads // 32)
    if binary.shared_bytes > target.shared_bytes_per_cta or binary.registers > 255 or warps > 32:
        return 0
    registers_per_warp = -(-binary.registers * 32 // _REGISTER_UNIT) * _REGISTER_UNIT
    by_registers = target.registers_per_sm // max(1, registers_per_warp) // PARTITIONS * PARTITIONS // warps
    shared = -(-(binary.shared_bytes + _RESERVED_SHARED) // _SHARED_UNIT) * _SHARED_UNIT
    limits = [by_registers, target.shared_bytes_per_sm // shared, target.warps_per_sm // warps, target.ctas_per_sm]
    if binary.tensor_memory_columns:
        limits.append(target.tensor_memory_columns // binary.tensor_memory_columns)
    return min(limits)


def predict(
    case: str, useful_flops: int, least_bytes: int, launches: Sequence[LaunchWork], target: Target
) -> CaseScore:
    """Predict the speed of ``launches``, run one after the other, on one benchmark case.

    ``useful_flops`` are the case's floating-point operations; ``least_bytes`` what must pass HBM at least. Raises
    ``ModelError`` when a kernel does not fit the target, its binary cannot be modelled, or the launches would be done
    before the tensor cores could have done the useful work: then part of it is missing.
    """
    if not launches:
        raise ModelError(f"case {case} has no launch to predict")
    clock = target.clock_ghz * target.sustained_clock_ratio * 1e9
    predictions = [_predict_launch(launch, least_bytes, clock, target) for launch in launches]
    compute = sum(prediction.compute for prediction in predictions)
    if compute < useful_flops / (target.tensor_flop * target.sms * clock):
        raise ModelError(
            f"case {case} asks for {useful_flops:.3g} FLOP and the launches' matrix products are "
            f"{sum(map(_dot_flops, launches)):.3g}: they would be done faster than the tensor cores can do the work "
            "asked for, so part of it is missing"
        )
    longest = max(predictions, key=lambda prediction: prediction.seconds)
    seconds, limiter, usage = sum(p.seconds for p in predictions), longest.limiter, longest.usage
    hbm = least_bytes / target.hbm_bytes_per_s
    if hbm > seconds:
        seconds, limiter = hbm, "hbm"
    seconds += target.launch_overhead_s * len(launches)
    return CaseScore(case, useful_flops / seconds / 1e12, seconds * 1e6, limiter, usage)


@dataclass(frozen=True)
class _Prediction:
    """One launch, without its overhead."""

    seconds: float
    compute: float
    """Seconds that the SMs need, whatever the memory does."""
    limiter: str
    usage: dict[str, float]


def _predict_launch(launch: LaunchWork, least_bytes: int, clock: float, target: Target) -> _Prediction:
    fitting = ctas_per_sm(launch.binary, target)
    if not fitting:
        raise ModelError(f"kernel {launch.binary.name} does not fit an SM of {target.name}")
    resident = max(1, min(fitting, -(-launch.programs // target.sms)))
    kernel = measure(launch.binary, target, resident, len(launch.loops))
    clocks, hot = _program_clocks(launch, kernel, target)
    compute = list_schedule(clocks, target.sms * resident) / clock
    loaded = _total(launch, "load_bytes")
    moved = loaded + _total(launch, "store_bytes")
    l2 = moved / target.l2_bytes_per_s
    hbm = 0.0
    if least_bytes > target.l2_bytes:  # each wave of programs reads at least what one of them reads
        hbm = loaded / (target.sms * resident) / target.hbm_bytes_per_s
    usage = dict(hot.usage)
    busiest = max(usage, key=lambda pipe: usage[pipe])
    limiter = busiest if usage[busiest] > BUSY else "latency"
    seconds, limiter = max((compute, limiter), (l2, "l2"), (hbm, "hbm"), key=lambda item: item[0])
    return _Prediction(seconds, compute, limiter, usage)


def _dot_flops(launch: LaunchWork) -> float:
    return _total(launch, "dot_flops")


def _total(launch: LaunchWork, what: str) -> float:
    inside = sum(float(loop.trips.sum()) * float(getattr(loop.body, what)) for loop in launch.loops)
    return inside + launch.programs * float(getattr(launch.outside, what))


def _program_clocks(launch: LaunchWork, kernel: Kernel, target: Target) -> tuple[npt.NDArray[np.float64], Pass]:
    """Return [programs] clocks per program while the SM is shared, and the pass that takes most of them."""
    clocks = np.full(launch.programs, kernel.outside.clocks)
    hot, most = kernel.outside, kernel.outside.clocks * launch.programs
    unrolled = np.zeros(launch.programs)
    for loop, passed in zip(launch.loops, match_loops(launch.loops, kernel), strict=True):
        flops = loop.body.dot_flops
        if passed is not None:
            charge = passed.clocks * (max(1.0, flops / passed.flops) if passed.flops else 1.0)
            clocks += loop.trips * charge
            if loop.trips.sum() * charge > most:
                hot, most = passed, float(loop.trips.sum()) * charge
        elif kernel.outside.flops:
            unrolled += loop.trips * float(flops)
        else:  # products made of scalar multiply-adds
            clocks += loop.trips * (kernel.resident * flops / (2 * target.fp32_lanes))
    if kernel.outside.flops:
        clocks *= np.maximum(1.0, unrolled / kernel.outside.flops)
    return clocks, hot


def match_loops(loops: Sequence[LoopWork], kernel: Kernel) -> list[Pass | None]:
    """Return, for each loop of the IR, the pass in SASS that stands for it; None for a loop that was unrolled.

    As many loops in SASS as in the IR, with matrix products wherever the IR has some: they match in order. Otherwise
    loops with products match among themselves, and so do the others. Where SASS has fewer with products, the smallest
    ones whose products are found outside loops were unrolled. Where counts still differ, each loop of the kind is
    charged as the slowest one.
    """
    kinds = [bool(loop.body.dot_flops) for loop in loops]
    scalar = not any(passed.flops for passed in kernel.loops)
    if len(loops) == len(kernel.loops) and (
        scalar or all(passed.flops or not kind for passed, kind in zip(kernel.loops, kinds, strict=True))
    ):
        return list(kernel.loops)
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
                matched[i] = max(found, key=lambda passed: passed.clocks)
    return matched


def _most_flops(loop: LoopWork) -> float:
    """FLOPs of matrix products in the program that runs the loop most."""
    return float(loop.trips.max(initial=0)) * loop.body.dot_flops


def list_schedule(clocks: npt.NDArray[np.float64], slots: int) -> float:
    """Clocks until all programs are done when each free slot takes the next one in launch order.

    For very many unequal programs, Graham's bound on that schedule: the mean load plus the longest program.
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
