"""Reliefs: plays a kernel with one resource a quarter faster, to see what limits a loop.

The resource whose relief shortens a loop most is the critical one. It need not be the busiest.
"""

from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import lru_cache

from avo.evaluator.binary import Binary
from avo.evaluator.performance.kernel import Conditions, measure
from avo.evaluator.performance.passes import Pass, PlayedKernel
from avo.evaluator.performance.pipes import PIPE_NAMES, Kind, Op
from avo.evaluator.performance.replay import Change, Replay
from avo.evaluator.performance.sass import Instruction
from avo.evaluator.target import Target

RELIEF = 0.75
"""Time that a relieved resource takes, as a fraction of before."""
RESOLVED_PERCENT = 1.0
"""A smaller gain than this counts as none: the order in which warps issue alone changes a loop by as much."""


def reliefs(replay: Replay, pipes: Collection[str]) -> Mapping[str, PlayedKernel]:
    """Return the kernel as played with each resource relieved: the pipes called so, issue slots, latencies and, in
    full, CTA barriers.
    """
    barrier = ["cta_barrier"] if any(map(is_cta_barrier, replay.instructions)) else []
    return {name: _relieved(replay, name) for name in (*pipes, "issue", "latency", *barrier)}


@lru_cache(maxsize=64)
def critical(binary: Binary, target: Target, resident: int, place: int | None, conditions: Conditions) -> str:
    """Return the critical resource of the loop at ``place`` of a kernel as ``measure`` plays it, or of its code outside
    loops; empty where none is.

    Among the pipes, only the two busiest are tried, and only the outermost loop is played.
    """
    kernel = measure(binary, target, resident, conditions)
    replay = Replay.of(binary, target, resident, conditions)
    passed: Pass | None = kernel.outside
    if place is not None:
        parts = kernel.loops[place].parts
        replay = replay.only(kernel.loops[place])
        kernel = replay.play()
        passed = next((loop for loop in kernel.loops if loop.parts == parts), None)
    if passed is None:  # roles that cannot be told apart without the others
        return ""
    pipes = [name for name in sorted(passed.usage, key=lambda name: -passed.usage[name]) if name != "issue"]
    barrier = any(is_cta_barrier(i) for instructions, _ in passed.parts for i in instructions)
    names = ["latency", *pipes[:2], *(["cta_barrier"] if barrier else [])]
    gains = relief_percent(kernel, passed, {name: _relieved(replay, name) for name in names})
    best = next(iter(gains))
    return best if gains[best] >= RESOLVED_PERCENT else ""


def relief_percent(kernel: PlayedKernel, passed: Pass, relieved: Mapping[str, PlayedKernel]) -> dict[str, float]:
    """Return how much each relief shortens one of the kernel's passes, largest first."""
    gains = {name: _gain(kernel, passed, name, other) for name, other in relieved.items()}
    return dict(sorted(gains.items(), key=lambda item: -item[1]))


def _gain(kernel: PlayedKernel, passed: Pass, name: str, relieved: PlayedKernel) -> float:
    """Return by how many percent a pass got shorter.

    Barriers are relieved of their whole cost, of which a quarter counts.
    """
    place = next((i for i, loop in enumerate(kernel.loops) if loop is passed), None)
    after = relieved.outside if place is None else relieved.loops[place]
    whole = 1 - RELIEF if name == "cta_barrier" else 1.0
    return 100 * whole * (1 - after.clocks / passed.clocks)


def _relieved(replay: Replay, name: str) -> PlayedKernel:
    if name == "issue":
        return replay.play(issue_clocks=RELIEF)
    return replay.play({"latency": _sooner, "cta_barrier": _past_barriers}.get(name) or _faster(name))


def _sooner(_: Instruction, op: Op) -> Op:
    stall = max(1, round(op.stall * RELIEF))
    return replace(op, latency=op.latency * RELIEF, stall=stall) if op.latency or stall != op.stall else op


def _past_barriers(i: Instruction, op: Op) -> Op:
    return without_waiting(i, op) if is_cta_barrier(i) else op


def _faster(pipe: str) -> Change:
    def change(_: Instruction, op: Op) -> Op:
        if pipe == "l2":
            return replace(op, l2=op.l2 * RELIEF) if op.l2 else op
        busy = RELIEF if PIPE_NAMES.get(op.pipe) == pipe else 1.0
        shared = RELIEF if pipe == "shared" else 1.0
        if busy == 1.0 and not (op.shared and pipe == "shared"):
            return op
        return replace(op, shared=op.shared * shared, busy=op.busy * busy)

    return change


def without_waiting(_: Instruction, op: Op) -> Op:
    """Change an op so that it takes only its issue slot and its pipe."""
    return replace(op, kind=Kind.PLAIN, latency=0.0)


def is_cta_barrier(i: Instruction) -> bool:
    """Return whether an instruction waits for the other warps of its CTA."""
    return i.base == "BAR" and ("SYNC" in i.opcode or "RED" in i.opcode)
