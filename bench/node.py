"""How busy a node of eight cards is kept, in simulation: no GPU was there.

    python -m bench.node [costs] [busy] [--write]

An attempt is judged by processor time and, if it is right and could win, has its turn at its judge's card: small cases,
rounds in new processes every ``BLOCK``, score. Real are the protocol's constants, the rounds that ``verdicts`` takes on
drawn ratios, the order of turns, which processes start ahead, and the number of judges that a run chooses. All else is
assumed. Cores are shared evenly by judges, processes that import, and for each turn the host that drives the card. A
card is *used* while kernels run, and for as long as the host would need for the rest of a turn with a core to itself.
"""

import math
import random
from collections import deque
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from avo.evaluator.cuda.measuring import PASSES, RUNS
from avo.evaluator.cuda.protocol import STRETCH_S
from avo.evaluator.cuda.sequential import BLOCK, ROUNDS, verdicts
from avo.evaluator.evaluation import Verdict
from avo.evaluator.evaluators import EQUIVALENCE_MARGIN, TO_COMPARE, WALL_S
from avo.evaluator.problems.mha import MHA
from avo.search.acceptance import share_of_alpha
from avo.search.judging import per_gpu
from bench.tables import Table, head, main, row

CARDS, CORES, MEMORY_BYTES, HOURS = 8, 16, 512 * 2**30, 3.0
CASES, SMALL = len(MHA.suites["quick"]), len(MHA.correctness_cases)
IMPORT_S = 2.0
"""Processor time of a process that imports torch and Triton: docs/benchmarks.md."""
OPEN_S, CHECK_S, FIRST_S = 1.8, 0.1, 0.2
"""Assumed: a process opens the card and ends; a small case is run and compared whole; a case's first run and graph."""
HOST_S = 0.03
"""Of a run besides its stretch: inputs and verification, each 10 to 20 ms as docs/protocol.md estimates."""
ROUND_NOISE, PAIR_NOISE = 0.0035, 0.0015
"""Assumed standard deviations of a round's log ratio, and of what the rounds of a pair of processes share."""
ALPHA = share_of_alpha(0.05, 100)
"""Of a run's hundredth comparison."""
CAPTURED_S, SMALL_S, COMPILED_S, REST_S = 0.9, 0.9, 4.3, 3.2
CLOSELY_S = 34.7
"""Processor time of the judge and its jobs, of which the last is before acceptance: docs/benchmarks.md, mha/hopper."""
TIMED_S = 2 * CAPTURED_S + SMALL_S + 2 * COMPILED_S + REST_S
"""Small cases are compiled for the card too, and the incumbent is captured again."""


class Kind(NamedTuple):
    """Attempts that end alike; shares and gains are assumed."""

    name: str
    share: float
    judge_s: float
    gain: tuple[float, float] | None = None
    """Of those that are timed: between which log ratios to the incumbent they are."""


KINDS = (
    Kind("wrong in small cases", 0.25, CAPTURED_S + SMALL_S),
    Kind("does not compile or fit", 0.10, CAPTURED_S + SMALL_S + COMPILED_S),
    Kind("right, but hopeless: the cascade stops it", 0.25, TIMED_S),
    Kind("timed, 1 to 15% slower", 0.25, TIMED_S, (-0.15, -0.01)),
    Kind("timed, as fast within 0.5%", 0.12, TIMED_S, (-0.005, 0.005)),
    Kind("timed, 1 to 5% faster", 0.03, TIMED_S, (0.01, 0.05)),
)


class Stage(NamedTuple):
    """A part of a turn: processes of its own that run some cases, and check or time them."""

    processes: int
    stretch_s: float
    host_s: float


CHECK = Stage(1, 0.0, OPEN_S + SMALL * CHECK_S)
PAIR = Stage(2, BLOCK * CASES * 4 * STRETCH_S, 2 * (OPEN_S + CASES * FIRST_S) + BLOCK * CASES * 4 * HOST_S)


