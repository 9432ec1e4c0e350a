"""Puts matrix products that a predicate may leave out into branches, so that their work is counted where it is done."""

from dataclasses import replace
from itertools import count

from avo.evaluator.executor.effects import effects
from avo.evaluator.executor.ir import Block, Function, Op, Region, used_slots


def in_branches(function: Function) -> Function:
    """Return the function with each product whose predicate is no constant in a branch of its own.

    Products whose tokens are used are left as they are: only the compiler uses tokens, and what it made is not counted.
    """
    used = used_slots(function.body.ops)
    always = {
        slot for op in function.body.ops if op.name == "arith.constant" and "true" in op.words for slot in op.results
    }
    number = count(function.blocks)

    def put(op: Op) -> Op:
        slots = [slot for slot in op.operands if function.types[slot].element != "token"]
        place = effects(op.name).predicate
        if place is None or not used.isdisjoint(op.results) or len(slots) <= place or slots[place] in always:
            return replace(op, regions=tuple(map(visit, op.regions)))
        end = Op("scf.yield", (), (), op.location)
        branch = Region((Block("", (), (op, end), next(number)),))
        return Op("scf.if", (slots[place],), (), op.location, regions=(branch,), lines=op.lines)

    def visit(region: Region) -> Region:
        return Region(tuple(replace(block, ops=tuple(map(put, block.ops))) for block in region.blocks))

    body = visit(function.body)
    return replace(function, body=body, blocks=next(number))
