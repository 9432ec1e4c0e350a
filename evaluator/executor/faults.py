"""Faults: what a correct kernel would not do. Each has a message and its parts; an execution reports a few."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import torch

MAX_FAULTS = 8
"""Findings reported per kind and execution, so that one kind does not crowd out another."""


@dataclass(frozen=True, slots=True)
class MemoryFault:
    """An access that a correct kernel does not make, a promise to the compiler that the kernel breaks, or a note."""

    kind: str
    """What is wrong. Always checked: ``read out of bounds``, ``write out of bounds``, ``read in padding``, ``write in
    padding``, ``read beside a tensor`` (in its allocation, before its first or after its last element), ``write to an
    input``, ``misaligned access``, ``false assumption``, ``false hint``, ``assertion failed``, ``index out of range``,
    ``on-chip access too early``, ``missing fence``, ``barrier misused``.
    Checked only by the sanitiser: ``read of uninitialised memory``, ``write race``, ``read-write race``, ``conflicting
    store``, ``missing barrier``, ``unfinished TMA store``, ``integer overflow``, ``invalid descriptor``. Notes:
    ``same value stored twice``, ``races not checked``."""
    message: str
    """One line that states everything below."""
    kernel: str = ""
    location: str = ""
    """Source line, as ``FILE:LINE``."""
    program: tuple[int, int, int] = (0, 0, 0)
    """The first program with this fault."""
    others: int = 0
    """Number of further programs with the same fault at the same place."""
    tensor: str = ""
    """Name of the allocation, ``""`` if no allocation is involved."""
    index: tuple[int, ...] | None = None
    """Index of the first element in the tensor's view; the flat index where no view has it."""


@dataclass(frozen=True, slots=True)
class Ordering:
    """What an atomic access orders: the program's earlier accesses (release), its later ones (acquire)."""

    acquire: bool = True
    release: bool = True
    block_only: bool = False
    """Whether the scope is ``cta``: atomic within one program only."""
    blind: bool = False
    """Whether the access ignores the previous contents."""
    returns: bool = True
    """Whether the program uses the previous contents."""
    strong: bool = True
    """False for a volatile load, which acquires but can race like any load."""


@dataclass(frozen=True, slots=True)
class Site:
    """Which programs access memory, where in the source and how; faults are reported with it."""

    location: str
    ids: torch.Tensor
    """Linear ids of all programs of the run, int64 [total]."""
    positions: torch.Tensor
    """Which of them make the access: positions in ``ids``, int64 [P]."""
    grid: tuple[int, int, int]
    order: Ordering | None = None
    """What an atomic access orders; None for a plain access."""
    polls: bool = False
    """Whether the access is repeated until another program has stored there."""
    by_one: bool = False
    """Whether only one thread of the program needs the scalar that is loaded."""
    by_all: bool = False
    """Whether each thread that holds an element stores it, so that none may do so before the others have loaded."""
    sent: bool = False
    """Whether TMA stores or updates, which goes on until its program waits for it."""
    partition: int = 0
    """Which partition of the programs makes the access: 0 is the default one."""
    line: int = 0
    """The operation's line in the text of the IR, counted from 1."""

    def program(self, position: int) -> tuple[int, int, int]:
        """Return the grid indices of the program at a position in ``ids``."""
        x, y, _ = self.grid
        linear = int(self.ids[position])
        return linear % x, linear // x % y, linear // (x * y)


class Reporter(Protocol):
    """Hears of findings that no access of device memory shows; ``Space`` says how."""

    def refute(
        self, kind: str, wrong: torch.Tensor, describe: Callable[[tuple[int, ...]], str], site: Site
    ) -> None: ...

    def remark(
        self, kind: str, where: torch.Tensor, describe: Callable[[tuple[int, ...]], str], site: Site
    ) -> None: ...


LAUNCH = Site("the launch", torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64), (1, 1, 1))
"""The location of faults of the launch itself."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The fault of one element of an access."""

    text: str
    index: tuple[int, ...] | None = None


@dataclass(slots=True)
class _Entry:
    """Findings of one kind at one place in one buffer."""

    first: MemoryFault
    programs: set[int]
    """Positions of all programs with the finding."""


class FaultLog:
    """Collects findings, one per kind, place and buffer, with the number of programs; their number is bounded."""

    def __init__(self, kernel: str) -> None:
        self._kernel = kernel
        self._entries: dict[tuple[str, str, str], _Entry] = {}

    @property
    def found(self) -> tuple[MemoryFault, ...]:
        """The findings added so far."""
        return tuple(self._finished(entry) for entry in self._entries.values())

    def add(
        self,
        kind: str,
        tensor: str,
        wrong: torch.Tensor,
        describe: Callable[[tuple[int, ...]], Finding],
        site: Site,
    ) -> None:
        """Add the first wrong access of a block [P or 1, ...]; ``describe`` maps its place to the fault."""
        programs = site.positions
        if wrong.shape[0] > 1:
            programs = programs[wrong.reshape(wrong.shape[0], -1).any(1)]

        def finding() -> Finding:
            return describe(tuple(int(i) for i in wrong.nonzero()[0]))

        self.record(kind, tensor, programs, finding, site)

    def record(
        self, kind: str, tensor: str, programs: torch.Tensor, finding: Callable[[], Finding], site: Site
    ) -> None:
        """Add a finding about the first of the programs at positions [n], all of which have it."""
        key = (kind, site.location, tensor)
        if key not in self._entries and sum(other == kind for other, _, _ in self._entries) < MAX_FAULTS:
            found, program = finding(), site.program(int(programs[0]))
            fault = MemoryFault(kind, found.text, self._kernel, site.location, program, 0, tensor, found.index)
            self._entries[key] = _Entry(fault, set())
        if key in self._entries:
            self._entries[key].programs.update(programs.unique().tolist())

    def state(self, kind: str, text: str, tensor: str = "") -> None:
        """Add a finding about the launch as a whole."""
        fault = MemoryFault(kind, text, self._kernel, LAUNCH.location, tensor=tensor)
        self._entries.setdefault((kind, LAUNCH.location, tensor), _Entry(fault, set()))

    def _finished(self, entry: _Entry) -> MemoryFault:
        fault, others = entry.first, max(len(entry.programs) - 1, 0)
        name = f" in {fault.kernel}" if fault.kernel else ""
        message = f"{fault.kind}{name} at {fault.location}: {fault.message}"
        if entry.programs:
            message += f", program {fault.program}" + (f" and {others} more" if others else "")
        return replace(fault, message=message, others=others)
