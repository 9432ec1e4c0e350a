"""Packed elements: which ones an operation takes together is the layout's business, and Triton IR has no layouts.

A GPU packs elements that lie in registers of one thread next to each other: their indices differ in some bits, such as
a lowest one (neighbours along the last axis), or the row by 8 (products of a warpgroup); a layout that repeats elements
packs one with itself. So a result counts only if it does not depend on its company: every execution also packs
elements that differ in other bits, in turn, and refuses the kernel where a result differs.
"""

import random
from collections.abc import Callable, Iterator, Sequence

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
    companies = _companies(elements, pack)

    def apply(function: Function, values: Sequence[Tensor]) -> list[Tensor]:
        results, order = function(values), next(companies)
        again = function([value[:, order] for value in values])
        if any(not torch.equal(_bits(new), _bits(old[:, order])) for new, old in zip(again, results, strict=True)):
            raise UnsupportedOperation(f"{name} whose results depend on which elements are packed together,", location)
        return results

    return apply


def _companies(elements: int, pack: int) -> Iterator[Tensor]:
    """Yield, without end, indices int64 [n] of elements, each ``pack`` of which come together.

    The first time every element comes in the company of itself, later in that of those whose indices differ in some
    bits: a first one, taken in turn, and others at random.
    """
    chance, lanes = random.Random(pack), torch.arange(pack)
    bits, index = [1 << i for i in range(elements.bit_length() - 1)], torch.arange(elements)
    others = pack.bit_length() - 2
    while True:
        yield index.repeat_interleave(pack)
        for bit in bits if others < len(bits) else ():
            places = [bit, *chance.sample([other for other in bits if other != bit], others)]
            offsets = torch.stack([(lanes >> i & 1) * place for i, place in enumerate(places)]).sum(0)
            yield (index[index & sum(places) == 0, None] + offsets).flatten()


def _bits(values: Tensor) -> Tensor:
    """Return values as bytes, so that a NaN equals itself."""
    return values.contiguous().view(torch.uint8)
