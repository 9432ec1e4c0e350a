"""Assembles programs: finds the forms of instructions, binds registers, and checks widths and that values are set."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import torch

from avo.evaluator.executor.dtypes import RAW
from avo.evaluator.executor.operations.ptx import conversions, floats, integers
from avo.evaluator.executor.operations.ptx.text import Instruction, Operand, PtxError, read
from avo.evaluator.executor.operations.ptx.types import TYPES, Builder, PtxType
from avo.evaluator.executor.operations.ptx.types import read as as_numbers
from avo.evaluator.executor.operations.ptx.types import write as as_bits

Tensor = torch.Tensor
Registers: TypeAlias = dict[str, Tensor]
Step: TypeAlias = Callable[[Registers], None]
Code: TypeAlias = Callable[..., tuple[Tensor, ...]]
Guard: TypeAlias = tuple[str, bool]
"""A predicate, and whether it is negated."""

_FORMS: Mapping[str, Builder] = {**floats.FORMS, **integers.FORMS, "cvt": conversions.build}
_WITHOUT_EFFECT = {"griddepcontrol": (("wait",), ("launch_dependents",)), "bar": (("sync",), ("warp", "sync"))}
"""Instructions, with modifiers, that order threads or kernels. They do nothing here, where everything runs in order."""


def assemble(text: str, widths: Sequence[int], outputs: int) -> Code:
    """Return a function of input registers, raw integers [n], that returns the output registers.

    ``widths`` are the bits of all operands ``$0, $1, ...``, of which the first ``outputs`` are results. Raises
    ``PtxError`` with the first piece of the text that is not understood.
    """
    declared, instructions = read(text)
    registers = declared | {f"${i}": bits for i, bits in enumerate(widths)}
    assembler = _Assembler(registers, [f"${i}" for i in range(outputs, len(widths))])
    steps = [
        assembler.step(instruction)
        for instruction in instructions
        if instruction.modifiers not in _WITHOUT_EFFECT.get(instruction.name, ())
    ]
    wanted = [f"${i}" for i in range(outputs)]
    missing = [name for name in wanted if not assembler.known(name, None)]
    if missing and (steps or not instructions):
        raise PtxError(f"no value for {missing[0]}")

    def run(*inputs: Tensor) -> tuple[Tensor, ...]:
        state = {f"${outputs + i}": value for i, value in enumerate(inputs)}
        state |= {name: torch.zeros(1, dtype=_raw(registers[name])) for name in missing}
        for step in steps:
            step(state)
        count = max([value.shape[0] for value in inputs], default=1)
        return tuple(state[name].expand(count) for name in wanted)

    return run


def _raw(bits: int) -> torch.dtype:
    return torch.bool if bits == 1 else RAW[bits // 8]


def _error(instruction: Instruction) -> PtxError:
    guard = f"@{'!' * instruction.negated}{instruction.guard} " if instruction.guard else ""
    return PtxError(guard + ".".join((instruction.name, *instruction.modifiers)))


class _Source:
    """A register or constant that is read."""

    def __init__(self, name: str, constant: Tensor | None) -> None:
        self._name, self._constant = name, constant

    def of(self, state: Registers) -> Tensor:
        return state[self._name] if self._constant is None else self._constant


class _Assembler:
    """Tracks which registers have values at each instruction: always, or where a predicate holds."""

    def __init__(self, registers: Mapping[str, int], inputs: Sequence[str]) -> None:
        self._registers = registers
        self._under: dict[str, set[Guard | None]] = {name: {None} for name in inputs}

    def known(self, name: str, guard: Guard | None) -> bool:
        """Whether a register has a value where ``guard`` holds."""
        under = self._under.get(name, set())
        return None in under or guard in under

    def _write(self, name: str, guard: Guard | None) -> None:
        for under in self._under.values():
            under.difference_update({(name, False), (name, True)})
        under = self._under.setdefault(name, set())
        under.add(guard)
        if guard is not None and (guard[0], not guard[1]) in under:
            under.add(None)

    def step(self, instruction: Instruction) -> Step:
        """Return a function that executes an instruction."""
        guard = None if instruction.guard is None else (instruction.guard, instruction.negated)
        if guard is not None and (self._registers.get(guard[0]) != 1 or not self.known(guard[0], None)):
            raise _error(instruction)
        make = self._move if instruction.name == "mov" else self._computation
        targets, values = make(instruction, guard)
        for name in targets:
            self._write(name, guard)

        def step(state: Registers) -> None:
            taken = None if guard is None else state[guard[0]] ^ guard[1]
            for name, value in zip(targets, values(state), strict=True):
                if taken is not None:
                    value = torch.where(taken, value, state.get(name, torch.zeros(1, dtype=value.dtype)))
                state[name] = value

        return step

    def _source(self, operand: Operand, kind: PtxType, guard: Guard | None, resizes: bool = False) -> _Source:
        if operand.constant is not None:
            return _Source("", _constant(operand, kind))
        name = operand.registers[0] if len(operand.registers) == 1 else ""
        if not self.known(name, guard) or not self._fits(name, kind, resizes):
            raise PtxError(f"{name or operand.registers} as {kind.name}")
        return _Source(name, None)

    def _target(self, name: str, kind: PtxType, resizes: bool = False) -> str:
        if name != "_" and not self._fits(name, kind, resizes):
            raise PtxError(f"{name} as {kind.name}")
        return name

    def _fits(self, name: str, kind: PtxType, resizes: bool) -> bool:
        width = self._registers.get(name, 0)
        return width == kind.bits or (resizes and width > kind.bits)

    def _computation(
        self, instruction: Instruction, guard: Guard | None
    ) -> tuple[list[str], Callable[[Registers], Sequence[Tensor]]]:
        builder = _FORMS.get(instruction.name)
        form = builder(instruction.name, instruction.modifiers) if builder else None
        if form is None or not instruction.operands:
            raise _error(instruction)
        first, *rest = instruction.operands
        if not 0 < len(first.registers) <= len(form.results) or first.vector or len(rest) != len(form.operands):
            raise _error(instruction)
        sources = [
            self._source(operand, kind, guard, form.resizes) for operand, kind in zip(rest, form.operands, strict=True)
        ]
        pairs = zip(first.registers, form.results, strict=False)
        places = [(i, self._target(name, kind, form.resizes), kind) for i, (name, kind) in enumerate(pairs)]
        places = [(i, name, kind) for i, name, kind in places if name != "_"]

        def values(state: Registers) -> list[Tensor]:
            numbers = [
                as_numbers(source.of(state).to(_raw(kind.bits)), kind)
                for source, kind in zip(sources, form.operands, strict=True)
            ]
            made = form.function(*numbers)
            made = (made,) if isinstance(made, Tensor) else made
            return [_widened(as_bits(made[i], kind), kind, self._registers[name]) for i, name, kind in places]

        return [name for _, name, _ in places], values

    def _move(
        self, instruction: Instruction, guard: Guard | None
    ) -> tuple[list[str], Callable[[Registers], Sequence[Tensor]]]:
        """Return ``mov`` of one value, or between one register and several, of which the first has the low bits."""
        kind = TYPES.get(instruction.modifiers[0]) if len(instruction.modifiers) == 1 else None
        if kind is None or len(instruction.operands) != 2 or kind.lanes > 1 or kind.bits == 8:
            raise _error(instruction)
        target, source = instruction.operands
        parts = target.registers if target.vector else source.registers
        part = TYPES.get(f"b{kind.bits // max(len(parts), 1)}")
        if (target.vector and source.vector) or len(target.registers) != (len(parts) if target.vector else 1):
            raise _error(instruction)
        if not target.vector and not source.vector:
            held = self._source(source, kind, guard)
            return [self._target(target.registers[0], kind)], lambda state: [held.of(state)]
        if part is None or part.bits * len(parts) != kind.bits or kind.kind != "b":
            raise _error(instruction)
        if target.vector:
            whole = self._source(source, kind, guard)
            names = [self._target(name, part) for name in parts]
            if "_" in names:
                raise _error(instruction)
            return names, lambda state: whole.of(state).contiguous()[:, None].view(_raw(part.bits)).unbind(1)
        pieces = [self._source(Operand((name,)), part, guard) for name in parts]

        def pack(state: Registers) -> list[Tensor]:
            together = torch.broadcast_tensors(*[piece.of(state) for piece in pieces])
            return [torch.stack(together, 1).contiguous().view(_raw(kind.bits))[:, 0]]

        return [self._target(target.registers[0], kind)], pack


def _constant(operand: Operand, kind: PtxType) -> Tensor:
    value = operand.constant
    if kind.kind == "p" or (operand.bits is not None and operand.bits != kind.bits):
        raise PtxError(f"{value} as {kind.name}")
    if isinstance(value, float):
        if not kind.floating or kind.lanes > 1:
            raise PtxError(f"{value} as {kind.name}")
        return as_bits(torch.tensor([value], dtype=torch.float64), kind)
    assert value is not None
    if (kind.floating and kind.lanes == 1 and operand.bits is None) or not -(2**63) <= value < 2**64:
        raise PtxError(f"{value} as {kind.name}")
    half = 1 << (kind.bits - 1)
    return torch.tensor([(value + half) % (2 * half) - half], dtype=_raw(kind.bits))


def _widened(value: Tensor, kind: PtxType, bits: int) -> Tensor:
    if bits == kind.bits:
        return value
    return (value if kind.kind == "s" else as_numbers(value, TYPES[f"u{kind.bits}"])).to(_raw(bits))
