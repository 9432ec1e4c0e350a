"""Clusters: CTAs that run one program together. Each holds its part, or a copy, of every buffer, and its own barriers.

Source: the CGA layout of Triton's encodings. Its bases say, for each bit of a CTA's number, where on the axes of a
buffer the CTAs with that bit set lie, counted in parts; a basis of zeros says that they hold copies.
"""

import re
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Bases = tuple[tuple[int, ...], ...]
Box = tuple[tuple[int, int], ...]
"""Along each axis of a block, the first element and the end."""

_LAYOUT = re.compile(r"CGALayout = \[((?:\[[\d, ]*\](?:, )?)*)\]")


@lru_cache(maxsize=1024)
def bases(layout: str) -> Bases:
    """Return the bases that a layout states, one for each bit of a CTA's number; none for a single CTA."""
    found = _LAYOUT.search(layout)
    each = re.findall(r"\[([\d, ]*)\]", found[1]) if found else ()
    return tuple(tuple(int(number) for number in one.split(",") if number.strip()) for one in each)


def copies(of: Bases) -> int:
    """Return the bits of a CTA's number that make no difference to what it holds."""
    return sum(1 << bit for bit, basis in enumerate(of) if not any(basis))


def alike(cta: int, bits: int, ctas: int) -> list[int]:
    """Return the CTAs whose numbers differ from one in some ``bits`` at most."""
    return [other for other in range(ctas) if other & ~bits == cta & ~bits]


def place(of: Bases, cta: int) -> tuple[int, ...]:
    """Return which part of each axis a CTA holds."""
    chosen = [basis for bit, basis in enumerate(of) if cta >> bit & 1]
    return tuple(map(sum, zip(*chosen, strict=True))) if chosen else (0,) * len(of[0]) if of else ()


def parts(of: Bases) -> int:
    """Return in how many parts a buffer is divided."""
    return int(2 ** sum(any(basis) for basis in of))


def divisions(of: Bases) -> tuple[int, ...]:
    """Return in how many parts each axis is divided; none for a single CTA."""
    return tuple(int(2 ** sum(basis[axis] != 0 for basis in of)) for axis in range(len(of[0]))) if of else ()


@lru_cache(maxsize=256)
def holders(shape: tuple[int, ...], of: Bases) -> npt.NDArray[np.int64]:
    """Return, for each element of a buffer in order, the CTAs that hold it: bit i for CTA i, int64 [elements]."""
    held = np.zeros(shape, dtype=np.int64)
    rank = len(of[0])
    divided = divisions(of)
    for cta in range(2 ** len(of)):
        here = np.ones(shape, dtype=np.bool_)
        for axis, part in enumerate(place(of, cta), len(shape) - rank):
            extent = shape[axis] // divided[axis - len(shape) + rank]
            along = np.arange(shape[axis]) // extent == part
            here &= along.reshape(-1, *[1] * (len(shape) - 1 - axis))
        held |= here.astype(np.int64) << cta
    return held.reshape(-1)


def lies(of: Bases, shape: tuple[int, ...]) -> Bases:
    """Return bases counted in elements of a block instead of parts."""
    divided = divisions(of)
    inside = shape[len(shape) - len(divided) :]
    return tuple(
        tuple(part * (extent // pieces) for part, extent, pieces in zip(basis, inside, divided, strict=True))
        for basis in of
    )


SLICE = re.compile(r"#ttg\.slice<\{dim = (\d+), parent = (.*)\}>")
_BLOCK_BASES = re.compile(r"block = (\[(?:\[[\d, ]*\](?:, )?)*\])")


def of_registers(layout: str, shape: tuple[int, ...]) -> Bases | None:
    """Return the bases, counted in elements, of a block in registers; None where its layout does not say."""
    if sliced := SLICE.fullmatch(layout):
        axis = int(sliced[1])
        parent = of_registers(sliced[2], (*shape[:axis], 1, *shape[axis:]))
        return None if parent is None else tuple((*basis[:axis], *basis[axis + 1 :]) for basis in parent)
    if layout.startswith("#ttg.linear"):
        found = _BLOCK_BASES.search(layout)
        return bases(f"CGALayout = {found[1]}") if found else None
    return lies(bases(layout), shape) if layout.startswith(("#ttg.blocked", "#ttg.nvidia_mma")) else None


def boxes(of: Bases, shape: tuple[int, ...]) -> tuple[Box, ...] | None:
    """Return which part of a block each CTA has, along each axis the first element and the end, from bases counted in
    elements; None where it is not in one piece.
    """
    rank = len(of[0])
    before = len(shape) - rank
    pieces = divisions(of)
    extents = tuple(extent // parts for extent, parts in zip(shape[before:], pieces, strict=True))
    for axis, (extent, count) in enumerate(zip(extents, pieces, strict=True)):
        starts = sorted(basis[axis] for basis in of if basis[axis])
        if starts != [extent << bit for bit in range(count.bit_length() - 1)]:
            return None
    found = []
    for cta in range(2 ** len(of)):
        along = [(first, first + extent) for first, extent in zip(place(of, cta), extents, strict=True)]
        found.append((*((0, extent) for extent in shape[:before]), *along))
    return tuple(found)


def slices(box: Box) -> tuple[slice, ...]:
    """Return the index of a box."""
    return tuple(slice(*along) for along in box)


def held_in(shape: tuple[int, ...], of: Bases, cta: int, box: Box | None) -> int:
    """Return how many elements of a block, or of a box of it, a CTA holds."""
    held = holders(shape, of).reshape(shape) >> cta & 1 if of else np.ones(shape, dtype=np.int64)
    return int((held if box is None else held[slices(box)]).sum())
