"""The registry of operations: elementwise functions of tensors, and steps on a frame for everything else.

An operation can be registered only if it has a row in ``effects``. All of its keywords and attributes are checked: one
that the executor neither implements nor knows to be a hint makes the operation unsupported.
"""

import re
from collections.abc import Callable, Iterable
from typing import TypeAlias, TypeVar

import torch

from avo.evaluator.executor.effects import effects
from avo.evaluator.executor.errors import UnsupportedOperation
from avo.evaluator.executor.frame import Frame, Step
from avo.evaluator.executor.ir import COMBINING, Op, Region, Type

Types: TypeAlias = tuple[Type, ...]
"""Types of all slots of a kernel."""

Elementwise: TypeAlias = Callable[..., torch.Tensor]
ElementwiseBuilder: TypeAlias = Callable[[Op, Types], Elementwise]
StepBuilder: TypeAlias = Callable[[Op, Types], Step]
RegionBuilder: TypeAlias = Callable[[Region], Step]
"""Turns the operations of a region, without its terminator, into one step."""
RegionStepBuilder: TypeAlias = Callable[[Op, Types, RegionBuilder], Step]
_Builder = TypeVar("_Builder")

ELEMENTWISE: dict[str, ElementwiseBuilder] = {}
STEPS: dict[str, StepBuilder] = {}
REGION_STEPS: dict[str, RegionStepBuilder] = {}

COMPARE: dict[str, Elementwise] = {
    "eq": torch.eq,
    "ne": torch.ne,
    "lt": torch.lt,
    "le": torch.le,
    "gt": torch.gt,
    "ge": torch.ge,
}
"""Comparisons by the predicate's last two letters."""

VALUE_HINTS = ("tt.divisibility", "tt.contiguity", "tt.constancy")
"""Attributes that promise something about the values of results; ``hints`` checks them."""

_HINT_WORDS = ("allow_reorder", "efficient_layout")
_HINT_ATTRIBUTES = frozenset(
    (
        *VALUE_HINTS,
        "allocation.offset",
        "allocation.size",
        "tt.num_stages",
        "tt.loop_unroll_factor",
        "tt.disallow_acc_multi_buffer",
        "tt.flatten",
        "tt.warp_specialize",
        "tt.self_latency",
        "ttg.warp_specialize.tag",
        "ttg.partition",
        "ttg.ws_generated_barrier",
        "async_task_id",
        "llvm.loop_annotation",
        "cachePolicy",
        "cacheModifier",
        "evictionPolicy",
        "cache",
        "evict",
        "isVolatile",
        "allow_reorder",
        "efficient_layout",
        "registers",  # the layout of a block that is read from or written to on-chip memory, see ``peers_used``
        "multicast",  # to other CTAs of a cluster: how copies and products of clusters are meant, not what they compute
    )
)
"""Attributes that only affect speed. ``nsw`` and ``fastmath`` are promises instead, and no front end emits them."""
_HINT_OF_BLOCK_ARGUMENT = re.compile(r"tt\.(?:divisibility|contiguity|constancy)_arg\d+")
"""Attributes that ``tl.multiple_of`` of a carried value leaves on loops; the compiler never reads them."""


def _register(table: dict[str, _Builder], names: Iterable[str], builder: _Builder) -> None:
    for name in names:
        effects(name)  # raises where the operation has no row
        table[name] = builder


def elementwise(*names: str) -> Callable[[ElementwiseBuilder], ElementwiseBuilder]:
    """Register the builder of a function that maps operand tensors to the result tensor, element by element."""

    def register(builder: ElementwiseBuilder) -> ElementwiseBuilder:
        _register(ELEMENTWISE, names, builder)
        return builder

    return register


def step(*names: str) -> Callable[[StepBuilder], StepBuilder]:
    """Register the builder of a step."""

    def register(builder: StepBuilder) -> StepBuilder:
        _register(STEPS, names, builder)
        return builder

    return register


def region_step(*names: str) -> Callable[[RegionStepBuilder], RegionStepBuilder]:
    """Register the builder of a step that runs a region: a function of single elements."""
    if not set(names) <= set(COMBINING):
        raise LookupError(f"{', '.join(names)} must be listed in COMBINING, evaluator/executor/ir.py")

    def register(builder: RegionStepBuilder) -> RegionStepBuilder:
        _register(REGION_STEPS, names, builder)
        return builder

    return register


def check_variant(op: Op, words: Iterable[str] = (), attributes: Iterable[str] = ()) -> None:
    """Raise ``UnsupportedOperation`` if an operation has other keywords or attributes than those given and hints."""
    allowed_words, allowed_attributes = set(words), set(attributes)
    for word in op.words:
        if word not in allowed_words and word not in _HINT_WORDS:
            raise UnsupportedOperation(f"{op.name} with {word[:60]}", op.location)
    for name, value in op.attributes.items():
        if name not in allowed_attributes | _HINT_ATTRIBUTES and not _HINT_OF_BLOCK_ARGUMENT.fullmatch(name):
            raise UnsupportedOperation(f"{op.name} with {name} = {value[:60]}", op.location)


def integer(op: Op, attribute: str) -> int:
    """Return the value of an attribute printed as ``1 : i32``; raise ``UnsupportedOperation`` if it is no integer."""
    try:
        return int(op.attributes[attribute].split(":")[0])
    except (KeyError, ValueError):
        raise UnsupportedOperation(f"{op.name} without a readable {attribute}", op.location) from None


def elementwise_step(op: Op, function: Elementwise) -> Step:
    """Return the step that applies a function of as many tensors as the operation has operands."""
    result = op.results[0]
    if len(op.operands) == 1:
        (a,) = op.operands

        def unary(frame: Frame) -> None:
            frame.slots[result] = function(frame.slots[a])

        return unary
    if len(op.operands) == 2:
        a, b = op.operands

        def binary(frame: Frame) -> None:
            slots = frame.slots
            slots[result] = function(slots[a], slots[b])

        return binary
    operands = op.operands

    def several(frame: Frame) -> None:
        slots = frame.slots
        slots[result] = function(*[slots[operand] for operand in operands])

    return several
