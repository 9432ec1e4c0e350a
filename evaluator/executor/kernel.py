"""Kernels: IR text made executable once, then run over a grid any number of times."""

from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import cast

import torch

from avo.evaluator.executor import slicing
from avo.evaluator.executor.code import Beside, Code, prompter
from avo.evaluator.executor.counts import Counts, Metered, PerProgram, elements, operations
from avo.evaluator.executor.effects import READS, UPDATES, WRITES, effects
from avo.evaluator.executor.errors import IRError, StuckProgram, UnsupportedOperation
from avo.evaluator.executor.execution import Execution
from avo.evaluator.executor.flow import reached
from avo.evaluator.executor.ir import Function, walk_blocks
from avo.evaluator.executor.journal import Journal
from avo.evaluator.executor.launch import DEFAULT_TEMPORARIES, Launch
from avo.evaluator.executor.lockstep import Pace, unstuck
from avo.evaluator.executor.marking import Marks, Owners, Writers
from avo.evaluator.executor.memory import Memory
from avo.evaluator.executor.pointers import behind, granules, overwritten, shows_addresses, touched
from avo.evaluator.executor.reach import Reach, busiest, observe, placed, places_of, shares_of
from avo.evaluator.executor.sanitizer import Sanitizer
from avo.evaluator.executor.script import Script
from avo.evaluator.executor.scripting import record, scripted
from avo.evaluator.executor.waiting import gives_up, polls, programs_interact, waiting_loops, without_waits
from avo.evaluator.executor.work import bodies, loops, roles, shares
from avo.evaluator.plan import Argument, Scalar
from avo.evaluator.work import SAMPLED_PROGRAMS, Counted, Trips

