"""The prediction: schedules launches over the whole chip, within the limits of memory and tensor cores."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from avo.evaluator.binary import Binary
from avo.evaluator.compiling.residency import ctas_per_sm
from avo.evaluator.evaluation import CaseScore
from avo.evaluator.performance.charging import program_clocks
from avo.evaluator.performance.constants import DRAWS, Constants, constants_of, place
from avo.evaluator.performance.doubts import Doubt, doubts
from avo.evaluator.performance.kernel import Conditions, measure
from avo.evaluator.performance.matching import match_loops
from avo.evaluator.performance.memory import Timing, Traffic, l1_missed, traffic
from avo.evaluator.performance.passes import Pass, PlayedKernel
from avo.evaluator.performance.reliefs import critical, relief_gains
from avo.evaluator.performance.sass import ModelError
from avo.evaluator.performance.schedule import Room, list_schedule, schedule
from avo.evaluator.target import Target
from avo.evaluator.work import LaunchWork, Shares

BUSY = 0.6
"""The busiest pipe is the limiter if it is busy for more than this fraction; otherwise latency is."""
_GRADE = 1.1
_UNEXPLAINED = 1.1
"""Factor by which published measurements differ that no constant explains, in both directions: about nine in ten of
those that no constant was fitted to lie within the draws widened by it."""
_LOAD_FELT = 3
"""Exponent of the load on HBM with which its latency grows. Fitted to published measurements (bench/measured)."""
_COLD = Timing(cold=True)
"""How the judge times on a GPU: from event to event, with L2 overwritten before."""


class Measure(Protocol):
    """A function like ``measure``."""

    def __call__(
        self,
        binary: Binary,
        target: Target,
        resident: int,
        conditions: Conditions,
        seed: int | None = None,
    ) -> PlayedKernel:
        """Play ``resident`` CTAs of a binary under these conditions."""
        ...


def predict(
    case: str,
    useful_flops: int,
    least_bytes: int,
    launches: Sequence[LaunchWork],
    target: Target,
) -> CaseScore:
    """Predict the speed of ``launches``, run one after another, on one benchmark case.

    ``useful_flops`` are the case's floating-point operations; ``least_bytes`` the least bytes that must pass through
    HBM. Raises ``ModelError`` if a kernel does not fit the target, if its binary cannot be modelled, or if the launches
    would finish before the tensor cores could have done the useful work: then part of the work is missing.
    """
    time = predict_time(launches, target, least_bytes=least_bytes)
    compute = sum(launch.compute for launch in time.nominal.launches)
    if compute < useful_flops / (target.tensor_flop * target.sms * clock_hz(target, constants_of(target), 1.0)):
        products = sum(launch.total("dot_flops") for launch in launches)
        raise ModelError(
            f"case {case} asks for {useful_flops:.3g} FLOP and the launches' matrix products are {products:.3g}: they "
            "would be done faster than the tensor cores can do the work asked for, so part of it is missing"
        )

    def tflops(us: float) -> float:
        return useful_flops / us / 1e6

    return CaseScore(
        case,
        tflops(time.us),
        time.us,
        time.limiter,
        dict(time.nominal.longest.hot.usage),
        tflops(time.high_us),
        tflops(time.low_us),
        time.doubts,
        _critical(launches, time.nominal, target),
        draws=tuple(map(tflops, time.draws_us)),
        doubt=time.doubt,
    )


def predict_time(
    launches: Sequence[LaunchWork], target: Target, *, least_bytes: int = 0, timing: Timing = _COLD, luck: int = 0
) -> "PredictedTime":
    """Predict how long one or more launches take, run one after another.

    The time is the geometric mean over joint draws of the model's constants; in each draw, starts and latencies are
    jittered in another way, and with another ``luck`` again in others. ``least_bytes`` are the least bytes that must
    pass through HBM. Raises ``ModelError`` if a kernel does not fit the target or its binary cannot be modelled.
    """
    if not launches:
        raise ModelError("there is no launch to predict")
    nominal = time_case(launches, least_bytes, target, timing)
    draws = [
        time_case(launches, least_bytes, _drawn(target, draw), timing, constants_of(target, draw), seed).seconds
        for draw, seed in enumerate(range(luck * DRAWS, (luck + 1) * DRAWS))
    ]
    mean = math.exp(sum(map(math.log, draws)) / DRAWS)
    found = [(launch.seconds, math.prod(doubt.slower for doubt in launch.doubts)) for launch in nominal.launches]
    doubt = sum(seconds * slower for seconds, slower in found) / sum(seconds for seconds, _ in found)
    faster = min(math.prod(doubt.faster for doubt in launch.doubts) for launch in nominal.launches)
    return PredictedTime(
        nominal,
        mean * 1e6,
        min(draws) * faster / _UNEXPLAINED * 1e6,
        max(draws) * doubt * _UNEXPLAINED * 1e6,
        tuple(seconds * 1e6 for seconds in draws),
        doubt,
    )


def _drawn(target: Target, draw: int) -> Target:
    """Return the target with the clock of a joint draw."""
    slow, fast = target.sustained_clock_range
    end, at = (slow, fast)[(found := place("sustained_clock_ratio", draw)) > 0.5], abs(2 * found - 1)
    middle = target.sustained_clock_ratio
    return replace(target, sustained_clock_ratio=middle + (end - middle) * at)


@dataclass(frozen=True)
class LaunchTime:
    """One launch, without its overhead. Times in seconds."""

    kernel: PlayedKernel
    passes: tuple[Pass | None, ...]
    """For each loop of the IR, the pass that it is charged as; None for a loop that was unrolled."""
    program_clocks: npt.NDArray[np.float64]
    """[1 + loops, programs]: clocks outside loops and in each loop, while the SM is shared."""
    hot: Pass
    """The pass that takes most of these clocks."""
    conditions: Conditions
    """What the kernel was played with: the latency and rate of its loads depend on the launch."""
    clock_hz: float
    """The clock, lowered by the load on all that computes."""
    compute: float
    """Time that the SMs need, without memory limits."""
    l2: float
    hbm: float
    doubts: tuple[Doubt, ...] = ()
    brought: float = 0.0
    """Bytes of lines that it brings to L2."""
    waiting: float = 0.0
    """Share of the SMs' time by which waits of programs for each other lengthen it."""

    @property
    def seconds(self) -> float:
        """The time of all together: a little more than the longest, as their peaks do not coincide.

        Loads are played at the rate that L2 has for them, so what the SMs need holds what waiting for L2 costs. They
        are played with the latency of an HBM that others leave alone: while it is busy, what no pipe works on in a pass
        takes longer.
        """
        table, sms = self.conditions.table, max(self.compute, self.l2)
        if not self.hbm:
            return sms
        busy = self.hbm / float(np.linalg.norm((sms, self.hbm), table.overlap))
        waiting = 1 - max(self.hot.usage.values())
        sms *= 1 + table.loaded_latency * waiting * busy**_LOAD_FELT
        return float(np.linalg.norm((sms, self.hbm), table.overlap))

    @property
    def limiter(self) -> str:
        """The limiter: the busiest pipe if it is busy enough, else latency; or the memory, if that takes longer; or, if
        that leaves SMs idle for long enough, the waits of programs for each other.
        """
        return _limiter(self.hot, self.compute, self.l2, self.hbm, self.waiting)


