"""What if: plays a kernel again with something changed, to see what the change would gain.

A repair removes a cost for good: spills, exponentials, the wait for loads. It does not say what the repair would cost.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial

from avo.evaluator.binary import Binary
from avo.evaluator.compiling.residency import ctas_per_sm
from avo.evaluator.performance.banks import SHARED_ACCESS
from avo.evaluator.performance.kernel import Conditions, read
from avo.evaluator.performance.model import CaseTime, Measure, time_case
from avo.evaluator.performance.passes import PlayedKernel
from avo.evaluator.performance.pipes import Op, Pipe
from avo.evaluator.performance.reliefs import is_cta_barrier, without_waiting
from avo.evaluator.performance.replay import SEEDS, Change, Gain, Replay, plays
from avo.evaluator.performance.sass import Instruction
from avo.evaluator.performance.structure import MATRIX, SPILLS
from avo.evaluator.profile import WhatIf
from avo.evaluator.target import Target
from avo.evaluator.work import LaunchWork

_INTEGER = frozenset(
    {
        *("IADD3", "IADD", "IMAD", "LEA", "LOP3", "SHF", "ISETP", "IABS", "IMNMX", "VIADD", "VIMNMX", "SGXT", "BMSK"),
        *("LOP32I", "IADD32I", "VIADDMNMX", "VIMNMX3", "POPC", "FLO", "UIADD3", "UIMAD", "ULEA", "ULOP3", "USHF"),
        *("UISETP", "UIADD3", "USGXT", "UVIADD"),
    }
)
_LOADS = frozenset({"LDG", "LDGSTS", "UTMALDG", "UBLKCP"})


@dataclass(frozen=True)
class Repair:
    """Something that a kernel might do without."""

    name: str
    """Name for tools, in snake_case."""
    label: str
    """Name for people."""
    applies: Callable[[Instruction], bool]
    """Returns whether an instruction is repaired."""
    change: Change | None = None
    """Returns the instruction's changed op; without it, the instruction is removed."""
    frees_memory: bool = False
    """Whether loads take no bandwidth of L2 and HBM."""


def _instantly(_: Instruction, op: Op) -> Op:
    return replace(op, pipe=Pipe.NONE, busy=0.0, latency=0.0, l2=0.0)


def _at_no_cost(_: Instruction, op: Op) -> Op:
    return replace(op, pipe=Pipe.NONE, busy=0.0, latency=0.0, shared=0.0)


def _is_product(i: Instruction) -> bool:
    return i.base in MATRIX


def _is_spill(i: Instruction) -> bool:
    return i.base in SPILLS


def _is_exponential(i: Instruction) -> bool:
    return i.opcode.startswith("MUFU.EX2")


def _is_load(i: Instruction) -> bool:
    return i.base in _LOADS


def _is_integer(i: Instruction) -> bool:
    return i.base in _INTEGER and not i.opcode.startswith("IMAD.MOV")


def _is_shared_access(i: Instruction) -> bool:
    return i.base in SHARED_ACCESS


def _without_conflicts(i: Instruction, op: Op) -> Op:
    return replace(op, busy=min(op.busy, i.lane_bytes / 4))  # 32 lanes at 128 bytes a clock


REPAIRS = (
    Repair("no_spills", "no spills", _is_spill),
    Repair("free_exponentials", "exponentials free", _is_exponential),
    Repair("free_loads", "loads free", _is_load, _instantly, frees_memory=True),
    Repair("free_products", "matrix products free", _is_product, _at_no_cost),
    Repair("free_integers", "integer work free", _is_integer),
    Repair("no_bank_conflicts", "no bank conflicts", _is_shared_access, _without_conflicts),
    Repair("free_cta_barriers", "CTA barriers free", is_cta_barrier, without_waiting),
    Repair("hidden_latencies", "all latencies hidden", lambda _: True, lambda _, op: replace(op, latency=0.0)),
)


@lru_cache(maxsize=128)
def plays_after(
    repair: Repair, binary: Binary, target: Target, resident: int, conditions: Conditions
) -> tuple[PlayedKernel, ...]:
    """Return the kernel as played after ``repair`` with each of ``SEEDS``."""
    change = repair.change
    replay = Replay.of(binary, target, resident, conditions)
    if change is None:
        return replay.without(repair.applies).plays()
    return replay.plays(lambda i, op: change(i, op) if repair.applies(i) else op)


def without_loads(launch: LaunchWork) -> LaunchWork:
    """Return ``launch`` with loads that move no bytes."""
    loops = tuple(replace(loop, body=replace(loop.body, load_bytes=0)) for loop in launch.loops)
    stores = tuple(access for access in launch.accesses if access.writes)
    return replace(launch, loops=loops, outside=replace(launch.outside, load_bytes=0), accesses=stores)


