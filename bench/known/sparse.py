"""The moves that lead from each seed of ``fsa`` to the best kernels known, and the predicted score after each.

    python -m bench.known.sparse [--target h100]

Scores are geometric means over the suite ``quick``, in TFLOPS; numbers are not checked. A source that several paths
share is predicted once.
"""

import argparse
import math
from collections.abc import Iterator

from agents.moves import MOVES
from evaluator.candidate import Candidate
from evaluator.evaluation import Fault
from evaluator.evaluators import local_judge
from evaluator.target import Target
from evaluator.targets import get_target
from seeds import fitting, seed_source

PATHS = {
    "h100": (("far", "with partial outputs"), ("early", "EARLY 0 -> 5"), ("early", "EARLY 5 -> 6")),
    "b200": (
        ("far", "near ones apart"),
        ("early", "EARLY 0 -> 5"),
        ("rows", "ROWS 64 -> 128"),
        ("swap", "swap the axes of the grid"),
        ("share", "SHARE 512 -> 2048"),
        ("share", "SHARE 2048 -> 4096"),
        ("registers", "maxnreg None -> 255"),
    ),
}
"""Moves from a seed to the best kernel known for a target: each the move's name and the end of its variant's label."""
_BY_NAME = {move.name: move for move in MOVES}


def path(seed: str, target: Target) -> Iterator[tuple[str, str]]:
    """Yield the changes from a seed to the best kernel known for ``target``, each with the source that it makes."""
    source = seed_source("fsa", seed)
    yield f"seed {seed}", source
    for name, label in PATHS[target.name]:
        made = _BY_NAME[name].variants(source, target)
        source = next(variant.source for variant in made if variant.label.endswith(label))
        yield f"{name}: {label}", source


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", choices=PATHS, action="append", help="default: all")
    for name in parser.parse_args().target or PATHS:
        scores: dict[str, str] = {}
        with local_judge(get_target(name), "quick") as judge:
            for seed in fitting("fsa", judge.target):
                for change, source in path(seed, judge.target):
                    if source not in scores:
                        profiles = judge.profile(Candidate("fsa", source))
                        if isinstance(profiles, Fault):
                            scores[source] = profiles.message
                        else:
                            logarithms = [math.log(profile.score.tflops) for profile in profiles]
                            scores[source] = f"{math.exp(sum(logarithms) / len(logarithms)):.1f}"
                    print(f"{name}  {scores[source]:>6}  {change}", flush=True)


if __name__ == "__main__":
    main()
