"""Refuses kernels whose results depend on an order of elements that the compiler is free to choose.

``tl.reshape(can_reorder=True)``, ``tl.view`` and ``tl.cat`` let the compiler choose the order, which depends on layouts
that Triton IR does not have; those of Triton GPU IR are followed where they are known. Even a block that keeps its
shape may get another order. Blocks that are reordered apart have orders of their own, though their shapes are the same:
where they meet, the kernel is refused. Only a reduction may take several, as Triton makes one of one over all axes.
"""

from avo.evaluator.executor.chip.registers import order_of
from avo.evaluator.executor.effects import WRITES, effects
from avo.evaluator.executor.errors import UnsupportedOperation
from avo.evaluator.executor.ir import Function, Op
from avo.evaluator.executor.operations import ELEMENTWISE


def check_orders(function: Function) -> None:
    """Raise ``UnsupportedOperation`` if results may depend on an order that the compiler chooses."""
    orders: dict[int, int] = {}
    """A number for each slot in a free order; equal numbers mean equal orders."""
    kept_orders: dict[tuple[object, ...], int] = {}
    """Those of blocks that get another shape, and no further order, by order and shapes."""
    names: list[str] = []
    """The operation that made each order."""
    apart: set[int] = set()
    """Slots that a free operation has just made."""
    uniform: set[int] = set()
    for op in function.body.ops:
        if op.name == "tt.splat" or (op.name == "arith.constant" and not op.words[0].startswith("dense<[")):
            uniform.update(op.results)
        used = (*op.operands, *(slot for _, values in op.successors for slot in values))
        found = {orders[slot] for slot in used if slot in orders}
        kept = found and all(slot in orders or slot in uniform for slot in used) and len(found) == 1
        if _reorders(op, function):
            orders[op.results[0]] = len(names)
            apart.add(op.results[0])
            names.append(op.name)
        elif op.name == "tt.reshape" and found:
            shapes = (function.types[slot].shape for slot in (*op.operands, *op.results))
            order = orders[op.results[0]] = kept_orders.setdefault((*shapes, *found), len(names))
            names += [op.name] * (order == len(names))
        elif not found or op.name == "tt.print":
            continue
        elif kept and _by_element(op) and (op.name not in WRITES or op.operands[0] in orders):
            # What is written must lie in the order of the pointers.
            orders.update(dict.fromkeys(op.results, next(iter(found))))
        elif not (_forgets(op, function) and (kept or apart.issuperset(used))):
            raise UnsupportedOperation(f"{op.name} of elements in any order, after {names[min(found)]},", op.location)


def _by_element(op: Op) -> bool:
    """Whether each element of an operation's result depends only on the same element of its operands."""
    row = effects(op.name)
    return op.name in ELEMENTWISE or op.name == "tt.addptr" or (row.accesses and row.coordinates is None)


def _reorders(op: Op, function: Function) -> bool:
    if op.name == "tt.reshape" and "allow_reorder" in op.words:
        before, after = (function.types[slot].shape for slot in (*op.operands, *op.results))
        return order_of(op, before, after) is None
    return op.name == "tt.cat"


def _forgets(op: Op, function: Function) -> bool:
    """Whether an operation combines all elements, so that their order does not matter."""
    return op.name in ("tt.reduce", "tt.histogram") and len(function.types[op.operands[0]].shape) == 1
