"""Reliefs: plays a kernel with one resource a quarter faster, to see what limits a loop.

The resource whose relief shortens a loop most is the critical one. It need not be the busiest.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

from avo.evaluator.binary import Binary
from avo.evaluator.performance.kernel import Conditions, measure
from avo.evaluator.performance.passes import Pass, PlayedKernel
from avo.evaluator.performance.pipes import PIPE_NAMES, Kind, Op
from avo.evaluator.performance.replay import Change, Gain, Replay
from avo.evaluator.performance.sass import Instruction
from avo.evaluator.target import Target

RELIEF = 0.75
"""Time that a relieved resource takes, as a fraction of before."""
RESOLVED_PERCENT = 1.0
"""A smaller gain than this counts as none: the order in which warps issue alone changes a loop by as much."""


def reliefs(replay: Replay, pipes: Collection[str]) -> Mapping[str, Sequence[PlayedKernel]]:
    """Return the plays of a kernel with each resource relieved: the pipes called so, issue slots, latencies and, in
    full, CTA barriers.
    """
    barrier = ["cta_barrier"] if any(map(is_cta_barrier, replay.instructions)) else []
    return {name: replay.plays(*_relief(name)) for name in (*pipes, "issue", "latency", *barrier)}


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
    place = next((i for i, loop in enumerate(kernel.loops) if loop is passed), None)
    relieved = {
        name: [replay.play(change, issue_clocks=clocks)] for name in names for change, clocks in [_relief(name)]
    }
    best, gain = next(iter(relief_percent([kernel], place, relieved).items()))
    return best if gain.percent >= RESOLVED_PERCENT else ""


def relief_percent(
    plays: Sequence[PlayedKernel], place: int | None, relieved: Mapping[str, Sequence[PlayedKernel]]
) -> dict[str, Gain]:
    """Return by how many percent each relief shortens the kernel's loop at ``place``, or the code outside loops, in
    the mean of the plays, largest first.

    Barriers are relieved of their whole cost, of which a quarter counts.
    """

    def clocks(kernel: PlayedKernel) -> float:
        return (kernel.outside if place is None else kernel.loops[place]).clocks

    gains = {
        name: Gain.of(
            [
                100 * (1 - RELIEF if name == "cta_barrier" else 1) * (1 - clocks(after) / clocks(before))
                for before, after in zip(plays, others, strict=True)
            ]
        )
        for name, others in relieved.items()
    }
    return dict(sorted(gains.items(), key=lambda item: -item[1].percent))


def _relief(name: str) -> tuple[Change | None, float]:
    """Return the change of ops that relieves a resource, and the clocks of an issue then."""
    if name == "issue":
        return None, RELIEF
    return {"latency": _sooner, "cta_barrier": _past_barriers}.get(name) or _faster(name), 1.0


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
