"""``avo evaluate``: the full judgement of one file."""

import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from avo.cli import completion
from avo.cli.common import DbOption, JsonOption, console, fail, print_json, read_source, read_store, run_name, telling
from avo.cli.options import takes_settings
from avo.cli.verdict import render

if TYPE_CHECKING:
    from collections.abc import Sequence

    from avo.config import RunConfig
    from avo.lineage_db.records import Run, Version

_UNLIMITED_S = 1e6
"""Limit where GPU workers run under a profiler, which may run each kernel dozens of times."""


@takes_settings
def evaluate(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Python source with the problem's entry function.")],
    wall: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="Give up after this much work, 1 or more. Default: 300, or the run's."),
    ] = None,
    closely: Annotated[
        bool,
        typer.Option(help="Examine it as before it is accepted: at drawn and held-out shapes, in larger samples."),
    ] = False,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="RUN",
            callback=run_name,
            help="Judge it as this run does, and say whether it would be accepted there.",
            autocompletion=completion.runs,
        ),
    ] = None,
    db: DbOption = None,
    as_json: JsonOption = False,
    **settings: Any,
) -> None:
    """Judge one file: is it correct, how fast is it?

    With --closely the cases that are printed tell what was drawn, and the score is that of the suite held_out. In a run
    the launch plans must also be those that were scored before; here nothing was.

    Exit code 0: correct. 1: the candidate fails, or its numbers could not be verified. 2: the call is wrong.

    Example: avo evaluate kernel.py --target b200 --json
    """
    if wall is not None and not 1 <= wall < math.inf:
        fail(f"--wall: {wall:g} should be 1 second or more")

    from avo.config import RunConfig
    from avo.evaluator.candidate import Candidate
    from avo.evaluator.catalogue import get_problem, get_suite, problem_name
    from avo.search.acceptance import Thresholds, decide
    from avo.search.judging import Judging, check_machine
    from avo.search.scoring import with_twins

    run: Run | None = None
    versions: Sequence[Version] = ()
    if against is None:
        config = RunConfig.resolve(None, settings, search=False)
    else:
        config, run, versions = _lineage(against, db, settings, closely=closely)
    check_machine(config)
    problem = problem_name(config.problem)
    get_suite(get_problem(problem), config.suite)
    candidate = Candidate(problem, read_source(file))
    judging = Judging.of(config)
    judging = replace(judging, wall_s=_UNLIMITED_S if config.worker_prefix else wall or judging.wall_s)
    with telling(f"judging {file} for {config.target}") as tell, judging.start() as judge:
        evaluation = judge.verify(candidate, tell=tell) if closely else judge.evaluate(candidate, tell=tell)
    if evaluation.score and evaluation.suite != config.suite:  # the neighbours are of the suite that ranks versions
        evaluation = replace(evaluation, score=replace(evaluation.score, neighbours=()))
    decision = decide(versions, evaluation, Thresholds(config.min_gain, config.min_share)) if run else None
    if run and evaluation.plan_digest:
        with read_store(db) as store:
            decision = with_twins(decision, store.attempts_of_plan(run.id, evaluation.plan_digest))
    if as_json:
        print_json(evaluation.to_json() | ({"decision": asdict(decision) if decision else None} if run else {}))
    else:
        console.print(render(evaluation, get_problem(problem)))
        if run and decision:
            console.print(f"\n{run.name}: {decision.answer}")
    raise typer.Exit(0 if evaluation.correct else 1)


def _lineage(
    name: str, db: str | None, settings: dict[str, Any], *, closely: bool
) -> "tuple[RunConfig, Run, Sequence[Version]]":
    """Return the configuration of a run, the run and its versions; leave with one line where a file cannot be held
    against them.
    """
    from avo.config import RunConfig

    if closely:
        fail("--against is about the score on the run's suite, --closely about other shapes: give one of the two")
    with read_store(db) as store:
        run = store.run(name)
        versions = store.versions(run.id)
    config = RunConfig.stored(run, settings)
    for setting, own in (("problem", run.problem), ("target", run.target), ("suite", run.suite)):
        if (given := getattr(config, setting)) != own:
            fail(f"--{setting}: {run.name} has {own}, not {given}")
    if config.population != "lineage":
        fail(f"--against: versions of {run.name} have rivals of their own ({config.population}): name a single lineage")
    if config.measured:
        fail(
            f"--against: {run.name} measures speed, and accepts what is faster when timed in turn: name a predicted run"
        )
    return config, run, versions
