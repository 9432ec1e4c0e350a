"""Loops of hand-made SASS, whose clocks can be worked out; and kernels compiled anew, for their line tables."""

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

from triton import knobs

from bench.variants import Variant, compile_variant, launch_work
from evaluator.performance.sass import Code, Instruction
from evaluator.performance.structure import find_structure
from evaluator.performance.what_if import Replay
from evaluator.target import get_target
from evaluator.work import LaunchWork


def sass(
    opcode: str, operands: str = "", *, stall: int = 1, sets: int = 7, reads: int = 7, waits: Sequence[int] = ()
) -> Instruction:
    """One instruction with its control bits; its place is given by ``loop``."""
    return Instruction(0, 0, "", opcode, operands, stall, sets, reads, sum(1 << barrier for barrier in waits))


def loop(*body: Instruction, warps: int = 4, resident: int = 1, target: str = "h100") -> Replay:
    """A kernel that does ``body`` over and over: its instructions have the indices 1, 2, ..."""
    listing = [sass("NOP"), *body, sass("BRA", "`(.L1)"), sass("EXIT")]
    placed = tuple(
        Instruction(
            place, 16 * place, "P0" if i.opcode == "BRA" else "", i.opcode, i.operands, i.stall, i.write_barrier,
            i.read_barrier, i.wait_mask,
        )
        for place, i in enumerate(listing)
    )  # fmt: skip
    structure = find_structure(Code(placed, {".L1": 1}, 0))
    return Replay(placed, structure, warps, get_target(target), resident, 1)


@cache
def fresh_work(variant: Variant, length: int = 8192) -> LaunchWork:
    """Work for sm_90, its binary not from Triton's cache: that one may have the line table of an older file."""
    with tempfile.TemporaryDirectory() as folder, knobs.cache.scope():
        knobs.cache.dir = folder
        binary = compile_variant.__wrapped__(variant, 90)
    return replace(launch_work(variant, 90, length), binary=binary)
