"""What if: a kernel played again with something of it changed, to see what that would gain.

A repair takes something away for good: spills, exponentials, the wait for loads. A relief makes one resource faster by
a quarter; the resource whose relief shortens a loop most is the critical one. The busiest need not be that.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial

from evaluator.binary import Binary
from evaluator.performance.kernel import Kernel, Pass, Player, play_kernel, read
from evaluator.performance.model import Measure, ctas_per_sm, time_case
from evaluator.performance.pipes import Costs, Kind, Op, Pipe
from evaluator.performance.profile import WhatIf
from evaluator.performance.sass import Instruction
from evaluator.performance.simulate import play
from evaluator.performance.stalls import pipe_name
from evaluator.performance.structure import Loop, Structure
from evaluator.target import Target
from evaluator.work import LaunchWork

RELIEF = 0.75
"""What a relieved resource takes of the time that it took."""
_INTEGER = frozenset(
    {
        *("IADD3", "IADD", "IMAD", "LEA", "LOP3", "SHF", "ISETP", "IABS", "IMNMX", "VIADD", "VIMNMX", "SGXT", "BMSK"),
        *("LOP32I", "IADD32I", "VIADDMNMX", "VIMNMX3", "POPC", "FLO", "UIADD3", "UIMAD", "ULEA", "ULOP3", "USHF"),
        *("UISETP", "UIADD3", "USGXT", "UVIADD"),
    }
)
_LOADS = frozenset({"LDG", "LDGSTS", "UTMALDG", "UBLKCP"})

Change = Callable[[Instruction, Op], Op]


@dataclass(frozen=True)
class Repair:
    """Something a kernel might do without."""

    name: str
    """For tools, in snake_case."""
    label: str
    """For people."""
    applies: Callable[[Instruction], bool]
    """Whether an instruction is repaired."""
    change: Change | None = None
    """What becomes of its op; without, the instruction is gone."""
    frees_memory: bool = False
    """Whether loads ask for nothing of L2 and HBM any more."""


def _instantly(_: Instruction, op: Op) -> Op:
    return replace(op, pipe=Pipe.NONE, busy=0.0, latency=0.0, l2=0.0)


def _without_waiting(_: Instruction, op: Op) -> Op:
    return replace(op, kind=Kind.PLAIN, latency=0.0)


def _is_spill(i: Instruction) -> bool:
    return i.base in {"LDL", "STL"}


def _is_exponential(i: Instruction) -> bool:
    return i.opcode.startswith("MUFU.EX2")


def _is_load(i: Instruction) -> bool:
    return i.base in _LOADS


def _is_integer(i: Instruction) -> bool:
    return i.base in _INTEGER and not i.opcode.startswith("IMAD.MOV")


def _is_cta_barrier(i: Instruction) -> bool:
    return i.base == "BAR" and ("SYNC" in i.opcode or "RED" in i.opcode)


REPAIRS = (
    Repair("no_spills", "no spills", _is_spill),
    Repair("free_exponentials", "exponentials free", _is_exponential),
    Repair("free_loads", "loads free", _is_load, _instantly, frees_memory=True),
    Repair("free_integers", "integer work free", _is_integer),
    Repair("free_cta_barriers", "CTA barriers free", _is_cta_barrier, _without_waiting),
    Repair("hidden_latencies", "all latencies hidden", lambda _: True, lambda _, op: replace(op, latency=0.0)),
)


class ChangedCosts(Costs):
    """Costs of which some are other than the target's."""

    def __init__(self, instructions: Sequence[Instruction], target: Target, change: Change) -> None:
        super().__init__(instructions, target)
        self._change = change

    def _op(self, i: Instruction) -> Op:
        return self._change(i, super()._op(i))


