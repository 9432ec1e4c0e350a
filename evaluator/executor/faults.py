"""Faults: what a kernel does that a right kernel does not, in words and in parts, a few per execution."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

MAX_FAULTS = 8
"""Findings of each kind reported per execution; one kind must not crowd out another."""


@dataclass(frozen=True, slots=True)
class MemoryFault:
    """An access that a right kernel does not make, or a promise to the compiler that it does not keep; or a note."""

    kind: str
    """Always looked for: ``read out of bounds``, ``write out of bounds``, ``read in padding``, ``write in padding``,
    ``read beside a tensor`` (in its allocation, before its first or behind its last element),
    ``write to an input``, ``misaligned access``, ``false assumption``, ``false hint``, ``assertion failed``,
    ``index out of range``. By the sanitiser alone: ``read of uninitialised memory``, ``write race``,
    ``read-write race``, ``conflicting store``, ``integer overflow``, ``invalid descriptor``. Notes: ``same value stored
    twice``, ``races not checked``."""
    message: str
    """One line that names all of the below."""
    kernel: str = ""
    location: str = ""
    """``FILE:LINE``."""
    program: tuple[int, int, int] = (0, 0, 0)
    """The first program that does it."""
    others: int = 0
    """How many further programs do the same there."""
    tensor: str = ""
    """Name of the allocation, ``""`` if none is concerned."""
    index: tuple[int, ...] | None = None
    """Of the first element, in the tensor's view; the flat index where there is no view of it."""


@dataclass(frozen=True, slots=True)
class Ordering:
    """What an access that is atomic orders: the program's accesses before it (release), those after it (acquire)."""

    acquire: bool = True
    release: bool = True
    block_only: bool = False
    """Scope ``cta``: atomic for one program alone."""
    blind: bool = False
    """Whether what was there before does not matter."""
    strong: bool = True
    """False for a volatile load: it acquires, and races like any load."""


@dataclass(frozen=True, slots=True)
class Site:
    """Who accesses memory, and how: what a fault is reported with."""

    location: str
    ids: torch.Tensor
    """int64 [total]: linear ids of all programs of the run."""
    positions: torch.Tensor
    """int64 [P]: which of them access."""
    grid: tuple[int, int, int]
    order: Ordering | None = None
    """None: a plain access."""
    polls: bool = False
    """Whether the access is repeated until another program has stored there."""

    def program(self, position: int) -> tuple[int, int, int]:
        """Return the ids of the program at a position in ``ids``."""
        x, y, _ = self.grid
        linear = int(self.ids[position])
        return linear % x, linear // x % y, linear // (x * y)


LAUNCH = Site("the launch", torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64), (1, 1, 1))
"""Where what the launch itself does wrong is done."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong with one element of an access."""

    text: str
    index: tuple[int, ...] | None = None


@dataclass(slots=True)
class _Entry:
    """Findings of one kind, at one place and in one buffer."""

    first: MemoryFault
    programs: set[int]
    """Positions of all that do it."""


class FaultLog:
    """Collects findings: the first per kind, place and buffer with the number of programs, and not too many."""

    def __init__(self, kernel: str) -> None:
        self._kernel = kernel
        self._entries: dict[tuple[str, str, str], _Entry] = {}

    @property
    def found(self) -> tuple[MemoryFault, ...]:
        """What was added so far."""
        return tuple(self._finished(entry) for entry in self._entries.values())

    def add(
        self,
        kind: str,
        tensor: str,
        wrong: torch.Tensor,
        describe: Callable[[tuple[int, ...]], Finding],
        site: Site,
    ) -> None:
        """Add the first access of a block [P or 1, ...] that is wrong; ``describe`` says what of it by its place."""
        programs = site.positions
        if wrong.shape[0] > 1:
            programs = programs[wrong.reshape(wrong.shape[0], -1).any(1)]

        def finding() -> Finding:
            return describe(tuple(int(i) for i in wrong.nonzero()[0]))

        self.record(kind, tensor, programs, finding, site)

    def record(
        self, kind: str, tensor: str, programs: torch.Tensor, finding: Callable[[], Finding], site: Site
    ) -> None:
        """Add a finding about the first of the programs at positions [n] that do what is wrong."""
        key = (kind, site.location, tensor)
        if key not in self._entries and sum(other == kind for other, _, _ in self._entries) < MAX_FAULTS:
            found, program = finding(), site.program(int(programs[0]))
            fault = MemoryFault(kind, found.text, self._kernel, site.location, program, 0, tensor, found.index)
            self._entries[key] = _Entry(fault, set())
        if key in self._entries:
            self._entries[key].programs.update(programs.unique().tolist())

    def state(self, kind: str, text: str, tensor: str = "") -> None:
        """Add what concerns the launch as a whole."""
        fault = MemoryFault(kind, text, self._kernel, LAUNCH.location, tensor=tensor)
        self._entries.setdefault((kind, LAUNCH.location, tensor), _Entry(fault, set()))

    def _finished(self, entry: _Entry) -> MemoryFault:
        fault, others = entry.first, max(len(entry.programs) - 1, 0)
        name = f" in {fault.kernel}" if fault.kernel else ""
        message = f"{fault.kind}{name} at {fault.location}: {fault.message}"
        if entry.programs:
            message += f", program {fault.program}" + (f" and {others} more" if others else "")
        return replace(fault, message=message, others=others)
