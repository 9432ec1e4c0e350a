"""Where the elements of on-chip buffers lie, by the layouts of their types, and what reinterpreted views show.

Sources: the PTX ISA (addresses in tensor memory, and where products of 64 rows lie there; swizzling modes of shared
memory), and the definitions of the encodings in Triton's dialects ``ttg`` and ``ttng``.
"""

import re
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch

from avo.evaluator.executor.chip.buffers import stepped
from avo.evaluator.executor.chip.cluster import Bases, bases, copies, divisions, place
from avo.evaluator.executor.ir import Type

Places = npt.NDArray[np.int64]

LANE_BYTES = 512 * 4
"""Bytes of one lane of tensor memory: 512 columns of 32 bits."""
LANES = 128
CTA_BYTES = LANES * LANE_BYTES
"""How far the addresses of a cluster's CTAs are taken to be apart: more than a CTA has on the chip."""
MOST_OF_TMA = 256
"""Extent of the largest box that TMA copies; buffers that are larger are made of several."""


class UnknownLayout(Exception):
    """A layout, or a pair of them, that is not followed; the text says which."""


def _number(text: str, name: str, default: int | None = None) -> int:
    match = re.search(rf"\b{name} = (\d+)", text)
    if match is None and default is None:
        raise UnknownLayout(f"a layout without {name}")
    return int(match[1]) if match else default or 0


def _bits(extent: int) -> list[int]:
    return [1 << i for i in range(extent.bit_length() - 1)]