@dataclass(frozen=True)
class Replay:
    """A kernel that can be played again, with changed costs or without some of its instructions."""

    instructions: tuple[Instruction, ...]
    structure: Structure
    warps: int
    """Per CTA."""
    target: Target
    resident: int
    """CTAs."""
    ir_loops: int

    @classmethod
    def of(cls, binary: Binary, target: Target, resident: int, ir_loops: int) -> "Replay":
        """Make it ready; raise ``ModelError`` when the binary cannot be read."""
        code, structure = read(binary.cubin)
        return cls(code.instructions, structure, -(-binary.threads // 32), target, resident, ir_loops)

    def play(self, change: Change | None = None, player: Player | None = None, issue_clocks: float = 1.0) -> Kernel:
        """Play the kernel with the ops that ``change`` makes of its own, or with other issue slots."""
        costs = ChangedCosts(self.instructions, self.target, change or (lambda _, op: op))
        costs.issue_clocks = issue_clocks
        player = player or partial(play, issue_clocks=issue_clocks)
        return play_kernel(self.structure, costs, self.warps, self.resident, self.ir_loops, player)

    def without(self, gone: Callable[[Instruction], bool]) -> "Replay":
        """Return the kernel without some of its instructions."""

        def kept(items: Sequence[Instruction | Loop]) -> tuple[Instruction | Loop, ...]:
            return tuple(
                loop(item) if isinstance(item, Loop) else item
                for item in items
                if isinstance(item, Loop) or not gone(item)
            )

        def loop(old: Loop) -> Loop:
            return replace(old, items=kept(old.items))

        return replace(self, structure=Structure(kept(self.structure.items), tuple(map(loop, self.structure.aside))))


def repaired(repair: Repair) -> Measure:
    """Return what measures a binary after ``repair``."""
    return partial(_measure_repaired, repair)


@lru_cache(maxsize=128)
def _measure_repaired(repair: Repair, binary: Binary, target: Target, resident: int, ir_loops: int) -> Kernel:
    change = repair.change
    replay = Replay.of(binary, target, resident, ir_loops)
    if change is None:
        return replay.without(repair.applies).play()
    return replay.play(lambda i, op: change(i, op) if repair.applies(i) else op)


def without_loads(launch: LaunchWork) -> LaunchWork:
    """Return ``launch`` with loads that ask for no bytes."""
    loops = tuple(replace(loop, body=replace(loop.body, load_bytes=0)) for loop in launch.loops)
    return replace(launch, loops=loops, outside=replace(launch.outside, load_bytes=0))


def with_one_more_cta(launch: LaunchWork, target: Target) -> Binary | None:
    """Return the binary as it would have to be for one more CTA on each SM; None where the grid would not fill it, or
    no use of registers and memory allows it.
    """
    binary = launch.binary
    wanted = ctas_per_sm(binary, target) + 1
    if -(-launch.programs // target.sms) < wanted:
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


def reliefs(replay: Replay, pipes: Collection[str]) -> Mapping[str, Kernel]:
    """Return the kernel as played with each resource relieved: the pipes called so, issue slots, latencies and, in
    full, CTA barriers.
    """
    found = {pipe: replay.play(_faster(pipe)) for pipe in pipes}
    found["issue"] = replay.play(issue_clocks=RELIEF)
    found["latency"] = replay.play(
        lambda _, op: replace(op, latency=op.latency * RELIEF, stall=max(1, round(op.stall * RELIEF)))
    )
    if any(map(_is_cta_barrier, replay.instructions)):
        found["cta_barrier"] = replay.play(lambda i, op: _without_waiting(i, op) if _is_cta_barrier(i) else op)
    return found


def relief_percent(kernel: Kernel, passed: Pass, relieved: Mapping[str, Kernel]) -> dict[str, float]:
    """Return by how much each relief shortens one of the kernel's passes, most first.

    Barriers are relieved of all that they cost, so a quarter of it counts.
    """
    place = next((i for i, loop in enumerate(kernel.loops) if loop is passed), None)
    gains = {}
    for name, other in relieved.items():
        after = other.outside if place is None else other.loops[place]
        whole = 1 - RELIEF if name == "cta_barrier" else 1.0
        gains[name] = 100 * whole * (1 - after.clocks / passed.clocks)
    return dict(sorted(gains.items(), key=lambda item: -item[1]))


def _faster(pipe: str) -> Change:
    def change(_: Instruction, op: Op) -> Op:
        if pipe == "l2":
            return replace(op, l2=op.l2 * RELIEF)
        shared = op.shared * (RELIEF if pipe == "shared" else 1.0)
        return replace(op, shared=shared, busy=op.busy * (RELIEF if pipe_name(op) == pipe else 1.0))

    return change


def answers(
    useful_flops: int, least_bytes: int, launches: Sequence[LaunchWork], seconds: float, target: Target
) -> tuple[WhatIf, ...]:
    """Return what each repair makes of a case that takes ``seconds``, largest gain first."""

    def answer(name: str, label: str, after: float, note: str = "") -> WhatIf:
        return WhatIf(name, label, after * 1e6, useful_flops / after / 1e12, 100 * (seconds / after - 1), note)

    found = [_one_more_cta(least_bytes, launches, seconds, target, answer)]
    for repair in REPAIRS:
        if any(repair.applies(i) for launch in launches for i in read(launch.binary.cubin)[0].instructions):
            works = [without_loads(launch) for launch in launches] if repair.frees_memory else launches
            bytes_left = 0 if repair.frees_memory else least_bytes
            after = time_case(works, bytes_left, target, repaired(repair)).seconds
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
