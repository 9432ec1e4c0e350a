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
from avo.evaluator.performance.model import Measure, time_case
from avo.evaluator.performance.passes import PlayedKernel
from avo.evaluator.performance.pipes import Op, Pipe
from avo.evaluator.performance.reliefs import is_cta_barrier, without_waiting
from avo.evaluator.performance.replay import Change, Replay
from avo.evaluator.performance.sass import Instruction
from avo.evaluator.performance.structure import SPILLS
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
    Repair("free_integers", "integer work free", _is_integer),
    Repair("no_bank_conflicts", "no bank conflicts", _is_shared_access, _without_conflicts),
    Repair("free_cta_barriers", "CTA barriers free", is_cta_barrier, without_waiting),
    Repair("hidden_latencies", "all latencies hidden", lambda _: True, lambda _, op: replace(op, latency=0.0)),
)


def repaired(repair: Repair) -> Measure:
    """Return a function that measures a binary after ``repair``."""
    return partial(_measure_repaired, repair)


@lru_cache(maxsize=128)
def _measure_repaired(
    repair: Repair,
    binary: Binary,
    target: Target,
    resident: int,
    conditions: Conditions,
    seed: int | None = None,
) -> PlayedKernel:
    change = repair.change
    replay = Replay.of(binary, target, resident, conditions)
    if change is None:
        return replay.without(repair.applies).play()
    return replay.play(lambda i, op: change(i, op) if repair.applies(i) else op)


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
    useful_flops: int,
    least_bytes: int,
    launches: Sequence[LaunchWork],
    seconds: float,
    target: Target,
    scale: float = 1.0,
) -> tuple[WhatIf, ...]:
    """Return the effect of each repair on a case that takes ``seconds`` in one play, largest gain first.

    Times are multiplied by ``scale``: that of the prediction, the mean of many plays, over that of one.
    """

    def answer(name: str, label: str, after: float, note: str = "") -> WhatIf:
        us = after * scale * 1e6
        return WhatIf(name, label, us, useful_flops / us / 1e6, 100 * (seconds / after - 1), note)

    found = [_one_more_cta(least_bytes, launches, seconds, target, answer)]
    for repair in REPAIRS:
        if any(repair.applies(i) for launch in launches for i in read(launch.binary).code.instructions):
            works = [without_loads(launch) for launch in launches] if repair.frees_memory else launches
            bytes_left = 0 if repair.frees_memory else least_bytes
            after = time_case(works, bytes_left, target, measured=repaired(repair)).seconds
            found.append(answer(repair.name, repair.label, after))
        else:
            found.append(answer(repair.name, repair.label, seconds, "has none"))
    return tuple(sorted(found, key=lambda item: -item.gain_percent))


def _one_more_cta(
    least_bytes: int,
    launches: Sequence[LaunchWork],
    seconds: float,
    target: Target,
    answer: Callable[[str, str, float, str], WhatIf],
) -> WhatIf:
    slimmed = [with_one_more_cta(launch, target) for launch in launches]
    name, label = "one_more_cta", "one more CTA per SM"
    if not any(slimmed):
        return answer(name, label, seconds, "the grid or the limits of an SM leave no room")
    works = [replace(launch, binary=slim or launch.binary) for launch, slim in zip(launches, slimmed, strict=True)]
    notes = [
        (f"{launch.binary.name}: " if len(launches) > 1 else "") + _diet(launch.binary, slim)
        for launch, slim in zip(launches, slimmed, strict=True)
        if slim
    ]
    return answer(name, label, time_case(works, least_bytes, target).seconds, "; ".join(dict.fromkeys(notes)))


def _diet(binary: Binary, slim: Binary) -> str:
    """Return what has to shrink, and to what."""
    needs = (
        (binary.registers, slim.registers, "registers"),
        (binary.shared_bytes, slim.shared_bytes, "shared bytes"),
        (binary.tensor_memory_columns, slim.tensor_memory_columns, "tensor memory columns"),
    )
    return ", ".join(f"{what} {has} to {most}" for has, most, what in needs if most < has)
