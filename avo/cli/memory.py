"""``avo memory``: what a run has learnt: its operator's notes, and how its hypotheses ended."""

from typing import Annotated

import typer

from avo.cli.common import DbOption, JsonOption, RunArgument, console, print_json, read_store
from avo.watch.wording import printable


def memory(
    run: RunArgument,
    limit: Annotated[int, typer.Option(metavar="N", min=1, help="Print at most N lines.")] = 50,
    db: DbOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a run remembers, in the order in which the next step is told.

    Example: avo memory mha-h100 --limit 10
    """
    from agents.memory import lessons, matter_at_hand, ranked

    with read_store(db) as store:
        record = store.run(run)
        attempts, versions = store.attempt_summaries(record.id), store.versions(record.id)
        found = lessons(store.journal.memories(record.id), attempts, versions)
    chosen = ranked(found, matter_at_hand(versions[-1], attempts) if versions else "", limit)
    if as_json:
        print_json([{"step": one.step, "attempt": one.attempt_id, "text": one.text} for one in chosen])
        return
    if not chosen:
        console.print(f"{run} remembers nothing: its operator left no notes and stated no hypotheses")
    for one in chosen:
        console.print(f"step {one.step}{'' if one.attempt_id else ', note'}: {printable(one.text)}", soft_wrap=True)
