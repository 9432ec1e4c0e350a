"""Kernels whose programs wait for each other: locks, barriers, producers and consumers.

In lockstep, a program that waits would wait forever: the one it waits for takes no step until both have left the loop.
So the programs of such a kernel run one at a time, each until it waits; then another one continues.
"""

import re
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence, Set

import torch

from avo.evaluator.executor.coroutines import Coroutine
from avo.evaluator.executor.effects import WRITES, effects, is_volatile
from avo.evaluator.executor.errors import Deadlock
from avo.evaluator.executor.faults import Site
from avo.evaluator.executor.ir import Function, Op, used_slots, walk_blocks
from avo.evaluator.executor.pointers import origins

MAX_WAITING = 1024
"""Number of waiting programs from which a new one starts only if none can continue; each has a thread."""

MOST_FLAGS = 1024
"""Most elements of a block that a loop looks at and only waits."""
_ZERO = re.compile(r"(dense<)?(0|0\.0+e\+00|false)>?")
_CHEAP = (None, "integer", "compare", "select", "convert", "address")
"""What operations are counted as that turn what was polled into a condition."""


def polls(function: Function) -> frozenset[int]:
    """Return the results of operations that may be repeated until another program has stored something.

    These are atomic and volatile operations that the condition of a surrounding while loop depends on, unless repeating
    them changes memory, as drawing a ticket by ``atomic_add`` does, or nothing else changes what they look at; and the
    same operation before such a loop where only the loop uses its result.
    """
    made = {slot: op for op in function.body.ops for slot in op.results}
    used = Counter(slot for op in function.body.ops for slot in op.operands)
    used.update(slot for op in function.body.ops for _, values in op.successors for slot in values)
    constants = {slot: op.words for slot, op in made.items() if op.name == "arith.constant"}
    found: set[int] = set()
    params = origins(function)
    written = {params.get(op.operands[0]) for op in function.body.ops if _may_change(op, constants)}

    def changes(op: Op) -> bool:
        origin = params.get(op.operands[0])
        return bool(written) and (origin is None or not written.isdisjoint({None, origin}))

    for op in function.body.ops:
        if effects(op.name).waits:
            found.update(op.results)
        if op.name == "scf.while" and len(op.regions) == 2:  # others are refused where steps are built
            condition = op.regions[0].terminator.operands[:1]
            inner = op.nested
            deciding = _deciding(op, inner, set(condition))
            looks = [one for one in inner if not deciding.isdisjoint(one.results) and _may_poll(one, constants)]
            found.update(slot for one in looks if changes(one) for slot in one.results)
            for first, again in zip(op.operands, op.regions[1].terminator.operands, strict=False):
                if again in found and first in made and _what(made[first]) == _what(made[again]) and used[first] == 1:
                    found.add(first)
    return frozenset(found)


def waiting_loops(function: Function) -> frozenset[int]:
    """Return the loops that only wait: they poll, do nothing that a kernel gains by, hand on no block, which might be
    the data, and hand nothing from pass to pass but what they have polled. How often they repeat is not counted.
    """
    polled = polls(function)
    found: set[int] = set()
    for op in function.body.ops:
        if op.name == "scf.while" and op.loop is not None and len(op.regions) == 2:
            inner = op.nested
            works = any(function.types[slot].elements > 1 for slot in op.results)
            works = works or any(one.loop is not None or _works(one, function, polled) for one in inner)
            works = works or bool(_counting(op, inner))
            if not works and any(not polled.isdisjoint(one.results) for one in inner):
                found.add(op.loop)
    return frozenset(found)


def _works(op: Op, function: Function, polled: Set[int]) -> bool:
    """Whether an operation accesses memory other than to poll, does dear arithmetic, or computes more than flags."""
    row = effects(op.name)
    many = any(function.types[slot].elements > MOST_FLAGS for slot in op.results)
    return many or row.work not in _CHEAP or (row.accesses and polled.isdisjoint(op.results))


def gives_up(function: Function) -> str | None:
    """Return where programs poll in a way that may end although nothing has changed: after so many passes, or so long;
    None if nowhere.
    """
    polled = polls(function)
    for op in function.body.ops:
        if effects(op.name).waits and "timeout" in op.words:
            return op.location
        if op.name == "scf.while" and len(op.regions) == 2:
            deciding = _deciding(op, op.nested, set(op.regions[0].terminator.operands[:1]))
            looks = any(
                not polled.isdisjoint(one.results) and not deciding.isdisjoint(one.results) for one in op.nested
            )
            if looks and not deciding.isdisjoint(_counting(op, op.nested)):
                return op.location
    return None


def _counting(loop: Op, inner: Sequence[Op]) -> set[int]:
    """Return what a pass of a while loop begins with that depends on what the pass before began with, and is not the
    same: with such values, passes are no repetition, whatever others do meanwhile.
    """
    before, after = loop.regions
    forwarded = dict(zip(after.args, before.terminator.operands[1:], strict=False))
    pairs = list(zip(before.args, after.terminator.operands, strict=False))
    changing = {target for target, source in pairs if forwarded.get(source, source) != target}
    pairs = [(target, source) for target, source in pairs if target in changing]
    return {target for target, source in pairs if not changing.isdisjoint(_deciding(loop, inner, {source}))}


def programs_interact(function: Function) -> bool:
    """Whether a program may act on what others did before, through the result of an atomic or volatile operation."""
    used = used_slots(function.body.ops)

    def acts(op: Op) -> bool:
        row = effects(op.name)
        return row.waits or (((row.atomic and row.reads) or is_volatile(op)) and not used.isdisjoint(op.results))

    return any(acts(op) for op in function.body.ops)


