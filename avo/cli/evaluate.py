"""``avo evaluate``: the full judgement of one file."""

import math
from pathlib import Path
from typing import Annotated

import typer

from avo.cli.common import (
    EvaluatorCommandOption,
    JsonOption,
    SandboxOption,
    console,
    err,
    fail,
    print_json,
    read_source,
)
from avo.cli.verdict import render
from evaluator.target import ARCHITECTURES


def evaluate(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Python source with the problem's entry function.")],
    problem: Annotated[
        str, typer.Option(metavar="NAME", help="What the kernel computes: mha, gqa, fsa or a PATH.py.")
    ] = "mha",
    target: Annotated[
        str,
        typer.Option(metavar="NAME", help=f"What its speed is predicted for: {ARCHITECTURES}; cuda: measured."),
    ] = "h100",
    suite: Annotated[str, typer.Option(metavar="NAME", help="Benchmark cases: quick, paper or held_out.")] = "quick",
    wall: Annotated[float, typer.Option(metavar="SECONDS", help="Give up after this time, 1 second at least.")] = 300.0,
    sandbox: SandboxOption = None,
    evaluator_command: EvaluatorCommandOption = None,
    as_json: JsonOption = False,
) -> None:
    """Judge one file: is it correct, how fast is it?

    Exit code 0: correct. 1: the candidate is at fault, or its numbers could not be verified. 2: the call is at fault.

    Example: avo evaluate kernel.py --target b200 --json
    """
    if not 1 <= wall < math.inf:
        fail(f"--wall: {wall:g} should be 1 second or more")

    from evaluator.candidate import Candidate
    from evaluator.catalogue import get_problem, get_suite, problem_name
    from evaluator.evaluators import judge_process
    from evaluator.isolation import Sandbox
    from evaluator.targets import get_target

    if sandbox not in (None, *Sandbox):
        fail(f"--sandbox: {sandbox!r} should be {' or '.join(map(repr, map(str, Sandbox)))}")
    kept = Sandbox(sandbox or Sandbox.AUTO)
    if evaluator_command is None:
        kept.check()
        get_target(target)
    problem = problem_name(problem)
    judged = get_problem(problem)
    get_suite(judged, suite)
    candidate = Candidate(problem, read_source(file))
    with (
        judge_process(target, suite, wall, sandbox=kept, command=evaluator_command) as judge,
        err.status(f"judging {file} for {target} ..."),
    ):
        evaluation = judge.evaluate(candidate)
    if as_json:
        print_json(evaluation.to_json())
    else:
        console.print(render(evaluation, judged))
    raise typer.Exit(0 if evaluation.correct else 1)
