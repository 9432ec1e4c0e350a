"""The best kernels known, judged after each move that leads to them.

python -m bench.known            prints both tables: some minutes
python -m bench.known --write    also puts them into bench/known/README.md
"""

from pathlib import Path

from avo.evaluator.candidate import Candidate
from avo.evaluator.evaluators import EvaluateRequest
from avo.evaluator.judges import local_judge
from avo.evaluator.targets import get_target
from bench.claims import made
from bench.known import GLUON, SUITE, TRITON, Paths
from bench.tables import Table, main, row

README = Path(__file__).parent / "README.md"


def stepwise(paths: Paths) -> Table:
    """Verdict and speed of each seed and after each move."""
    yield row("problem", "target", "seed, then moves", "verdict", "TFLOPS", "by case")
    yield row(*["---"] * 6)
    for (problem, target), steps in paths.items():
        with local_judge(get_target(target), SUITE) as judge:
            for count, step in enumerate(steps, 1):
                found = judge.ask(EvaluateRequest(Candidate(problem, made(steps[:count], target))))
                cases = found.score.cases if found.score else ()
                by_case = ", ".join(f"{case.case} {case.tflops:.0f}" for case in cases)
                speed = f"{found.geomean_tflops:.1f}"
                yield row(problem, target, f"`{step}`", found.status.words, speed, by_case or found.message)


if __name__ == "__main__":
    tables = {"in Triton": lambda: stepwise(TRITON), "in Gluon": lambda: stepwise(GLUON)}
    main("bench.known", __doc__, tables, README)
