"""``avo show``: one version."""

import sys
from dataclasses import asdict
from typing import Annotated

import typer

from avo.cli.common import DbOption, JsonOption, console, load_version, open_store, print_json
from avo.cli.verdict import published, render
from avo.watch.tables import one_line
from avo.watch.wording import printable

VersionArgument = Annotated[
    str, typer.Argument(metavar="RUN[@VERSION]", help="A version, e.g. mha-h100@3; without @VERSION the best one.")
]


def show(
    version: VersionArgument,
    source: Annotated[bool, typer.Option("--source", help="Print the kernel's source instead.")] = False,
    db: DbOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one version: scores, correctness, resources.

    Scores are per case, with the published figures below them and how busy each pipe of the machine is.

    Example: avo show mha-h100@3 --source > kernel.py
    """
    from avo.config import ISOLATION
    from evaluator.catalogue import get_problem

    with open_store(db) as store:
        run, found = load_version(store, version)
        seed = store.version(run.id, 0)
        step = store.step(run.id, found.step_number)
    attempt, problem = found.attempt, get_problem(run.problem)
    assert step is not None, "versions are accepted in steps"
    isolation = run.config.get(ISOLATION, [])
    if as_json:
        print_json(
            {
                "run": run.name,
                "problem": run.problem,
                "version": found.number,
                "attempt": attempt.id,
                "parents": list(found.parents),
                "operator": step.operator,
                "isolation": isolation,
                "change": attempt.change,
                "hypothesis": attempt.hypothesis or None,
                "submission": None if step.submission is None else asdict(step.submission),
                "digest": attempt.digest,
                "accepted": found.accepted.isoformat(),
                "evaluation": attempt.evaluation.to_json(),
                "published": [asdict(baseline) for baseline in published(problem, run.target)],
                "source": attempt.source,
            }
        )
    elif source:
        print_source(attempt.source)
    else:
        parents = " and ".join(f"v{parent}" for parent in found.parents)
        console.print(f"{run.name}@{found.number}: {one_line(attempt.change)}", style="bold")
        made = f"by {step.operator} from {parents}" if parents else f"by {step.operator}"
        console.print(f"made {made}, accepted {found.accepted:%Y-%m-%d %H:%M} UTC, attempt {attempt.id}")
        console.print(f"digest {attempt.digest}")
        expected, seen = (step.submission.expected, step.submission.seen) if step.submission else ("", "")
        for name, text in (("hypothesis", attempt.hypothesis), ("expected", expected), ("seen", seen)):
            if text:
                console.print(f"{name}: {one_line(text)}", soft_wrap=True)
        if isolation:
            console.print(f"candidates of this run were kept apart by {'; or by '.join(map(one_line, isolation))}")
        console.print()
        console.print(render(attempt.evaluation, problem, seed.attempt.evaluation.score if found.number else None))


def print_source(text: str, lexer: str = "python") -> None:
    """Print a text, in colour on a terminal and byte for byte elsewhere."""
    if console.is_terminal:
        from rich.syntax import Syntax

        console.print(Syntax(printable(text.expandtabs()), lexer, theme="ansi_dark", background_color="default"))
    else:
        sys.stdout.write(text)
