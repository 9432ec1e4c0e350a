"""Plays a kernel again with changes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from avo.evaluator.binary import Binary
from avo.evaluator.performance.kernel import Conditions, costs_of, play_kernel, read, structure_of
from avo.evaluator.performance.parts import Player
from avo.evaluator.performance.passes import Pass, PlayedKernel
from avo.evaluator.performance.pipes import Costs, Op
from avo.evaluator.performance.sass import Instruction
from avo.evaluator.performance.simulate import play
from avo.evaluator.performance.structure import Loop, Structure
from avo.evaluator.target import Target

Change = Callable[[Instruction, Op], Op]
"""Returns the changed op of an instruction."""


class ChangedCosts(Costs):
    """Instruction costs, some of them changed."""

    def __init__(self, costs: Costs, change: Change) -> None:
        self.__dict__.update(costs.__dict__)
        self.known = {}
        self._costs = costs
        self._change = change

    def _op(self, i: Instruction) -> Op:
        return self._change(i, self._costs.op(i))


@dataclass(frozen=True)
class Replay:
    """A kernel that can be played again, with changed costs or without some instructions."""

    instructions: tuple[Instruction, ...]
    structure: Structure
    costs: Costs
    warps: int
    """Warps per CTA."""
    resident: int
    """CTAs resident on the SM."""

    @classmethod
    def of(cls, binary: Binary, target: Target, resident: int, conditions: Conditions) -> "Replay":
        """Prepare the kernel; raise ``ModelError`` if the binary cannot be read."""
        structure = structure_of(binary, conditions.shares, conditions.paces)
        costs = costs_of(binary, target, resident, conditions)
        warps = -(-binary.threads // 32)
        return cls(read(binary).code.instructions, structure, costs, warps, resident)

    def play(
        self, change: Change | None = None, player: Player | None = None, issue_clocks: float = 1.0
    ) -> PlayedKernel:
        """Play the kernel with the ops that ``change`` makes of its own, or with other issue slots."""
        costs = ChangedCosts(self.costs, change or (lambda _, op: op))
        costs.issue_clocks = issue_clocks
        player = player or partial(play, issue_clocks=issue_clocks)
        return play_kernel(self.structure, costs, self.warps, self.resident, player)

    def only(self, passed: Pass) -> "Replay":
        """Return the kernel without what is outside the outermost loop that does ``passed``, and without the light
        paths of its loops.
        """
        done = {instructions for instructions, _ in passed.parts}
        items = tuple(_heavy(top) for top in self.structure.top if any(loop.own in done for loop in top.tree()))
        return replace(self, structure=replace(self.structure, items=items, aside=()))

    def without(self, gone: Callable[[Instruction], bool]) -> "Replay":
        """Return the kernel without some of its instructions."""

        def kept(items: Sequence[Instruction | Loop]) -> tuple[Instruction | Loop, ...]:
            return tuple(
                loop(item) if isinstance(item, Loop) else item
                for item in items
                if isinstance(item, Loop) or not gone(item)
            )

        def loop(old: Loop) -> Loop:
            return replace(old, items=kept(old.items), roles=tuple(map(kept, old.roles)))

        items, aside = kept(self.structure.items), tuple(map(loop, self.structure.aside))
        return replace(self, structure=replace(self.structure, items=items, aside=aside))


def _heavy(loop: Loop) -> Loop:
    if loop.dispatch:
        return loop
    return replace(loop, items=tuple(_heavy(i) if isinstance(i, Loop) else i for i in loop.items), light=None)
