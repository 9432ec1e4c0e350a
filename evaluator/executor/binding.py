"""Turns the arguments of a launch into values of a kernel's parameters, and checks what the IR declares of them."""

from collections.abc import Sequence

import torch

from avo.evaluator.executor.dtypes import DTYPES
from avo.evaluator.executor.errors import IRError
from avo.evaluator.executor.faults import LAUNCH
from avo.evaluator.executor.ir import BITS, IM2COL, Function, Type
from avo.evaluator.executor.memory import Memory
from avo.evaluator.executor.values import DescriptorValue, Value
from avo.evaluator.plan import Argument, Descriptor, Pointer, Scalar

BUFFER_ALIGNMENT = 16
"""Alignment in bytes that every GPU allocator guarantees at least."""


def bind(function: Function, memory: Memory, args: Sequence[Argument], *, sanitize: bool = False) -> list[Value]:
    """Return the values of a kernel's parameters, in order.

    With ``sanitize``, an argument that is less divisible than declared is a fault. Raises ``IRError`` for arguments
    that do not fit the parameters.
    """
    if len(args) != len(function.params):
        raise IRError(f"kernel {function.name} takes {len(function.params)} arguments, not {len(args)}")
    kinds = [function.types[slot] for slot in function.params]
    for i, (divisor, argument) in enumerate(zip(function.divisors, args, strict=True)):
        wrong = _indivisible(divisor, argument, f"argument {i} of kernel {function.name}")
        if wrong and not sanitize:
            raise IRError(wrong)
        if wrong:
            memory.state_misaligned(wrong, None if isinstance(argument, Scalar) else argument.buffer)
    values = [
        _argument(kind, argument, memory, f"argument {i} of kernel {function.name}")
        for i, (kind, argument) in enumerate(zip(kinds, args, strict=True))
    ]
    for kind, value in zip(kinds, values, strict=True):
        if isinstance(value, DescriptorValue) and kind.target is not None:
            memory.observe_descriptor(value, kind.target.item_bytes, LAUNCH)
    return values


def _argument(kind: Type, argument: Argument, memory: Memory, where: str) -> Value:
    if isinstance(argument, Scalar) and not kind.shape and kind.element in DTYPES and kind.element != "ptr":
        return _scalar(kind, argument.value, where)
    if isinstance(argument, Pointer) and kind.element == "ptr":
        _check_buffer(argument.buffer, memory, where)
        return torch.tensor([memory.address(argument.buffer, argument.byte_offset)])
    if isinstance(argument, Descriptor) and kind.element == "descriptor" and kind.target is not None:
        _check_buffer(argument.buffer, memory, where)
        pixels = argument.pixels
        rank = len(argument.block_shape) if pixels is None else len(pixels.lower) + 2
        fits = len(argument.shape) == len(argument.strides) == rank and (pixels is None) == (kind.layout != IM2COL)
        if argument.block_shape != kind.target.shape or not fits:
            raise IRError(f"{where} describes blocks {argument.block_shape}, the IR takes {kind.target.shape}")
        return DescriptorValue(
            torch.tensor([memory.address(argument.buffer, argument.byte_offset)]),
            tuple(torch.tensor([extent]) for extent in argument.shape),
            tuple(torch.tensor([stride]) for stride in argument.strides),
            argument.block_shape,
            argument.padding == "nan",
            pixels,
            argument.rounds_tf32,
        )
    raise IRError(f"{where} has type {kind} and is given a {type(argument).__name__.lower()}")


def _indivisible(divisor: int, argument: Argument, where: str) -> str | None:
    """Return how an argument breaks what the IR promises the compiler; raise ``IRError`` if it does not fit at all."""
    declared = f"{where} is declared divisible by {divisor}"
    if divisor == 1:
        return None
    if isinstance(argument, Scalar) and not isinstance(argument.value, float):
        return f"{declared} but is {argument.value}" if argument.value % divisor else None
    if isinstance(argument, Pointer):
        if BUFFER_ALIGNMENT % divisor or argument.byte_offset % divisor:
            return f"{declared} but points {argument.byte_offset} bytes into a buffer aligned to {BUFFER_ALIGNMENT}"
        return None
    raise IRError(f"{declared} and is a {type(argument).__name__.lower()}")


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


def aliases(args: Sequence[Argument]) -> tuple[int, ...]:
    """Return, for each argument, the place of the first argument in the same buffer; a scalar has its own place.

    Empty where all buffers differ.
    """
    first: dict[int, int] = {}
    found = tuple(i if isinstance(a, Scalar) else first.setdefault(a.buffer, i) for i, a in enumerate(args))
    return () if found == tuple(range(len(args))) else found
