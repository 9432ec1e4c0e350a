"""Memory that also detects races between programs and reads of uninitialised elements."""

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import partial

import torch

from avo.evaluator.allocation import Allocation
from avo.evaluator.executor.barriers import Barriers
from avo.evaluator.executor.dtypes import RAW
from avo.evaluator.executor.faults import Finding, Site
from avo.evaluator.executor.memory import Memory
from avo.evaluator.executor.races import MAX_CLOCKED, Clocks, Order, Unordered
from avo.evaluator.executor.rows import Rows
from avo.evaluator.executor.shadow import READ, UPDATED, WRITTEN, Shadow
from avo.evaluator.executor.space import Access, all_true
from avo.evaluator.executor.values import DescriptorValue

Tensor = torch.Tensor

TMA_ALIGNMENT = 16
"""Bytes by which base and outer strides of a tensor map must be divisible, and the least inner extent of its box (CUDA
driver API, cuTensorMapEncodeTiled)."""


_AGAINST = {READ: (WRITTEN, UPDATED), WRITTEN: (READ, UPDATED), UPDATED: (READ, WRITTEN)}
"""Kinds of access by other programs that race with an access of each kind; pairs of stores are checked elsewhere."""


@dataclass(frozen=True, slots=True)
class _Lanes:
    """The active items of an access, as granules."""

    cells: Tensor
    """Granules, int64 [n]."""
    programs: Tensor
    """Positions of the programs, int64 [n]."""
    repeats: int
    """How often the list of items is repeated, once per program that makes the same access."""
    threads: Tensor | None = None
    """Numbers of the threads that own the items, int64 [n], where ``Barriers`` watches the buffer."""


