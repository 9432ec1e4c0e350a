"""The moves that lead from each seed of ``fsa`` to the best kernels known, and the predicted score after each.

    python -m bench.known.sparse [--target h100]
    python -m bench.known.sparse --scatter     of kernels for b200, beside what they are if a descriptor scatters rows

Scores are geometric means over the suite ``quick``, in TFLOPS; numbers are not checked. A source that several paths
share is predicted once.
"""

import argparse
import re
from collections.abc import Iterator
from statistics import geometric_mean

from avo.agents.moves import MOVES
from avo.evaluator.candidate import Candidate
from avo.evaluator.evaluation import Fault
from avo.evaluator.evaluators import Evaluator
from avo.evaluator.judges import local_judge
from avo.evaluator.target import Target
from avo.evaluator.targets import get_target
from avo.seeds import fitting, seed_source

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


def scattered(source: str) -> str:
    """Return a kernel of ``fsa`` that stores partial outputs through a descriptor of single rows, as on Blackwell;
    a row that is left out is beyond its end.
    """
    last = 2**31 - 1
    place = r"Partial \+ place\[:, None\] \* (\w+) \+ offs_d\[None, :\]"
    stored = re.compile(rf"tl\.store\(\s*{place},\s*(out\.to\(.*?\)),\s*mask=.*?\]\s*,?\s*\)\n", re.DOTALL)
    ((width, value),) = stored.findall(source)
    kernel, count = stored.subn(f"partial.scatter({value}, tl.where(in_m, place, {last}).to(tl.int32), 0)\n", source)
    made = f"partial = tl.make_tensor_descriptor(Partial, [{last}, {width}], [{width}, 1], [1, {width}])"
    kernel, times = re.subn(r"(?m)^(    )(for begin in range\(share \* SHARE)", rf"\1{made}\n\1\2", kernel)
    assert count == times == 1
    return kernel


def _with_scatter() -> Iterator[tuple[str, str]]:
    """Yield the seed, and the best kernel known with its rows to a tile and with fewer."""
    *_, (_, best) = path("kv_outer", get_target("b200"))
    fewer = re.sub(r"(?m)^ROWS = 128$", "ROWS = 64", best)
    for what, source in (("kv_outer", seed_source("fsa", "kv_outer")), ("best known", best), ("ROWS = 64", fewer)):
        yield what, source
        yield f"{what}, scattered", scattered(source)


def _scores(judge: Evaluator, source: str) -> str:
    profiles = judge.profile(Candidate("fsa", source))
    if isinstance(profiles, Fault):
        return profiles.message
    speeds = [profile.score.tflops for profile in profiles]
    return f"{geometric_mean(speeds):6.1f}  " + ", ".join(f"{speed:.0f}" for speed in speeds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", choices=PATHS, action="append", help="default: all")
    parser.add_argument("--scatter", action="store_true")
    asked = parser.parse_args()
    if asked.scatter:
        with local_judge(get_target("b200"), "quick") as judge:
            for what, source in _with_scatter():
                print(f"{_scores(judge, source)}  {what}", flush=True)
        return
    for name in asked.target or PATHS:
        scores: dict[str, str] = {}
        with local_judge(get_target(name), "quick") as judge:
            for seed in fitting("fsa", judge.target):
                for change, source in path(seed, judge.target):
                    if source not in scores:
                        scores[source] = _scores(judge, source)
                    print(f"{name}  {scores[source]}  {change}", flush=True)


if __name__ == "__main__":
    main()