_READS_OR_UPDATES = READS | UPDATES


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is asked of a run besides what programs write; see ``Kernel.run``."""

    sanitize: bool
    count: bool
    work: bool


class Kernel:
    """An executable kernel. Build it with ``load``."""

    def __init__(self, function: Function) -> None:
        self.name = function.name
        self.loops = loops(function)
        self.programs_interact = programs_interact(function)
        """Whether a program that runs alone may do other work than one that runs with all others."""
        self.takes_turns = bool(polls(function))
        """Whether programs may wait for each other."""
        self.gives_up = gives_up(function) if self.takes_turns else None
        """Where programs wait for so many passes, or so long, at most; None if nowhere. On a GPU chance decides."""
        self.multiplies = any(effects(op.name).work == "dot" for op in function.body.ops)
        """Whether the kernel holds matrix products, executed or not."""
        self.function = function
        self.waiting = waiting_loops(function)
        """Indices into ``loops`` of the loops that only wait; how often they repeat is chance."""
        self._whole = Code(function, function)
        self.takes_over = self._whole.takes_over
        self._marking: dict[tuple[slicing.Probe, frozenset[int]], Code] = {}

    def run(
        self,
        launch: Launch,
        programs: torch.Tensor | None = None,
        *,
        sanitize: bool = False,
        count: bool = False,
        work: bool = False,
    ) -> Execution:
        """Run the kernel for the given programs (int64 linear ids, x fastest, in any order; by default the whole grid).

        Stores change the allocations. With a script, the results of the reads in it come from there, while atomic
        operations still act on memory. ``sanitize`` also checks for races, reads of uninitialised memory, overflow of
        pointer arithmetic and invalid descriptors. If programs wait for each other, all others only do what those may
        wait for. ``count`` fills ``Execution.counts``; ``work``, for a whole grid,
        ``Execution.work`` or ``Execution.uncounted``. Raises ``IRError`` when arguments do not fit the kernel or its IR
        is inconsistent, and ``ExecutionTimeout``.
        """
        ids = torch.arange(launch.programs) if programs is None else programs.to(torch.int64)
        if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < launch.programs:
            raise IRError(f"program ids must lie in the grid {launch.grid}")
        asked = _Asked(sanitize, count, work)
        if not self._whole.side_by_side or self.takes_turns or ids.numel() == 1:
            return self._attempt(launch, ids, asked, None, Pace.START)
        journal = Journal()
        return unstuck(partial(self._attempt, launch, ids, asked, journal), journal.undo)

    def _attempt(
        self, launch: Launch, ids: torch.Tensor, asked: _Asked, journal: Journal | None, pace: Pace
    ) -> Execution:
        space, code = Memory(launch.memory, self.name), self._whole
        beside = self._beside(launch, ids)
        running = launch.programs if beside else ids.numel()
        if asked.sanitize:
            space, code = self._sanitizer(launch, running), self._sanitized
        space.journal = journal
        meter = Metered(space, running) if asked.count else None
        seen = cast(Memory, meter) if meter else space
        recorded = self._to_record() if asked.work and launch.script is None else None
        script = recorded or prompter(launch.script, acts=True)
        try:
            passes = code.passes(seen, launch, ids, script=script, pace=pace, beside=beside)
        except StuckProgram as stuck:
            raise StuckProgram(f"{stuck}{space.suspicion}") from None
        counts, work, uncounted = None, None, ""
        if meter:
            traffic = meter.traffic([allocation.name for allocation in launch.memory], ids.numel())
            counts = Counts(operations(self.function, passes), traffic)
        try:
            work = self._work(launch, passes, recorded) if asked.work else None
        except UnsupportedOperation as error:
            uncounted = str(error)
        return Execution(space.faults, self._loop_trips(passes), space.notes, counts, work, uncounted)

    def _beside(self, launch: Launch, ids: torch.Tensor) -> Beside | None:
        if not self.takes_turns or ids.numel() == launch.programs:
            return None
        others = torch.ones(launch.programs, dtype=torch.bool)
        others[ids] = False
        return Beside(self.waits, others.nonzero().flatten(), launch.lockstep)

    def _sanitizer(self, launch: Launch, programs: int) -> Sanitizer:
        finest = granules(self.function, launch.args, self.may_write(launch.args))
        reads = self.may_read(launch.args)
        return Sanitizer(launch.memory, self.name, finest, reads, programs, synchronises=self.programs_interact)

    def _work(self, launch: Launch, passes: torch.Tensor, recorded: Script | None) -> Counted:
        """Return the work of programs that executed the kernel's blocks so often, and ``recorded`` what decided."""
        launch = replace(launch, script=launch.script or recorded, temporaries_bytes=DEFAULT_TEMPORARIES)
        if self.takes_over:  # which work a program took over says nothing about a GPU
            return self.count(launch)
        return self._counted(self.function, passes, launch)

    def count(self, launch: Launch) -> Counted:
        """Return the work of all programs of the grid. Memory is not changed.

        Only what loop bounds and conditions depend on is computed. Where a condition depends on memory or on a product,
        both sides of the branch count. Raises like ``run``.
        """
        launch = self._with_script(launch)
        return self._counted(self._trips.function, self._trips.passes(Memory(launch.memory), launch), launch)

    def _counted(self, followed: Function, passes: torch.Tensor, launch: Launch) -> Counted:
        """Return the work of programs that executed each block of ``followed`` so often, and where a sample of them
        reads and writes in the first passes of their loops: in few, if these show all that the programs ask for. What
        they leave out altogether is looked for in all passes of few programs, there and all over the grid.
        """
        busy = busiest(passes.sum(0), SAMPLED_PROGRAMS)
        passes = without_waits(followed, self.waiting, passes)
        times = {block.index: int(passes[block.index].sum()) for block in walk_blocks(followed.body)}

        def look(samples: Sequence[torch.Tensor], most: int | None) -> Reach:
            space = Reach(launch.memory)
            for programs in samples:
                self._places.passes(space, launch, programs, most_passes=most)
            return space

        places = places_of(self._places.function, times, self._decisions)
        space = observe(look, busy, places, passes, times.keys())
        trips, (inside, outside) = self._loop_trips(passes), bodies(self.function, times, passes.shape[1])
        return Counted(
            trips,
            inside,
            outside,
            parents=tuple(loop.parent for loop in self.loops),
            lines=tuple(loop.lines for loop in self.loops),
            accesses=space.accesses(shares_of(places, times, trips)),
            buffer_bytes=tuple(allocation.data.nbytes for allocation in launch.memory),
            roles=roles(self.function),
            shares=shares(self.function, times, passes.shape[1]),
        )

    def mark(self, launch: Launch, programs: torch.Tensor | None = None, *, reads: bool = False) -> Execution:
        """Mark where programs, by default the whole grid, would store, and count the trips of loops.

        Sets ``written`` in the allocations that have it; with ``reads``, where programs would load, in bounds or not.
        Contents are not changed: only addresses, masks, bounds and conditions are computed, and what those depend on.
        Raises like ``run``.
        """
        launch = self._with_script(launch)
        space = Marks([replace(a, initialised=None, readonly=a.readonly and not reads) for a in launch.memory])
        passes = self._marked(launch, slicing.LOADS if reads else slicing.STORES).passes(space, launch, programs)
        return Execution(() if reads else space.faults, self._loop_trips(passes))

    def check_accesses(self, launch: Launch, programs: torch.Tensor | None = None) -> Execution:
        """Find what is wrong with where programs, which must not wait for each other, read and write; see ``mark``."""
        launch = self._with_script(launch)
        space = Marks([replace(a, written=None, initialised=None) for a in launch.memory], self.name)
        passes = self._bounds.passes(space, launch, programs)
        return Execution(space.faults, self._loop_trips(passes))

    def writers(self, launch: Launch) -> torch.Tensor:
        """Return the programs, int64 [n], that would store where buffers are marked as ``written``; see ``mark``."""
        space = Writers(launch.memory, launch.programs)
        self._marked(launch, slicing.STORES).passes(space, launch)
        return space.found.nonzero().flatten()

    def hint_violations(self, launch: Launch, programs: torch.Tensor | None = None) -> Execution:
        """Check what the kernel states to the compiler as far as that costs little, see ``hint_slice``: for
        ``programs``, and for all where no block is needed. Memory is not changed. Raises like ``run``.
        """
        launch = self._with_script(launch)
        space = Memory(launch.memory, self.name)
        self._hints.passes(space, launch, programs)
        passes = self._scalar_hints.passes(space, launch)
        return Execution(space.faults, self._loop_trips(passes))

    def hint_elements(self, trips: Trips, programs: int) -> PerProgram:
        """Return how many elements each program of a grid computes where all of its hints are checked."""
        return elements(self._hints.function, trips, programs)

    def race_candidates(self, launch: Launch) -> tuple[torch.Tensor, ...]:
        """Return pairs of programs, int64 [n, 2], that access an element of a buffer that has ``written``, one of them
        by a plain store: pairs of plain stores, pairs with an atomic operation, and pairs with a plain read.

        These race unless they are ordered or store the same. Where what a kernel reads it does not change, the last are
        left out. Memory is not changed. Raises like ``run``.
        """
        launch = self._with_script(launch)
        space, found = Owners(launch.memory), []
        for code in self._racing:
            code.passes(space, launch)
            found.append(space.take_pairs())
            space.stores = False
        return tuple(found)

    def check_barriers(self, launch: Launch) -> None:
        """Raise ``StuckProgram`` unless all programs of the grid end, as far as their own barriers are concerned.

        Of programs that do the same there, one is played. Memory is not changed. Otherwise raises like ``run``.
        """
        if (code := self._barriers) is None:
            return
        launch, digest = self._with_script(launch), torch.zeros(launch.programs, dtype=torch.int64)
        code.passes(Memory(launch.memory), launch, digest=digest)
        ones = torch.tensor(sorted({kind: program for program, kind in enumerate(digest.tolist())}.values()))
        unstuck(lambda pace: code.passes(Memory(launch.memory), launch, ones, pace=pace), lambda: None)

    def script(self, launch: Launch) -> Script | None:
        """Return the reads that decide what programs of the grid do and that other programs determine; None if none do.

        Memory is not changed. All work that those reads depend on is done for it. Raises like ``record``.
        """
        return record(self._scripted, launch, self._decisions) if self._decisions else None

    def _with_script(self, launch: Launch) -> Launch:
        return launch if launch.script else replace(launch, script=self.script(launch))

    def trip_dependencies(self, args: Sequence[Argument]) -> frozenset[int]:
        """Return the buffers whose contents decide how often the kernel loops; see ``traced_accesses``."""
        return self._dependencies(self._trips.function, args)

    def address_dependencies(self, args: Sequence[Argument]) -> frozenset[int]:
        """Return the buffers whose contents decide where a sample of programs reads and writes in ``count``."""
        return self._dependencies(self._places.function, args)

    def _dependencies(self, sliced: Function, args: Sequence[Argument]) -> frozenset[int]:
        slices = [sliced, *([self._scripted.function] if self._decisions else [])]
        return behind(self.function, frozenset().union(*(reached(each, READS) for each in slices)), args)

    def content_dependencies(self, args: Sequence[Argument]) -> frozenset[int]:
        """Return the buffers whose contents decide where the kernel reads and stores, how often it loops, and what it
        does at barriers."""
        return behind(self.function, self._deciding_params, args)

    def traced_accesses(self, args: Sequence[Argument]) -> tuple[frozenset[int], frozenset[int]]:
        """Return the buffers that the kernel reads, if only to add to them, and those that it writes to, as far as its
        pointers can be followed. ``may_read`` and ``may_write`` are certain to miss none, and may have more.
        """
        read, written = (reached(self.function, names) for names in (_READS_OR_UPDATES, WRITES))
        return behind(self.function, read, args), behind(self.function, written, args)

    def may_read(self, args: Sequence[Argument]) -> frozenset[int]:
        """Return the buffers that the kernel may read, if only to add to their contents."""
        return behind(self.function, touched(self.function, _READS_OR_UPDATES), args)

    def may_write(self, args: Sequence[Argument]) -> frozenset[int]:
        """Return the buffers that the kernel may write to."""
        return behind(self.function, touched(self.function, WRITES), args)

    def overwritten(self, launch: Launch) -> frozenset[int]:
        """Return the buffers that the kernel writes to by plain stores alone, of whole elements: these keep nothing."""
        return overwritten(self.function, launch.args, [each.data.element_size() for each in launch.memory])

    def _marked(self, launch: Launch, probe: slicing.Probe) -> Code:
        """Return the slice that shows stores to, or reads from, the buffers with marks."""
        memory = launch.memory
        params = frozenset(
            slot
            for slot, argument in zip(self.function.params, launch.args, strict=False)
            if not isinstance(argument, Scalar)
            and not (0 <= argument.buffer < len(memory) and memory[argument.buffer].written is None)
        )
        if (probe, params) not in self._marking:
            told = self._decisions if probe is slicing.LOADS else frozenset[int]()
            self._marking[probe, params] = self._code(slicing.access_slice(self.function, probe, params, told))
        return self._marking[probe, params]

    @property
    def bytes_per_program(self) -> int:
        """Most bytes that the values of one program take; ``temporaries_bytes`` is divided by it."""
        return self._whole.bytes_per_program

    def _code(self, sliced: Function) -> Code:
        return Code(sliced, self.function)

    @cached_property
    def shows_addresses(self) -> bool:
        """Whether what it computes may depend on where buffers are."""
        return shows_addresses(self.function)

    @cached_property
    def waits(self) -> Code:
        """The slice that has the waits of programs, and what they write for each other to wait for."""
        return scripted(self.function, polls(self.function))

    @cached_property
    def _trips(self) -> Code:
        return self._code(slicing.trip_slice(self.function))

    @cached_property
    def _places(self) -> Code:
        return self._code(slicing.access_slice(placed(self.function), slicing.ACCESSES, told=self._decisions))

    @cached_property
    def _bounds(self) -> Code:
        return self._code(slicing.access_slice(self.function, slicing.BOUNDS))

    @cached_property
    def _hints(self) -> Code:
        return self._code(slicing.hint_slice(self.function, self._decisions))

    @cached_property
    def _scalar_hints(self) -> Code:
        return self._code(slicing.hint_slice(self.function, self._decisions, scalars=True))

    @cached_property
    def _barriers(self) -> Code | None:
        sliced = None if self.takes_over else slicing.barrier_slice(self.function, self._decisions)
        return None if sliced is None else Code(sliced, self.function, chip=True, data=False)

    @cached_property
    def _racing(self) -> tuple[Code, ...]:
        return tuple(map(self._code, slicing.race_slices(self.function, self._decisions)))

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
    def _deciding_params(self) -> Set[int | None]:
        """The parameters through which what decides is read, None for one that is unclear."""
        slices = [slicing.access_slice(self.function, probe) for probe in (slicing.STORES, slicing.LOADS)]
        slices += [self._scripted.function] if self._decisions else []
        slices += [self._barriers.function] if self._barriers else []
        return frozenset().union(*(touched(sliced, READS) for sliced in slices))

    @cached_property
    def _scripted(self) -> Code:
        return scripted(self.function, self._decisions)

    @cached_property
    def _sanitized(self) -> Code:
        return Code(self.function, self.function, sanitize=True)

    def _loop_trips(self, passes: torch.Tensor) -> Trips:
        return tuple(passes[loop.block].numpy() for loop in self.loops)
