"""Which elements of a block lie in which registers, by the block's layout.

Source: the linear layouts of Triton's encodings (include/triton/Dialect/TritonGPU/IR/TritonGPUAttrDefs.td and
lib/Dialect/TritonGPU/IR/LinearLayoutConversions.cpp). A layout says for each bit of a register's, lane's, warp's and
CTA's number how far that bit moves along the axes of the block.
"""

import json
import re
from collections.abc import Sequence
from functools import lru_cache
from math import prod

import numpy as np
import numpy.typing as npt

from avo.evaluator.executor.chip.cluster import SLICE, bases, lies
from avo.evaluator.executor.ir import Op

Elements = npt.NDArray[np.int64]
_MOST = 2**22
"""Most registers of all threads that are looked at; a block with more is not followed."""
_ROWS = 16
"""Rows of a product's instruction, for each warp, where it is followed."""
_LISTS = re.compile(r"(\w+) = (\[(?:[\d, ]|\[[\d, ]*\])*\])")
_NUMBERS = re.compile(r"(\w+) = (\d+)")
_OPERAND = re.compile(r"#ttg\.dot_op<\{opIdx = ([01]), parent = (#ttg\.nvidia_mma<.*>), kWidth = (\d+)\}>")


class _Unknown(Exception):
    """A layout that is not followed."""


@lru_cache(maxsize=256)
def held(layout: str, shape: tuple[int, ...]) -> Elements | None:
    """Return the element in each register of each thread, int64 [threads, registers], numbered in the block's order;
    None for a layout that is not followed.
    """
    try:
        made = _made(layout, shape)
        if layout.startswith("#ttg.blocked<") and not all(map(any, made.register)):
            return None  # copies: Triton 3.6 has registers for them, 3.9 has none
        if not shape or len(made.register) + len(made.thread) > _MOST.bit_length() - 1:
            return None
        strides = [prod(shape[axis + 1 :]) for axis in range(len(shape))]
        threads, registers = (
            _sums([sum(step * stride for step, stride in zip(one, strides, strict=True)) for one in each])
            for each in (made.thread, made.register)
        )
    except (_Unknown, ValueError, IndexError, KeyError, TypeError, OverflowError, RecursionError):
        return None  # the text may be anybody's
    elements = threads[:, None] ^ registers[None, :]
    return elements if np.array_equal(np.unique(elements), np.arange(prod(shape))) else None


@lru_cache(maxsize=256)
def packs(layout: str, shape: tuple[int, ...], pack: int) -> Elements | None:
    """Return all elements, int64 [elements], so that each ``pack`` neighbours lie in registers of one thread that are
    taken together; None where that is not followed.
    """
    found = held(layout, shape)
    if found is None or found.shape[1] % pack:
        return None
    each = found[np.unique(found[:, 0], return_index=True)[1]]  # others hold copies
    return each.flatten() if each.size == prod(shape) else None


def order_of(op: Op, before: tuple[int, ...], after: tuple[int, ...]) -> Elements | None:
    """Return which element each one of a reshaped block was, int64 [elements], where the order is free and the layouts
    say it; else None.
    """
    free = op.name == "tt.reshape" and "allow_reorder" in op.words
    return _moved(op.attributes["registers"], before, after) if free else None


@lru_cache(maxsize=256)
def _moved(layouts: str, before: tuple[int, ...], after: tuple[int, ...]) -> Elements | None:
    """All elements stay in their registers. ``layouts`` are those before and after, with an arrow between them."""
    source, _, target = layouts.partition(" -> ")
    came, went = held(source, before), held(target, after)
    if came is None or went is None or came.shape != went.shape or prod(before) != prod(after):
        return None
    if any(np.unique(each[0]).size < each.shape[1] for each in (came, went)):
        return None  # registers of one thread hold copies
    found = np.zeros(prod(after), dtype=np.int64)
    found[went] = came
    return found if np.array_equal(found[went], came) else None


