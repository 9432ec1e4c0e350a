"""What differences a predicted score resolves: of equal code, of less work, and of rhythms.

    python -m bench.resolution [equal] [gains] [rhythms] [--write]

Each kernel is taken in ten orders of its independent instructions, and each order gets neighbours as a candidate does
before acceptance. For the gains, the slower kernel of a pair passes all its loops so much more often that it
takes 2% more time.
"""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from itertools import permutations
from pathlib import Path
from typing import Any

from avo.config import RunConfig
from avo.evaluator.candidate import Candidate
from avo.evaluator.catalogue import get_problem
from avo.evaluator.evaluation import Score
from avo.evaluator.judging.judge import Judge
from avo.evaluator.judging.neighbours import NEIGHBOURS, in_other_orders, predicted
from avo.evaluator.judging.refusal import passed
from avo.evaluator.judging.speed import CompiledPlan, Predicted
from avo.evaluator.resolution import difference
from avo.evaluator.targets import get_target
from avo.evaluator.work import LaunchWork
from avo.lineage_db.decision import Lead, Ruling
from avo.seeds import seed_source
from bench.claims import made
from bench.known import GLUON, SUITE, TRITON
from bench.tables import Table, head, main, row

DOCUMENT = Path(__file__).parents[1] / "docs" / "acceptance.md"
TARGET = "h100"
ORDERS = 10
GAIN = 0.02
KERNELS: dict[str, tuple[str, Callable[[], str]]] = {
    "plain": ("mha", lambda: seed_source("mha", "plain")),
    "roles": ("mha", lambda: made(TRITON["mha", TARGET], TARGET)),
    "Gluon": ("mha", lambda: seed_source("mha", "hopper")),
    "backward": ("mha_backward", lambda: seed_source("mha_backward", "plain")),
    "fsa": ("fsa", lambda: seed_source("fsa", "kv_outer")),
    "decode": ("decode", lambda: seed_source("decode", "split")),
}
LSE = "    gl.store(lse + rows, (row_max + gl.log2(row_sum)) * 0.6931471805599453, mask=rows < q_len)\n"
OUT = "    gl.store(out + places, acc.to(gl.bfloat16), mask=out_rows[:, None] < q_len)\n"
RHYTHMS: dict[str, Callable[[str], str]] = {
    "a fifth slot of the ring": lambda source: _edited(source, "STAGES=4", "STAGES=5"),
    "a slot less": lambda source: _edited(source, "STAGES=4", "STAGES=3"),
    "lse stored last": lambda source: _edited(_edited(source, LSE, ""), OUT, OUT + LSE),
    "a division for the reciprocal": lambda source: _edited(
        source, "acc * gl.convert_layout(1.0 / row_sum", "acc / gl.convert_layout(row_sum"
    ),
}
"""Edits of the best kernel known that change no pass of its hot loop, or only how far loads run ahead."""


def equal() -> Table:
    """How often a kernel is resolved against itself in another order."""
    yield from head("kernel", "orders differ by", "resolved from", "pairs", "accepted", "by one order alone")
    for name, (problem, _) in KERNELS.items():
        scores = [score for score, _ in orders(name)]
        pairs = list(permutations(scores, 2))
        spread = statistics.stdev(math.log(score.own_tflops) for score in scores)
        least = statistics.median(difference(*pair).resolution or 0.0 for pair in pairs)
        alone = sum(_accepted(*(replace(score, neighbours=()) for score in pair)) for pair in pairs)
        accepted = sum(_accepted(*pair) for pair in pairs)
        yield row(f"{name}, {problem}", f"{spread:.1%}", f"{least:+.1%}", len(pairs), accepted, alone)


def gains() -> Table:
    """How often a kernel is resolved against another order of itself with more work."""
    yield from head("kernel", "pairs", "gain in the mean", "accepted")
    for name, (problem, _) in KERNELS.items():
        fast, slow = ([scores[place] for scores in orders(name)] for place in (0, 1))
        pairs = [(mine, other) for place, mine in enumerate(fast) for other in (*slow[:place], *slow[place + 1 :])]
        mean = statistics.fmean(difference(*pair).gain for pair in pairs)
        yield row(f"{name}, {problem}", len(pairs), f"{mean:+.1%}", sum(_accepted(*pair) for pair in pairs))


