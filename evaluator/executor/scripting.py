"""How scripts are made: all programs of a launch run the slice of a kernel that has the reads which decide."""

from collections.abc import Callable, Sequence, Set
from dataclasses import replace
from typing import Any

import torch

from avo.evaluator.allocation import Allocation
from avo.evaluator.executor.code import Code, takes_over
from avo.evaluator.executor.effects import WRITES
from avo.evaluator.executor.errors import StuckProgram, UnsupportedOperation
from avo.evaluator.executor.faults import Site
from avo.evaluator.executor.handing import LOAD
from avo.evaluator.executor.ir import Function, Op
from avo.evaluator.executor.launch import Launch
from avo.evaluator.executor.lockstep import Pace, unstuck
from avo.evaluator.executor.memory import Memory
from avo.evaluator.executor.pointers import behind, touched
from avo.evaluator.executor.script import Script
from avo.evaluator.executor.slicing import script_slice

Tensor = torch.Tensor

_DOUBTFUL = ("on-chip access too early", "barrier misused", "read of uninitialised memory", "index out of range")
"""What is found where loads from shared memory might give something else in another execution."""


class Certain(Memory):
    """A memory that ends an execution where loads from shared memory are in doubt, lest it go on with chance."""

    certain = True

    def refute(self, kind: str, wrong: Tensor, describe: Callable[[tuple[int, ...]], str], site: Site) -> None:
        """Raise ``UnsupportedOperation`` for what is doubtful."""
        if kind in _DOUBTFUL and bool(wrong.any()):
            raise _doubtful(f"{kind}: {describe(tuple(wrong.nonzero()[0].tolist()))}", site.location)
        super().refute(kind, wrong, describe, site)

    def remark(self, kind: str, where: Tensor, describe: Callable[[tuple[int, ...]], str], site: Site) -> None:
        """Like ``refute``."""
        if kind in _DOUBTFUL:
            self.refute(kind, where, describe, site)
        super().remark(kind, where, describe, site)


def _doubtful(why: str, place: str) -> UnsupportedOperation:
    what = "a loop or an address that depends on shared memory, whose stores and loads must be in order by the barriers"
    return UnsupportedOperation(f"{what} waited for right before them ({why})", place)


def scripted(function: Function, reads: Set[int]) -> Code:
    """Return the executable slice of a kernel that computes the given reads."""
    sliced = script_slice(function, reads)
    load = _first_load(sliced)
    if load and takes_over(function):
        what = "a loop or an address that depends on shared memory, where programs take over the work of others,"
        raise UnsupportedOperation(what, load.location)
    return Code(sliced, function, chip=load is not None)


def _first_load(function: Function) -> Op | None:
    """Return the first load from shared memory; None if there is none."""
    return next((op for op in function.body.ops if op.name == LOAD), None)


def _memory(allocations: Sequence[Allocation], *, certain: bool) -> Memory:
    return Certain(allocations) if certain else Memory(allocations)


def record(
    code: Code,
    launch: Launch,
    reads: frozenset[int] = frozenset(),
    memory: Callable[..., Memory] = _memory,
    **options: Any,
) -> Script:
    """Run a ``scripted`` slice with ``options`` of ``Code.passes``, and return what programs of the grid read of the
    given ``reads``. Memory is not changed; ``memory`` makes what they run on of copies of the launch's allocations, and
    of whether it must be ``certain``.

    Raises ``UnsupportedOperation`` where it is not certain what shared memory holds, and like ``Kernel.run``.
    """
    changed = behind(code.launched, touched(code.function, WRITES), launch.args)
    load = _first_load(code.function)

    def attempt(pace: Pace) -> Script:
        script = Script(reads)
        copies = [
            replace(a, data=a.data.clone() if i in changed else a.data, written=None, initialised=None)
            for i, a in enumerate(launch.memory)
        ]
        code.passes(memory(copies, certain=load is not None), launch, script=script, pace=pace, **options)
        return script

    if not load:
        return attempt(Pace.START)
    try:
        return unstuck(attempt, lambda: None)
    except StuckProgram as stuck:
        raise _doubtful(str(stuck), load.location) from None