def turn(rounds: int, faster: bool) -> list[Stage]:
    """Return what a candidate does at the card."""
    runs = CASES * RUNS // PASSES * (PASSES if faster else 1)
    score = Stage(1, runs * STRETCH_S, OPEN_S + CASES * FIRST_S + runs * HOST_S)
    return [CHECK, *[PAIR] * (rounds // BLOCK), score]


def compared(gain: tuple[float, float], chance: random.Random) -> tuple[int, bool]:
    """Return how many rounds a comparison takes, and whether it finds the candidate faster."""
    noise = np.random.default_rng(chance.getrandbits(32))
    pairs = chance.uniform(*gain) + PAIR_NOISE * noise.standard_normal((len(ROUNDS), 1))
    ratios = pairs + ROUND_NOISE * noise.standard_normal((len(ROUNDS), BLOCK))
    in_time = math.ceil(TO_COMPARE * WALL_S / (PAIR.stretch_s + PAIR.host_s))
    found = verdicts(ratios[:in_time].ravel(), ALPHA, EQUIVALENCE_MARGIN)[: min(in_time, len(ROUNDS))]
    ends = next((i for i, verdict in enumerate(found) if verdict != Verdict.UNDECIDED), len(found) - 1)
    return BLOCK * (ends + 1), bool(found[ends] == Verdict.FASTER)


@dataclass(eq=False)
class Job:
    """Seconds of work."""

    left_s: float
    shares: bool = True
    """Whether it goes on more slowly where cores are short: a stretch on the card does not."""


Process = Generator[Sequence[Job], None, None]
"""Yields jobs, and goes on when all of them are done."""


@dataclass
class Card:
    """A card and the judges that use it."""

    chance: random.Random
    jobs: dict[Job, None]
    """All that is worked at on the node."""
    turns: deque[Job] = field(default_factory=deque)
    """Those who have asked, first come, first served: the first has the card. Each ends when its turn comes."""
    attempts: int = 0
    used_s: float = 0.0

    def judge(self) -> Process:
        """Judge one attempt after another."""
        imports: deque[Job] = deque()
        while True:
            (kind,) = self.chance.choices(KINDS, [kind.share for kind in KINDS])
            yield [self._begun(kind.judge_s)]
            if kind.gain is not None:
                rounds, faster = compared(kind.gain, self.chance)
                yield from self._timed(turn(rounds, faster), imports)
                if faster:
                    yield [self._begun(CLOSELY_S)]
                    yield from self._timed(turn(0, faster), imports)
            self.attempts += 1

    def _timed(self, stages: Sequence[Stage], imports: deque[Job]) -> Process:
        """Wait for the card and use it; the processes of each stage start in the one before, if they have not yet."""
        self._ahead(stages[0].processes, imports)
        self.turns.append(mine := Job(math.inf if self.turns else 0.0))
        yield [mine]
        for stage, after in zip(stages, [*stages[1:], Stage(0, 0.0, 0.0)], strict=True):
            self._ahead(stage.processes, imports)
            yield [imports.popleft() for _ in range(stage.processes)]
            self._ahead(after.processes, imports)
            yield [self._begun(stage.stretch_s, shares=False)]
            yield [self._begun(stage.host_s)]
            self.used_s += stage.stretch_s + stage.host_s
        self.turns.popleft()
        if self.turns:
            self.turns[0].left_s = 0.0

    def _ahead(self, count: int, imports: deque[Job]) -> None:
        while len(imports) < count:
            imports.append(self._begun(IMPORT_S))

    def _begun(self, seconds: float, *, shares: bool = True) -> Job:
        self.jobs[job := Job(seconds, shares)] = None
        return job


def simulate(judges: int, cores: int) -> tuple[float, float]:
    """Return the share of its time that a card is used, and the attempts an hour per card."""
    jobs: dict[Job, None] = {}
    cards = [Card(random.Random(number), jobs) for number in range(CARDS)]
    waiting = {process: next(process) for card in cards for process in [card.judge() for _ in range(judges)]}
    now = 0.0
    while now < HOURS * 3600:
        speeds = {job: min(1.0, cores / len(jobs)) if job.shares else 1.0 for job in jobs}
        step = min(job.left_s / speed for job, speed in speeds.items())
        now += step
        for job, speed in speeds.items():
            job.left_s -= step * speed
            if job.left_s < 1e-9:
                del jobs[job]
        for process in [each for each, needs in waiting.items() if all(job.left_s < 1e-9 for job in needs)]:
            waiting[process] = next(process)
    used, attempts = sum(card.used_s for card in cards), sum(card.attempts for card in cards)
    return used / CARDS / now, attempts / CARDS / now * 3600


def costs() -> Table:
    """Yield what attempts are taken to cost."""
    yield from head("attempts", "share", "seconds of a processor", "rounds, mean", "seconds of the card, mean")
    for kind in KINDS:
        chance = random.Random(0)
        drawn = [compared(kind.gain, chance) for _ in range(200)] if kind.gain else []
        turns = [turn(*each) + (turn(0, faster=True) if each[1] else []) for each in drawn]
        card_s = [sum(stage.stretch_s + stage.host_s for stage in stages) for stages in turns]
        means = [f"{sum(each) / 200:.0f}" if each else "" for each in ([count for count, _ in drawn], card_s)]
        judge_s = kind.judge_s + CLOSELY_S * sum(faster for _, faster in drawn) / 200
        yield row(kind.name, f"{kind.share:.0%}", f"{judge_s:.1f}", *means)


def busy() -> Table:
    """Yield how busy cards are."""
    yield from head("cores", "judges per card", "card time used", "attempts an hour per card")
    for cores, judges in ((CORES, 1), (CORES, 2), (CORES, 3), (8, 1), (32, 4)):
        used, attempts = simulate(judges, cores)
        chosen = ", as a run chooses" * (judges == per_gpu(cores, MEMORY_BYTES, CARDS))
        yield row(cores, f"{judges}{', as before' * (judges == 1)}{chosen}", f"{used:.0%}", f"{attempts:.0f}")


if __name__ == "__main__":
    main("bench.node", __doc__, {"costs": costs, "busy": busy}, Path("docs", "throughput.md"))
