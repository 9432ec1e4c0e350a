"""Runtime values: one tensor for all programs of a frame, and functions that narrow and merge values.

A scalar is a tensor [P], a block a tensor [P, ...]. P is the number of programs of the frame, or 1 where all programs
agree. A block dimension may be 1 where the type says more: all elements along it are equal. ``full`` expands both.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import torch

from avo.evaluator.executor.chip.buffers import INSIDE, BufferView
from avo.evaluator.executor.dtypes import RAW
from avo.evaluator.executor.ir import Type
from avo.evaluator.plan import Pixels


@dataclass(frozen=True, slots=True)
class AddressSum:
    """Addresses as the sum of two tensors that broadcast, as most pointer blocks are a column plus a row."""

    base: torch.Tensor
    offset: torch.Tensor


@dataclass(frozen=True, slots=True)
class DescriptorValue:
    """A tensor descriptor. Tensors are int64 [P]; shape in elements, strides in elements."""

    base: torch.Tensor
    """Address of the first element."""
    shape: tuple[torch.Tensor, ...]
    strides: tuple[torch.Tensor, ...]
    block: tuple[int, ...]
    nan_padding: bool
    pixels: Pixels | None = None
    """How blocks walk over an image; None: they are those of the tensor."""
    rounds_tf32: bool = False
    """Whether loads round float32 to tf32."""


class Unlike(Exception):
    """Values of programs that meet again are not one value for all of them; the text says which."""


Value: TypeAlias = torch.Tensor | AddressSum | DescriptorValue | BufferView


def _map(value: Value, function: Callable[[torch.Tensor], torch.Tensor]) -> Value:
    if isinstance(value, torch.Tensor):
        return function(value)
    if isinstance(value, AddressSum):
        return AddressSum(function(value.base), function(value.offset))
    if isinstance(value, BufferView):
        return replace(
            value,
            offset=function(value.offset),
            stray=None if value.stray is None else function(value.stray),
        )
    return replace(
        value,
        base=function(value.base),
        shape=tuple(function(extent) for extent in value.shape),
        strides=tuple(function(stride) for stride in value.strides),
    )


def select(value: Value, programs: torch.Tensor) -> Value:
    """Return the value for the programs at the given positions [n]."""
    return _map(value, lambda t: t if t.shape[0] == 1 else t.index_select(0, programs))


def prefix(value: Value, count: int) -> Value:
    """Return the value for the first ``count`` programs, without a copy."""
    return _map(value, lambda t: t if t.shape[0] == 1 else t[:count])


def suffix(value: Value, start: int) -> Value:
    """Return a copy of the value for the programs from ``start`` on; a view would keep all of the memory."""
    return _map(value, lambda t: t if t.shape[0] == 1 else t[start:].clone())


def _parts(value: Value) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, AddressSum):
        return [value.base + value.offset]
    if isinstance(value, BufferView):
        return [value.offset, torch.full_like(value.offset, INSIDE) if value.stray is None else value.stray]
    return [value.base, *value.shape, *value.strides]


def merge(pieces: Sequence[tuple[torch.Tensor, Value]], total: int) -> Value:
    """Return one value made of pieces (positions [n], value of n programs) that together cover ``total`` programs.

    Raises ``Unlike`` for on-chip buffers that differ in more than where they start.
    """
    columns = [[(positions, part) for part in _parts(value)] for positions, value in pieces]
    merged = [_merge_tensors(column, total) for column in zip(*columns, strict=True)]
    first = pieces[0][1]
    if isinstance(first, BufferView):
        for _, other in pieces:
            if not isinstance(other, BufferView) or not first.alike(other):
                raise Unlike("programs that meet again have different on-chip buffers")
        among = max(other.among for _, other in pieces if isinstance(other, BufferView))
        return replace(first, offset=merged[0], stray=merged[1] if among else None, among=among)
    if not isinstance(first, DescriptorValue):
        return merged[0]
    rank = len(first.shape)
    return replace(first, base=merged[0], shape=tuple(merged[1 : 1 + rank]), strides=tuple(merged[1 + rank :]))


def _merge_tensors(pieces: Sequence[tuple[torch.Tensor, torch.Tensor]], total: int) -> torch.Tensor:
    shape = np.broadcast_shapes(*(part.shape[1:] for _, part in pieces))
    first = pieces[0][1]
    result = first.new_empty((total, *shape))
    for positions, part in pieces:
        source = part.expand(positions.shape[0], *shape)
        raw = RAW[first.element_size()]
        result.view(raw).index_copy_(0, positions, source.contiguous().view(raw))
    return result


def full(value: torch.Tensor, kind: Type, programs: int | None = None) -> torch.Tensor:
    """Return the tensor with every block dimension at its true size, and the leading one at ``programs`` if given."""
    leading = value.shape[0] if programs is None else programs
    return value.expand(leading, *kind.shape)
