"""Kernels: IR text made executable once, then run over a grid any number of times."""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import Any, cast

import torch

from avo.evaluator.executor import slicing
from avo.evaluator.executor.allocation import Allocation
from avo.evaluator.executor.code import DEFAULT_TEMPORARIES, Code, prompter
from avo.evaluator.executor.counts import Counts, Metered, PerProgram, elements, operations
from avo.evaluator.executor.effects import READS, UPDATES, WRITES, effects
from avo.evaluator.executor.errors import IRError, StuckProgram, UnsupportedOperation
from avo.evaluator.executor.execution import Execution
from avo.evaluator.executor.flow import reached
from avo.evaluator.executor.ir import Function, walk_blocks
from avo.evaluator.executor.journal import Journal
from avo.evaluator.executor.lockstep import Pace, unstuck
from avo.evaluator.executor.marking import Marks, Owners, Writers
from avo.evaluator.executor.memory import Memory
from avo.evaluator.executor.reach import Reach, busiest, observe, placed, places_of, shares_of
from avo.evaluator.executor.sanitizer import Sanitizer
from avo.evaluator.executor.script import Script
from avo.evaluator.executor.scripting import record, scripted
from avo.evaluator.executor.waiting import polls, waiting_loops, without_waits
from avo.evaluator.executor.work import bodies, loops, roles, shares
from avo.evaluator.plan import Argument, Scalar
from avo.evaluator.work import SAMPLED_PROGRAMS, Counted, Trips

_READS_OR_UPDATES = READS | UPDATES


