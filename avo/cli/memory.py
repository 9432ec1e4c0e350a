"""``avo memory``: what a run has learnt: notes, how hypotheses ended, and what steps handed over."""

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
    """Show what a run remembers, in the order in which the next step is told, and what the last steps handed over.

    Example: avo memory mha-h100 --limit 10
    """
    from avo.agents.briefing import HANDOVERS
    from avo.agents.memory import handed_over, lessons, matter_at_hand, ranked

    with read_store(db) as store:
        record = store.run(run)
        attempts, versions = store.attempt_summaries(record.id), store.versions(record.id)
        memories = store.journal.memories(record.id)
    found = lessons(memories, attempts, versions)
    left = handed_over(memories, attempts, HANDOVERS)
    chosen = ranked(found, matter_at_hand(versions[-1], attempts) if versions else "", limit)
    if as_json:
        told = [{"step": one.step, "attempt": one.attempt_id, "text": one.text, "handover": False} for one in chosen]
        told += [{"step": one.step, "attempt": None, "text": one.text, "handover": True} for one in left]
        print_json(told)
        return
    if not (chosen or left):
        console.print(f"{run} remembers nothing: its operator left no notes and stated no hypotheses")
    for one in chosen:
        console.print(f"step {one.step}{'' if one.attempt_id else ', note'}: {printable(one.text)}", soft_wrap=True)
    for each in left:
        console.print(f"\nhanded over by {each.of}:\n{printable(each.text)}", soft_wrap=True)
