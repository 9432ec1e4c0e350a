"""Plays a kernel again with changes, as often as it takes to tell what they do from chance."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from statistics import fmean, stdev
from typing import NamedTuple

from avo.evaluator.binary import Binary
from avo.evaluator.performance.kernel import Conditions, costs_of, play_kernel, read, structure_of
from avo.evaluator.performance.parts import Player
from avo.evaluator.performance.passes import Pass, PlayedKernel
from avo.evaluator.performance.pipes import Costs, Op
from avo.evaluator.performance.sass import Instruction
from avo.evaluator.performance.simulate import Played, Team, play
from avo.evaluator.performance.structure import Loop, Structure
from avo.evaluator.target import Target

Change = Callable[[Instruction, Op], Op]
"""Returns the changed op of an instruction."""
SEEDS = (0, 3, 4, 7, 8, 11)
"""Seeds of the plays whose mean a profile shows, all of them also of a score's. Each draws other starts, latencies and
stalls (``play`` draws the same for an even seed and the next), and every second one reverses the warps' age.
"""
_STUDENT = 2.571
"""Standard errors of a mean of six that 95% of such means are within: Student's t, 5 degrees of freedom."""


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
        return self._played(change, issue_clocks, [player or partial(play, issue_clocks=issue_clocks)])[0]

    def plays(self, change: Change | None = None, issue_clocks: float = 1.0) -> tuple[PlayedKernel, ...]:
        """Play the kernel like ``play``, with each of ``SEEDS``."""
        players = [partial(play, issue_clocks=issue_clocks, seed=seed) for seed in SEEDS]
        return self._played(change, issue_clocks, players)

    def _played(
        self, change: Change | None, issue_clocks: float, players: Sequence[Player]
    ) -> tuple[PlayedKernel, ...]:
        costs = ChangedCosts(self.costs, change or (lambda _, op: op))
        costs.issue_clocks = issue_clocks
        made: list[Sequence[Team]] = []

        def sharing(player: Player) -> Player:
            """Return a player of what the ones before it played: to make its table takes longer than a play."""
            earlier = iter(tuple(made))

            def played(teams: Sequence[Team]) -> Played:
                same = next(earlier, teams)
                if same is teams:
                    made.append(teams)
                return player(same)

            return played

        kernel = self.structure, costs, self.warps, self.resident
        return tuple(play_kernel(*kernel, sharing(player)) for player in players)

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


class Gain(NamedTuple):
    """A gain in percent, the mean of what several plays say."""

    percent: float
    spread: float = 0.0
    """How far from it the mean of very many plays may be (95%)."""

    @classmethod
    def of(cls, percents: Sequence[float]) -> "Gain":
        """Return the gain that one play, or each of ``SEEDS``, has a figure for."""
        error = stdev(percents) / math.sqrt(len(percents)) if len(percents) > 1 else 0.0
        return cls(fmean(percents), _STUDENT * error)


@lru_cache(maxsize=64)
def plays(binary: Binary, target: Target, resident: int, conditions: Conditions) -> tuple[PlayedKernel, ...]:
    """Return the kernel as played with each of ``SEEDS``; raise ``ModelError`` like ``Replay.of``."""
    return Replay.of(binary, target, resident, conditions).plays()


def measure_mean(
    binary: Binary, target: Target, resident: int, conditions: Conditions, seed: int | None = None
) -> PlayedKernel:
    """Return the mean of ``plays``; ``seed`` does not count."""
    kernels = plays(binary, target, resident, conditions)
    loops = tuple(map(_mean, zip(*(kernel.loops for kernel in kernels), strict=True)))
    return replace(kernels[0], outside=_mean([kernel.outside for kernel in kernels]), loops=loops)


def _mean(passes: Sequence[Pass]) -> Pass:
    first = passes[0]
    usage = {name: fmean(each.usage[name] for each in passes) for name in first.usage}
    lights = [each.light for each in passes if each.light]
    light = replace(lights[0], play=lambda: fmean(each.clocks for each in lights)) if lights else None
    return replace(first, clocks=fmean(each.clocks for each in passes), usage=usage, light=light)