@dataclass(frozen=True)
class CaseTime:
    """All launches of a case, one after another. Times in seconds."""

    launches: tuple[LaunchTime, ...]
    hbm: float
    """Least time for the bytes that must pass through HBM."""
    overhead: float
    """Time to start and end the launches and fills."""
    fills: float
    """Time to write what fills write."""

    @property
    def seconds(self) -> float:
        """Time from the start of the first launch to the end of the last."""
        return max(sum(launch.seconds for launch in self.launches), self.hbm) + self.overhead + self.fills

    @property
    def longest(self) -> LaunchTime:
        """The launch that takes most time."""
        return max(self.launches, key=lambda launch: launch.seconds)

    @property
    def limiter(self) -> str:
        """The limiter of the longest launch, or the memory if the case's bytes take longer than all launches."""
        return "hbm" if self.hbm > sum(launch.seconds for launch in self.launches) else self.longest.limiter


@dataclass(frozen=True)
class PredictedTime:
    """How long launches take, in microseconds, and how sure that is."""

    nominal: CaseTime = field(repr=False)
    """The time with every constant in the middle of its range."""
    us: float
    low_us: float
    """Low end of the range."""
    high_us: float
    """High end of the range, doubts included."""
    draws_us: tuple[float, ...] = field(repr=False)
    """The time in each joint draw of the model's constants. The draws are the same for all kernels."""
    doubt: float
    """Factor on the time, 1 or more, if all doubts are true."""

    @property
    def limiter(self) -> str:
        """What limits the longest launch; see ``CaseScore.limiter``."""
        return self.nominal.limiter

    @property
    def doubts(self) -> tuple[str, ...]:
        """What the model does not know about these kernels, besides its constants."""
        return tuple(dict.fromkeys(doubt.reason for launch in self.nominal.launches for doubt in launch.doubts))


