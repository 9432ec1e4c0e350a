"""Loops of hand-made SASS, whose clocks can be worked out; and kernels compiled anew, for their line tables."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, make_backend

from avo.evaluator import executor
from avo.evaluator.binary import Binary
from avo.evaluator.compiling.compiler import Compiler
from avo.evaluator.compiling.frontend import lower
from avo.evaluator.performance.constants import constants
from avo.evaluator.performance.kernel import Conditions
from avo.evaluator.performance.pipes import Costs
from avo.evaluator.performance.replay import Replay
from avo.evaluator.performance.sass import Code, Instruction
from avo.evaluator.performance.structure import Graph
from avo.evaluator.plan import Argument, Pointer, Scalar
from avo.evaluator.targets import get_target
from avo.evaluator.work import LaunchWork


def nominal(target: str = "h100") -> Conditions:
    """The constants of a target in the middle of their ranges, and no load that hits L1."""
    return Conditions(constants(get_target(target).arch))


def sass(
    opcode: str, operands: str = "", *, stall: int = 1, sets: int = 7, reads: int = 7, waits: Sequence[int] = ()
) -> Instruction:
    """One instruction, its guard before the opcode, with its control bits; its place is given by ``code``."""
    guard, _, name = opcode.rpartition(" ")
    mask = sum(1 << barrier for barrier in waits)
    return Instruction(0, 0, guard.removeprefix("@"), name, operands, stall, sets, reads, mask)


def nops(count: int) -> tuple[Instruction, ...]:
    return tuple(Instruction(0, 0, "", "NOP", "", 1, 7, 7, 0) for _ in range(count))


def code(*listing: Instruction) -> Code:
    """The instructions one after the other, with a label before the second."""
    placed = tuple(replace(i, index=place, address=16 * place) for place, i in enumerate(listing))
    return Code(placed, {".L1": 1}, 0)


def loop(*body: Instruction, warps: int = 4, resident: int = 1, target: str = "h100") -> Replay:
    """A kernel that does ``body`` over and over: its instructions have the indices 1, 2, ..."""
    made = code(sass("NOP"), *body, sass("@P0 BRA", "`(.L1)"), sass("EXIT"))
    costs = Costs(made.instructions, get_target(target))
    return Replay(made.instructions, Graph(made).structure(0), costs, warps, resident)


TYPES = {torch.bfloat16: "*bf16", torch.float16: "*fp16", torch.float32: "*fp32", torch.int32: "*i32"}


@cache
def _compiler() -> Compiler:
    return Compiler(None)


def launched(
    function: Any,
    values: Mapping[str, torch.Tensor | int | float],
    grid: tuple[int, int, int],
    *,
    target: str = "h100",
    warps: int = 4,
    stages: int = 3,
    **constants: object,
) -> LaunchWork:
    """Compile a jit function, as a launch with these arguments would, and count that launch's work."""
    names = function.arg_names
    buffers = [name for name in names if isinstance(values.get(name), torch.Tensor)]
    signature: dict[str, str] = {}
    divisible: dict[tuple[int], list[list[object]]] = {}
    args: list[Argument] = []
    for place, name in enumerate(names):
        value = values.get(name)
        if isinstance(value, torch.Tensor):
            signature[name] = TYPES[value.dtype]
            args.append(Pointer(buffers.index(name), 0))
        elif value is None:
            signature[name] = "constexpr"
            continue
        else:
            signature[name] = "i32" if isinstance(value, int) else "fp32"
            args.append(Scalar(value))
        if name in buffers or (isinstance(value, int) and value % 16 == 0):
            divisible[place,] = [["tt.divisibility", 16]]
    source = ASTSource(
        function, signature, {(names.index(name),): value for name, value in constants.items()}, divisible
    )
    backend = make_backend(GPUTarget("cuda", get_target(target).arch, 32))
    options = backend.parse_options({"num_warps": warps, "num_stages": stages, "enable_fp_fusion": True})
    made = lower(source, backend, options).kernel
    binary = _compiler().compile(made, get_target(target))
    assert isinstance(binary, Binary), binary
    memory = [executor.Allocation(name, values[name].flatten()) for name in buffers]
    return executor.load(made.ttir).count(executor.Launch(memory, args, grid)).of(binary, math.prod(grid))
