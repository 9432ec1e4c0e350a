"""The number of a CTA in its cluster, which kernels ask for in PTX, and what is done by some CTAs only because of it.

The CTAs of a cluster are executed as one. What depends on their number is done for one after the other: branches and
stores of the outermost level.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from evaluator.executor.effects import effects
from evaluator.executor.errors import UnsupportedOperation
from evaluator.executor.frame import Frame, Step
from evaluator.executor.ir import Function, Op, walk
from evaluator.executor.lexer import unquoted
from evaluator.executor.operations import ELEMENTWISE

_ASKED = re.compile(r"mov\.[us]32 \$0, %cluster_ctarank;")
_PURE = ELEMENTWISE.keys() | {"tt.addptr"}
_ALONE = frozenset(
    {
        *("ttg.local_load", "ttg.local_store", "ttg.local_gather", "ttg.local_scatter"),
        *("ttg.local_atomic_scatter_rmw", "ttng.async_shared_store"),
        *("ttg.memdesc_index", "ttg.memdesc_subslice", "ttg.memdesc_trans", "ttg.memdesc_reshape"),
    }
)
"""What one CTA may do alone on its chip."""


def asks_for_rank(op: Op) -> bool:
    """Whether an operation asks for the number of its CTA."""
    return (
        op.name == "tt.elementwise_inline_asm"
        and not op.operands
        and len(op.words) == len(op.results) == 1
        and _ASKED.fullmatch(" ".join(unquoted(op.words[0]).split())) is not None
    )


def set_rank(op: Op) -> Step:
    """Return the step of an operation that asks for the number of its CTA: that of the first one."""
    return lambda frame: _set(frame, op, 0)


def _set(frame: Frame, op: Op, cta: int) -> None:
    frame.slots[op.results[0]] = torch.full((1,), cta, dtype=torch.int32)


class Ranks:
    """What of a kernel depends on the numbers of CTAs."""

    def __init__(self, function: Function) -> None:
        self._ctas = function.ctas
        self._outermost = {id(op) for block in function.body.blocks for op in block.ops}
        self._slots: set[int] = set()
        for op in walk(function.body) if self._ctas > 1 else ():
            if asks_for_rank(op) or (op.name in _PURE and self._slots.intersection(op.operands)):
                self._slots.update(op.results)
        self._made: list[tuple[Op, Step]] = []
        self._inside = False

    @contextmanager
    def within(self, op: Op) -> Iterator[None]:
        """Let what is in the regions of an operation be built as parts of what each CTA does, if it is."""
        before = self._inside
        self._inside = before or self._apart(op)
        yield
        self._inside = before

    def step(self, op: Op, step: Step) -> Step:
        """Return the step of an operation for all CTAs, given that for one. Raises ``UnsupportedOperation``."""
        if self._inside or not self._slots:
            return step
        if self._slots.issuperset(op.results) and op.results and id(op) in self._outermost:
            self._made.append((op, step))
            return step
        if not self._apart(op):
            if self._slots.intersection(op.operands) or self._slots.intersection(op.results):
                raise UnsupportedOperation(f"{op.name} of what depends on the number of a CTA", op.location)
            return step
        for inner in (each for region in op.regions for each in walk(region)):
            if effects(inner.name).on_chip and inner.name not in _ALONE:
                raise UnsupportedOperation(f"{inner.name} by some CTAs of a cluster only", inner.location)
        made = tuple(self._made)

        def run(frame: Frame) -> None:
            for cta in range(self._ctas):
                _renew(frame, cta)
                with alone(frame, cta):
                    step(frame)

        def _renew(frame: Frame, cta: int) -> None:
            for each, again in made:
                if asks_for_rank(each):
                    _set(frame, each, cta)
                else:
                    again(frame)

        return run

    def _apart(self, op: Op) -> bool:
        """Whether an operation is done for one CTA after the other."""
        depends = self._slots.intersection(op.operands)
        return bool(depends) and op.name in ("scf.if", "tt.store") and not op.results and id(op) in self._outermost


@contextmanager
def alone(frame: Frame, cta: int) -> Iterator[None]:
    """Let only one CTA act on the chip."""
    if (chip := frame.run.chip) is not None:
        chip.alone = cta
    try:
        yield
    finally:
        if chip is not None:
            chip.alone = None