def _tensor_memory(shape: tuple[int, ...], layout: str, item: int) -> tuple[Places, int]:
    """Return byte addresses [rows, columns], where lanes are ``LANE_BYTES`` apart, and the bytes taken of a lane."""
    rows, columns = shape
    block_rows, block_columns = _number(layout, "blockM"), min(_number(layout, "blockN"), columns)
    if block_rows not in (64, LANES) or (block_rows == 64 and "twoCTAs" in layout) or "fp4" in layout:
        raise UnknownLayout(f"tensor memory in the layout {layout[:120]}")
    # What each bit of a lane, then each bit of a column, adds to row and column; None: nothing lies there.
    lanes: list[tuple[int, int] | None] = [(bit, 0) for bit in _bits(block_rows)]
    tile_rows, tile_columns = block_rows, block_columns
    if block_rows == 64:  # 16 lanes of each warp hold the rows, the other 16 the next block
        half: tuple[int, int] | None = None
        if rows > 64:
            half, tile_rows = (64, 0), 128
        elif columns > block_columns:
            half, tile_columns = (0, block_columns), 2 * block_columns
        lanes.insert(4, half)
    within = [(0, bit) for bit in _bits(block_columns)]
    further = [(tile_rows * bit, 0) for bit in _bits(rows // tile_rows)]
    further += [(0, tile_columns * bit) for bit in _bits(columns // tile_columns)]
    by_row, by_column = np.zeros(rows, np.int64), np.zeros(columns, np.int64)
    steps = [(each, LANE_BYTES << i) for i, each in enumerate(lanes) if each is not None]
    width = item * _number(layout, "colStride", 1)
    steps += [(each, width << i) for i, each in enumerate(within + further)]
    for (row, column), address in steps:
        table, bit = (by_row, row) if row else (by_column, column)
        table += ((np.arange(table.size) & bit) != 0) * address
    return by_row[:, None] + by_column, width << len(within + further)


def _swizzled(shape: tuple[int, ...], vec: int, per_phase: int, phases: int) -> Places:
    """Return places [rows, columns] in items, row after row; the vectors of a row are permuted by its phase."""
    row, column = np.arange(shape[0], dtype=np.int64)[:, None], np.arange(shape[1], dtype=np.int64)
    return row * shape[1] + (column ^ (vec * ((row // per_phase) % phases)) % shape[1])


def _shared(shape: tuple[int, ...], layout: str, item: int) -> Places:
    """Return byte addresses of elements in shared memory."""
    unknown = UnknownLayout(f"a buffer of {'x'.join(map(str, shape))} in the layout {layout[:120]}")
    if "CTAsPerCGA" in layout or "fp4Padded = true" in layout or len(shape) > 2:
        raise unknown
    across = shape[::-1] if "order = [0, 1]" in layout or "transposed = true" in layout else shape
    if layout.startswith("#ttg.swizzled_shared"):
        width, vec, per_phase, phases = 0, *(_number(layout, name) for name in ("vec", "perPhase", "maxPhase"))
    elif layout.startswith("#ttg.nvmma_shared"):
        width = _number(layout, "swizzlingByteWidth", 0)
        vec, per_phase, phases = (16 // item, 128 // width, width // 16) if width else (1, 1, 1)
        if max(shape) > MOST_OF_TMA or across[-1] * item < width:
            raise unknown
    else:
        raise unknown
    if len(shape) == 1:
        return np.arange(shape[0], dtype=np.int64) * item
    tile = width // item or across[1]
    tiles = [
        first * across[0] + _swizzled((across[0], tile), vec, per_phase, phases) for first in range(0, across[1], tile)
    ]
    places = np.concatenate(tiles, axis=1)
    return (places if across == shape else places.T) * item


def _addresses(kind: Type) -> Places:
    """Return the byte addresses of the elements of a buffer, or of a view from its start, in the shape of its block."""
    block, text = kind.block, kind.layout
    rank = 2 if kind.in_tensor_memory else text.partition("order = [")[2].partition("]")[0].count(",") + 1
    if text.startswith("#ttg.nvmma_shared"):
        rank = _number(text, "rank", 2)
    whole = re.search(r", ((?:\d+x)*\d+)$", text)
    inside = block.shape[len(block.shape) - rank :]
    held = tuple(int(extent) for extent in whole[1].split("x"))[-rank:] if whole else inside
    layout = text[: text.find("}>") + 2] if "}>" in text else text[: text.find(">") + 1]
    of = bases(layout)
    pieces = divisions(of) or (1,) * rank
    if not len(held) == len(inside) == len(pieces) == rank:
        raise UnknownLayout(f"the layout {layout[:120]}")
    held, inside = (
        tuple(extent // parts for extent, parts in zip(each, pieces, strict=True)) for each in (held, inside)
    )
    if kind.in_tensor_memory:
        addresses, footprint = _tensor_memory(held, layout, block.item_bytes)
    else:
        if held != inside:
            raise UnknownLayout("a part of a buffer in shared memory")
        addresses = _shared(held, layout, block.item_bytes)
        footprint = addresses.size * block.item_bytes
    addresses = addresses[tuple(slice(extent) for extent in inside)]
    for extent in reversed(block.shape[: len(block.shape) - rank]):
        stages = np.arange(extent, dtype=np.int64) * footprint
        addresses, footprint = stages.reshape(-1, *[1] * addresses.ndim) + addresses, footprint * extent
    return _of_all_ctas(addresses, of) if of else addresses


def _of_all_ctas(addresses: Places, of: Bases) -> Places:
    """Return byte addresses in a whole buffer, given those in the part [..., axes] that each CTA holds."""
    if addresses.max() >= CTA_BYTES:
        raise UnknownLayout("more than a CTA can hold")
    pieces = divisions(of)
    stages, part = addresses.shape[: -len(pieces)], addresses.shape[-len(pieces) :]
    every = np.zeros((*stages, *(extent * parts for extent, parts in zip(part, pieces, strict=True))), dtype=np.int64)
    for cta in (each for each in range(2 ** len(of)) if not each & copies(of)):
        starts = zip(place(of, cta), part, strict=True)
        here = tuple(slice(number * extent, (number + 1) * extent) for number, extent in starts)
        every[tuple(slice(None) for _ in stages) + here] = addresses + cta * CTA_BYTES
    return every


def _in_steps(places: Places) -> torch.Tensor:
    """Return places, the first of which is 0, as a tensor, in steps where they follow each other so."""
    origin = (0,) * places.ndim
    ends = [(*origin[:i], 1, *origin[i + 1 :]) for i in range(places.ndim)]
    steps = [int(places[end]) if extent > 1 else 0 for end, extent in zip(ends, places.shape, strict=True)]
    last = sum((extent - 1) * step for extent, step in zip(places.shape, steps, strict=True))
    if min(steps) >= 0 and last == places.max():
        counted = stepped(places.shape, steps)
        if np.array_equal(counted.numpy(), places):
            return counted
    return torch.from_numpy(places)


@lru_cache(maxsize=256)
def reinterpreted(before: Type, steps: tuple[int, ...], after: Type) -> torch.Tensor:
    """Return where the items of a view lie, see ``BufferView``, that is reinterpreted as the type ``after``.

    ``steps`` are those of the view. Raises ``UnknownLayout`` where the layouts say nothing, or where an item would lie
    outside the view or in pieces.
    """
    if copies(bases(before.layout)) != copies(bases(after.layout)):
        raise UnknownLayout("CTAs hold copies of one and parts of the other")
    old, new = before.block.item_bytes, after.block.item_bytes
    addresses, wanted = _addresses(before), _addresses(after)
    held = stepped(before.block.shape, steps).numpy() * old
    held_at = np.full(max(int(addresses.max()) + old, int(wanted.max()) + new), -1, dtype=np.int64)
    for byte in range(old):
        held_at[addresses + byte] = held + byte
    found = held_at[wanted]
    whole = (found >= 0) & (found % new == 0)
    for byte in range(1, new):
        whole &= held_at[wanted + byte] == found + byte
    if not whole.all():
        raise UnknownLayout("an item lies outside the view, or in pieces")
    return _in_steps(found // new)
