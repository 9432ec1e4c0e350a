"""The chip of the programs that run together: buffers, barriers, clocks, and the partitions that take turns."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch

from avo.evaluator.executor.chip.accesses import TOO_EARLY, Access, Peers
from avo.evaluator.executor.chip.barriers import Barriers
from avo.evaluator.executor.chip.buffers import INSIDE, NOBODY, Buffer, BufferView, Piece, pieces
from avo.evaluator.executor.chip.clocks import Clocks, Queue
from avo.evaluator.executor.chip.cluster import bases
from avo.evaluator.executor.chip.places import Place, Ring, shared_places
from avo.evaluator.executor.chip.tensormaps import Tensormaps
from avo.evaluator.executor.coroutines import Coroutine
from avo.evaluator.executor.effects import effects
from avo.evaluator.executor.errors import StuckProgram, UnsupportedOperation
from avo.evaluator.executor.faults import Reporter, Site
from avo.evaluator.executor.flow import arrivals
from avo.evaluator.executor.ir import ALLOCATIONS, Function, Type

Tensor = torch.Tensor

MOST_BARRIERS = 64
"""Items of the largest buffer that may hold barriers."""
MOST_ACTORS = 256
"""Most partitions, or barriers, of a kernel: each has a clock, and each clock knows all others."""


@dataclass(frozen=True, slots=True)
class Needs:
    """What a kernel needs of a chip."""

    function: Function
    partitions: int
    """Most partitions that run side by side, with the default one."""
    barriers: int
    """Items of all buffers that may hold barriers."""
    places: Mapping[int, Ring]
    """Where allocations lie in shared memory, as far as that is said."""

    @property
    def bytes_per_program(self) -> int:
        """Bytes that the clocks of one program take, in int32."""
        partitions = self.partitions * self.function.ctas
        actors = partitions * (1 + len(Queue)) + self.barriers
        return 4 * actors * (3 * partitions + 4 * self.barriers)


def may_hold_barriers(block: Type) -> bool:
    """Whether a buffer may hold barriers."""
    return block.element == "i64" and block.elements <= MOST_BARRIERS


def needs(function: Function) -> Needs | None:
    """Return what a kernel needs of a chip, None if it uses no on-chip memory."""
    partitions, barriers, uses, location = 1, 0, False, ""
    for op in function.body.ops:
        uses = uses or effects(op.name).on_chip
        if op.name == "ttg.warp_specialize":
            uses, partitions = True, max(partitions, len(op.regions))
        elif op.name in ALLOCATIONS:
            block = function.types[op.results[0]].block
            if may_hold_barriers(block):
                barriers, location = barriers + block.elements, op.location
    if max(partitions * function.ctas, barriers) > MOST_ACTORS:
        raise UnsupportedOperation(f"more than {MOST_ACTORS} partitions or barriers", location)
    return Needs(function, partitions, barriers, shared_places(function)) if uses else None


@dataclass(frozen=True, slots=True)
class _Deed:
    """What the programs of a piece do by one access, and what messages call it."""

    site: Site
    piece: Piece
    rows: Tensor
    """The rows of the piece's programs."""
    access: Access
    text: str


