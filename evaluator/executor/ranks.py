"""The number of a CTA in its cluster, which kernels ask for in PTX, and branches that some CTAs take because of it.

The CTAs of a cluster are executed as one. A branch of the outermost level that depends on their number is done for one
after the other, if all that it does can be done by one alone. All else that depends on the number is refused.
"""

import re
from collections.abc import Sequence

import torch

from avo.evaluator.executor.chip.cluster import bases, copies, of_registers
from avo.evaluator.executor.errors import UnsupportedOperation
from avo.evaluator.executor.frame import Frame, Step
from avo.evaluator.executor.ir import Function, Op, Type
from avo.evaluator.executor.lexer import unquoted
from avo.evaluator.executor.operations import ELEMENTWISE

_ASKED = re.compile(r"mov\.[us]32 \$0, %cluster_ctarank;")
_PURE = ELEMENTWISE.keys() | {"tt.addptr"}
_HARMLESS = _PURE | {
    "arith.constant",
    "tt.splat",
    "tt.make_range",
    "ttg.memdesc_index",
    "ttg.memdesc_subslice",
    "ttg.memdesc_trans",
}
_ACCESSES = {"ttg.local_load": 0, "ttg.local_store": 1, "ttng.async_shared_store": 1}
"""What one CTA may do alone to shared memory, and which operand is the buffer."""


def asks_for_rank(op: Op, types: Sequence[Type]) -> bool:
    """Whether an operation asks for the number of its CTA."""
    return (
        op.name == "tt.elementwise_inline_asm"
        and not op.operands
        and len(op.words) == len(op.results) == 1
        and types[op.results[0]] == Type("i32")
        and unquoted(op.attributes.get("constraints", "")) == "=r"
        and _ASKED.fullmatch(" ".join(unquoted(op.words[0]).split())) is not None
    )


def set_rank(frame: Frame, op: Op, cta: int = 0) -> None:
    """Set the result of an operation that asks for the number of its CTA."""
    frame.slots[op.results[0]] = torch.full((1,), cta, dtype=torch.int32)


class Ranks:
    """What of a kernel depends on the numbers of CTAs."""

    def __init__(self, function: Function) -> None:
        """Raises ``UnsupportedOperation`` where that is not followed."""
        self._function = function
        self._slots: set[int] = set()
        self._numbers: list[tuple[Op, Step]] = []
        """The operations whose results depend on it, in order, as far as they are built."""
        self._branches: set[int] = set()
        self._stores: set[int] = set()
        """Stores in branches."""
        if function.ctas > 1 and any(self._asks(op) for op in function.body.ops):
            self._follow()

    def step(self, op: Op, step: Step) -> Step:
        """Return the step of an operation for all CTAs, given that for one."""
        if self._slots.intersection(op.results):
            self._numbers.append((op, step))
        if id(op) in self._stores:
            return self._by_the_first(step)
        return self._by_each(step) if id(op) in self._branches else step

    def _asks(self, op: Op) -> bool:
        return asks_for_rank(op, self._function.types)

    def _follow(self) -> None:
        entry, *others = self._function.body.blocks
        for op in entry.ops:
            depends = self._slots.intersection(op.operands)
            if self._asks(op) or (depends and op.name in _PURE):
                self._slots.update(op.results)
            elif depends and op.name == "scf.if" and not op.results:
                self._branches.add(id(op))
                self._check_alone(op)
            elif (depends and not self._is_scalar_store(op)) or any(map(self._uses, op.nested)):
                raise _unfollowed(op)
        if others:
            raise _unfollowed(others[0].ops[0])

    def _uses(self, op: Op) -> bool:
        return self._asks(op) or bool(self._slots.intersection(op.operands))

    def _check_alone(self, branch: Op) -> None:
        """Raise ``UnsupportedOperation`` for what one CTA cannot do alone, or does otherwise than all together.

        Blocks come from loads of which each CTA gets all, so that reducing them takes no other CTA.
        """
        loaded: set[int] = set()
        for op in (each for region in branch.regions for block in region.blocks for each in block.ops):
            from_loads = bool(loaded.intersection(op.operands))
            if self._is_scalar_store(op):
                self._stores.add(id(op))
            elif op.name in _ACCESSES:
                self._check_access(op)
            elif op.name != "scf.yield" and op.name not in _HARMLESS and not (op.name == "tt.reduce" and from_loads):
                raise UnsupportedOperation(f"{op.name} by some CTAs of a cluster only", op.location)
            if from_loads or op.name == "ttg.local_load":
                loaded.update(op.results)

    def _check_access(self, op: Op) -> None:
        kind = self._function.types[op.operands[_ACCESSES[op.name]]]
        asked = of_registers(op.attributes.get("registers", ""), kind.block.shape)
        if asked is None or any(any(basis) for basis in asked):
            raise UnsupportedOperation(f"{op.name} by some CTAs of a cluster only, of a part of a block", op.location)
        if op.name != "ttg.local_load" and copies(bases(kind.layout)):
            raise UnsupportedOperation(f"{op.name} by some CTAs of a cluster only, to their copies", op.location)

    def _is_scalar_store(self, op: Op) -> bool:
        return op.name == "tt.store" and not self._function.types[op.operands[0]].shape

    def _by_the_first(self, step: Step) -> Step:
        """Return the step of a store of one value: Triton has the first CTA do it."""
        (rank, _), *_ = self._numbers

        def run(frame: Frame) -> None:
            if int(frame.tensor(rank.results[0])[0]) == 0:
                step(frame)

        return run

    def _by_each(self, step: Step) -> Step:
        numbers = [(op, None if self._asks(op) else step) for op, step in self._numbers]

        def set_numbers(frame: Frame, cta: int) -> None:
            for op, again in numbers:
                if again is None:
                    set_rank(frame, op, cta)
                else:
                    again(frame)

        def run(frame: Frame) -> None:
            chip = frame.run.chip
            for cta in range(self._function.ctas):
                set_numbers(frame, cta)
                if chip is None:
                    step(frame)
                    continue
                chip.alone = cta
                try:
                    step(frame)
                finally:
                    chip.alone = None
            set_numbers(frame, 0)

        return run


def _unfollowed(op: Op) -> UnsupportedOperation:
    return UnsupportedOperation(f"{op.name} of what depends on the number of a CTA", op.location)
