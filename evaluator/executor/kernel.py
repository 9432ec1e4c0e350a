"""Kernels: IR text made executable once, then run over a grid any number of times."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch

from evaluator.executor.control import KNOWN, build
from evaluator.executor.errors import IRError
from evaluator.executor.faults import MemoryFault
from evaluator.executor.frame import Frame, Run, Step
from evaluator.executor.ir import BITS, Function, Op, Type, walk
from evaluator.executor.memory import Allocation, Memory
from evaluator.executor.parser import parse
from evaluator.executor.slicing import changes_memory, trip_slice
from evaluator.executor.values import DTYPES, DescriptorValue, Value
from evaluator.executor.work import count
from evaluator.plan import Argument, Descriptor, Pointer, Scalar

DEFAULT_TEMPORARIES = 2**30
"""Bytes that the values of the programs which run together may take."""

Trips = tuple[npt.NDArray[np.int64], ...]


@dataclass(frozen=True)
class Execution:
    """What running a kernel showed."""

    faults: tuple[MemoryFault, ...]
    """At most ``faults.MAX_FAULTS``, one per place, kind and buffer."""
    trips: Trips
    """Per loop, [programs that ran]: body executions in all."""


class Kernel:
    """An executable kernel. Build it with ``load``."""

    def __init__(self, function: Function) -> None:
        self.name = function.name
        self.loops, self.outside = count(function)
        self._function = function
        self._whole = build(function)
        self._bytes = _temporary_bytes(function)
        sliced = trip_slice(function)
        self._trip_step = build(sliced) if self.loops else None
        self._trip_bytes = _temporary_bytes(sliced)
        self._trips_change_memory = changes_memory(sliced)

    def run(
        self,
        memory: Sequence[Allocation],
        args: Sequence[Argument],
        grid: tuple[int, int, int],
        *,
        programs: torch.Tensor | None = None,
        temporaries_bytes: int = DEFAULT_TEMPORARIES,
        deadline: float | None = None,
    ) -> Execution:
        """Run the kernel for the given programs (int64 linear ids, x fastest; all of the grid by default).

        Stores change the allocations. ``deadline`` is a ``time.monotonic`` value. Raises ``IRError`` when the arguments
        do not fit the kernel or its IR is inconsistent, and ``ExecutionTimeout``.
        """
        ids = torch.arange(math.prod(grid)) if programs is None else programs.to(torch.int64)
        if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < math.prod(grid):
            raise IRError(f"program ids must lie in the grid {grid}")
        return self._execute(self._whole, self._bytes, Memory(memory), args, grid, ids, temporaries_bytes, deadline)

    def trips(
        self,
        memory: Sequence[Allocation],
        args: Sequence[Argument],
        grid: tuple[int, int, int],
        *,
        deadline: float | None = None,
    ) -> Trips:
        """Return per loop, for every program of the grid, how often its body runs in all. Memory stays as it is.

        Only what bounds and conditions depend on is computed. Raises like ``run``.
        """
        if self._trip_step is None:
            return ()
        space = Memory(memory)
        if self._trips_change_memory:
            space = space.copy()
        ids = torch.arange(math.prod(grid))
        return self._execute(
            self._trip_step, self._trip_bytes, space, args, grid, ids, DEFAULT_TEMPORARIES, deadline
        ).trips

    def _execute(
        self,
        step: Step,
        bytes_per_program: int,
        memory: Memory,
        args: Sequence[Argument],
        grid: tuple[int, int, int],
        ids: torch.Tensor,
        temporaries_bytes: int,
        deadline: float | None,
    ) -> Execution:
        values = _bind(self._function, memory, args)
        trips = tuple(torch.zeros(ids.numel(), dtype=torch.int64) for _ in self.loops)
        run = Run(memory, grid, ids, trips, deadline)
        together = max(1, temporaries_bytes // bytes_per_program)
        for start in range(0, ids.numel(), together):
            run.check_time()
            slots: list[Value | None] = [None] * len(self._function.types)
            for slot, value in zip(self._function.params, values, strict=True):
                slots[slot] = value
            step(Frame(run, torch.arange(start, min(start + together, ids.numel())), slots))
        return Execution(memory.faults, tuple(loop.numpy() for loop in trips))


@lru_cache(maxsize=256)
def load(ttir: str) -> Kernel:
    """Return the kernel of a module's public function.

    Raises ``IRError`` for text that is not Triton IR, ``UnsupportedOperation`` for what the executor does not do.
    """
    return Kernel(parse(ttir, KNOWN))


def _temporary_bytes(function: Function) -> int:
    """Bytes that one program takes at most: all its values at full size, and as much again within operations."""

    def size(kind: Type) -> int:
        return kind.elements * (max(BITS[kind.element] // 8, 1))

    made: list[Op] = list(walk(function.body))
    return 2 * sum(size(function.types[slot]) for op in made for slot in op.results) + 4096


def _bind(function: Function, memory: Memory, args: Sequence[Argument]) -> list[Value]:
    if len(args) != len(function.params):
        raise IRError(f"kernel {function.name} takes {len(function.params)} arguments, not {len(args)}")
    kinds = [function.types[slot] for slot in function.params]
    return [
        _argument(kind, argument, memory, f"argument {i} of kernel {function.name}")
        for i, (kind, argument) in enumerate(zip(kinds, args, strict=True))
    ]


def _argument(kind: Type, argument: Argument, memory: Memory, where: str) -> Value:
    if isinstance(argument, Scalar) and not kind.shape and kind.element in DTYPES and kind.element != "ptr":
        return _scalar(kind, argument.value, where)
    if isinstance(argument, Pointer) and kind.element == "ptr":
        _check_buffer(argument.buffer, memory, where)
        return torch.tensor([memory.address(argument.buffer, argument.byte_offset)])
    if isinstance(argument, Descriptor) and kind.element == "descriptor" and kind.target is not None:
        _check_buffer(argument.buffer, memory, where)
        if argument.block_shape != kind.target.shape or not len(argument.shape) == len(argument.strides) == len(
            argument.block_shape
        ):
            raise IRError(f"{where} describes blocks {argument.block_shape}, the IR takes {kind.target.shape}")
        return DescriptorValue(
            torch.tensor([memory.address(argument.buffer, argument.byte_offset)]),
            tuple(torch.tensor([extent]) for extent in argument.shape),
            tuple(torch.tensor([stride]) for stride in argument.strides),
            argument.block_shape,
            argument.padding == "nan",
        )
    raise IRError(f"{where} has type {kind} and is given a {type(argument).__name__.lower()}")


def _check_buffer(buffer: int, memory: Memory, where: str) -> None:
    if not 0 <= buffer < memory.buffers:
        raise IRError(f"{where} names buffer {buffer} of {memory.buffers}")


def _scalar(kind: Type, value: int | float | bool, where: str) -> torch.Tensor:
    dtype = DTYPES[kind.element]
    if kind.floating:
        return torch.tensor([float(value)], dtype=torch.float64).to(dtype)
    if isinstance(value, float):
        raise IRError(f"{where} has type {kind} and is given {value}")
    if kind.element == "i1":
        return torch.tensor([bool(value)])
    bits = BITS[kind.element]
    if not -(2 ** (bits - 1)) <= value < 2**bits:
        raise IRError(f"{where} has type {kind}, which cannot hold {value}")
    return torch.tensor([(int(value) + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1)], dtype=dtype)