class Kernel:
    """An executable kernel. Build it with ``load``."""

    def __init__(self, function: Function) -> None:
        self.name = function.name
        self.loops = loops(function)
        self.programs_interact = slicing.programs_interact(function)
        """Whether a program that runs alone may do other work than one that runs with all others."""
        self.takes_turns = bool(polls(function))
        """Whether programs may wait for each other."""
        self.multiplies = any(effects(op.name).work == "dot" for op in function.body.ops)
        """Whether the kernel holds matrix products, executed or not."""
        self.function = function
        self.waiting = waiting_loops(function)
        """Indices into ``loops`` of the loops that only wait; how often they repeat is chance."""
        self._whole = Code(function, function)
        self.takes_over = self._whole.takes_over
        self._slices: dict[tuple[bool, frozenset[int]], Code] = {}

    def run(
        self,
        memory: Sequence[Allocation],
        args: Sequence[Argument],
        grid: tuple[int, int, int],
        *,
        programs: torch.Tensor | None = None,
        temporaries_bytes: int = DEFAULT_TEMPORARIES,
        deadline: float | None = None,
        sanitize: bool = False,
        count: bool = False,
        work: bool = False,
        script: Script | None = None,
    ) -> Execution:
        """Run the kernel for the given programs (int64 linear ids, x fastest, in any order; by default the whole grid).

        Stores change the allocations. With a ``script``, the results of the reads in it come from there, while atomic
        operations still act on memory. ``sanitize`` also checks for races, reads of uninitialised memory, overflow of
        pointer arithmetic and invalid descriptors. ``count`` fills ``Execution.counts``; ``work``, for a whole grid,
        ``Execution.work`` or ``Execution.uncounted``. ``deadline`` is a ``time.process_time`` value. Raises ``IRError``
        when arguments do not fit the kernel or its IR is inconsistent, and ``ExecutionTimeout``.
        """
        ids = torch.arange(math.prod(grid)) if programs is None else programs.to(torch.int64)
        if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < math.prod(grid):
            raise IRError(f"program ids must lie in the grid {grid}")

        def attempt(pace: Pace, journal: Journal | None = None) -> Execution:
            space, code = Memory(memory, self.name), self._whole
            if sanitize:
                finest, reads = slicing.granules(self.function, args, self.changes(args)), self.reads(args)
                space = Sanitizer(memory, self.name, finest, reads, ids.numel(), synchronises=self.programs_interact)
                code = self._sanitized
            space.journal = journal
            meter = Metered(space, ids.numel()) if count else None
            seen = cast(Memory, meter) if meter else space
            limits: dict[str, Any] = {"temporaries_bytes": temporaries_bytes, "deadline": deadline, "pace": pace}
            recorded = self._to_record() if work and script is None else None
            try:
                passes = code.passes(seen, args, grid, ids, **limits, script=recorded or prompter(script, acts=True))
            except StuckProgram as stuck:
                raise StuckProgram(f"{stuck}{space.suspicion}") from None
            names, asked, uncounted = [a.name for a in memory], None, ""
            counts = Counts(operations(self.function, passes), meter.traffic(names)) if meter else None
            followed, done = self.function, passes
            try:
                if work and self.takes_over:  # which work a program took over says nothing about a GPU
                    recorded = script or self.script(memory, args, grid, deadline=deadline)
                    followed, told = self._trips.function, prompter(recorded)
                    done = self._trips.passes(Memory(memory), args, grid, deadline=deadline, script=told)
                asked = self._asked(followed, done, memory, args, grid, script or recorded, deadline) if work else None
            except UnsupportedOperation as error:
                uncounted = str(error)
            return Execution(space.faults, self._loop_trips(passes), space.notes, counts, asked, uncounted)

        if not self._whole.side_by_side or self.takes_turns or ids.numel() == 1:
            return attempt(Pace.START)
        journal = Journal()
        return unstuck(partial(attempt, journal=journal), journal.undo)

    def count(
        self,
        memory: Sequence[Allocation],
        args: Sequence[Argument],
        grid: tuple[int, int, int],
        *,
        script: Script | None = None,
        deadline: float | None = None,
    ) -> Counted:
        """Return the work of all programs of the grid. Memory is not changed.

        Only what loop bounds and conditions depend on is computed. Where a condition depends on memory or on a product,
        both sides of the branch count. Without a ``script``, one is made first. Raises like ``run``.
        """
        script = script or self.script(memory, args, grid, deadline=deadline)
        passes = self._trips.passes(Memory(memory), args, grid, deadline=deadline, script=prompter(script))
        return self._asked(self._trips.function, passes, memory, args, grid, script, deadline)

    def _asked(
        self,
        followed: Function,
        passes: torch.Tensor,
        memory: Sequence[Allocation],
        args: Sequence[Argument],
        grid: tuple[int, int, int],
        script: Script | None,
        deadline: float | None,
    ) -> Counted:
        """Return the work of programs that executed each block of ``followed`` so often, and where a sample of them
        reads and writes in the first passes of their loops: in few, if these show all that the programs ask for. What
        they leave out altogether is looked for in all passes of few programs, there and all over the grid.
        """
        busy = busiest(passes.sum(0), SAMPLED_PROGRAMS)
        passes = without_waits(followed, self.waiting, passes)
        times = {block.index: int(passes[block.index].sum()) for block in walk_blocks(followed.body)}

        def look(samples: Sequence[torch.Tensor], most: int | None) -> Reach:
            space = Reach(memory)
            for programs in samples:
                told = prompter(script)
                self._places.passes(space, args, grid, programs, deadline=deadline, script=told, most_passes=most)
            return space

        places = places_of(self._places.function, times, self._decisions)
        space = observe(look, busy, places, passes, times.keys())
        work = bodies(self.function, times, passes.shape[1])
        parents, lines = tuple(loop.parent for loop in self.loops), tuple(loop.lines for loop in self.loops)
        sizes = tuple(allocation.data.nbytes for allocation in memory)
        trips, part = self._loop_trips(passes), roles(self.function)
        found = space.accesses(shares_of(places, times, trips))
        skipped = shares(self.function, times, passes.shape[1])
        return Counted(trips, *work, parents, lines, found, sizes, part, skipped)

    def mark(
        self,
        memory: Sequence[Allocation],
        args: Sequence[Argument],
        grid: tuple[int, int, int],
        *,
        programs: torch.Tensor | None = None,
        reads: bool = False,
        script: Script | None = None,
        temporaries_bytes: int = DEFAULT_TEMPORARIES,
        deadline: float | None = None,
    ) -> Execution:
        """Mark where programs, by default the whole grid, would store, and count the trips of loops.

        Sets ``written`` in the allocations that have it; with ``reads``, where programs would load, in bounds or not.
        Contents are not changed: only addresses, masks, bounds and conditions are computed, and what those depend on.
        Without a ``script``, one is made first. Raises like ``run``.
        """
        script = script or self.script(memory, args, grid, deadline=deadline)
        space = Marks([replace(a, initialised=None, readonly=a.readonly and not reads) for a in memory])
        passes = self._slice(memory, args, reads=reads).passes(
            space, args, grid, programs, temporaries_bytes=temporaries_bytes, deadline=deadline, script=prompter(script)
        )
        return Execution(() if reads else space.faults, self._loop_trips(passes))

    def check_accesses(
        self,
        memory: Sequence[Allocation],
        args: Sequence[Argument],
        grid: tuple[int, int, int],
        *,
        programs: torch.Tensor | None = None,
        script: Script | None = None,
        temporaries_bytes: int = DEFAULT_TEMPORARIES,
        deadline: float | None = None,
    ) -> Execution:
        """Find what is wrong with where programs, which must not wait for each other, read and write; see ``mark``."""
        script = script or self.script(memory, args, grid, deadline=deadline)
        space = Marks([replace(a, written=None, initialised=None) for a in memory], self.name)
        passes = self._bounds.passes(
            space, args, grid, programs, temporaries_bytes=temporaries_bytes, deadline=deadline, script=prompter(script)
        )
        return Execution(space.faults, self._loop_trips(passes))

    def writers(
        self,
        memory: Sequence[Allocation],
        args: Sequence[Argument],
        grid: tuple[int, int, int],
        *,
        script: Script | None = None,
        temporaries_bytes: int = DEFAULT_TEMPORARIES,
        deadline: float | None = None,
    ) -> torch.Tensor:
        """Return the programs, int64 [n], that would store where buffers are marked as ``written``; see ``mark``."""
        space = Writers(memory, math.prod(grid))
        self._slice(memory, args).passes(
            space, args, grid, temporaries_bytes=temporaries_bytes, deadline=deadline, script=prompter(script)
        )
        return space.found.nonzero().flatten()

    def promises(
        self,
        memory: Sequence[Allocation],
        args: Sequence[Argument],
        grid: tuple[int, int, int],
        *,
        programs: torch.Tensor | None = None,
        script: Script | None = None,
        deadline: float | None = None,
    ) -> Execution:
        """Check promises that cost little, see ``promise_slice``: those of ``programs``, and of all where no block is
        needed for that. Memory is not changed. Without a ``script``, one is made first. Otherwise like ``run``.
        """
        script = script or self.script(memory, args, grid, deadline=deadline)
        space = Memory(memory, self.name)
        for code, chosen in ((self._promised, programs), (self._promised_of_scalars, None)):
            passes = code.passes(space, args, grid, chosen, deadline=deadline, script=prompter(script))
        return Execution(space.faults, self._loop_trips(passes))

    def elements_of_promises(self, trips: Trips, programs: int) -> PerProgram:
        """Return how many elements each program of a grid computes where it checks all of its ``promises``."""
        return elements(self._promised.function, trips, programs)

    def meetings(
        self,
        memory: Sequence[Allocation],
        args: Sequence[Argument],
        grid: tuple[int, int, int],
        *,
        script: Script | None = None,
        temporaries_bytes: int = DEFAULT_TEMPORARIES,
        deadline: float | None = None,
    ) -> tuple[torch.Tensor, ...]:
        """Return pairs of programs, int64 [n, 2], that access an element of a buffer that has ``written``, one of them
        by a plain store: pairs of plain stores, pairs with an atomic operation, and pairs with a plain read.

        These race unless they are ordered or store the same. Where what a kernel reads it does not change, the last are
        left out. Memory is not changed. Without a ``script``, one is made first. Raises like ``run``.
        """
        script = script or self.script(memory, args, grid, deadline=deadline)
        space, found = Owners(memory), []
        for code in self._meetings:
            code.passes(
                space, args, grid, temporaries_bytes=temporaries_bytes, deadline=deadline, script=prompter(script)
            )
            found.append(space.take_pairs())
            space.stores = False
        return tuple(found)

    def script(
        self,
        memory: Sequence[Allocation],
        args: Sequence[Argument],
        grid: tuple[int, int, int],
        *,
        deadline: float | None = None,
    ) -> Script | None:
        """Return the reads that decide what programs of the grid do and that other programs determine; None if none do.

        Memory is not changed. All work that those reads depend on is done for it. Raises like ``record``.
        """
        if not self._decisions:
            return None
        return record(self._scripted, memory, args, grid, self._decisions, deadline=deadline)

    def decides(self, args: Sequence[Argument], *, places: bool = False) -> frozenset[int]:
        """Return the buffers whose contents decide how often the kernel loops, or with ``places`` where a sample of its
        programs reads and writes; see ``reaches``.
        """
        slices = [(self._places if places else self._trips).function]
        if self._decisions:
            slices.append(self._scripted.function)
        return slicing.behind(self.function, frozenset().union(*(reached(sliced, READS) for sliced in slices)), args)

    def reaches(self, args: Sequence[Argument]) -> tuple[frozenset[int], frozenset[int]]:
        """Return the buffers that the kernel reads, if only to add to them, and those that it writes to, as far as its
        pointers can be followed. ``reads`` and ``changes`` are certain to miss none, and may have more.
        """
        read, written = (reached(self.function, names) for names in (_READS_OR_UPDATES, WRITES))
        return slicing.behind(self.function, read, args), slicing.behind(self.function, written, args)

    def needs(self, args: Sequence[Argument]) -> frozenset[int]:
        """Return the buffers whose contents decide where the kernel reads and stores, and how often it loops."""
        return slicing.behind(self.function, self._needed, args)

    def changes(self, args: Sequence[Argument]) -> frozenset[int]:
        """Return the buffers that the kernel may write to."""
        return slicing.behind(self.function, slicing.touched(self.function, WRITES), args)

    def replaces(self, memory: Sequence[Allocation], args: Sequence[Argument]) -> frozenset[int]:
        """Return the buffers that the kernel writes to by plain stores alone, of whole elements: these keep nothing."""
        return slicing.replaced(self.function, args, [allocation.data.element_size() for allocation in memory])

    def reads(self, args: Sequence[Argument]) -> frozenset[int]:
        """Return the buffers that the kernel may read, if only to add to their contents."""
        return slicing.behind(self.function, slicing.touched(self.function, _READS_OR_UPDATES), args)

    def _slice(self, memory: Sequence[Allocation], args: Sequence[Argument], *, reads: bool = False) -> Code:
        """Return the slice that stores to, or reads from, the buffers with marks."""
        params = frozenset(
            slot
            for slot, argument in zip(self.function.params, args, strict=False)
            if not isinstance(argument, Scalar)
            and not (0 <= argument.buffer < len(memory) and memory[argument.buffer].written is None)
        )
        if (reads, params) not in self._slices:
            function = self.function
            sliced = slicing.read_slice(function, params, self._decisions) if reads else None
            self._slices[reads, params] = Code(sliced or slicing.store_slice(function, params), function)
        return self._slices[reads, params]

    @property
    def bytes_per_program(self) -> int:
        """Most bytes that the values of one program take; ``temporaries_bytes`` is divided by it."""
        return self._whole.bytes_per_program

    @cached_property
    def _trips(self) -> Code:
        return Code(slicing.trip_slice(self.function), self.function)

    @cached_property
    def _places(self) -> Code:
        return Code(slicing.access_slice(placed(self.function), self._decisions), self.function)

    @cached_property
    def _bounds(self) -> Code:
        return Code(slicing.bounds_slice(self.function), self.function)

    @cached_property
    def _promised(self) -> Code:
        return Code(slicing.promise_slice(self.function, self._decisions), self.function)

    @cached_property
    def _promised_of_scalars(self) -> Code:
        return Code(slicing.promise_slice(self.function, self._decisions, scalars=True), self.function)

    @cached_property
    def _meetings(self) -> tuple[Code, ...]:
        return tuple(Code(sliced, self.function) for sliced in slicing.meeting_slices(self.function, self._decisions))

    @cached_property
    def _decisions(self) -> frozenset[int]:
        return slicing.deciding_reads(self.function)

    def _to_record(self) -> Script | None:
        """Return a script for what decides in a run; None where nothing does, or it cannot be told what."""
        try:
            return Script(self._decisions) if self._decisions and not self.takes_over else None
        except UnsupportedOperation:
            return None

    @cached_property
    def _needed(self) -> frozenset[int | None]:
        params = frozenset(self.function.params)
        slices = [slicing.store_slice(self.function, params), slicing.read_slice(self.function, params)]
        slices += [self._scripted.function] if self._decisions else []
        return frozenset().union(*(slicing.touched(sliced, READS) for sliced in slices))

    @cached_property
    def _scripted(self) -> Code:
        return scripted(self.function, self._decisions)

    @cached_property
    def _sanitized(self) -> Code:
        return Code(self.function, self.function, sanitize=True)

    def _loop_trips(self, passes: torch.Tensor) -> Trips:
        return tuple(passes[loop.block].numpy() for loop in self.loops)
