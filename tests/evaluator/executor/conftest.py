"""Lowers jit functions to Triton IR, as a launch would, and runs them in the executor."""

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from triton._C.libtriton import ir
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.compiler.compiler import make_backend

from avo.evaluator.executor import Allocation, Execution, Kernel, Launch, load
from avo.evaluator.modules import imported
from avo.evaluator.plan import Argument, Descriptor, Pointer, Scalar

NAMES = {
    torch.bool: "i1", torch.int8: "i8", torch.uint8: "u8", torch.int16: "i16", torch.int32: "i32", torch.int64: "i64",
    torch.uint16: "u16", torch.uint32: "u32", torch.uint64: "u64", torch.float16: "fp16", torch.bfloat16: "bf16",
    torch.float32: "fp32", torch.float64: "fp64", torch.float8_e4m3fn: "fp8e4nv", torch.float8_e5m2: "fp8e5",
}  # fmt: skip


@dataclass(frozen=True)
class Described:
    """An argument passed as a host-made tensor descriptor."""

    tensor: torch.Tensor
    block: tuple[int, ...]
    padding: str = "zero"


@dataclass(frozen=True, kw_only=True)
class Prepared(Launch):
    """A launch with its kernel."""

    ttir: str
    kernel: Kernel

    def run(self, *, programs: torch.Tensor | None = None, **options: Any) -> Execution:
        told = {name: options.pop(name) for name in ("script", "temporaries_bytes", "deadline") if name in options}
        return self.kernel.run(replace(self, **told), programs, **options)


def lower_to_ttir(function: Any, signature: dict[str, str], constexprs: dict[str, Any], *, debug: bool = False) -> str:
    target = GPUTarget("cuda", 90, 32)
    backend = make_backend(target)
    options = backend.parse_options({"enable_fp_fusion": True, "debug": debug})
    context = ir.context()
    ir.load_dialects(context)
    backend.load_dialects(context)
    source = ASTSource(function, signature | dict.fromkeys(constexprs, "constexpr"), constexprs)
    module = source.make_ir(
        target, options, backend.get_codegen_implementation(options), backend.get_module_map(), context
    )
    stages: dict[str, Callable[..., Any]] = {}
    backend.add_stages(stages, options, source.language)
    return str(stages["ttir"](module, {}))


def prepare(
    function: Any, *values: Any, grid: tuple[int, ...] = (1,), readonly: tuple[int, ...] = (), **constexprs: Any
) -> Prepared:
    names = [name for name in inspect.signature(function.fn).parameters if name not in constexprs]
    constant = {parameter.name: parameter.is_const for parameter in function.params}
    signature: dict[str, str] = {}
    memory: list[Allocation] = []
    args: list[Argument] = []
    for i, (name, value) in enumerate(zip(names, values, strict=True)):
        described = value if isinstance(value, Described) else None
        tensor = described.tensor if described else value
        if isinstance(tensor, torch.Tensor):
            flat = tensor.as_strided((tensor.untyped_storage().nbytes() // tensor.element_size(),), (1,), 0)
            memory.append(Allocation(name, flat, torch.zeros(flat.numel(), dtype=torch.bool), i in readonly))
        if described:
            block = ", ".join(map(str, described.block))
            signature[name] = f"tensordesc<{NAMES[tensor.dtype]}[{block}]>"
            shape, strides = tuple(tensor.shape), tuple(tensor.stride())
            args.append(Descriptor(len(memory) - 1, 0, shape, strides, described.block, described.padding))
            args.extend(Scalar(number) for number in (*shape, *strides))
        elif isinstance(value, torch.Tensor):
            signature[name] = ("*k" if constant[name] else "*") + NAMES[tensor.dtype]
            args.append(Pointer(len(memory) - 1, tensor.storage_offset() * tensor.element_size()))
        else:
            signature[name] = {bool: "i1", int: "i32", float: "fp32"}[type(value)]
            args.append(Scalar(value))
    ttir = lower_to_ttir(function, signature, constexprs)
    x, y, z = (*grid, 1, 1)[:3]
    return Prepared(memory=memory, args=args, grid=(x, y, z), ttir=ttir, kernel=load(ttir))


def execute(function: Any, *values: Any, grid: tuple[int, ...] = (1,), **constexprs: Any) -> Execution:
    launch = prepare(function, *values, grid=grid, **constexprs)
    execution = launch.run()
    assert execution.faults == ()
    assert all(len(trips) == math.prod(launch.grid) for trips in execution.trips)
    return execution


class Executor:
    """What tests use: ``run`` expects no faults, ``prepare`` leaves running to the test."""

    run = staticmethod(execute)
    prepare = staticmethod(prepare)
    described = Described
    lower = staticmethod(lower_to_ttir)


@pytest.fixture(scope="session")
def executor() -> Executor:
    return Executor()


@pytest.fixture(scope="session")
def attention_kernels() -> Any:
    """The module next to this file, which is also a script."""
    return imported(Path(__file__).with_name("attention_kernels.py"))
