"""Reliefs: plays a kernel with one resource a quarter faster, to see what limits a loop.

The resource whose relief shortens a loop most is the critical one. It need not be the busiest.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

from avo.evaluator.binary import Binary
from avo.evaluator.performance.kernel import Conditions
from avo.evaluator.performance.passes import PlayedKernel
from avo.evaluator.performance.pipes import PIPE_NAMES, Kind, Op
from avo.evaluator.performance.replay import Change, Gain, Replay, measure_mean, plays
from avo.evaluator.performance.sass import Instruction
from avo.evaluator.target import Target

RELIEF = 0.75
"""Time that a relieved resource takes, as a fraction of before."""
_HARDLY_BUSY = 0.02
"""A pipe that is busy for a smaller fraction is not relieved."""
RESOLVED_PERCENT = 1.0
"""A smaller gain than this counts as none: the order in which warps issue alone changes a loop by as much."""


def reliefs(replay: Replay, pipes: Collection[str]) -> Mapping[str, Sequence[PlayedKernel]]:
    """Return the plays of a kernel with each resource relieved: the pipes called so, issue slots, latencies and, in
    full, CTA barriers.
    """
    barrier = ["cta_barrier"] if any(map(is_cta_barrier, replay.instructions)) else []
    return {name: replay.plays(*_relief(name)) for name in (*pipes, "issue", "latency", *barrier)}


def critical(gains: Mapping[str, Gain]) -> str:
    """Return the critical resource, of ``gains`` from the largest on; empty where none is resolved."""
    best = next(iter(gains), "")
    return best if best and gains[best].percent >= max(RESOLVED_PERCENT, gains[best].spread) else ""


def relief_gains(
    binary: Binary, target: Target, resident: int, conditions: Conditions, place: int | None
) -> dict[str, Gain]:
    """Return ``relief_percent`` of the loop at ``place`` of a kernel, or of its code outside loops, for what may hold
    it back, of all plays of the whole kernel.
    """
    played = binary, target, resident, conditions
    kernel = measure_mean(*played)
    usage = (kernel.outside if place is None else kernel.loops[place]).usage
    pipes = tuple(name for name, busy in usage.items() if busy > _HARDLY_BUSY and name != "issue")
    return relief_percent(plays(*played), place, relieved(*played, pipes))


@lru_cache(maxsize=64)
def relieved(
    binary: Binary, target: Target, resident: int, conditions: Conditions, pipes: tuple[str, ...]
) -> Mapping[str, Sequence[PlayedKernel]]:
    """Return ``reliefs`` of a kernel, which are kept: a score and a profile take the same."""
    return reliefs(Replay.of(binary, target, resident, conditions), pipes)


def relief_percent(
    before: Sequence[PlayedKernel], place: int | None, relieved: Mapping[str, Sequence[PlayedKernel]]
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
                100 * (1 - RELIEF if name == "cta_barrier" else 1) * (1 - clocks(after) / clocks(one))
                for one, after in zip(before, others, strict=True)
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
