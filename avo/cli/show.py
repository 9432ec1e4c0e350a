"""``avo show``: one version or attempt."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from avo.cli import completion
from avo.cli.common import DbOption, JsonOption, Named, console, fail, load, print_json, read_store
from avo.cli.verdict import published, render
from avo.watch.tables import one_line
from avo.watch.wording import edited_from, measured, printable

if TYPE_CHECKING:
    from avo.evaluator.evaluation import Score
    from avo.lineage_db.ablated import Ablation
    from avo.lineage_db.measurements import Measured
    from avo.lineage_db.records import Step, Version

VersionArgument = Annotated[
    str,
    typer.Argument(
        metavar="RUN[@VERSION|#ATTEMPT]",
        help="A version, e.g. mha-h100@3, or any attempt, e.g. mha-h100#38; RUN alone is its best version, "
        "RUN@measured the one that a card measured fastest.",
        autocompletion=completion.references,
    ),
]


def show(
    version: VersionArgument,
    source: Annotated[bool, typer.Option("--source", help="Print the kernel's source instead.")] = False,
    ablate: Annotated[
        bool,
        typer.Option(
            "--ablate",
            help="Take its edits away one at a time and judge it again: what each is worth. Ten edits took three "
            "minutes on two cores; the answer is kept. With --source, the kernel without the useless ones.",
        ),
    ] = False,
    db: DbOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one version or attempt: scores, correctness, resources, and why it is no version.

    Scores are per case, with the published figures below them and how busy each pipe of the machine is.

    Example: avo show mha-h100@3 --source > kernel.py
    """
    with read_store(db) as store:
        found = load(store, version)
        run, attempt, accepted = found.run, found.attempt, found.version
        (summary,) = store.pages.attempts(run.id, [attempt.id])
        step = store.step(run.id, accepted.step_number if accepted else summary.step_number)
        start = store.start(run.id)
        told = store.measurements.told(run.id)
        versions = store.versions(run.id) if ablate else []
        known = store.ablations.of(run.id, accepted.number) if ablate and accepted else None
    if ablate:
        _ablate(found, versions, known, db, source=source, as_json=as_json)
        return
    assert step is not None, "attempts are made in steps"
    if as_json:
        print_json(_record(found, step, told.get(attempt.id)))
    elif source:
        print_source(attempt.source)
    else:
        _print(found, step, start.attempt.evaluation.score if start and start.attempt.id != attempt.id else None, told)


def _ablate(
    found: Named,
    versions: "Sequence[Version]",
    known: "Ablation | None",
    db: str | None,
    *,
    source: bool,
    as_json: bool,
) -> None:
    from avo.cli.ablating import ablated
    from avo.search.ablation import unablated
    from avo.watch.scores import unit_for
    from avo.watch.tables import edits

    if found.version is None:
        fail(f"--ablate: {found.label} is no version: name one, such as {found.run.name}@1")
    if why := unablated(found.run, found.version):
        fail(f"--ablate: {why}")
    made = ablated(found.run, versions, found.version.number, known, db)
    if as_json:
        print_json(asdict(made))
    elif source:
        print_source(made.minimal)
    else:
        console.print(edits(made, unit_for(found.run, found.attempt.evaluation.score)))


def _record(found: Named, step: "Step", measured: "Measured | None") -> dict[str, Any]:
    from avo.config import ISOLATION
    from avo.evaluator.catalogue import get_problem

    run, attempt, accepted, submission = found.run, found.attempt, found.version, step.said_of(found.attempt.id)
    return {
        "run": run.name,
        "problem": run.problem,
        "version": accepted.number if accepted else None,
        "attempt": attempt.id,
        "parents": list(accepted.parents if accepted else attempt.parents),
        "built_on": attempt.built_on,
        "operator": step.operator,
        "isolation": run.config.get(ISOLATION, []),
        "change": accepted.change if accepted else attempt.change,
        "hypothesis": attempt.hypothesis or None,
        "submission": None if submission is None else asdict(submission),
        "digest": attempt.digest,
        "accepted": accepted.accepted.isoformat() if accepted else None,
        "decision": attempt.decision and asdict(attempt.decision),
        "evaluation": attempt.evaluation.to_json(),
        "measured": measured and measured.to_json(),
        "published": [asdict(baseline) for baseline in published(get_problem(run.problem), run.target)],
        "source": attempt.source,
    }


def _print(found: Named, step: "Step", seed: "Score | None", told: "Mapping[int, Measured]") -> None:
    from avo.config import ISOLATION
    from avo.evaluator.catalogue import get_problem
    from avo.model_time import owner_words
    from avo.watch.headline import headline
    from avo.watch.scores import unit_for

    attempt, accepted, submission = found.attempt, found.version, step.said_of(found.attempt.id)
    problem = get_problem(found.run.problem)
    unit = unit_for(found.run, attempt.evaluation.score)
    versions = [f"v{parent}" for parent in (accepted.parents if accepted else attempt.parents)]
    parents = " and ".join([*versions, *edited_from(attempt.built_on)])
    console.print(f"{found.label}: {one_line(accepted.change if accepted else attempt.change)}", style="bold")
    made = f"by {step.operator} from {parents}" if parents else f"by {step.operator}"
    when = f"accepted {accepted.accepted:%Y-%m-%d %H:%M}" if accepted else f"{attempt.finished:%Y-%m-%d %H:%M}"
    console.print(f"made {made}, {when} UTC, attempt {attempt.id}")
    if attempt.decision:
        console.print(one_line(attempt.decision.told), soft_wrap=True)
    console.print(f"digest {attempt.digest}")
    expected, seen = (submission.expected, submission.seen) if submission else ("", "")
    for name, text in (("hypothesis", attempt.hypothesis), ("expected", expected), ("seen", seen)):
        if text:
            console.print(f"{name}: {one_line(text)}", soft_wrap=True)
    if isolation := found.run.config.get(ISOLATION):
        console.print(f"candidates of this run were kept apart by {'; or by '.join(map(one_line, isolation))}")
    if told:
        console.print(measured(told.get(attempt.id), found.run.name, unit), soft_wrap=True)
    console.print()
    if score := attempt.evaluation.score:
        console.print(headline(score, unit, problem.baselines, told.get(attempt.id), seed), soft_wrap=True)
        if words := owner_words(found.run, score, seed or score):
            console.print(words, soft_wrap=True)
    console.print(render(attempt.evaluation, problem, seed))


def print_source(text: str, lexer: str = "python") -> None:
    """Print a text, in colour on a terminal and byte for byte elsewhere."""
    if console.is_terminal:
        from rich.syntax import Syntax

        console.print(Syntax(printable(text.expandtabs()), lexer, theme="ansi_dark", background_color="default"))
    else:
        sys.stdout.write(text)
