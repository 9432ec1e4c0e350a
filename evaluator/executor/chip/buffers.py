"""On-chip buffers: the contents for each program, and who has accessed which part of them when.

Contents lie in the order of the elements, not of the layout. A buffer is divided into parts: the largest sets of bytes
that no view so far has told apart.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from avo.evaluator.executor.chip.cluster import Box, bases, holders, slices
from avo.evaluator.executor.chip.places import Place, Ring
from avo.evaluator.executor.dtypes import DTYPES, RAW
from avo.evaluator.executor.ir import MAX_ELEMENTS, Type

Tensor = torch.Tensor
Span = tuple[int, tuple[int, ...], object, str, int, Box | None]
"""Items of a buffer: offset, shape, where they lie from there, what they are, the CTA that holds them, and which."""

BARRIER_BYTES = 8
NOBODY = -1
"""Who has written what nobody has."""


INSIDE = -(2**63)


@dataclass(frozen=True, slots=True)
class BufferView:
    """A view of an on-chip buffer. Places are counted in items of ``element``."""

    buffer: "Buffer"
    offset: torch.Tensor
    """Where the view starts, int64 [P or 1]."""
    places: torch.Tensor
    """Where its items lie from there, int64 in the shape of the view: the first one at 0. See ``stepped``."""
    element: str
    stray: torch.Tensor | None = None
    """The index of a buffer that led outside of ``among``, int64 [P or 1], ``INSIDE`` where none did: no program may
    use such a view. None: none did.
    """
    among: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        """Extents of the view."""
        return tuple(self.places.shape)

    @property
    def steps(self) -> tuple[int, ...] | None:
        """The steps along each axis; None where places do not follow each other in steps."""
        return self.places.stride() if self.places.untyped_storage().data_ptr() == _COUNTED_AT else None

    def lying(self, offset: torch.Tensor, places: torch.Tensor) -> "BufferView":
        """Return a view of the same items, or some of them, that starts at ``offset`` and has these places."""
        return BufferView(self.buffer, offset, places, self.element, self.stray, self.among)

    def alike(self, other: "BufferView") -> bool:
        """Whether two views of a buffer differ at most in where they start."""
        same = (self.buffer, self.element) == (other.buffer, other.element)
        return same and torch.equal(self.places, other.places)


_COUNTED = torch.arange(MAX_ELEMENTS)
_COUNTED_AT = _COUNTED.untyped_storage().data_ptr()
"""By which views of it are recognised."""


def stepped(shape: Sequence[int], steps: Sequence[int]) -> torch.Tensor:
    """Return places that follow each other in steps from 0 on. Views of them that start at 0, as torch makes them, are
    recognised as such too.
    """
    return _COUNTED.as_strided(shape, steps)


@dataclass(frozen=True, slots=True)
class Piece:
    """Programs of a frame for which a view starts at the same place."""

    places: Tensor | None
    """Their places [n] in the frame; None: all."""
    offset: int

    def of(self, values: Tensor) -> Tensor:
        """Return the values [P, ...] of these programs."""
        return values if self.places is None else values[self.places]


def pieces(view: BufferView, active: Tensor | None, programs: int) -> Iterator[Piece]:
    """Yield the programs for which a view starts at the same place, of those that are ``active`` [P or 1]."""
    if active is not None and bool(active.all()):
        active = None
    if active is None and view.offset.shape[0] == 1:
        yield Piece(None, int(view.offset))
        return
    offsets = view.offset.expand(programs)
    for offset in offsets.unique().tolist():
        here = offsets == offset
        here = here if active is None else here & active
        if bool(here.any()):
            yield Piece(None if bool(here.all()) else here.nonzero().flatten(), offset)


def _unwritten(block: Type) -> Tensor:
    """Return the bytes of a buffer that nobody has written, int8 [bytes].

    They are not to pass for a result: NaN is left after any product, even by 0, but not after a maximum.
    """
    kind = DTYPES[block.element]
    if kind == torch.bool:
        return torch.arange(block.elements, dtype=torch.int8) % 2
    limits = torch.finfo(kind) if kind.is_floating_point else torch.iinfo(kind)
    items = torch.tensor([math.nan if kind.is_floating_point else -1, limits.max, limits.min], dtype=kind)
    return items.view(torch.int8).repeat(-(-block.elements // 3))[: block.elements * block.item_bytes]


class Buffer:
    """One allocation, for a number of programs (rows). Contents are those that the CTAs of a cluster hold together;
    of copies of an element there is one."""

    def __init__(
        self,
        name: str,
        kind: Type,
        rows: int,
        actors: int,
        ctas: int,
        *,
        first_barrier: int,
        ring: Ring | None = None,
    ) -> None:
        """``kind`` is the type of the allocation; ``ring`` says where in shared memory it lies, if that is known."""
        block, divided = kind.block, bases(kind.layout)
        self.name = name
        self.ring = ring
        self.tensor = kind.in_tensor_memory
        """Whether it lies in tensor memory."""
        self.first_barrier = first_barrier
        """Number of the barrier in its first item, where it may hold barriers; -1 where not."""
        size = block.elements * block.item_bytes
        self._every = torch.arange(rows)
        self._unwritten = _unwritten(block)
        self._data = self._unwritten.repeat(rows, 1)
        self._part_of: npt.NDArray[np.int32] = np.zeros(size, dtype=np.int32)
        self._parts: dict[Span, Tensor] = {}
        self._parts_at: dict[tuple[Place, bool, int], Tensor] = {}
        self.divided = divided
        """The CGA layout."""
        self._holders = np.repeat(holders(block.shape, divided), block.item_bytes) if divided else None
        self.writer = torch.full((rows, ctas, 1), NOBODY, dtype=torch.int64)
        """Who wrote each part in each CTA last, [rows, CTAs, parts]."""
        self.written_at = torch.zeros(rows, ctas, 1, dtype=torch.int32)
        """When, on the writer's clock, [rows, CTAs, parts]."""
        self.ordinary = torch.zeros(rows, ctas, 1, dtype=torch.bool)
        """Whether that write must be fenced before TMA or the tensor core sees it, [rows, CTAs, parts]."""
        self.read_at = torch.zeros(rows, ctas, 1, actors, dtype=torch.int32)
        """When each actor last read each part since then, [rows, CTAs, parts, actors]."""

    def place_of(self, view: BufferView, offset: int) -> tuple[Place, bool] | None:
        """Return where those buffers of the ring lie that a view has items of if it starts at ``offset``, and whether
        it has all of their items.
        """
        if self.ring is None:
            return None
        items = self._part_of.size // DTYPES[view.element].itemsize // self.ring.buffers
        first, last = offset // items, (offset + int(view.places.max())) // items
        return self.ring.of(first, last), view.places.numel() == items * (last + 1 - first)

    def parts_at(self, place: Place, whole: bool, cta: int) -> Tensor:
        """Return the parts [n] of what a CTA holds that surely have bytes in common with a place, or, where not the
        ``whole`` of it is meant, with any part of it.
        """
        assert self.ring is not None
        if (place, whole, cta) not in self._parts_at:
            found: set[int] = set()
            size = self._part_of.size // self.ring.buffers
            for number in self.ring.within(place):
                here = slice(number * size, (number + 1) * size)
                held = self._part_of[here]
                held = held if self._holders is None else held[self._holders[here] >> cta & 1 == 1]
                own, (parts, counts) = self.ring.of(number, number), np.unique(held, return_counts=True)
                if whole and place.covers(own):
                    found.update(parts.tolist())
                elif whole or own.covers(place):
                    found.update(parts[counts == held.size].tolist())
            self._parts_at[place, whole, cta] = torch.tensor(sorted(found), dtype=torch.int64)
        return self._parts_at[place, whole, cta]

    def barriers_at(self, place: Place) -> range:
        """Return the numbers of the barriers that have bytes in a place: of all CTAs' where there are several."""
        if self.first_barrier < 0 or self.ring is None:
            return range(0)
        count, ctas = self._part_of.size // BARRIER_BYTES, self.writer.shape[1]
        inside = Ring(self.ring.place, count).within(place) if ctas == 1 else range(count)
        return range(self.first_barrier + inside.start, self.first_barrier + inside.stop)

    def forget(self, rows: Tensor) -> None:
        """Let the contents be what they were before anybody wrote, for the programs in ``rows`` [P]."""
        self._data[rows] = self._unwritten

    def view(self, block: Type) -> BufferView:
        """Return the view of all of it."""
        strides = tuple(int(np.prod(block.shape[i + 1 :])) for i in range(len(block.shape)))
        return BufferView(self, torch.zeros(1, dtype=torch.int64), stepped(block.shape, strides), block.element)

    def _items(self, view: BufferView) -> Tensor:
        """Return all items, as integers [rows, items]."""
        return self._data.view(RAW[DTYPES[view.element].itemsize])

    def _window(self, view: BufferView, offset: int) -> Tensor | None:
        """Return the items of a view that starts at ``offset``, [rows, ...]; None where they do not lie in steps."""
        if view.steps is None:
            return None
        items = self._items(view)
        return items.as_strided((items.shape[0], *view.shape), (items.shape[1], *view.steps), offset)

    def read(self, view: BufferView, rows: Tensor, *, copy: bool = True) -> Tensor:
        """Return what a view holds for the programs in ``rows`` [P], [P, ...]; without ``copy`` until it is written."""
        found: Tensor | None = None
        for piece in pieces(view, None, rows.numel()):
            window = self._window(view, piece.offset)
            if window is None:
                held = self._items(view)[piece.of(rows).unsqueeze(1), piece.offset + view.places.flatten()]
                values = held.view(-1, *view.shape)
            elif piece.places is None and torch.equal(rows, self._every):
                values = window.clone() if copy else window
            else:
                values = window.index_select(0, piece.of(rows))
            if piece.places is None:
                found = values
                break
            if found is None:
                found = values.new_zeros((rows.numel(), *view.shape))
            found[piece.places] = values
        assert found is not None
        return found.view(DTYPES[view.element])

    def write(self, view: BufferView, value: Tensor, rows: Tensor, active: Tensor | None = None) -> None:
        """Store a block [P or 1, ...] for the programs in ``rows`` [P] that are ``active`` [P or 1]."""
        bits = value.view(RAW[value.element_size()])
        for piece in pieces(view, active, rows.numel()):
            window = self._window(view, piece.offset)
            if window is not None and piece.places is None and torch.equal(rows, self._every):
                window.copy_(bits)
                continue
            own = piece.of(rows)
            chosen = (bits if bits.shape[0] == 1 else piece.of(bits)).expand(own.numel(), *view.shape)
            if window is not None:
                window[own] = chosen
            else:
                self._items(view)[own.unsqueeze(1), piece.offset + view.places.flatten()] = chosen.flatten(1)

    def parts(self, view: BufferView, offset: int, cta: int, box: Box | None = None) -> Tensor:
        """Return the parts [n] that a view, or a ``box`` of it, covers of what a CTA holds if it starts at ``offset``;
        divide those that it covers in part.
        """
        span = (offset, view.shape, view.steps or view.places.numpy().tobytes(), view.element, cta, box)
        if span not in self._parts:
            item = DTYPES[view.element].itemsize
            covered = np.zeros((self._part_of.size // item, item), dtype=np.bool_)
            places = view.places.numpy()
            covered[offset + (places if box is None else places[slices(box)])] = True
            flat = covered.reshape(-1)
            self._parts[span] = self._divide(flat if self._holders is None else flat & (self._holders >> cta & 1 == 1))
        return self._parts[span]

    def _divide(self, covered: npt.NDArray[np.bool_]) -> Tensor:
        found: list[int] = []
        for part in np.unique(self._part_of[covered]).tolist():
            inside = covered & (self._part_of == part)
            if np.array_equal(inside, self._part_of == part):
                found.append(part)
                continue
            new = self.writer.shape[2]
            self._part_of[inside] = new
            found.append(new)
            self.writer, self.written_at, self.ordinary, self.read_at = (
                torch.cat([each, each[:, :, part : part + 1]], 2)
                for each in (self.writer, self.written_at, self.ordinary, self.read_at)
            )
            self._parts.clear()
            self._parts_at.clear()
        return torch.tensor(found, dtype=torch.int64)