class _Layout:
    """A layout that is made from the inside out: what is added along an axis begins where that axis ends so far."""

    def __init__(self, rank: int) -> None:
        self.shape = [1] * rank
        self.register: list[tuple[int, ...]] = []
        self.thread: list[tuple[int, ...]] = []

    def add(self, to: list[tuple[int, ...]], axis: int, count: int, still: bool = False) -> None:
        """Let further bits of a number walk over ``count`` places along an axis, or, if ``still``, over none."""
        if count < 1 or count & (count - 1):
            raise _Unknown
        for _ in range(count.bit_length() - 1):
            step = [0] * len(self.shape)
            if not still:
                step[axis] = self.shape[axis]
                self.shape[axis] *= 2
            to.append(tuple(step))

    def fit(self, shape: Sequence[int], order: Sequence[int]) -> None:
        """Repeat in further registers, the first axis of ``order`` first; what is beyond the block holds copies."""
        for axis in order:
            self.add(self.register, axis, max(1, shape[axis] // self.shape[axis]))
        for steps in (self.register, self.thread):
            steps[:] = [
                tuple(0 if step >= extent else step for step, extent in zip(one, shape, strict=True)) for one in steps
            ]


def _made(layout: str, shape: tuple[int, ...]) -> _Layout:
    made = _Layout(len(shape))
    lists = {name: json.loads(text) for name, text in _LISTS.findall(layout)}
    if sliced := SLICE.fullmatch(layout):
        axis = int(sliced[1])
        parent = _made(sliced[2], (*shape[:axis], 1, *shape[axis:]))
        made.register, made.thread = (
            [(*step[:axis], *step[axis + 1 :]) for step in steps] for steps in (parent.register, parent.thread)
        )
        made.register = [step for step in made.register if any(step)]
        return made
    if layout.startswith("#ttg.linear<"):
        made.register = [tuple(step) for step in lists["register"]]
        made.thread = [tuple(step) for name in ("lane", "warp", "block") for step in lists[name]]
        return made
    order = _blocked(made, lists) if layout.startswith("#ttg.blocked<") else _product(made, layout, lists)
    of = bases(layout)
    divided = [max([1, *(2 * step[axis] for step in of)]) for axis in range(len(shape))]
    made.fit([extent // parts for extent, parts in zip(shape, divided, strict=True)], order)
    made.thread += lies(of, shape)
    return made


def _blocked(made: _Layout, lists: dict[str, list[int]]) -> Sequence[int]:
    """Add what a blocked layout says, and return its axes, the fastest first."""
    order = lists["order"]
    places = (made.register, "sizePerThread"), (made.thread, "threadsPerWarp"), (made.thread, "warpsPerCTA")
    for to, name in places:
        for axis in order:
            made.add(to, axis, lists[name][axis])
    return order


def _product(made: _Layout, layout: str, lists: dict[str, list[int]]) -> Sequence[int]:
    """Add what the layout of a product's result or operand says (mma.sync and wgmma), and return its axes, the fastest
    first.
    """
    operand = _OPERAND.fullmatch(layout)
    numbers = {name: int(number) for name, number in _NUMBERS.findall(layout)}
    if len(made.shape) != 2 or not (operand or layout.startswith("#ttg.nvidia_mma<")):
        raise _Unknown
    version = numbers["versionMajor"]
    if version not in (2, 3) or lists["instrShape"][0] != _ROWS or (operand and bases(layout)):
        raise _Unknown  # of double precision, or an operand that CTAs hold copies of
    right = operand is not None and operand[1] == "1"
    inner, outer = (0, 1) if right else (1, 0)
    made.add(made.register, inner, int(operand[3]) if operand else 2)
    made.add(made.thread, inner, 4)
    made.add(made.thread, outer, 8)
    made.add(made.register, outer, 1 if right else 2)
    made.add(made.register, inner, 2 if operand else lists["instrShape"][1] // 8)
    for axis in (1, 0) if version == 2 else (0, 1):
        made.add(made.thread, axis, lists["warpsPerCTA"][axis], still=operand is not None and axis == inner)
    return inner, outer


def _sums(steps: Sequence[int]) -> Elements:
    found = np.zeros(1, dtype=np.int64)
    for step in steps:
        found = np.concatenate([found, found ^ step])
    return found
