"""Loops of hand-made SASS, whose clocks can be worked out; and kernels compiled anew, for their line tables."""

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

from triton import knobs

from bench.variants import Variant, _compiled, launch_work
from evaluator.performance.constants import constants
from evaluator.performance.kernel import Conditions
from evaluator.performance.pipes import Costs
from evaluator.performance.replay import Replay
from evaluator.performance.sass import Code, Instruction
from evaluator.performance.structure import Graph
from evaluator.targets import get_target
from evaluator.work import LaunchWork


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


def code(*listing: Instruction) -> Code:
    """The instructions one after the other, with a label before the second."""
    placed = tuple(replace(i, index=place, address=16 * place) for place, i in enumerate(listing))
    return Code(placed, {".L1": 1}, 0)


def loop(*body: Instruction, warps: int = 4, resident: int = 1, target: str = "h100") -> Replay:
    """A kernel that does ``body`` over and over: its instructions have the indices 1, 2, ..."""
    made = code(sass("NOP"), *body, sass("@P0 BRA", "`(.L1)"), sass("EXIT"))
    costs = Costs(made.instructions, get_target(target))
    return Replay(made.instructions, Graph(made).structure(0), costs, warps, resident, 1)


@cache
def fresh_work(variant: Variant, length: int = 8192) -> LaunchWork:
    """Work for sm_90, its binary not from Triton's cache: that one may have the line table of an older file."""
    with tempfile.TemporaryDirectory() as folder, knobs.cache.scope():
        knobs.cache.dir = folder
        binary = _compiled.__wrapped__(variant, 90)[0]
    return replace(launch_work(variant, 90, length), binary=binary)
