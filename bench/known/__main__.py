"""The best kernels known, judged after each move that leads to them.

python -m bench.known            prints both tables: some minutes
python -m bench.known --write    also puts them into bench/known/README.md
"""

from pathlib import Path

from avo.evaluator.candidate import Candidate
from avo.evaluator.evaluation import Score
from avo.evaluator.evaluators import EvaluateRequest
from avo.evaluator.judging.judge import Judge
from avo.evaluator.resolution import difference
from avo.evaluator.targets import get_target
from avo.evaluator.units import figure, percent
from bench.claims import made
from bench.known import GLUON, SUITE, TRITON, Paths
from bench.resolution import looked_at, ruling
from bench.tables import Table, head, main, row

README = Path(__file__).parent / "README.md"


def stepwise(paths: Paths) -> Table:
    """Verdict and speed of each seed and after each move, and whether its gain would be accepted."""
    columns = ("problem", "target", "seed, then moves", "verdict", "TFLOPS", "by case", "gain of neighbours", "ruling")
    yield from head(*columns)
    for (problem, target), steps in paths.items():
        best: Score | None = None
        with Judge(get_target(target), SUITE) as judge:
            for count, step in enumerate(steps, 1):
                candidate = Candidate(problem, made(steps[:count], target))
                found = judge.ask(EvaluateRequest(candidate))
                cases = found.score.cases if found.score else ()
                by_case = ", ".join(f"{case.case} {figure(case.tflops)}" for case in cases)
                speed, told = "", ("", "")
                if found.score:
                    score = looked_at(judge, problem, judge.planned(candidate))
                    speed, told = figure(score.geomean_tflops), _over(score, best)
                    best = score
                yield row(problem, target, f"`{step}`", found.status.words, speed, by_case or found.message, *told)


def _over(score: Score, before: Score | None) -> tuple[str, str]:
    """Return the gain over the step before, resolved from where, and what acceptance says of it."""
    if before is None:
        return "", ""
    found = difference(score, before)
    return f"{percent(found.gain)}, resolved from {percent(found.resolution or 0.0)}", ruling(score, before).replace(
        "_", " "
    )


if __name__ == "__main__":
    tables = {"in Triton": lambda: stepwise(TRITON), "in Gluon": lambda: stepwise(GLUON)}
    main("bench.known", __doc__, tables, README)