def _limiter(hot: Pass, compute: float, l2: float, hbm: float, waiting: float) -> str:
    busiest = max(hot.usage, key=lambda pipe: hot.usage[pipe])
    limiter = busiest if hot.usage[busiest] > BUSY else "latency"
    limiter = "waits" if waiting > 1 - BUSY else limiter
    return max(((compute, limiter), (l2, "l2"), (hbm, "hbm")), key=lambda item: item[0])[1]


def _critical(launches: Sequence[LaunchWork], time: CaseTime, target: Target) -> str:
    """Return what holds the case back: starting its launches, where that takes more than all they do, a memory, or the
    critical resource of what takes most of the longest launch.
    """
    if time.overhead > time.seconds / 2:
        return "launches"
    if time.limiter in {"l2", "hbm", "waits"}:
        return time.limiter
    launch, spent = max(zip(launches, time.launches, strict=True), key=lambda pair: pair[1].seconds)
    kernel = spent.kernel
    place = next((i for i, loop in enumerate(kernel.loops) if loop is spent.hot), None)
    if place is None and kernel.loops:
        return ""  # what loops leave: too small a rest to tell reliefs apart
    return critical(relief_gains(launch.binary, target, kernel.resident, spent.conditions, place))


def clock_hz(target: Target, table: Constants, load: float) -> float:
    """Return the clock under a load, 1 for tensor cores that are always busy: the power limit lowers it."""
    ratio = table.free_clock + (target.sustained_clock_ratio - table.free_clock) * min(1.0, load)
    return target.clock_ghz * 1e9 * ratio


def time_case(
    launches: Sequence[LaunchWork],
    least_bytes: int,
    target: Target,
    timing: Timing = _COLD,
    table: Constants | None = None,
    seed: int | None = None,
    measured: Measure = measure,
) -> CaseTime:
    """Return the time of launches that run one after the other; ``measured`` plays their kernels.

    ``table`` has the constants, the target's by default; with a ``seed``, plays are jittered. Raises ``ModelError``
    like ``predict``, but for work that is missing.
    """
    table = table or constants_of(target)
    times: list[LaunchTime] = []
    brought = 0.0
    for launch in launches:
        times.append(time_launch(launch, target, timing, table, seed, measured, brought))
        brought += times[-1].brought
    held = not timing.cold and least_bytes < target.l2_bytes * table.l2_share
    rate = target.hbm_bytes_per_s * table.hbm_share
    fills = [nbytes for launch in launches for nbytes in launch.fills]
    started = (len(launches) + len(fills)) * (table.graph_us if timing.graph else table.launch_us)
    return CaseTime(
        tuple(times),
        0.0 if held else least_bytes / rate,
        1e-6 * (started + table.event_us * (not timing.graph)),
        sum(fills) / rate,
    )


