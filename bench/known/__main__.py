"""The best kernels known, judged, and how far ``mutate``'s moves lead from a problem's seed.

python -m bench.known            prints all tables: some minutes
python -m bench.known --write    also puts them into bench/known/README.md

A kernel is a file PROBLEM_TARGET.py here; gqa has that of mha where it has none of its own. Moves make that of gqa for
b200, those of fsa (``bench.known.sparse``) and those in Gluon (``bench.known.gluon``). Those of a language model are in
``bench.known.attempts``. Every speed is predicted, on the suite quick.
"""

from collections.abc import Iterator
from functools import cache
from pathlib import Path

from avo.agents.moves import MOVES
from avo.evaluator.candidate import Candidate
from avo.evaluator.evaluation import Evaluation
from avo.evaluator.evaluators import EvaluateRequest
from avo.evaluator.judges import local_judge
from avo.evaluator.targets import get_target
from avo.seeds import seed_source
from bench.claims import made
from bench.known import gluon
from bench.known.attempts import TARGET, kernels
from bench.known.sparse import PATHS as SPARSE
from bench.known.sparse import path
from bench.tables import Table, main, row

HERE = Path(__file__).parent
SUITE = "quick"
PATHS = {
    ("mha", "h100"): ("specialise", "side"),
    ("gqa", "h100"): ("specialise", "side"),
    ("mha", "b200"): ("specialise", "side"),
    ("gqa", "b200"): ("specialise", "side"),
}
"""Moves from the plain seed, each in its first variant, by problem and target."""


def sources() -> dict[tuple[str, str], str]:
    """Return the best sources known in plain Triton, by problem and target."""
    sparse = {("fsa", target): list(path("kv_outer", get_target(target)))[-1][1] for target in SPARSE}
    found = {
        (problem, target): file.read_text()
        for file in sorted(HERE.glob("*_*.py"))
        if not file.name.startswith("_")
        for problem, target in [file.stem.split("_")]
    }
    shared = {("gqa", target): source for (problem, target), source in found.items() if problem == "mha"}
    moved = {("gqa", "b200"): made(("gqa/plain", *PATHS["gqa", "b200"]), "b200")}
    return sparse | shared | found | moved


def walk(problem: str, target: str) -> Iterator[tuple[str, str]]:
    """Yield (what was done, source) for the seed and each move of the path."""
    source = seed_source(problem)
    yield "the seed", source
    by_name = {move.name: move for move in MOVES}
    for name in PATHS[problem, target]:
        variant = by_name[name].variants(source, get_target(target))[0]
        source = variant.source
        yield f"`{name}`: {variant.label}", source


@cache
def judged(problem: str, target: str) -> tuple[tuple[str, Evaluation], ...]:
    """Return (what it is, verdict) of the best kernel known, and of what the moves lead to where they have a path."""
    steps = walk(problem, target) if (problem, target) in PATHS else ()
    with local_judge(get_target(target), SUITE) as judge:
        found = [
            (what, judge.ask(EvaluateRequest(Candidate(problem, source))))
            for what, source in [("the best known", sources()[problem, target]), *steps]
        ]
    return tuple(found)


def known() -> Table:
    """Each kernel's verdict and speed."""
    yield row("problem", "target", "verdict", "TFLOPS", "by case")
    yield row(*["---"] * 5)
    for problem, target in sources():
        (_, found), *_ = judged(problem, target)
        yield row(problem, target, *_cells(found))


def in_gluon() -> Table:
    """Verdict and speed of the kernels in Gluon, and the moves that make them."""
    yield row("problem", "target", "verdict", "TFLOPS", "by case", "seed and moves")
    yield row(*["---"] * 6)
    for (problem, target), source in gluon.sources().items():
        with local_judge(get_target(target), SUITE) as judge:
            found = judge.ask(EvaluateRequest(Candidate(problem, source)))
        steps = ", ".join(f"`{step}`" for step in gluon.PATHS[problem, target])
        yield row(problem, target, *_cells(found), steps)


def _cells(found: Evaluation) -> tuple[str, str, str]:
    cases = found.score.cases if found.score else ()
    by_case = ", ".join(f"{case.case} {case.tflops:.0f}" for case in cases)
    return found.status.words, f"{found.geomean_tflops:.1f}", by_case or found.message


def moves() -> Table:
    """How far the moves lead."""
    yield row("problem", "target", "after", "TFLOPS", "of the best known")
    yield row(*["---"] * 5)
    for problem, target in PATHS:
        (_, best), *steps = judged(problem, target)
        for what, found in steps:
            speed = found.geomean_tflops
            share = f"{speed / best.geomean_tflops:.1%}" if found.correct else found.message
            yield row(problem, target, what, f"{speed:.1f}", share)


def attempts() -> Table:
    """What a language model found, by the model of the day."""
    yield row("what it did", "verdict", "TFLOPS", "causal", "full")
    yield row(*["---"] * 5)
    with local_judge(get_target(TARGET), SUITE) as judge:
        for what, source in kernels():
            found = judge.ask(EvaluateRequest(Candidate("mha", source)))
            by_case = [f"{case.tflops:.0f}" for case in found.score.cases] if found.score else ["", ""]
            yield row(what, found.status.words, f"{found.geomean_tflops:.1f}", *by_case)


if __name__ == "__main__":
    tables = {"known": known, "in Gluon": in_gluon, "moves": moves, "attempts": attempts}
    main("bench.known", __doc__, tables, HERE / "README.md")
