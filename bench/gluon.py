"""What the seeds in Gluon are predicted at, beside what was published, and what moves make of them.

python -m bench.gluon            prints both tables: ten minutes
python -m bench.gluon --write    also puts them into docs/performance-model.md

Kernels are compiled and played, not executed: `python -m bench.verdicts` judges the seeds.
"""

from collections.abc import Iterator
from pathlib import Path
from statistics import geometric_mean

from avo.agents.moves import MOVES
from avo.evaluator.catalogue import get_problem
from avo.evaluator.evaluators import Evaluator
from avo.evaluator.inspection import Inspection, Look
from avo.evaluator.judges import local_judge
from avo.evaluator.targets import get_target
from bench.claims import made
from bench.known import GLUON
from bench.tables import Table, main, row

DOCUMENT = Path(__file__).parents[1] / "docs" / "performance-model.md"
SEEDS = {"h100": ("hopper", "FlashAttention-3"), "b200": ("blackwell", "FlashAttention-4")}
"""The seed for each target, and the published kernel whose design it follows."""
CASES = {
    "mha": (("8k-full", "16k-full"), ("8k-causal", "16k-causal")),
    "gqa": (("8k-full-8kv", "16k-full-8kv"), ("8k-causal-4kv", "16k-causal-4kv")),
}
ALONE = {
    "h100": ("gluon-groups", "gluon-turns", "gluon-persistent"),
    "b200": ("gluon-packed", "gluon-order", "gluon-persistent"),
}
"""Moves that are tried one at a time, in all their variants."""


def seeds() -> Table:
    """The seeds on cases of the suite paper."""
    yield row("target", "problem", "seed", *("full, predicted", "published", "causal, predicted", "published"))
    yield "|---|---|---|---:|---:|---:|---:|"
    for target, (seed, rival) in SEEDS.items():
        with local_judge(get_target(target), "paper") as judge:
            for problem, cases in CASES.items():
                found = _predicted(judge, problem, made((f"mha/{seed}",), target))
                baselines = get_problem(problem).baselines
                published = next((each.tflops for each in baselines if (each.name, each.target) == (rival, target)), {})
                cells = [
                    " / ".join(f"{speeds[case]:.0f}" for case in of if case in speeds)
                    for of in cases
                    for speeds in (found, published)
                ]
                yield row(target, problem, f"`{seed}`", *cells)


def moves() -> Table:
    """What moves make of the seeds, on the suite quick."""
    yield row("target", "seed", "move", "full", "causal", "mean")
    yield "|---|---|---|---:|---:|---:|"
    for target, (seed, _) in SEEDS.items():
        with local_judge(get_target(target), "quick") as judge:
            for what, source in moved(target, seed):
                found = _predicted(judge, "mha", source)
                speeds = [found["8k-full"], found["8k-causal"]]
                cells = (f"{speed:.0f}" for speed in (*speeds, geometric_mean(speeds)))
                yield row(target, f"`{seed}`", what, *cells)


def moved(target: str, seed: str) -> Iterator[tuple[str, str]]:
    """Yield (what was done, source) for the seed, for each variant of a move, and for the best kernel known."""
    source = made((f"mha/{seed}",), target)
    yield "", source
    by_name = {move.name: move for move in MOVES}
    for name in ALONE[target]:
        for variant in by_name[name].variants(source, get_target(target)):
            yield f"`{name}`: {variant.label}", variant.source
    _, *steps = best = GLUON["mha", target]
    yield ", ".join(f"`{step}`" for step in steps), made(best, target)


def _predicted(judge: Evaluator, problem: str, source: str) -> dict[str, float]:
    """Return TFLOPS by case."""
    return {case.case: case.tflops for case in judge.ask(Inspection(Look.SPEED, problem, source)).score.cases}


TABLES = {"seeds": seeds, "moves": moves}

if __name__ == "__main__":
    main("bench.gluon", __doc__, TABLES, DOCUMENT)
