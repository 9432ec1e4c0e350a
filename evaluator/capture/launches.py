"""Kernel launches, written down instead of run: Triton lowers as usual, and stops at the first IR that is complete.

Triton's own launch path specialises arguments and calls the compiler and the compiled kernel; both are ours here, so
that argument handling is Triton's in every version.
"""

import operator
from collections.abc import Mapping
from itertools import chain
from typing import Any

import torch
import triton
import triton.compiler
from triton.compiler import make_backend
from triton.compiler.errors import CompilationError, CompileTimeAssertionFailure
from triton.runtime import _allocation

from avo.evaluator.capture.recorder import Recorder, RefusedError, candidate_line
from avo.evaluator.capture.tensors import Operators
from avo.evaluator.compiling.compiler import COMPILE_OPTIONS
from avo.evaluator.compiling.frontend import Lowered, UnfitArgument, lower
from avo.evaluator.evaluation import Status
from avo.evaluator.plan import Descriptor, Pointer

_FRONT_END_OPTIONS = {"debug", "sanitize_overflow", "default_dot_input_precision"}
"""Launch options that matter only until there is IR."""
_ASKED_BYTES, _ALIGNMENT = 65536, 128
"""What a candidate's allocator is asked for: that it gives so much says that it heeds the size."""


def install(operators: Operators, source: str) -> None:
    """Have ``operators.recorder`` record every later kernel launch in this process."""

    def lower(src: Any, target: Any = None, options: Mapping[str, Any] | None = None, **_: object) -> CapturedKernel:
        return _lower(src, target, options or {}, operators, source)

    # JITFunction.create_binder imports the name when a function is first launched.
    triton.compiler.compile = lower


class CapturedKernel:
    """Stands where JITFunction expects a compiled kernel."""

    function = None
    packed_metadata = None

    def __init__(self, lowered: Lowered, operators: Operators) -> None:
        self._lowered = lowered
        self._operators = operators

    def launch_metadata(self, grid: object, stream: object, *args: object) -> None:
        """Return nothing: no hook listens to launches here."""

    def run(self, x: Any, y: Any, z: Any, stream: int, function: None, *rest: Any) -> None:
        """Write the launch down. ``rest`` is four things for a real launcher, then one value per parameter."""
        grid = (operator.index(x), operator.index(y), operator.index(z))
        try:
            args = tuple(chain.from_iterable(self._lowered.arguments(rest[4:], self._pointer)))
            if any(isinstance(arg, Descriptor) and arg.pixels for arg in args):
                raise UnfitArgument("a descriptor in im2col mode")
        except UnfitArgument as unfit:
            raise RefusedError(Status.UNSUPPORTED, f"passes {unfit} to a kernel{candidate_line()}") from None
        if "tt.make_tensor_descriptor" in self._lowered.kernel.ttir:
            _check_allocator(self._operators)
        self._operators.recorder.launch(self._lowered.kernel, grid, args)

    def _pointer(self, value: Any) -> Pointer:
        tensor = getattr(value, "base", value)  # triton.reinterpret wraps a tensor
        if not isinstance(tensor, torch.Tensor):
            raise UnfitArgument(f"a {type(value).__name__} as a pointer")
        return self._operators.recorder.pointer(tensor)


def _check_allocator(operators: Operators) -> None:
    """Raise ``RefusedError`` unless the allocator that the candidate has set, if any, allocates what it is asked for.

    Without one, whoever launches the plan or an exported kernel sets one.
    """
    allocator = _allocation._allocator.get()
    if isinstance(allocator, _allocation.NullAllocator):
        return
    recorder, operators.recorder = operators.recorder, Recorder()
    try:
        given = allocator(_ASKED_BYTES, _ALIGNMENT, None)
        enough = isinstance(given, torch.Tensor) and operators.recorder.allocated(given) >= _ASKED_BYTES
    finally:
        operators.recorder = recorder
    if not enough:
        raise RefusedError(
            Status.FORBIDDEN,
            f"sets an allocator that does not allocate as many bytes as it is asked for{candidate_line()}: "
            'let it return torch.empty(size, dtype=torch.int8, device="cuda"), or set none',
        )


def _lower(src: Any, target: Any, options: Mapping[str, Any], operators: Operators, source: str) -> CapturedKernel:
    name = src.fn.__name__
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
    try:
        return CapturedKernel(lower(src, backend, parsed), operators)
    except CompilationError as error:
        cause = _innermost(error)
        unfit = isinstance(cause, CompileTimeAssertionFailure)
        raise RefusedError(Status.LOWERING_ERROR, f"kernel {name}: {_explain(cause, source)}", unfit=unfit) from None
    except MemoryError:
        raise
    except Exception as error:  # whatever the front end trips over is the kernel's fault, and said so
        raise RefusedError(Status.LOWERING_ERROR, f"kernel {name}: {type(error).__name__}: {error}") from None


def _innermost(error: CompilationError) -> CompilationError:
    """Return the error in the function that does not lower, not in one that calls it."""
    while isinstance(error.__cause__, CompilationError):
        error = error.__cause__
    return error


def _explain(error: CompilationError, source: str) -> str:
    """One line: the source line that does not lower, and why."""
    reason = str(error.error_message or error.__cause__ or "").strip()
    lines = (error.src or "").splitlines()
    number = getattr(error.node, "lineno", 0)
    if not 0 < number <= len(lines):
        return reason or str(error).strip()  # of a name that it does not take, Triton says so in place of the source
    reason = reason or "cannot be lowered"
    start = source.find(error.src.strip())
    where = f"line {source[:start].count(chr(10)) + number}" if start >= 0 else f"line {number} of the function"
    return f"{where}: `{lines[number - 1].strip()}`: {reason}"