class Sanitizer(Memory):
    """The buffers of a launch, with all accesses checked."""

    def __init__(
        self,
        allocations: Sequence[Allocation],
        kernel: str,
        granules: Mapping[int, int],
        reads: Set[int],
        programs: int,
        *,
        synchronises: bool,
    ) -> None:
        """Check a run of ``programs`` programs.

        ``granules`` gives, for every buffer that the kernel may write to, the size in bytes of its smallest access;
        ``reads`` are the buffers that it may read.
        ``synchronises`` says whether programs may wait for each other or act on each other's results.
        """
        super().__init__(allocations, kernel)
        self._clocks = Clocks(programs) if synchronises and programs <= MAX_CLOCKED else None
        self._order: Order = self._clocks or Unordered()
        self._granules = dict(granules)
        self._barriers = Barriers(self._granules.keys() & reads, programs)
        self._shadows: dict[int, Shadow] = {}
        self._blank = {
            i for i, a in enumerate(allocations) if a.initialised is not None and not all_true(a.initialised)
        }
        self._unchecked = synchronises and self._clocks is None
        if self._unchecked:
            self._give_up(f"more than {MAX_CLOCKED} programs act on each other's results")

    def _give_up(self, reason: str) -> None:
        """Stop checking for races, and add a note that says so."""
        self._unchecked = True
        self._notes.state("races not checked", reason)

    def watches(self, buffer: int) -> bool:
        """Whether reads of a buffer are checked."""
        return buffer in self._granules or buffer in self._blank

    def _shadow(self, buffer: int, *, by_rows: bool = False) -> Shadow | None:
        """Return the shadow of a buffer, which counts in granules unless told otherwise; None if it is not checked for
        races.
        """
        if self._unchecked or buffer not in self._granules:
            return None
        if buffer not in self._shadows:
            data = self._allocations[buffer].data
            size = data.numel() * data.element_size()
            self._shadows[buffer] = Shadow(size, self._granules[buffer], self._order)
        if not by_rows:
            self._shadows[buffer].take_granules()
        return self._shadows[buffer]

    def _lanes(self, access: Access, granule: int) -> _Lanes:
        index, active, programs = access.index, access.active, access.site.positions
        repeats = 1
        if index.shape[0] == 1 and programs.shape[0] > 1:
            programs = programs if self._order.every else programs[[0, -1]]
            repeats = programs.shape[0]
            index = index.expand(repeats, *index.shape[1:])
            active = None if active is None else active.expand(index.shape)
        owners = programs.view(-1, *[1] * (index.dim() - 1)).expand(index.shape)
        threads = None
        if self._barriers.watches(access.buffer):
            shape = tuple(index.shape[1:])
            threads = self._barriers.threads(shape, access.site.partition, sent=access.site.sent)
            threads = threads.view(1, *shape).expand(index.shape)
            threads = threads.flatten() if active is None else threads[active]
        cells, owners = (index.flatten(), owners.flatten()) if active is None else (index[active], owners[active])
        per_item = access.item_bytes // granule
        if per_item > 1:
            cells = (cells[:, None] * per_item + torch.arange(per_item)).flatten()
            owners = owners.repeat_interleave(per_item)
            threads = None if threads is None else threads.repeat_interleave(per_item)
        return _Lanes(cells, owners, repeats, threads)

    # Reads

    def _overlooks(self, rows: Rows, item_bytes: int) -> bool:
        if rows.buffer in self._granules and not self._unchecked:
            return False
        allocation = self._allocations[rows.buffer]
        if rows.buffer not in self._blank:
            return True
        assert allocation.initialised is not None
        if allocation.data.element_size() != item_bytes:
            return False
        initialised = allocation.initialised.as_strided(rows.table.shape, (1, 1))
        return all_true(initialised.index_select(0, rows.index.flatten()))

    def observe_read(self, access: Access) -> None:
        """Check a read before it happens."""
        self._check_initialised(access)
        shadow = self._shadow(access.buffer)
        if shadow is None:
            return
        site, lanes = access.site, self._lanes(access, shadow.granule)
        if self._clocks is not None and site.order is not None:
            self._clocks.acquire(self._places(access.buffer, lanes, shadow), lanes.programs, site.order)
            self._check_lost()
        if site.polls:
            return
        note = partial(self._barriers.load, by_one=site.by_one)
        self._check_barrier(access.buffer, shadow, lanes, site, "stored", note)
        sent = self._barriers.sent(access.buffer, lanes.cells)
        if bool(sent.any()):
            what = "which TMA may still be writing: wait for it with tma.store_wait(0, read_only=False)"
            self._report_lanes("unfinished TMA store", access.buffer, shadow, lanes, site, sent, what)
        strong = site.order is not None and site.order.strong
        self._check(access.buffer, shadow, lanes, site, UPDATED if strong else READ)
        shadow.trace(UPDATED if strong else READ).add(lanes.cells, lanes.programs)

    def _check_initialised(self, access: Access) -> None:
        if access.buffer not in self._blank:
            return
        allocation = self._allocations[access.buffer]
        assert allocation.initialised is not None
        elements = allocation.covered(access.index, access.item_bytes)
        wrong = ~allocation.initialised[elements].all(-1)
        wrong = wrong if access.active is None else wrong & access.active
        if bool(wrong.any()):

            def describe(place: tuple[int, ...]) -> Finding:
                own = elements[place]
                element = int(own[int((~allocation.initialised[own]).nonzero()[0])])  # type: ignore[index]
                index, text = allocation.name_of(element)
                return Finding(f"{text}, which was never written", index)

            self._log.add("read of uninitialised memory", allocation.name, wrong, describe, access.site)

    # Writes

    def _takes_rows(self, access: Access, start: int) -> bool:
        shadow = self._shadow(access.buffer, by_rows=True)
        if shadow is None:
            return True
        if (
            self._barriers.watches(access.buffer)
            or access.site.order is not None
            or not shadow.takes_rows(access.item_bytes, start)
        ):
            return False
        lanes = self._lanes(access, access.item_bytes)
        earlier = (shadow.others(verb) for verb in (READ, UPDATED, WRITTEN))
        if lanes.repeats > 1 or any(
            trace is not None and trace.unordered(lanes.cells, lanes.programs) is not None for trace in earlier
        ):
            return False
        shadow.trace(WRITTEN).add(lanes.cells, lanes.programs)
        return True

    def _store(self, access: Access, index: Tensor, bits: Tensor) -> None:
        """Store bits [n] at items [n], and check for races with other programs."""
        shadow = self._shadow(access.buffer)
        if shadow is None or not index.numel():
            super()._store(access, index, bits)
            return
        site, lanes, buffer = access.site, self._lanes(access, shadow.granule), access.buffer
        if site.order is not None and site.order.strong:
            self._check(buffer, shadow, lanes, site, UPDATED)
            shadow.trace(UPDATED).add(lanes.cells, lanes.programs)
            if self._clocks is not None:
                self._clocks.release(self._places(buffer, lanes, shadow), lanes.programs, site.order)
                self._check_lost()
            super()._store(access, index, bits)
            return
        held = self._bits(buffer, shadow.granule)
        stored = bits.view(RAW[shadow.granule]).repeat(lanes.repeats)
        self._check(buffer, shadow, lanes, site, WRITTEN)
        earlier = shadow.trace(WRITTEN).unordered(lanes.cells, lanes.programs)
        if earlier is not None:
            self._report_writes(buffer, shadow, lanes, site, earlier, held[lanes.cells] != stored)
        super()._store(access, index, bits)
        note = partial(self._barriers.store, by_all=site.by_all)
        self._check_barrier(buffer, shadow, lanes, site, "loaded", note)
        together = shadow.trace(WRITTEN).add(lanes.cells, lanes.programs)
        differs = held[lanes.cells] != stored
        if together is not None:
            self._report_writes(buffer, shadow, lanes, site, together, differs)
            differs &= together < 0
        if bool(differs.any()):
            what = "stored with different values by one program"
            self._report_lanes("conflicting store", buffer, shadow, lanes, site, differs, what)

    def _report_writes(
        self, buffer: int, shadow: Shadow, lanes: _Lanes, site: Site, others: Tensor, differs: Tensor
    ) -> None:
        """Report stores by two programs: ``others`` are stamps [n], -1 where there is no other."""
        for note, wrong in ((False, (others >= 0) & differs), (True, (others >= 0) & ~differs)):
            if bool(wrong.any()):
                value = "the same value" if note else "another value"
                kind = "same value stored twice" if note else "write race"
                what = f"written here and, with {value}, by {self._name(others, wrong, site)}"
                self._report_lanes(kind, buffer, shadow, lanes, site, wrong, what, note=note)

    # Atomic operations

    def observe_update(self, access: Access) -> None:
        """Check an atomic operation before it happens."""
        order = access.site.order
        if order is None or not order.blind:
            self._check_initialised(access)
        if order is None or order.acquire or order.release or order.returns:
            # Triton puts a barrier before a release and after an acquire; a result goes to all threads after one.
            self._barriers.passed(access.site.positions)
        shadow = self._shadow(access.buffer)
        if shadow is not None and self._clocks is None:
            self._update(access.buffer, shadow, self._lanes(access, shadow.granule), access.site)

    @property
    def observes_turns(self) -> bool:
        """Whether programs have clocks, which each atomic operation advances."""
        return self._clocks is not None

    def synchronise(self, address: Tensor, programs: Tensor, item_bytes: int, site: Site) -> None:
        """Check atomic accesses by programs [n] to distinct addresses [n] in one buffer, as they happen."""
        if self._clocks is None or not address.numel() or site.order is None:
            return
        buffer = self.buffer_of(int(address[0]))
        shadow = self._shadow(buffer)
        if shadow is None:
            return
        per_item = max(item_bytes // shadow.granule, 1)
        first = self._offset(buffer, address) // shadow.granule
        cells = (first[:, None] + torch.arange(per_item)).flatten()
        self._clocks.acquire(address, programs, site.order)
        self._update(buffer, shadow, _Lanes(cells, programs.repeat_interleave(per_item), 1), site)
        self._clocks.release(address, programs, site.order)
        self._check_lost()

    def _update(self, buffer: int, shadow: Shadow, lanes: _Lanes, site: Site) -> None:
        self._check(buffer, shadow, lanes, site, UPDATED)
        if site.order is not None and site.order.block_only:
            # To other programs it is no better than a plain store.
            self._check(buffer, shadow, lanes, site, WRITTEN, (UPDATED,))
            shadow.trace(WRITTEN).add(lanes.cells, lanes.programs)
        else:
            shadow.trace(UPDATED).add(lanes.cells, lanes.programs)
        if site.sent and self._barriers.watches(buffer):
            self._barriers.send(buffer, len(self._bits(buffer, shadow.granule)), lanes.cells, lanes.programs)

    def _places(self, buffer: int, lanes: _Lanes, shadow: Shadow) -> Tensor:
        return lanes.cells * shadow.granule + self.address(buffer, 0)

    def _check_lost(self) -> None:
        if self._clocks is not None and self._clocks.lost:
            self._give_up("atomic operations synchronise at too many places")

    def observe_barrier(self, programs: Tensor) -> None:
        """Note that programs, positions [n], synchronise their threads."""
        self._barriers.passed(programs)

    def observe_arrival(self, programs: Tensor) -> None:
        """Note that what programs, positions [n], have sent by TMA was written."""
        self._barriers.arrived(programs)

    # Reports

    def _check(
        self, buffer: int, shadow: Shadow, lanes: _Lanes, site: Site, verb: str, against: tuple[str, ...] = ()
    ) -> None:
        """Report accesses of conflicting kinds to the same granules that are not ordered before this one."""
        for other in against or _AGAINST[verb]:
            trace = shadow.others(other)
            stamps = None if trace is None else trace.unordered(lanes.cells, lanes.programs)
            if stamps is not None:
                wrong = stamps >= 0
                kind = "read-write race" if READ in (verb, other) else "write race"
                what = f"{verb} here and {other} by {self._name(stamps, wrong, site)}"
                self._report_lanes(kind, buffer, shadow, lanes, site, wrong, what)

    def _check_barrier(
        self, buffer: int, shadow: Shadow, lanes: _Lanes, site: Site, other: str, note: Callable[..., Tensor]
    ) -> None:
        """Report what another thread of the program loaded or stored, and ``note`` this access."""
        if lanes.threads is None:
            return
        wrong = note(buffer, len(self._bits(buffer, shadow.granule)), lanes.cells, lanes.programs, lanes.threads)
        if bool(wrong.any()):
            barrier = "an mbarrier" if self._barriers.between_partitions else "tl.debug_barrier()"
            what = f"{other} by another thread of the program: put {barrier} between"
            self._report_lanes("missing barrier", buffer, shadow, lanes, site, wrong, what)

    def _name(self, stamps: Tensor, wrong: Tensor, site: Site) -> str:
        return f"program {site.program(self._order.program(int(stamps[wrong][0])))}"

    def _report_lanes(
        self,
        kind: str,
        buffer: int,
        shadow: Shadow,
        lanes: _Lanes,
        site: Site,
        wrong: Tensor,
        what: str,
        *,
        note: bool = False,
    ) -> None:
        allocation = self._allocations[buffer]

        def finding() -> Finding:
            cell = int(lanes.cells[wrong][0])
            index, text = allocation.name_of(cell * shadow.granule // allocation.data.element_size())
            return Finding(f"{text}, {what}", index)

        programs = lanes.programs[wrong] if lanes.repeats == 1 else site.positions
        (self._notes if note else self._log).record(kind, allocation.name, programs, finding, site)

    def observe_descriptor(self, descriptor: DescriptorValue, item_bytes: int, site: Site) -> None:
        """Check that a descriptor meets the hardware's requirements for tensor maps."""
        self._refuse_descriptor(
            descriptor.base % TMA_ALIGNMENT != 0, descriptor, site, "does not begin at a multiple of 16 bytes"
        )
        self._refuse_descriptor(descriptor.strides[-1] != 1, descriptor, site, "has a last stride other than 1")
        for stride in descriptor.strides[:-1]:
            wrong = (stride * item_bytes % TMA_ALIGNMENT != 0) | (stride < 0)
            self._refuse_descriptor(wrong, descriptor, site, "has a stride that is not a multiple of 16 bytes")
        if descriptor.block[-1] * item_bytes < TMA_ALIGNMENT:
            wrong = torch.ones(1, dtype=torch.bool)
            self._refuse_descriptor(wrong, descriptor, site, "has blocks of rows shorter than 16 bytes")

    def _refuse_descriptor(self, wrong: Tensor, descriptor: DescriptorValue, site: Site, what: str) -> None:
        if bool(wrong.any()):
            bases = descriptor.base.expand(max(wrong.shape[0], descriptor.base.shape[0]))
            wrong = wrong.expand(bases.shape)
            buffer = self.buffer_of(int(bases[wrong][0]))
            name = self._allocations[buffer].name if 0 <= buffer < self.buffers else ""
            self._log.add(
                "invalid descriptor", name, wrong, lambda _: Finding(f"the descriptor of {name!r} {what}"), site
            )