def with_one_more_cta(launch: LaunchWork, target: Target) -> Binary | None:
    """Return the binary as it would have to be for one more CTA on each SM; None where the grid would not fill it, or
    no use of registers and memory allows it.
    """
    binary = launch.binary
    wanted = ctas_per_sm(binary, target) + 1
    if -(-launch.programs * binary.ctas_per_program // target.sms) < wanted:
        return None

    def most(start: int, step: int, slim: Callable[[int], Binary]) -> int | None:
        return next((n for n in range(start, 0, -step) if ctas_per_sm(slim(n), target) >= wanted), None)

    least = replace(binary, registers=1, shared_bytes=0, tensor_memory_columns=0)
    registers = most(binary.registers, 1, lambda n: replace(least, registers=n))
    shared = most(binary.shared_bytes + 1, 128, lambda n: replace(least, shared_bytes=n - 1))
    columns = most(binary.tensor_memory_columns + 1, 32, lambda n: replace(least, tensor_memory_columns=n - 1))
    if registers is None or shared is None or columns is None:
        return None
    return replace(binary, registers=registers, shared_bytes=shared - 1, tensor_memory_columns=columns - 1)


def answers(
    time_us: float, useful_flops: int, least_bytes: int, launches: Sequence[LaunchWork], target: Target
) -> tuple[WhatIf, ...]:
    """Return the effect of each repair on a case that is predicted to take ``time_us``, largest gain first."""
    before = times(least_bytes, launches, target)

    def answer(name: str, label: str, after: Sequence[CaseTime] = before, note: str = "") -> WhatIf:
        gain = gain_of(before, after)
        us = time_us / (1 + gain.percent / 100)
        return WhatIf(name, label, us, useful_flops / us / 1e6, gain.percent, gain.spread, note)

    found = [
        answer("full_last_wave", "last wave full", [_without_tail(time, launches, target) for time in before]),
        answer("free_launches", "launches free", [replace(time, overhead=0.0) for time in before]),
        answer("one_more_cta", "one more CTA per SM", *_one_more_cta(least_bytes, launches, target)),
    ]
    for repair in REPAIRS:
        if any(repair.applies(i) for launch in launches for i in read(launch.binary).code.instructions):
            found.append(answer(repair.name, repair.label, times_after(repair, least_bytes, launches, target)))
        else:
            found.append(answer(repair.name, repair.label, note="has none"))
    return tuple(sorted(found, key=lambda item: -item.gain_percent))


def gain_of(before: Sequence[CaseTime], after: Sequence[CaseTime]) -> Gain:
    """Return the gain in speed, from the times with each of ``SEEDS``."""
    return Gain.of([100 * (old.seconds / new.seconds - 1) for old, new in zip(before, after, strict=True)])


def times_after(
    repair: Repair, least_bytes: int, launches: Sequence[LaunchWork], target: Target
) -> tuple[CaseTime, ...]:
    """Return the time of launches after ``repair`` with each of ``SEEDS``."""
    if repair.frees_memory:
        least_bytes, launches = 0, [without_loads(launch) for launch in launches]
    return times(least_bytes, launches, target, partial(plays_after, repair))


def times(
    least_bytes: int,
    launches: Sequence[LaunchWork],
    target: Target,
    played: Callable[[Binary, Target, int, Conditions], tuple[PlayedKernel, ...]] = plays,
) -> tuple[CaseTime, ...]:
    """Return the time of launches with each of ``SEEDS``."""

    def nth(n: int) -> Measure:
        return lambda binary, target, resident, seen, seed=None: played(binary, target, resident, seen)[n]

    return tuple(time_case(launches, least_bytes, target, measured=nth(n)) for n in range(len(SEEDS)))


def _without_tail(time: CaseTime, launches: Sequence[LaunchWork], target: Target) -> CaseTime:
    """Return the time as if programs filled all places on the SMs to the end."""
    filled = []
    for spent, launch in zip(time.launches, launches, strict=True):
        slots = target.sms * spent.kernel.resident // launch.binary.ctas_per_program
        compute = float(spent.program_clocks.sum()) / slots / spent.clock_hz
        filled.append(replace(spent, compute=min(spent.compute, compute)))
    return replace(time, launches=tuple(filled))


def _one_more_cta(least_bytes: int, launches: Sequence[LaunchWork], target: Target) -> tuple[tuple[CaseTime, ...], str]:
    """Return the times, and what has to shrink."""
    slimmed = [with_one_more_cta(launch, target) for launch in launches]
    if not any(slimmed):
        return times(least_bytes, launches, target), "the grid or the limits of an SM leave no room"
    works = [replace(launch, binary=slim or launch.binary) for launch, slim in zip(launches, slimmed, strict=True)]
    notes = [
        (f"{launch.binary.name}: " if len(launches) > 1 else "") + _diet(launch.binary, slim)
        for launch, slim in zip(launches, slimmed, strict=True)
        if slim
    ]
    return times(least_bytes, works, target), "; ".join(dict.fromkeys(notes))


def _diet(binary: Binary, slim: Binary) -> str:
    """Return what has to shrink, and to what."""
    needs = (
        (binary.registers, slim.registers, "registers"),
        (binary.shared_bytes, slim.shared_bytes, "shared bytes"),
        (binary.tensor_memory_columns, slim.tensor_memory_columns, "tensor memory columns"),
    )
    return ", ".join(f"{what} {has} to {most}" for has, most, what in needs if most < has)
