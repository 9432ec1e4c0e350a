"""``avo compare``: runs side by side."""

from typing import Annotated

import typer

from avo.cli import completion
from avo.cli.common import DbOption, JsonOption, console, fail, print_json, read_store, run_name
from avo.watch.tables import row, table

UNITS = {"attempts": "attempts", "looks": "looks", "hours": "hours of work", "tokens": "tokens", "usd": "USD"}


def compare(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN", help="Names of two or more runs, as avo runs shows them.", autocompletion=completion.runs
        ),
    ],
    db: DbOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare runs: the best score of each after the same attempts, looks, hours, tokens and USD.

    They must have the same problem, suite and target. An empty field: the run did not get that far.

    Example: avo compare mha-agent mha-mutate
    """
    from avo.watch.comparison import COSTS, check_comparable, course, marks
    from avo.watch.scores import unit_for

    for name in runs:
        run_name(name)
    if len(set(runs)) < 2:
        fail("give two different runs or more, e.g. avo compare mha-agent mha-mutate")
    with read_store(db) as store:
        records = [store.run(name) for name in dict.fromkeys(runs)]
        courses = [course(store, record) for record in records]
    check_comparable(records, courses)
    if as_json:
        print_json([found.to_json() for found in courses])
        return
    unit = unit_for(records[0])
    title = f"Best of each, {courses[0].kind} {unit.name}, {courses[0].place}"
    costs = (">ATTEMPTS", ">LOOKS", ">HOURS", ">TOKENS", ">USD")
    summary = table("RUN", "OPERATOR", ">BEST", ">SEED", *costs, title=title)
    for found in courses:
        spent = found.spent
        row(
            summary, found.run, found.operator, unit.cell(found.advances[-1].tflops),
            unit.cell(found.advances[0].tflops),
            spent.attempts, spent.looks or "", f"{spent.hours:.2f}", spent.tokens or "",
            f"{spent.usd:.2f}" if spent.usd else "",
        )  # fmt: skip
    console.print(summary)
    for cost in COSTS:
        if not (amounts := marks(courses, cost)):
            continue
        made = table(f">{UNITS[cost].upper()}", *(f">{found.run}" for found in courses))
        for amount in amounts:
            reached = [found.best_at(cost, amount) for found in courses]
            row(made, f"{amount:,.10g}", *("" if best is None else unit.cell(best) for best in reached))
        console.print()
        console.print(made)
