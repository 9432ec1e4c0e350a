"""Kinds of launch plans: what stays the same as lengths change, unless a candidate's host code branches on them."""

import hashlib
import re

from avo.evaluator.locations import without_locations
from avo.evaluator.plan import Argument, Descriptor, Fill, KernelIR, Launch, LaunchPlan, Pointer
from avo.evaluator.problem import Call

_DIVISIBILITY = re.compile(r" ?\{tt\.divisibility = \d+ : i32\}")
_BLOCK = re.compile(r"tensor<[^>]*>+")
_SMALL = 64
"""The largest integer that counts by its value, such as the number of splits that host code chooses."""
_TILES = tuple(16 << i for i in range(6))
"""Numbers of rows that a tile may have."""


def kind(plan: LaunchPlan, call: Call, *, arguments: bool = True) -> str:
    """Return a digest of the kernels of ``plan``, their options, their order, and, with ``arguments``, what these are.

    Integers that are extents or strides of ``call``, or numbers of tiles along an extent, are all the same, and so are
    other large ones. Grids do not count, nor does what Triton knows to divide an argument.
    """
    extents = {number for spec in call.tensors for number in spec.shape}
    known = {number for spec in call.tensors for number in spec.strides}
    known |= {-(-extent // tile) for extent in extents for tile in (1, *_TILES)}

    def named(value: float) -> object:
        if type(value) is int and (value in known or abs(value) > _SMALL):
            return value in known
        return value

    def argument(given: Argument) -> object:
        if isinstance(given, Pointer):
            return given.buffer, named(given.byte_offset)
        if isinstance(given, Descriptor):
            extents = [*map(named, given.shape), *map(named, given.strides)]
            return given.buffer, extents, given.block_shape, given.padding + "tf32" * given.rounds_tf32
        return named(given.value)

    def step(one: Fill | Launch) -> object:
        if isinstance(one, Launch):
            return one.kernel, [argument(given) for given in one.args if arguments]
        return one.buffer, one.value

    kernels = [(_DIVISIBILITY.sub("", without_locations(kernel.ttir)), kernel.options) for kernel in plan.kernels]
    return hashlib.sha256(repr((kernels, [step(one) for one in plan.steps])).encode()).hexdigest()


def build(kernel: KernelIR) -> tuple[object, ...]:
    """Return what decides most of whether a kernel fits a target: its options, and the types of its blocks."""
    return kernel.options, frozenset(_BLOCK.findall(kernel.ttir))
