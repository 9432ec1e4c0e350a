"""Packed elements: which ones an operation takes together is the layout's business, and Triton IR has no layouts.

A GPU packs elements that lie in registers of one thread next to each other: their indices differ in some bits, such as
a lowest one (neighbours along the last axis), or the row by 8 (products of a warpgroup); a layout that repeats elements
packs one with itself. So a result counts only if it does not depend on its company: every execution also packs
elements that differ in each of the other bits, and refuses the kernel where a result differs.
"""

import random
from collections.abc import Callable, Sequence

import torch

from evaluator.executor.errors import UnsupportedOperation

Tensor = torch.Tensor
Function = Callable[[Sequence[Tensor]], list[Tensor]]
"""Maps blocks of elements [P, n] to such blocks; each ``pack`` neighbours are taken together."""


def alike(elements: int, pack: int, name: str, location: str) -> Callable[[Function, Sequence[Tensor]], list[Tensor]]:
    """Return what applies a function to blocks of ``elements`` and checks that company is irrelevant.

    It raises ``UnsupportedOperation`` where a result depends on which elements are packed together.
    """
    if pack == 1:
        return lambda function, values: function(values)
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
