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
from evaluator.executor.marking import Marks
from evaluator.executor.memory import Allocation, Memory
from evaluator.executor.parser import parse
from evaluator.executor.slicing import (
    READS,
    WRITES,
    changes_memory,
    programs_interact,
    store_slice,
    touched,
    trip_slice,
)
from evaluator.executor.values import DTYPES, DescriptorValue, Value
from evaluator.executor.work import count
from evaluator.plan import Argument, Descriptor, Pointer, Scalar

DEFAULT_TEMPORARIES = 2**30
"""Bytes that the values of the programs which run together may take."""

BUFFER_ALIGNMENT = 16
"""Bytes; what every allocator for the GPU promises at least."""

Trips = tuple[npt.NDArray[np.int64], ...]


@dataclass(frozen=True)
class Execution:
    """What running a kernel showed."""

    faults: tuple[MemoryFault, ...]
    """At most ``faults.MAX_FAULTS``, one per place, kind and buffer."""
    trips: Trips
    """Per loop, [programs that ran]: body executions in all."""


class _Code:
    """A kernel, or what is left of it for the purpose at hand, made executable."""

    def __init__(self, function: Function) -> None:
        self.function = function
        self.step: Step = build(function)
        self.bytes_per_program = _temporary_bytes(function)


class Kernel:
    """An executable kernel. Build it with ``load``."""

    def __init__(self, function: Function) -> None:
        self.name = function.name
        self.loops, self.outside = count(function)
        self.programs_interact = programs_interact(function)
        """Whether programs run alone may do other work than they do among all."""
        self._function = function
        self._whole = _Code(function)
        self._trips = _Code(trip_slice(function)) if self.loops else None
        self._stores: dict[frozenset[int], _Code | None] = {}

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
        return self._execute(self._whole, Memory(memory), args, grid, ids, temporaries_bytes, deadline)

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
        if self._trips is None:
            return ()
        space = Memory(memory)
        if changes_memory(self._trips.function):
            space = space.copy()
        ids = torch.arange(math.prod(grid))
        return self._execute(self._trips, space, args, grid, ids, DEFAULT_TEMPORARIES, deadline).trips

    def mark(
        self,
        memory: Sequence[Allocation],
        args: Sequence[Argument],
        grid: tuple[int, int, int],
        *,
        temporaries_bytes: int = DEFAULT_TEMPORARIES,
        deadline: float | None = None,
    ) -> Execution:
        """Set ``written`` where all programs of the grid would store, as far as buffers have it, and count trips.

        Contents stay as they are: only addresses, masks, bounds and conditions are computed, and what those depend on.
        Where they depend on what the kernel itself stores, it runs whole, on a copy. Raises like ``run``.
        """
        stores = self._stores_to_marked(memory, args)
        if stores is None or self.programs_interact:
            # Tickets are drawn even where stores only mark.
            memory = [a if a.readonly else Allocation(a.name, a.data.clone(), a.written) for a in memory]
        space, code = (Memory(memory), self._whole) if stores is None else (Marks(memory), stores)
        return self._execute(code, space, args, grid, torch.arange(math.prod(grid)), temporaries_bytes, deadline)

    def needs(self, memory: Sequence[Allocation], args: Sequence[Argument]) -> frozenset[int]:
        """Return the buffers whose contents decide what ``mark`` finds."""
        code = self._stores_to_marked(memory, args) or self._whole
        return self._buffers(touched(code.function, READS), args)

    def changes(self, args: Sequence[Argument]) -> frozenset[int]:
        """Return the buffers that the kernel may write to."""
        return self._buffers(touched(self._function, WRITES), args)

    def _stores_to_marked(self, memory: Sequence[Allocation], args: Sequence[Argument]) -> _Code | None:
        params = frozenset(
            slot
            for slot, argument in zip(self._function.params, args, strict=False)
            if not isinstance(argument, Scalar)
            and not (0 <= argument.buffer < len(memory) and memory[argument.buffer].written is None)
        )
        if params not in self._stores:
            function = store_slice(self._function, params)
            self._stores[params] = None if function is None else _Code(function)
        return self._stores[params]

    def _buffers(self, params: frozenset[int | None], args: Sequence[Argument]) -> frozenset[int]:
        """Return the buffers behind parameters; all that the launch is given if one is unclear."""
        return frozenset(
            argument.buffer
            for slot, argument in zip(self._function.params, args, strict=False)
            if not isinstance(argument, Scalar) and (slot in params or None in params)
        )

    def _execute(
        self,
        code: _Code,
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
        together = max(1, temporaries_bytes // code.bytes_per_program)
        for start in range(0, ids.numel(), together):
            run.check_time()
            slots: list[Value | None] = [None] * len(code.function.types)
            for slot, value in zip(self._function.params, values, strict=True):
                slots[slot] = value
            code.step(Frame(run, torch.arange(start, min(start + together, ids.numel())), slots))
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
    for i, (divisor, argument) in enumerate(zip(function.divisors, args, strict=True)):
        _check_divisor(divisor, argument, f"argument {i} of kernel {function.name}")
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


def _check_divisor(divisor: int, argument: Argument, where: str) -> None:
    """Raise ``IRError`` if an argument is not what the IR lets the compiler count on."""
    if divisor == 1:
        return
    if isinstance(argument, Scalar) and not isinstance(argument.value, float):
        if argument.value % divisor:
            raise IRError(f"{where} is declared divisible by {divisor} but is {argument.value}")
    elif isinstance(argument, Pointer):
        if BUFFER_ALIGNMENT % divisor or argument.byte_offset % divisor:
            raise IRError(
                f"{where} is declared divisible by {divisor} but points {argument.byte_offset} bytes into a buffer "
                f"aligned to {BUFFER_ALIGNMENT}"
            )
    else:
        raise IRError(f"{where} is declared divisible by {divisor} and is a {type(argument).__name__.lower()}")


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
