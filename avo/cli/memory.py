"""``avo memory``: what a run has learnt: notes, directions with their evidence, and what steps handed over."""

from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from avo.cli.common import DbOption, JsonOption, RunArgument, console, print_json, read_store
from avo.watch.wording import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

_Item = TypeVar("_Item")


def memory(
    run: RunArgument,
    limit: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Print at most N lines. Default: 50; all with --json.")
    ] = None,
    search: Annotated[
        str | None, typer.Option(metavar="WORDS", help="Only what shares a word with these, best first, in full.")
    ] = None,
    db: DbOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a run remembers, in the order in which the next step is told, and what the last steps handed over.

    With --json: all directions with their evidence, notes and handovers, in a form that avo run --from-memory reads;
    see docs/agent.md for the fields.

    Example: avo memory mha-h100 --search "exp2 polynomial"

    Example: avo memory mha-h100 --json > mha.json
    """
    from avo.agents.briefing import HANDOVERS
    from avo.agents.directions import directions
    from avo.agents.memory import handed_over, lessons, matter_at_hand, ranked, recalled
    from avo.lineage_db.directions import to_file
    from avo.search.transfer import taken_over

    with read_store(db) as store:
        record = store.run(run)
        attempts, versions = store.attempt_summaries(record.id), store.versions(record.id)
        memories = store.journal.memories(record.id)
    taken = taken_over(record)
    if as_json:
        known = directions(memories, attempts, versions, taken)
        notes = [each for each in memories if not each.handover and each.direction is None]
        left = handed_over(memories, attempts, len(memories))
        told = to_file(_kept(known, search, limit, "words"), record.name, record.problem, record.target)
        told["notes"] = [{"step": each.step_number, "text": each.text} for each in _kept(notes, search, limit, "text")]
        told["handovers"] = [
            {"step": each.step, "version": each.version, "text": each.text}
            for each in _kept(left, search, limit, "text")
        ]
        print_json(told)
        return
    most = limit or 50
    if search is not None:
        texts = recalled(search, memories, attempts, versions, taken, most)
        console.print("\n".join(map(printable, texts)) or "nothing found: use other words, or fewer", soft_wrap=True)
        return
    left = handed_over(memories, attempts, HANDOVERS)
    found = lessons(memories, attempts, versions, taken)
    chosen = ranked(found, matter_at_hand(versions[-1], attempts) if versions else "", most)
    if not (chosen or left):
        console.print(f"{run} remembers nothing: its operator left no notes and stated no hypotheses")
    for one in chosen:
        console.print(printable(one.line), soft_wrap=True)
    for each in left:
        console.print(f"\nhanded over by {each.of}:\n{printable(each.text)}", soft_wrap=True)


def _kept(items: "Sequence[_Item]", search: str | None, limit: int | None, text: str) -> "Sequence[_Item]":
    """Return those of ``items`` whose attribute ``text`` has a word of ``search``, best first; None: all, in order."""
    from avo.agents.memory import matching

    if search is not None:
        items = [items[place] for place in matching(search, [getattr(each, text) for each in items])]
    return items[:limit]
