"""Frames: the programs that execute together, and their values. Steps are closures that act on a frame."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import TypeAlias, cast

import torch

from avo.evaluator.executor.chip.chip import Chip
from avo.evaluator.executor.errors import ExecutionTimeout
from avo.evaluator.executor.lockstep import Pace
from avo.evaluator.executor.memory import Memory
from avo.evaluator.executor.script import Prompter, Script
from avo.evaluator.executor.starts import Starts
from avo.evaluator.executor.values import AddressSum, Value, prefix, select
from avo.evaluator.executor.waiting import Turns


@dataclass(frozen=True)
class Run:
    """State that all frames of one execution share."""

    memory: Memory
    grid: tuple[int, int, int]
    ids: torch.Tensor
    """Linear index (x fastest) of every program that runs, int64 [total]."""
    passes: torch.Tensor
    """How often each program executed each block so far, int64 [blocks of the IR, total]."""
    starts: Starts
    """Which programs have started."""
    deadline: float | None
    used: frozenset[int] = frozenset()
    """Slots that some operation uses."""
    polls: frozenset[int] = frozenset()
    """Results of operations that are repeated until another program has stored something."""
    needed_by_one: frozenset[int] = frozenset()
    """Scalars that only one thread of each program needs."""
    clock: Iterator[int] = field(default_factory=lambda: count(2**40, 1000))
    """What a kernel reads of the time, in ns or cycles: 1,000 pass between two reads."""
    script: Script | Prompter | None = None
    """Where the results of deciding reads are recorded (``Script``) or taken from (``Prompter``)."""
    turns: Turns | None = None
    """Decides which program runs when programs wait for each other; None: all run in lockstep."""
    chip: Chip | None = None
    """The chips of the programs; None: they use none, or a slice is executed, without what happens there."""
    most_passes: int | None = None
    """Passes after which every loop is left; None: when it is done."""

    digest: torch.Tensor | None = None
    """What programs do at barriers, mixed to a number for each, int64 [total], without doing it."""
    pace: Pace = Pace.START
    """How programs keep step."""

    def check_time(self) -> None:
        """Raise ``ExecutionTimeout`` once the deadline has passed."""
        if self.deadline is not None and time.process_time() > self.deadline:
            raise ExecutionTimeout("the kernel did not finish in the time allowed")


@dataclass
class Frame:
    """Programs that take the same path, with their values only, so that no step needs a mask for other programs."""

    run: Run
    positions: torch.Tensor
    """Indices of the programs into ``run.ids``, int64 [P]."""
    slots: list[Value | None]
    twins: dict[int, torch.Tensor] = field(default_factory=dict)
    """The value, by slot, that an integer or address would have without overflow, int64. See ``overflow``."""

    @property
    def programs(self) -> int:
        """Number of programs, P."""
        return self.positions.shape[0]

    def tensor(self, slot: int) -> torch.Tensor:
        """Return the tensor in a slot."""
        return cast(torch.Tensor, self.slots[slot])

    def address(self, slot: int) -> torch.Tensor | AddressSum:
        """Return the addresses in a slot."""
        return cast(torch.Tensor | AddressSum, self.slots[slot])

    def value(self, slot: int) -> Value:
        """Return the value in a slot, of whichever kind."""
        return cast(Value, self.slots[slot])

    def select(self, programs: torch.Tensor, slots: Iterable[int]) -> "Frame":
        """Return a frame of the programs at the given positions, with the given slots only."""
        inner: list[Value | None] = [None] * len(self.slots)
        for slot in slots:
            value = self.slots[slot]
            inner[slot] = None if value is None else select(value, programs)
        twins = {slot: cast(torch.Tensor, select(self.twins[slot], programs)) for slot in slots if slot in self.twins}
        return Frame(self.run, self.positions.index_select(0, programs), inner, twins)

    def keep_first(self, count: int, slots: Iterable[int]) -> None:
        """Drop all but the first programs; only the given slots stay valid."""
        self.positions = self.positions[:count]
        for slot in slots:
            value = self.slots[slot]
            if value is not None:
                self.slots[slot] = prefix(value, count)
        self.twins = {slot: cast(torch.Tensor, prefix(self.twins[slot], count)) for slot in slots if slot in self.twins}

    def set_twins(self, slots: Iterable[int], twins: Iterable[torch.Tensor | None]) -> None:
        """Set or remove the twins of slots."""
        for slot, twin in zip(slots, twins, strict=True):
            if twin is None:
                self.twins.pop(slot, None)
            else:
                self.twins[slot] = twin

    def count(self, block: int, times: torch.Tensor) -> None:
        """Count executions of a block; ``times`` is int64 [P or 1]."""
        self.run.passes[block].index_add_(0, self.positions, times.expand(self.programs))

    def ids(self) -> torch.Tensor:
        """Return the linear program ids, int64 [P]."""
        return self.run.ids.index_select(0, self.positions)


Step: TypeAlias = Callable[[Frame], None]
