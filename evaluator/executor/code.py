"""Code: a kernel, or a slice of it, made executable, and its execution for some programs of a grid."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch

from avo.evaluator.executor.barriers import needed_by_one
from avo.evaluator.executor.binding import bind
from avo.evaluator.executor.chip.chip import Chip, needs
from avo.evaluator.executor.control import build
from avo.evaluator.executor.faults import Site
from avo.evaluator.executor.frame import Frame, Run, Step
from avo.evaluator.executor.ir import Function, used_slots
from avo.evaluator.executor.launch import Launch
from avo.evaluator.executor.lockstep import Pace
from avo.evaluator.executor.memory import Memory
from avo.evaluator.executor.script import Prompter, Script
from avo.evaluator.executor.starts import Starts
from avo.evaluator.executor.values import Value
from avo.evaluator.executor.waiting import Turns, polls
from avo.evaluator.executor.work import temporary_bytes


class Code:
    """A kernel, or a slice of it, made executable."""

    def __init__(
        self, function: Function, launched: Function, *, sanitize: bool = False, chip: bool = False, data: bool = True
    ) -> None:
        """``launched`` is the kernel that ``function`` is, or is a slice of: it takes the arguments. Of slices only one
        that says so has a ``chip``, perhaps one that holds no ``data``.
        """
        self.function = function
        self.launched = launched
        self._sanitize = sanitize
        self._step: Step = build(function, sanitize=sanitize, whole=function is launched, data=data)
        self._data = data
        self._used = used_slots(function.body.ops)
        self._polls = polls(function)
        self._needed_by_one = needed_by_one(function) if sanitize else frozenset()
        self._needs = needs(function) if chip or function is launched else None
        clocks = 0 if self._needs is None else self._needs.bytes_per_program
        self.bytes_per_program = temporary_bytes(function) + clocks
        self.takes_over = takes_over(function)
        self.side_by_side = self._needs is not None and self._needs.partitions > 1
        """Whether partitions run side by side."""

    def passes(
        self,
        memory: Memory,
        launch: Launch,
        programs: torch.Tensor | None = None,
        *,
        script: Script | Prompter | None = None,
        pace: Pace = Pace.START,
        most_passes: int | None = None,
        resident: int | None = None,
        lockstep: int = 1,
        beside: "Beside | None" = None,
        digest: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Execute programs of a launch, int64 linear ids [n], by default the whole grid, in a ``memory`` made from its
        own, recording a ``script`` or following one, by default that of the launch.

        Programs that may wait for others run in groups of ``lockstep``, which take each step together, so that none can
        wait for another of its group. At most ``resident`` groups run at a time, if given. Others keep step as ``pace``
        says. Every loop is left after ``most_passes``, if given. Other programs run ``beside`` them, with other code.
        With a ``digest``, int64 [programs], what each does at barriers is mixed to a number there, not done.

        Return how often each program executed each block, int64 [blocks, programs].
        """
        ids = torch.arange(launch.programs) if programs is None else programs
        number = ids.numel()
        if beside:
            ids = torch.cat((ids, beside.programs))
        values = bind(self.launched, memory, launch.args, sanitize=self._sanitize)
        passes = torch.zeros(self.function.blocks, ids.numel(), dtype=torch.int64)
        together = 1 if pace is Pace.ALONE else max(1, launch.temporaries_bytes // self.bytes_per_program)
        run = Run(
            memory=memory,
            grid=launch.grid,
            ids=ids,
            passes=passes,
            starts=Starts(ids[:0] if self._polls else ids, together, may_be_taken=self.takes_over),
            deadline=launch.deadline,
            used=self._used,
            polls=self._polls,
            needed_by_one=self._needed_by_one,
            script=script or prompter(launch.script),
            most_passes=most_passes,
            digest=digest,
            pace=pace,
        )
        if self._polls:
            run = replace(run, turns=Turns(run.check_time, resident))

        memory.passes = passes
        if run.turns:
            bodies = self._bodies(run, values, 0, number, min(together, lockstep))
            run.turns.run([*bodies, *self._beside(run, values, number, beside)])
        else:
            while (chunk := run.starts.start()) is not None:
                self._execute(run, values, chunk)
        return passes[:, :number]

    def _execute(self, run: Run, values: Sequence[Value], positions: torch.Tensor) -> None:
        """Execute programs of a run with the ``values`` of the kernel's parameters."""
        run.check_time()
        slots: list[Value | None] = [None] * len(self.function.types)
        for slot, value in zip(self.launched.params, values, strict=True):
            slots[slot] = value
        chip = None
        if self._needs is not None and run.digest is None:
            chip = Chip(positions, self._needs, run.memory, holds_data=self._data)
        self._step(Frame(replace(run, chip=chip) if chip else run, positions, slots))
        if chip and self.function is self.launched:
            end = self.function.body.blocks[-1].ops[-1].location
            chip.check_end(Site(end, run.ids, positions, run.grid))

    def _bodies(
        self, run: Run, values: Sequence[Value], first: int, last: int, lockstep: int
    ) -> Iterator[Callable[[], None]]:
        """Yield what executes each group of the programs from a position to another, the last one left out."""
        for chunk in torch.arange(first, last).split(lockstep) if first < last else ():
            yield partial(self._execute, run, values, chunk)

    def _beside(
        self, run: Run, values: Sequence[Value], first: int, beside: "Beside | None"
    ) -> Iterator[Callable[[], None]]:
        if beside:
            code = beside.code
            run = replace(run, used=code._used, polls=code._polls)
            yield from code._bodies(run, values, first, run.ids.numel(), beside.lockstep)


@dataclass(frozen=True)
class Beside:
    """Programs that run beside others, which may wait for them, in groups of ``lockstep``."""

    code: Code
    programs: torch.Tensor
    """Linear ids, int64 [n]."""
    lockstep: int


def takes_over(function: Function) -> bool:
    """Return whether programs take over the work of others, by cluster launch control."""
    return any(op.name == "ttng.clc_try_cancel" for op in function.body.ops)


def prompter(script: Script | None, *, acts: bool = False) -> Prompter | None:
    """Return what tells programs the reads of a script; None without one. ``acts`` as in ``Prompter``."""
    return None if script is None else Prompter(script, acts=acts)