class Chip:
    """The chips of some programs, those at ``positions`` of the run, which follow each other."""

    def __init__(self, positions: Tensor, wanted: Needs, reporter: Reporter, *, holds_data: bool = True) -> None:
        """``reporter`` hears what is wrong."""
        self.holds_data = holds_data
        """Whether buffers are more than names, and clocks are kept: what only signals barriers needs neither."""
        self._first, self._rows = int(positions[0]), positions.numel()
        self._reporter = reporter
        self._function, self._places = wanted.function, wanted.places
        self.ctas, self.paired = self._function.ctas, self._function.paired
        self.clocks = Clocks(self._rows, wanted.partitions * self.ctas, wanted.barriers, self.ctas)
        own = self.clocks.partitions, self.clocks.actors, self.clocks.barrier(0)
        self.barriers = Barriers(self._rows, wanted.barriers, *own, hands_on=holds_data)
        self.tensormaps = Tensormaps(self._rows)
        self.alone: int | None = None
        """The only CTA that acts; None: all do."""
        self.partition = 0
        """The partition that runs."""
        self.agents = range(self.ctas)
        """That partition in each CTA, as ``Clocks`` counts partitions."""
        self._first_barrier: dict[int, int] = {}
        """Number of the first barrier of each allocation, by the slot of its result."""
        self._buffers: dict[int, Buffer] = {}
        """The buffer of each allocation, by the slot of its result."""
        self._slots_at: dict[Place, list[int]] = {}
        """The slots of the allocations that have bytes in a place."""
        self._given = 0
        self._waiting: dict[int, tuple[Callable[[], Tensor], Callable[[int], str], Site]] = {}
        self._running: list[Coroutine] = []

    def rows(self, positions: Tensor) -> Tensor:
        """Return the rows of the programs at positions [P] of the run, int64 [P]."""
        return positions - self._first

    def allocate(self, positions: Tensor, slot: int, name: str, kind: Type) -> BufferView:
        """Return the view of the buffer that is the result in ``slot``. What is allocated again lies where it lay, for
        those who still use it too, but what it held is lost.
        """
        block, first = kind.block, -1
        if may_hold_barriers(block):
            first = self._first_barrier.setdefault(slot, self._given)
            self._given = max(self._given, first + block.elements)
            for i in range(block.elements):
                self.barriers.names[first + i] = f"{i} of {name}" if block.elements > 1 else name
                self.barriers.valid[self.rows(positions), first + i] = False
        if (holders := 2 ** len(bases(kind.layout))) != self.ctas:
            raise UnsupportedOperation(f"a buffer of {holders} CTAs in a cluster of {self.ctas}", name)
        if (held := self._buffers.get(slot)) is None:
            ring, actors = self._places.get(slot), self.clocks.actors
            held = Buffer(name, kind, self._rows, actors, self.ctas, first_barrier=first, ring=ring)
            self._buffers[slot] = held
        else:
            held.forget(self.rows(positions))
        return held.view(block)

    def run_as(self, partition: int) -> None:
        """Say which partition runs from now on."""
        self.partition = partition
        self.agents = range(partition * self.ctas, (partition + 1) * self.ctas)

    def issuers(self) -> range:
        """Return the agents whose CTAs give the tensor core work: where it works in pairs, every other one."""
        return self.agents[:: 2 if self.paired else 1]

    def plain(self, verb: str, peers: Peers | None = None) -> list[Access]:
        """Return the accesses of the partition that runs, of each CTA to what it holds itself, or as ``peers`` says."""
        found = peers or tuple((cta, cta, None) for cta in range(self.ctas))
        return [Access(verb, self.agents[own], cta, box=box) for own, cta, box in found if self.alone in (None, own)]

    # Accesses

    def access(self, site: Site, view: BufferView, accesses: Sequence[Access], active: Tensor | None = None) -> None:
        """Report what makes accesses too early for programs that are ``active`` [P or 1], and note them."""
        self.refute_stray(site, view, active)
        for piece in pieces(view, active, site.positions.numel()):
            rows = piece.of(self.rows(site.positions))
            for access in accesses:
                self._check(_Deed(site, piece, rows, access, f"{access.verb} {view.buffer.name}"), view)
            self._note(view, piece, rows, accesses)

    def _check(self, deed: _Deed, view: BufferView) -> None:
        """Report what makes an access to a view too early."""
        buffer, access, cta, agent = view.buffer, deed.access, deed.access.cta, deed.access.agent
        r, parts = deed.rows.unsqueeze(1), buffer.parts(view, deed.piece.offset, cta, access.box).unsqueeze(0)
        writer, written_at = buffer.writer[r, cta, parts], buffer.written_at[r, cta, parts]
        nobody, seen = writer == NOBODY, self._seen(deed, writer, written_at)
        report = partial(self._report, deed, writer)
        report(TOO_EARLY, ~seen, "which {} may still be writing")
        if access.verb == "reads":
            report("read of uninitialised memory", nobody, "which nobody has written", note=True)
        if access.fences and not buffer.tensor and bool((ordinary := buffer.ordinary[r, cta, parts]).any()):
            # The compiler puts fences between what one partition does, and before partitions start.
            ordinary &= seen & ~nobody & (self.clocks.partition_of(writer) != self.partition)
            fenced = self.clocks.fenced[deed.rows, agent].gather(1, writer.clamp(min=0)) >= written_at
            report("missing fence", ordinary & ~fenced, "which {} has written, with no fence_async_shared since")
        if access.verb == "writes":
            self._check_readers(deed, buffer.read_at[r, cta, parts])
            if found := buffer.place_of(view, deed.piece.offset):
                self._take(deed, *found, buffer)

    def _note(self, view: BufferView, piece: Piece, rows: Tensor, accesses: Sequence[Access]) -> None:
        """Note accesses of one operation. Of several writers of a part the last counts, and the others as readers."""
        buffer, written = view.buffer, list[tuple[int, Tensor, int, Tensor]]()
        r = rows.unsqueeze(1)
        for access in accesses:
            cta, actor = access.cta, access.by
            parts = buffer.parts(view, piece.offset, cta, access.box)
            own = self.clocks.known[rows, access.agent, access.agent]
            time = (own if access.time is None else piece.of(access.time)).unsqueeze(1)
            if access.verb == "reads":
                buffer.read_at[r, cta, parts, actor] = time
                continue
            buffer.writer[r, cta, parts] = actor
            buffer.written_at[r, cta, parts] = time
            buffer.ordinary[r, cta, parts] = access.ordinary or access.actor is None
            buffer.read_at[r, cta, parts] = 0
            for of, theirs, other, then in written:
                if of == cta:
                    buffer.read_at[r, cta, parts[torch.isin(parts, theirs)], other] = then
            written.append((cta, parts, actor, time))

    def begin(self, site: Site, view: BufferView, ctas: Sequence[int]) -> None:
        """Report what others may still do in the place of a barrier that the partition which runs initialises."""
        accesses = self.plain("writes")
        for piece in pieces(view, None, site.positions.numel()):
            if found := view.buffer.place_of(view, piece.offset):
                for cta in ctas:
                    text, rows = f"writes {view.buffer.name}", piece.of(self.rows(site.positions))
                    self._take(_Deed(site, piece, rows, accesses[cta], text), *found, view.buffer)

    def exchange(self, site: Site, user: str, place: Place) -> None:
        """Report what others may still do where an operation of the partition which runs has its scratch memory."""
        for access in self.plain("writes"):
            text = f"writes the scratch memory of {user}"
            self._take(_Deed(site, Piece(None, 0), self.rows(site.positions), access, text), place, True, None)

    def _take(self, deed: _Deed, place: Place, whole: bool, own: Buffer | None) -> None:
        """Report what others may still do in a ``place``, or in part of it, where ``own`` is from now on."""
        r, cta = deed.rows.unsqueeze(1), deed.access.cta
        for other in self._others(place, own):
            parts = other.parts_at(place, whole, cta).unsqueeze(0)
            if not parts.numel():
                continue
            here = replace(deed, text=f"{deed.text}, in the place of {other.name}")
            writer, written_at = other.writer[r, cta, parts], other.written_at[r, cta, parts]
            self._report(
                here, writer, TOO_EARLY, ~self._seen(here, writer, written_at), "which {} may still be writing"
            )
            self._check_readers(here, other.read_at[r, cta, parts])
            for number in other.barriers_at(place):
                valid = torch.zeros(deed.site.positions.numel(), dtype=torch.bool)
                valid[slice(None) if deed.piece.places is None else deed.piece.places] = self.barriers.valid[
                    deed.rows, number
                ]
                live = f"{deed.text}, in the place of barrier {{}}, which was not invalidated"
                numbers = torch.full((deed.site.positions.numel(),), number)
                self.refute_use(deed.site, valid, live, numbers, deed.access.agent)

    def _others(self, place: Place, own: Buffer | None) -> list[Buffer]:
        """Return the buffers but ``own`` that have bytes in a place."""
        if place not in self._slots_at:
            self._slots_at[place] = [slot for slot, other in self._places.items() if other.place.meets(place)]
        found = (self._buffers.get(slot) for slot in self._slots_at[place])
        return [each for each in found if each is not None and each is not own]

    def _seen(self, deed: _Deed, writer: Tensor, written_at: Tensor) -> Tensor:
        """Return which writes [P, parts] are over for whoever does something."""
        access = deed.access
        known = self.clocks.known[deed.rows.unsqueeze(1), access.agent, writer.clamp(min=0)]
        seen = (writer == NOBODY) | (known >= written_at)
        if access.in_order:
            seen |= writer == access.actor
            if access.actor is not None and access.actor >= self.clocks.barrier(0):
                seen |= writer >= self.clocks.barrier(0)
        return seen

    def _check_readers(self, deed: _Deed, read_at: Tensor) -> None:
        """Report reads [P, parts, actors] that may not be over for a write."""
        access = deed.access
        late = read_at > self.clocks.known[deed.rows, access.agent].unsqueeze(1)
        if access.in_order:
            late[..., access.by] = False
        if bool(late.any()):
            readers, wrong = late.to(torch.int8).argmax(-1), late.any(-1)
            self._report(deed, readers, TOO_EARLY, wrong, "which {} may still be reading")

    def _report(self, deed: _Deed, actors: Tensor, kind: str, wrong: Tensor, why: str, *, note: bool = False) -> None:
        """Report what is done where it is ``wrong`` [P, parts]; ``why`` names one of the ``actors`` [P, parts]."""
        if not bool(wrong.any()):
            return
        whole = wrong
        if deed.piece.places is not None:
            whole = torch.zeros(deed.site.positions.numel(), wrong.shape[1], dtype=torch.bool)
            whole[deed.piece.places] = wrong
        who = self.clocks.words(int(actors[wrong][0].clamp(min=0)), self.barriers.names)
        said = f"{self.clocks.partition(deed.access.agent)} {deed.text}, {why.format(who)}"
        told = self._reporter.remark if note else self._reporter.refute
        told(kind, whole, lambda _: said, deed.site)

    def check_end(self, site: Site) -> None:
        """Report what nobody has waited for where programs end, which gives on-chip memory to others: copies and
        products that may still write there, and TMA stores that may still read there. Other reads change nothing.
        """
        rows, first = self.rows(site.positions), self.clocks.actor(0, Queue.STORE)
        known = self.clocks.known[rows].amax(1)
        stores = slice(first, first + self.clocks.partitions)
        for buffer in self._buffers.values():
            writer, written_at = buffer.writer[rows].flatten(1), buffer.written_at[rows].flatten(1)
            writing = (writer >= self.clocks.partitions) & (known.gather(1, writer.clamp(min=0)) < written_at)
            sending = buffer.read_at[rows].flatten(1, 2)[..., stores] > known[:, None, stores]
            sender = first + sending.to(torch.int8).argmax(-1)
            self._refute_end(site, TOO_EARLY, writing, writer, f"writing {buffer.name}")
            still = f"reading {buffer.name}: wait for it with tma.store_wait(0)"
            self._refute_end(site, "unfinished TMA store", sending.any(-1), sender, still)

    def _refute_end(self, site: Site, kind: str, late: Tensor, actors: Tensor, still: str) -> None:
        if bool(late.any()):
            who = self.clocks.words(int(actors[late][0]), self.barriers.names)
            said = f"the program ends while {who} may still be {still}"
            self._reporter.refute(kind, late.any(1), lambda _: said, site)

    def refute_stray(self, site: Site, view: BufferView, active: Tensor | None) -> None:
        """Report the programs, ``active`` [P or 1] ones, that use a view to which an index outside its buffers led."""
        if (index := view.stray) is not None:
            wrong = (index != INSIDE) if active is None else (index != INSIDE) & active
            given, text = index.expand(wrong.shape), f"buffer {{}} of {view.among} of {view.buffer.name}"
            self._reporter.refute("index out of range", wrong, lambda place: text.format(int(given[place])), site)

    def refute_use(self, site: Site, wrong: Tensor, text: str, number: Tensor, agent: int) -> None:
        """Report what is wrong with an agent's use of barriers, by number [P], where ``wrong`` [P] is true."""

        def describe(place: tuple[int, ...]) -> str:
            return f"{self.clocks.partition(agent)} {text.format(self.barriers.names[int(number[place[0]])])}"

        self._reporter.refute("barrier misused", wrong, describe, site)

    # Partitions

    def wait(self, missing: Callable[[], Tensor], describe: Callable[[int], str], site: Site) -> None:
        """Let other partitions run while something is ``missing``, bool [P], for a program of the one that runs.

        ``describe`` says what, for the program at a place. Raises ``StuckProgram``.
        """
        partition = self.partition
        while bool(missing().any()):
            self._waiting[partition] = missing, describe, site
            if not self._running:
                raise StuckProgram(self._deadlock())
            self._running[partition].hand_over()
        self._waiting.pop(partition, None)

    def give_way(self) -> None:
        """Let partitions run that no longer have to wait, or have not begun: so none runs far ahead of what others can
        do."""
        others = (missing for partition, (missing, _, _) in self._waiting.items() if partition != self.partition)
        behind = any(not each.started for each in self._running) or any(not bool(missing().any()) for missing in others)
        if self._running and behind:
            self._running[self.partition].hand_over()

    def _deadlock(self) -> str:
        found = []
        for partition, (missing, describe, site) in sorted(self._waiting.items()):
            place = int(missing().nonzero()[0])
            program = site.program(int(site.positions[place]))
            part = f"{self._called(partition)} of " if self.clocks.partitions > self.ctas else ""
            found.append(f"{part}program {program} at {site.location} {describe(place)}")
        ended = [self._called(i) for i, each in enumerate(self._running) if each.done]
        ends = f"; {', '.join(ended)} ended" if ended else ""
        return f"deadlock: {'; '.join(found)}{ends}"

    def arrivals(self, number: int) -> str:
        """Return in words which partitions may arrive at a barrier, or at another of its allocation, and where."""
        allocation = max((first, slot) for slot, first in self._first_barrier.items() if first <= number)[1]
        places: dict[str, list[str]] = {}
        for partition, location in arrivals(self._function, allocation):
            who = f"{self._called(partition)} at " if self.clocks.partitions > self.ctas else ""
            places.setdefault(who, []).append(location)
        found = [who + " and ".join(dict.fromkeys(where)) for who, where in places.items()]
        several = self._function.types[allocation].block.elements > 1
        there = "at one of these barriers" if several else "there"
        return f"what may arrive {there}: {', '.join(found)}" if found else "nothing arrives there"

    def _called(self, partition: int) -> str:
        """Return what a partition of all CTAs is called in messages."""
        return f"partition {partition - 1}" if partition else "the default partition"

    def side_by_side(self, positions: Tensor, bodies: Sequence[Callable[[], None]]) -> None:
        """Run the default partition and the others, in turns, each until it waits. Raises ``StuckProgram``.

        There may be no partitions within these.
        """
        assert not self._running
        rows = self.rows(positions)
        for cta in range(self.ctas):
            self.clocks.begin(rows, cta)
        self._running = [Coroutine(body) for body in bodies]
        try:
            while not all(each.done for each in self._running):
                moved = False
                for partition, coroutine in enumerate(self._running):
                    if coroutine.done or (partition in self._waiting and bool(self._waiting[partition][0]().any())):
                        continue
                    moved = True
                    self.run_as(partition)
                    coroutine.resume()
                if not moved:
                    raise StuckProgram(self._deadlock())
        finally:
            for coroutine in self._running:
                coroutine.cancel()
            self.run_as(0)
            self._running = []
            self._waiting.clear()
        for cta in range(self.ctas):
            self.clocks.end(rows, cta)
