"""Digests of what programs do at barriers: of those with the same one, one shows what all do."""

import secrets
from collections.abc import Sequence

from avo.evaluator.executor.frame import Frame, Step
from avo.evaluator.executor.ir import Op, Type

_FACTORS = [secrets.randbits(62) | 1 for _ in range(32)]
"""Nobody who writes a kernel knows what else gives the same number."""


def digested(op: Op, types: Sequence[Type], step: Step) -> Step:
    """Return a step that, where programs have digests, only mixes to these which operation it is, on which integers."""
    slots, place = [slot for slot in op.operands if types[slot].element in ("i1", "i32", "i64")], op.lines.start

    def run(frame: Frame) -> None:
        if frame.run.digest is None:
            step(frame)
            return
        mixed = frame.run.digest[frame.positions] + place
        for slot, factor in zip(slots, _FACTORS[1:], strict=False):
            if frame.slots[slot] is not None:
                mixed += frame.tensor(slot) * factor
        frame.run.digest[frame.positions] = (mixed ^ mixed >> 31) * _FACTORS[0]

    return run