def without_waits(function: Function, waiting: Set[int], passes: torch.Tensor) -> torch.Tensor:
    """Return how often programs executed each block [blocks, programs], those in ``waiting`` loops never."""
    waits = [op for op in function.body.ops if op.loop in waiting]
    idle = [block.index for op in waits for region in op.regions for block in walk_blocks(region)]
    return passes.index_fill(0, torch.tensor(idle, dtype=torch.int64), 0)


def _what(op: Op) -> tuple[object, ...]:
    """Return what an operation does, and to what."""
    return op.name, op.operands, op.words, op.attributes


def _may_poll(op: Op, constants: Mapping[int, tuple[str, ...]]) -> bool:
    if op.name == "tt.atomic_rmw" and op.words[:1] in (("add",), ("fadd",)):
        return _adds_nothing(op, constants)
    row = effects(op.name)
    return (row.atomic and row.reads) or is_volatile(op)


def _may_change(op: Op, constants: Mapping[int, tuple[str, ...]]) -> bool:
    return op.name in WRITES and not _adds_nothing(op, constants)


def _adds_nothing(op: Op, constants: Mapping[int, tuple[str, ...]]) -> bool:
    """Whether an operation adds zero to memory, or combines it with zero so that nothing changes."""
    if op.name != "tt.atomic_rmw" or op.words[:1] not in (("add",), ("fadd",), ("or",), ("xor",)):
        return False
    return _ZERO.fullmatch(constants.get(op.operands[1], ("",))[0]) is not None


def _deciding(loop: Op, inner: Sequence[Op], slots: set[int]) -> set[int]:
    """Add to ``slots`` all slots in the regions of a loop that they depend on, and perhaps more; return them."""
    before, after = loop.regions
    grew = True
    while grew:
        size = len(slots)
        for target, source in zip(before.args, after.terminator.operands, strict=False):
            if target in slots:
                slots.add(source)
        for target, source in zip(after.args, before.terminator.operands[1:], strict=False):
            if target in slots:
                slots.add(source)
        for op in inner:
            if not slots.isdisjoint(op.results):
                slots.update(op.operands)
                for region in op.regions:
                    for block in region.blocks:
                        slots.update(block.ops[-1].operands)
            elif op.regions and any(not slots.isdisjoint(region.args) for region in op.regions):
                slots.update(op.operands)
        grew = len(slots) > size
    return slots


class _Program(Coroutine):
    """A program that may wait for others."""

    def __init__(self, body: Callable[[], None]) -> None:
        super().__init__(body)
        self.waits: Site | None = None
        self.idle = False
        self.patient = True
        self.goes_on = True


class Turns:
    """Runs programs in order, and switches to another one where a program waits."""

    def __init__(self, check_time: Callable[[], None], resident: int | None = None) -> None:
        """At most ``resident`` programs, if given, run at a time: a further one starts when one ends."""
        self._check_time = check_time
        self._resident = resident
        self._running: _Program | None = None

    def wait(self, site: Site, *, idle: bool, patient: bool = True) -> bool:
        """Let other programs continue, then return; called by the running program.

        ``idle`` says that nothing has changed for the program since it last waited. Return whether to continue waiting:
        False for a program that is not ``patient`` when all programs wait.
        """
        program = self._running
        assert program is not None
        program.waits, program.idle, program.patient = site, idle, patient
        program.hand_over()
        return program.goes_on

    def run(self, bodies: Sequence[Callable[[], None]]) -> None:
        """Run all programs to their end; raise ``Deadlock`` when all remaining ones wait for each other.

        Those that wait are asked whether they can continue from the newest to the oldest and back again, so that a
        chain of them ends in one pass, whichever way it goes.
        """
        fresh = deque(bodies)
        started: dict[_Program, None] = {}
        waiting: list[_Program] = []
        asked: list[_Program] = []
        unchanged = 0

        def begin() -> None:
            while fresh and program.waits is None:  # one thread is enough for all that do not wait
                self._check_time()
                fresh.popleft()()

        try:
            while fresh or started:
                self._check_time()
                room = self._resident is None or len(started) < self._resident
                if fresh and room and (len(started) < MAX_WAITING or unchanged >= len(started)):
                    program = _Program(begin)
                    started[program] = None
                    unchanged = 0
                elif unchanged < 2 * len(started):
                    if not waiting:
                        waiting, asked = asked, waiting
                    program = waiting.pop()
                else:
                    program = self._impatient(started, len(fresh))
                    (waiting if program in waiting else asked).remove(program)
                    unchanged = 0
                self._running = program
                program.resume()
                if program.done:
                    del started[program]
                    unchanged = 0
                else:
                    asked.append(program)
                    unchanged = unchanged + 1 if program.idle else 0
        finally:
            for program in started:
                program.cancel()

    def _impatient(self, waiting: Iterable[_Program], later: int) -> _Program:
        """Return the first program that waits for a limited time, and tell it that its time is over.

        Raises ``Deadlock`` if there is none; ``later`` programs have not started.
        """
        programs = list(waiting)
        for program in programs:
            if not program.patient:
                program.goes_on = False
                return program
        site = programs[0].waits
        assert site is not None
        first = f"among them program {site.program(int(site.positions[0]))} at {site.location}"
        if not later:
            raise Deadlock(f"all {len(programs)} remaining programs wait for each other, {first}")
        raise Deadlock(
            f"all programs that the card holds at once ({len(programs)}) wait for some of the {later} that start only "
            f"when one of them ends, {first}: let programs wait for earlier ones only, or launch no more than it holds"
        )
