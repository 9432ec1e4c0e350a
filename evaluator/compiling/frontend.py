"""Triton's front end without its back end: a jit function to its first IR, and Python arguments to its parameters.

Triton's own launch path specialises arguments; what comes after is the same for all who do not launch on a GPU.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from triton._C.libtriton import ir
from triton.backends.compiler import Language

from avo.evaluator.compiling.allocating import with_places
from avo.evaluator.compiling.compiler import COMPILE_OPTIONS, OFFLINE_OPTIONS
from avo.evaluator.plan import Argument, Descriptor, KernelIR, Level, Pixels, Pointer, Scalar


class UnfitArgument(Exception):
    """An argument has no counterpart in the IR; ``str()`` names it, such as ``a list as a pointer``."""


@dataclass(frozen=True)
class Lowered:
    """A jit function as IR, for one signature."""

    kernel: KernelIR
    signature: tuple[Any, ...]
    """Triton's type of each Python argument; tuples nest."""
    types: tuple[str, ...]
    """Type of each parameter of the IR function."""
    source: str
    """The IR before the passes of its stage, which Triton calls the source; "" unless it was to be kept."""

    def arguments(self, values: Sequence[Any], pointer: Callable[[Any], Pointer]) -> Iterator[tuple[Argument, ...]]:
        """Yield per Python argument what it becomes: one argument for each parameter of the IR that it covers.

        ``pointer`` maps a tensor, or what was passed as one. Raises ``UnfitArgument``.
        """
        types = iter(self.types)
        for kind, value in zip(self.signature, values, strict=True):
            yield tuple(_arguments(kind, value, types, pointer))
        if (left := next(types, None)) is not None:
            raise UnfitArgument(f"nothing for a parameter of type {left}")


def lower(src: Any, backend: Any, options: Any, *, keep_source: bool = False, places: bool = False) -> Lowered:
    """Return the IR of a ``triton.compiler.ASTSource`` after the passes of that stage, the first half of
    ``triton.compile``: Triton IR, for a Gluon function Triton GPU IR. ``options`` are as ``backend.parse_options``
    returns them; ``places`` as in ``with_places``. Raises what the front end raises.
    """
    context = ir.context()
    ir.load_dialects(context)
    backend.load_dialects(context)
    stages: dict[str, Any] = {}
    backend.add_stages(stages, options, src.language)
    codegen = backend.get_codegen_implementation(options)
    module = src.make_ir(backend.target, options, codegen, backend.get_module_map(), context)
    source = str(module) if keep_source else ""  # the passes change the module
    level = Level.TTGIR if src.language == Language.GLUON else Level.TTIR
    module = stages[level](module, {})
    symbol = module.get_entry_func_name()
    every = options.__dict__.items()
    chosen = sorted(
        (key, value) for key, value in every if key in COMPILE_OPTIONS or (value and key in OFFLINE_OPTIONS)
    )
    types = tuple(module.get_function_signature(module.get_function(symbol)))
    text = with_places(module, backend, options) if places and level is Level.TTGIR else str(module)
    kernel = KernelIR(symbol, text, tuple(chosen), level)
    return Lowered(kernel, tuple(src.signature.values()), types, source)


def _arguments(kind: Any, value: Any, types: Iterator[str], pointer: Callable[[Any], Pointer]) -> Iterator[Argument]:
    if kind == "constexpr":
        return
    if isinstance(kind, tuple):
        for inner_kind, inner in zip(kind, value, strict=True):
            yield from _arguments(inner_kind, inner, types, pointer)
    elif kind.startswith("tensordesc"):
        yield from _descriptor(value, types, pointer(value.base))
    elif kind.startswith("*"):
        next(types)
        yield pointer(value)
    elif isinstance(value, bool | int | float):
        next(types)
        yield Scalar(value)
    else:
        raise UnfitArgument(f"a {type(value).__name__}")


def _pixels(value: Any) -> Pixels | None:
    """Return how a host-made descriptor walks over an image, None if it describes tiles."""
    if getattr(value, "mode", "tiled") != "im2col":
        return None
    lower, upper = tuple(value.pixel_box_lower_corner), tuple(value.pixel_box_upper_corner)
    steps = value.element_strides[1:-1] if value.element_strides else (1,) * len(lower)
    return Pixels(lower, upper, tuple(steps))


def _descriptor(value: Any, types: Iterator[str], pointer: Pointer) -> Iterator[Argument]:
    """Yield the parameters of a host-made descriptor: itself, or its parts where the target has no TMA, then shape
    and strides; ``decompose_descriptor`` in triton/backends/driver.py.
    """
    shape, strides = tuple(map(int, value.shape)), tuple(map(int, value.strides))
    extents = [Scalar(number) for number in (*shape, *strides)]
    if "tensordesc" in next(types):
        block = tuple(map(int, value.block_shape))
        rounds = bool(getattr(value, "round_f32_to_tf32", False))  # since 3.7
        place = pointer.buffer, pointer.byte_offset
        yield Descriptor(*place, shape, strides, block, value.padding, _pixels(value), rounds)
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