def rhythms() -> Table:
    """What edits gain that should gain nothing."""
    yield from head("edit", "TFLOPS", "gain in the mean", "resolved from", "ruling")
    source = made(GLUON["mha", TARGET], TARGET)
    with _judge() as judge:
        best = looked_at(judge, "mha", judge.planned(Candidate("mha", source)))
        yield row("none", f"{best.geomean_tflops:.1f}", "", "", "")
        for name, edit in RHYTHMS.items():
            score = looked_at(judge, "mha", judge.planned(Candidate("mha", edit(source))))
            found = difference(score, best)
            gain, least = f"{found.gain:+.1%}", f"{found.resolution or 0.0:+.1%}"
            yield row(name, f"{score.geomean_tflops:.1f}", gain, least, ruling(score, best).replace("_", " "))


@cache
def orders(name: str) -> list[tuple[Score, Score]]:
    """Return the score of a kernel in each order, and that of the same with more work."""
    problem, source = KERNELS[name]
    with _judge() as judge:
        plans = judge.planned(Candidate(problem, source()))
        judge.compiler.begin(closely=True)
        found = []
        more = _passes(judge, problem, plans)
        for each in in_other_orders(judge.compiler, judge.target, plans, ORDERS):
            made = _neighbours(judge, each)
            slower = looked_at(judge, problem, _longer(each, more), [_longer(order, more) for order in made])
            found.append((looked_at(judge, problem, each, made), slower))
        return found


def _judge() -> Judge:
    return Judge(get_target(TARGET), SUITE)


def looked_at(
    judge: Judge, problem: str, plans: Sequence[CompiledPlan], made: Sequence[Sequence[CompiledPlan]] = ()
) -> Score:
    """Return the score of plans, with that of their neighbours, which may have been ``made``."""
    asked = get_problem(problem)
    score = passed(Predicted(judge.target).score(asked, plans, None))
    return replace(score, neighbours=predicted(judge.target, asked, made or _neighbours(judge, plans)))


def _neighbours(judge: Judge, plans: Sequence[CompiledPlan]) -> list[list[CompiledPlan]]:
    judge.compiler.begin(closely=True)
    return in_other_orders(judge.compiler, judge.target, plans, NEIGHBOURS)


def _passes(judge: Judge, problem: str, plans: Sequence[CompiledPlan]) -> float:
    """Return how much more often all loops have to be passed to take ``GAIN`` more time."""
    tried = 0.1
    few, many = (
        passed(Predicted(judge.target).score(get_problem(problem), _longer(plans, more), None)).geomean_tflops
        for more in (0.0, tried)
    )
    return GAIN * tried / (few / many - 1)


def _longer(plans: Sequence[CompiledPlan], more: float) -> list[CompiledPlan]:
    return [replace(plan, works=tuple(_with_more(work, more) for work in plan.works)) for plan in plans]


def _with_more(work: LaunchWork, more: float) -> LaunchWork:
    """Return a launch whose programs pass their loops more often. Passes need not be whole for the model."""
    trips: list[Any] = [loop.trips * (1 + more) for loop in work.loops]
    loops = tuple(replace(loop, trips=each) for loop, each in zip(work.loops, trips, strict=True))
    return replace(work, loops=loops)


def _accepted(mine: Score, other: Score) -> bool:
    return ruling(mine, other) is Ruling.ACCEPTABLE


def ruling(mine: Score, other: Score) -> Ruling:
    config = RunConfig()
    found = difference(mine, other, config.min_share)
    return Lead(0, found).decide(config.min_gain, config.min_share).ruling


def _edited(source: str, old: str, new: str) -> str:
    assert old in source, old
    return source.replace(old, new)


if __name__ == "__main__":
    main("bench.resolution", __doc__, {"equal": equal, "gains": gains, "rhythms": rhythms}, DOCUMENT)
