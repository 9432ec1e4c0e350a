"""``avo evaluate``: the full judgement of one file."""

from pathlib import Path
from typing import Annotated

import typer

from avo.cli.common import JsonOption, console, err, fail, print_json
from avo.cli.verdict import render


def evaluate(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Python source with the problem's entry function.")],
    problem: Annotated[str, typer.Option(help="What the kernel computes.")] = "mha",
    target: Annotated[
        str, typer.Option(help="Architecture its speed is predicted for: a100, h100, h200 or b200.")
    ] = "h100",
    suite: Annotated[str, typer.Option(help="Benchmark cases: quick or paper.")] = "quick",
    wall: Annotated[float, typer.Option(min=1.0, metavar="SECONDS", help="Give up after this time.")] = 300.0,
    as_json: JsonOption = False,
) -> None:
    """Judge one file: is it correct, how fast is it?

    Exit code 0: correct. 1: the candidate is at fault. 2: the call is.

    Example: avo evaluate kernel.py --target b200 --json
    """
    from evaluator.candidate import Candidate
    from evaluator.problem import get_problem, get_suite
    from evaluator.process import ProcessEvaluator
    from evaluator.target import get_target

    judged = get_problem(problem)
    get_suite(judged, suite)
    get_target(target)
    candidate = Candidate(problem, _read(file))
    evaluator = ProcessEvaluator(target, suite, wall)
    try:
        with err.status(f"judging {file} for {target} ..."):
            evaluation = evaluator.evaluate(candidate)
    finally:
        evaluator.close()
    if as_json:
        print_json(evaluation.to_json())
    else:
        console.print(render(evaluation, judged))
    raise typer.Exit(0 if evaluation.correct else 1)


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        fail(f"cannot read {file}: {error.strerror}")
    except UnicodeDecodeError:
        fail(f"cannot read {file}: not UTF-8 text")
