"""Kernel launches, written down instead of run: Triton lowers as usual, and stops at its first IR.

Triton's own launch path specialises arguments and calls the compiler and the compiled kernel; both are ours here, so
that argument handling is Triton's in every version.
"""

import operator
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import triton
import triton.compiler
from triton._C.libtriton import ir
from triton.backends.compiler import Language
from triton.compiler import make_backend
from triton.compiler.errors import CompilationError
from triton.runtime.autotuner import Autotuner

from evaluator.capture.recorder import RefusedError, candidate_line
from evaluator.capture.tensors import Operators
from evaluator.compiler import COMPILE_OPTIONS
from evaluator.evaluation import Status
from evaluator.plan import Argument, Descriptor, KernelIR, Scalar

_FRONT_END_OPTIONS = {"debug", "sanitize_overflow", "default_dot_input_precision"}
"""Launch options that have done their work once there is IR."""


def install(operators: Operators, source: str) -> None:
    """Make every later kernel launch in this process one for ``operators.recorder``. Autotuners take their first
    configuration (after their own pruning): nothing can be timed here.
    """

    def lower(src: Any, target: Any = None, options: Mapping[str, Any] | None = None, **_: object) -> CapturedKernel:
        return _lower(src, target, options or {}, operators, source)

    # JITFunction.create_binder imports the name when a function is first launched.
    triton.compiler.compile = lower
    Autotuner._bench = lambda self, *args, config, **meta: [0.0, 0.0, 0.0]  # min() takes the first of equals


class CapturedKernel:
    """Stands where JITFunction expects a compiled kernel."""

    function = None
    packed_metadata = None

    def __init__(self, kernel: KernelIR, signature: Sequence[Any], types: Sequence[str], operators: Operators) -> None:
        self._kernel = kernel
        self._signature = signature
        self._types = types
        self._operators = operators

    def launch_metadata(self, grid: object, stream: object, *args: object) -> None:
        """Nothing listens to launches here."""

    def run(self, x: Any, y: Any, z: Any, stream: int, function: None, *rest: Any) -> None:
        """Write the launch down. ``rest`` is four things for a real launcher, then one value per parameter."""
        values = rest[4:]
        grid = (operator.index(x), operator.index(y), operator.index(z))
        types = iter(self._types)
        args = tuple(
            argument
            for kind, value in zip(self._signature, values, strict=True)
            for argument in self._arguments(kind, value, types)
        )
        if (left := next(types, None)) is not None:
            raise RefusedError(
                Status.UNSUPPORTED, f"kernel {self._kernel.name} has a parameter of type {left} without an argument"
            )
        self._operators.recorder.launch(self._kernel, grid, args)

    def _arguments(self, kind: Any, value: Any, types: Iterator[str]) -> Iterator[Argument]:
        """Yield what one Python argument becomes: one argument for each parameter of the IR that it covers."""
        if kind == "constexpr":
            return
        if isinstance(kind, tuple):
            for inner_kind, inner in zip(kind, value, strict=True):
                yield from self._arguments(inner_kind, inner, types)
        elif kind.startswith("tensordesc"):
            yield from self._descriptor(value, types)
        elif kind.startswith("*"):
            next(types)
            tensor = getattr(value, "base", value)  # triton.reinterpret wraps a tensor
            if not isinstance(tensor, torch.Tensor):
                kind = type(value).__name__
                raise RefusedError(Status.UNSUPPORTED, f"passes a {kind} as a pointer{candidate_line()}")
            yield self._operators.recorder.pointer(tensor)
        elif isinstance(value, bool | int | float):
            next(types)
            yield Scalar(value)
        else:
            raise RefusedError(Status.UNSUPPORTED, f"passes a {type(value).__name__} to a kernel{candidate_line()}")

    def _descriptor(self, value: Any, types: Iterator[str]) -> Iterator[Argument]:
        """Yield the parameters of a host-made descriptor: itself, or its parts where the target has no TMA, then shape
        and strides; ``decompose_descriptor`` in triton/backends/driver.py.
        """
        pointer = self._operators.recorder.pointer(value.base)
        shape, strides = tuple(map(int, value.shape)), tuple(map(int, value.strides))
        extents = [Scalar(number) for number in (*shape, *strides)]
        if "tensordesc" in next(types):
            block = tuple(map(int, value.block_shape))
            yield Descriptor(pointer.buffer, pointer.byte_offset, shape, strides, block, value.padding)
        else:
            yield pointer
            for extent in extents:
                next(types)
                yield extent
            next(types)
            yield Scalar(value.padding == "nan")
            if next(types) == "i1":  # newer versions also pass whether to round to tf32
                yield Scalar(bool(value.round_f32_to_tf32))
                next(types)
            yield extents[0]
            extents = extents[1:]
        for extent in extents:
            next(types)
            yield extent


def _lower(src: Any, target: Any, options: Mapping[str, Any], operators: Operators, source: str) -> CapturedKernel:
    """The first half of ``triton.compile``: the AST to Triton IR, and the passes of that stage."""
    name = src.fn.__name__
    if src.language != Language.TRITON:
        raise RefusedError(
            Status.UNSUPPORTED, f"kernel {name} is written in Gluon, which starts below Triton IR: write it in Triton"
        )
    backend = make_backend(target)
    parsed = backend.parse_options(dict(options))
    default = backend.parse_options({})
    for option, value in parsed.__dict__.items():
        known = option in COMPILE_OPTIONS or option in _FRONT_END_OPTIONS
        if not known and value != getattr(default, option, None):
            raise RefusedError(
                Status.FORBIDDEN,
                f"kernel {name} is launched with the option {option}{candidate_line()}; "
                f"allowed are {', '.join(sorted(COMPILE_OPTIONS))}",
            )
    context = ir.context()
    ir.load_dialects(context)
    backend.load_dialects(context)
    stages: dict[str, Any] = {}
    backend.add_stages(stages, parsed, src.language)
    try:
        codegen = backend.get_codegen_implementation(parsed)
        module = src.make_ir(target, parsed, codegen, backend.get_module_map(), context)
        module = stages["ttir"](module, {})
    except CompilationError as error:
        raise RefusedError(Status.LOWERING_ERROR, f"kernel {name}: {_explain(error, source)}") from None
    except Exception as error:  # whatever the front end trips over is the kernel's fault, and said so
        raise RefusedError(Status.LOWERING_ERROR, f"kernel {name}: {type(error).__name__}: {error}") from None
    symbol = module.get_entry_func_name()
    types = module.get_function_signature(module.get_function(symbol))
    chosen = tuple(sorted((key, value) for key, value in parsed.__dict__.items() if key in COMPILE_OPTIONS))
    signature = tuple(src.signature.values())
    return CapturedKernel(KernelIR(symbol, str(module), chosen), signature, types, operators)


def _explain(error: CompilationError, source: str) -> str:
    """One line: the innermost source line that does not lower, and why."""
    while isinstance(error.__cause__, CompilationError):
        error = error.__cause__
    reason = str(error.error_message or error.__cause__ or "cannot be lowered").strip()
    lines = (error.src or "").splitlines()
    number = getattr(error.node, "lineno", 0)
    if not 0 < number <= len(lines):
        return reason
    start = source.find(error.src.strip())
    where = f"line {source[:start].count(chr(10)) + number}" if start >= 0 else f"line {number} of the function"
    return f"{where}: `{lines[number - 1].strip()}`: {reason}"
