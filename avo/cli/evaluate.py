"""``avo evaluate``: the full judgement of one file."""

import math
from pathlib import Path
from typing import Annotated, Any

import typer

from avo.cli.common import (
    JsonOption,
    console,
    fail,
    print_json,
    read_source,
    telling,
)
from avo.cli.options import takes_settings
from avo.cli.verdict import render

_UNLIMITED_S = 1e6
"""Limit where GPU workers run under a profiler, which may run each kernel dozens of times."""


@takes_settings
def evaluate(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Python source with the problem's entry function.")],
    wall: Annotated[float, typer.Option(metavar="SECONDS", help="Give up after this much work, 1 or more.")] = 300.0,
    closely: Annotated[
        bool,
        typer.Option(help="Examine it as before it is accepted: at drawn and held-out shapes, in larger samples."),
    ] = False,
    as_json: JsonOption = False,
    **settings: Any,
) -> None:
    """Judge one file: is it correct, how fast is it?

    With --closely the cases that are printed tell what was drawn, and the score is that of the suite held_out. In a run
    the launch plans must also be those that were scored before; here nothing was.

    Exit code 0: correct. 1: the candidate fails, or its numbers could not be verified. 2: the call is wrong.

    Example: avo evaluate kernel.py --target b200 --json
    """
    if not 1 <= wall < math.inf:
        fail(f"--wall: {wall:g} should be 1 second or more")

    from avo.config import RunConfig
    from avo.search.evaluators import measuring
    from evaluator.candidate import Candidate
    from evaluator.catalogue import get_problem, get_suite, problem_name
    from evaluator.evaluators import judge_process
    from evaluator.isolation import Sandbox
    from evaluator.machine import choose_gpus
    from evaluator.targets import get_target

    config = RunConfig.resolve(None, settings, search=False)
    target, suite, problem = config.target, config.suite, problem_name(config.problem)
    if config.device is not None:
        choose_gpus(config.device)
    sandbox = Sandbox(config.sandbox)
    if config.evaluator_command is None:
        sandbox.check()
        get_target(target)
    judged = get_problem(problem)
    get_suite(judged, suite)
    candidate = Candidate(problem, read_source(file))
    with (
        telling(f"judging {file} for {target}") as tell,
        judge_process(
            target,
            suite,
            wall if config.worker_prefix is None else _UNLIMITED_S,
            sandbox=sandbox,
            command=config.evaluator_command,
            options=measuring(config),
        ) as judge,
    ):
        evaluation = judge.verify(candidate, tell=tell) if closely else judge.evaluate(candidate, tell=tell)
    if as_json:
        print_json(evaluation.to_json())
    else:
        console.print(render(evaluation, judged))
    raise typer.Exit(0 if evaluation.correct else 1)
