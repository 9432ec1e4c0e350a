"""What an examination is given: the judge's tools and the cases."""

import random
from dataclasses import dataclass, field

from avo.evaluator.compiling.compiler import Compiler
from avo.evaluator.judging.buffers import InputCache
from avo.evaluator.judging.planning import Planner
from avo.evaluator.judging.speed import Instruments, Speed
from avo.evaluator.problem import Case
from avo.evaluator.target import Target


@dataclass(frozen=True)
class Tools:
    """What a judge examines all its candidates with."""

    target: Target
    planner: Planner
    compiler: Compiler
    speed: Speed
    inputs: InputCache
    chance: random.Random
    """Source of randomness; its seed is the judge's secret."""
    instruments: Instruments = field(default_factory=Instruments)


@dataclass(frozen=True)
class Cases:
    """The cases that a candidate is examined on."""

    suite: str
    small: tuple[Case, ...]
    """Correctness cases."""
    scored: tuple[Case, ...]
    """Benchmark cases."""
    checked: tuple[Case, ...] = ()
    """Other benchmark cases, which must be right but are not scored."""
    shown: tuple[Case, ...] = ()
    """Before acceptance, the benchmark cases that the candidate was scored on: these are among the ``large``, and are
    examined more closely, as are cases that are drawn.
    """
    plan_digest: str | None = None
    """What identified the launch plans that were scored, if any were: they must be the same."""

    @property
    def closely(self) -> bool:
        """Whether this is the examination before acceptance."""
        return bool(self.shown)

    @property
    def large(self) -> tuple[Case, ...]:
        """All benchmark cases."""
        return (*self.scored, *self.checked)
