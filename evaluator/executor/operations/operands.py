"""Checks of operands before they are used: the IR is untrusted."""

from collections.abc import Container

from avo.evaluator.executor.errors import UnsupportedOperation
from avo.evaluator.executor.ir import Op
from avo.evaluator.executor.operations.registry import Types

INTEGERS = frozenset(("i1", "i8", "i16", "i32", "i64"))
FLOATS = frozenset(("f16", "bf16", "f32", "f64"))
SHORT_FLOATS = frozenset(("f8E4M3FN", "f8E5M2"))
"""Types that NVIDIA's back end converts, selects and takes absolute values of; other arithmetic does not compile."""


def one_element(op: Op, types: Types, allowed: Container[str], slots: tuple[int, ...] | None = None) -> str:
    """Return the one element type of the given slots, by default all operands and results.

    Raises ``UnsupportedOperation`` if they differ or are not among the allowed ones.
    """
    elements = {types[slot].element for slot in (slots or (*op.operands, *op.results))}
    if len(elements) != 1 or not all(element in allowed for element in elements):
        raise UnsupportedOperation(f"{op.name} on {' and '.join(sorted(elements))}", op.location)
    return elements.pop()