def time_launch(
    launch: LaunchWork,
    target: Target,
    timing: Timing,
    table: Constants,
    seed: int | None = None,
    measured: Measure = measure,
    brought: float = 0.0,
) -> LaunchTime:
    """Return the time of one launch; ``measured`` plays its kernel. Raises ``ModelError`` when it does not fit.

    ``brought`` are the bytes that earlier launches have brought to L2. What fills write there must go to HBM as well.
    """
    fitting = ctas_per_sm(launch.binary, target)
    if not fitting:
        raise ModelError(f"kernel {launch.binary.name} does not fit an SM of {target.name}")
    ctas = launch.binary.ctas_per_program
    resident = max(1, min(fitting, -(-launch.programs * ctas // target.sms)))
    asked = traffic(launch, target, timing, table, brought)
    seen = Conditions(
        _as_seen(launch, resident, asked, target, table), l1_missed(launch), _rounded(launch.shares), launch.paces
    )
    kernel = measured(launch.binary, target, resident, seen, seed)
    matched = match_loops(launch.loops, kernel, launch.shares)
    passes = matched.passes
    clocks, hot = program_clocks(launch, kernel, matched, target)
    slots = target.sms * resident // ctas
    each = clocks.sum(0)
    last = launch.programs % slots if launch.programs > slots else 0
    beside = -(-last * ctas // target.sms)
    if 0 < beside < resident:  # those of a last wave that does not fill the slots share their SM with fewer
        fewer = measured(launch.binary, target, beside, seen, seed)
        apart, _ = program_clocks(launch, fewer, match_loops(launch.loops, fewer, launch.shares), target)
        each[-last:] = apart.sum(0)[-last:]
    free = spent = list_schedule(each, slots)
    if launch.waits is not None:
        single = measured(launch.binary, target, 1, seen, seed)
        alone, _ = program_clocks(launch, single, match_loops(launch.loops, single, launch.shares), target)
        faster = min(1.0, float(alone.sum() / clocks.sum()))
        room = Room(target.sms // ctas, resident, faster, table.flag_trips * table.l2_hit_latency)
        spent = max(spent, schedule(launch, clocks, room))
    clock = clock_hz(target, table, _load(kernel, passes, clocks, table) / (spent * slots))
    active = min(target.sms, launch.programs * ctas)
    hbm = asked.hbm / (target.hbm_bytes_per_s * table.hbm_share)
    compute = spent / clock
    waiting = 1 - free / spent
    l2 = max(asked.l2 / (table.l2_bytes * target.sms), asked.asked / (table.l2_most_bytes * active)) / clock
    found = doubts(
        kernel,
        hot,
        _limiter(hot, compute, l2, hbm, waiting),
        guessed_loops=matched.guessed,
        unrolled=None in passes,
        short=asked.short / asked.hbm if asked.hbm else 0.0,
    )
    return LaunchTime(kernel, passes, clocks, hot, seen, clock, compute, l2, hbm, found, asked.brought, waiting)


def _load(
    kernel: PlayedKernel, passes: Sequence[Pass | None], clocks: npt.NDArray[np.float64], table: Constants
) -> float:
    """Return for how many of the programs' clocks an SM is loaded, in units of fully busy tensor cores.

    Other arithmetic takes power too.
    """

    def power(usage: Mapping[str, float]) -> float:
        arithmetic = usage.get("fma", 0.0) + usage.get("exp", 0.0)
        return usage.get("tensor", 0.0) + table.arithmetic_power * arithmetic

    return sum(
        float(row.sum()) * power(passed.usage)
        for passed, row in zip((kernel.outside, *passes), clocks, strict=True)
        if passed is not None
    )


def _as_seen(launch: LaunchWork, resident: int, asked: Traffic, target: Target, table: Constants) -> Constants:
    """Return the constants with the latency and the rate of loads as this launch meets them.

    An SM gets its share of what L2 and HBM deliver to the SMs that are active, and at most what its port takes.
    """
    active = min(target.sms, launch.programs * launch.binary.ctas_per_program / resident)
    rate = table.l2_bytes * target.sms / active * (asked.asked / asked.l2 if asked.l2 else 1.0)
    return replace(
        table,
        l2_bytes=_graded(min(table.l2_most_bytes, rate)),
        global_latency=_graded(asked.latency),
    )


def _graded(value: float) -> float:
    """Return the nearest of values a tenth apart, so that similar launches of a kernel need not be played anew."""
    return float(f"{_GRADE ** round(math.log(value, _GRADE)):.6g}")


def _rounded(shares: Shares) -> Shares:
    """Return shares in hundredths, so that similar launches of a kernel need not be played anew. None becomes 0."""
    return tuple((lines, math.ceil(100 * share) / 100) for lines, share in shares)
