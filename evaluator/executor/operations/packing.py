"""Packed elements: which ones an operation takes together is the layout's business.

A GPU packs elements that lie in registers of one thread next to each other: their indices differ in some bits, such as
a lowest one (neighbours along the last axis), or the row by 8 (products of a warpgroup); a layout that repeats elements
packs one with itself. Triton GPU IR has layouts, which are followed. Triton IR has none, so there a result counts only
if it does not depend on its company: every execution also packs elements that differ in each of the other bits, and
refuses the kernel where a result differs.
"""

import random
from collections.abc import Callable, Sequence
from math import prod

import torch

from avo.evaluator.executor.chip.registers import packs
from avo.evaluator.executor.errors import UnsupportedOperation
from avo.evaluator.executor.ir import Op

Tensor = torch.Tensor
Function = Callable[[Sequence[Tensor]], list[Tensor]]
"""Maps blocks of elements [P, n] to such blocks; each ``pack`` neighbours are taken together."""


def in_packs(
    op: Op, shape: tuple[int, ...], pack: int, name: str
) -> Callable[[Function, Sequence[Tensor]], list[Tensor]]:
    """Return what applies a function to blocks of a ``shape``, with those elements together that the layout packs.

    Where the layout does not say, it checks that company is irrelevant, and raises ``UnsupportedOperation`` where a
    result depends on which elements are packed together. ``name`` is what messages call the operation.
    """
    if pack == 1:
        return lambda function, values: function(values)
    order = packs(op.attributes["registers"].rpartition(" -> ")[2], shape, pack)
    return _alike(prod(shape), pack, name, op.location) if order is None else _in_order(torch.from_numpy(order))


def _in_order(order: Tensor) -> Callable[[Function, Sequence[Tensor]], list[Tensor]]:
    back = torch.argsort(order)

    def apply(function: Function, values: Sequence[Tensor]) -> list[Tensor]:
        return [result[:, back] for result in function([value[:, order] for value in values])]

    return apply


def _alike(elements: int, pack: int, name: str, location: str) -> Callable[[Function, Sequence[Tensor]], list[Tensor]]:
    if pack & (pack - 1) or elements & (elements - 1):
        raise UnsupportedOperation(f"{name} of {pack} of {elements} elements at a time", location)
    chance = random.Random(pack)

    def apply(function: Function, values: Sequence[Tensor]) -> list[Tensor]:
        results, orders = function(values), _companies(elements, pack, chance)
        programs, number = results[0].shape[0], orders.shape[0]
        # Where there are many programs, one order each will do: together they try all.
        each = torch.arange(programs * -(-number // programs)).view(programs, -1) + chance.randrange(number)
        where = torch.arange(programs)[:, None], orders[each % number].flatten(1)
        again = function([value.expand(programs, -1)[where] for value in values])
        if any(not torch.equal(_bits(new), _bits(old[where])) for new, old in zip(again, results, strict=True)):
            raise UnsupportedOperation(f"{name} whose results depend on which elements are packed together,", location)
        return results

    return apply


def _companies(elements: int, pack: int, chance: random.Random) -> Tensor:
    """Return orders of the elements, indices int64 [orders, n], each ``pack`` neighbours in which come together.

    In the first ones every element comes in the company of itself, in the others in that of those whose indices differ
    in some bits: a first one, which each bit is once, and others at random.
    """
    lanes, index = torch.arange(pack), torch.arange(elements)
    bits, others = [1 << i for i in range(elements.bit_length() - 1)], pack.bit_length() - 2
    orders = [index.repeat_interleave(pack).view(-1, max(elements, pack))]
    for bit in bits if others < len(bits) else ():
        places = [bit, *chance.sample([other for other in bits if other != bit], others)]
        offsets = torch.stack([(lanes >> i & 1) * place for i, place in enumerate(places)]).sum(0)
        orders.append((index[index & sum(places) == 0, None] + offsets).view(1, -1))
    return torch.cat(orders)


def _bits(values: Tensor) -> Tensor:
    """Return values as bytes, so that a NaN equals itself."""
    return values.contiguous().view(torch.uint8)
