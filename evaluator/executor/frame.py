"""Frames: the programs that execute together, and their values. Steps are closures that act on a frame."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias, cast

import torch

from evaluator.executor.errors import ExecutionTimeout
from evaluator.executor.memory import Memory
from evaluator.executor.values import Value, prefix, select


@dataclass(frozen=True)
class Run:
    """What all frames of one execution share."""

    memory: Memory
    grid: tuple[int, int, int]
    ids: torch.Tensor
    """int64 [total]: linear index (x fastest) of every program that runs."""
    trips: tuple[torch.Tensor, ...]
    """Per loop, int64 [total]: body executions so far."""
    deadline: float | None

    def check_time(self) -> None:
        """Raise ``ExecutionTimeout`` once the deadline has passed."""
        if self.deadline is not None and time.monotonic() > self.deadline:
            raise ExecutionTimeout("the kernel did not finish in the time allowed")


@dataclass
class Frame:
    """Programs that take the same path. Values of other programs are not in it, so no step needs a mask for them."""

    run: Run
    positions: torch.Tensor
    """int64 [P]: index into ``run.ids``."""
    slots: list[Value | None]

    @property
    def programs(self) -> int:
        """P."""
        return self.positions.shape[0]

    def tensor(self, slot: int) -> torch.Tensor:
        """Return the tensor in a slot."""
        return cast(torch.Tensor, self.slots[slot])

    def value(self, slot: int) -> Value:
        """Return whatever is in a slot."""
        return cast(Value, self.slots[slot])

    def select(self, programs: torch.Tensor, slots: Iterable[int]) -> "Frame":
        """Return a frame of the programs at the given positions, which sees the given slots."""
        inner: list[Value | None] = [None] * len(self.slots)
        for slot in slots:
            value = self.slots[slot]
            inner[slot] = None if value is None else select(value, programs)
        return Frame(self.run, self.positions.index_select(0, programs), inner)

    def keep_first(self, count: int, slots: Iterable[int]) -> None:
        """Drop all but the first programs; only the given slots stay valid."""
        self.positions = self.positions[:count]
        for slot in slots:
            value = self.slots[slot]
            if value is not None:
                self.slots[slot] = prefix(value, count)

    def ids(self) -> torch.Tensor:
        """Return the linear program ids, int64 [P]."""
        return self.run.ids.index_select(0, self.positions)


Step: TypeAlias = Callable[[Frame], None]
