"""The desk of one step: what its operator reads and writes in the database."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from avo.agents.desk import Desk, Left
from avo.evaluator.evaluators import Evaluator
from avo.lineage_db.directions import Direction
from avo.lineage_db.errors import UnknownAttempt, UnknownRun, UnknownVersion
from avo.lineage_db.records import Attempt, PendingReply, RunSummary, Step, Version
from avo.lineage_db.store import Store
from avo.search.budget import record_call


def make_desk(
    store: Store,
    step: Step,
    evaluator: Evaluator,
    clock: Callable[[], datetime],
    left: Callable[[], Left],
    news: Callable[[], Sequence[str]],
) -> Desk:
    """Return what the operator of a step may read and write in the database, besides evaluations.

    ``left`` says what is left of the budgets, ``news`` what was found since it was asked last.
    """

    def attempt(attempt_id: int) -> Attempt:
        try:
            return store.attempt(step.run_id, attempt_id)
        except UnknownAttempt as error:
            raise LookupError(str(error)) from None

    def record(kind: str, content: dict[str, Any]) -> None:
        store.journal.add_message(step.id, kind, content, now=clock())

    def listen(*, model: str, seconds: float, characters: int | None, wait_s: float = 0.0, trouble: str = "") -> None:
        now = clock()
        heard, until = None if characters is None else now, now + timedelta(seconds=wait_s) if trouble else None
        reply = PendingReply(model, now - timedelta(seconds=seconds), heard, characters or 0, until, trouble)
        store.journal.listen(step.id, reply, now=now)

    def remember(note: str) -> None:
        store.journal.remember(step.id, note, now=clock())

    def hand_over(text: str) -> None:
        store.journal.remember(step.id, text, now=clock(), handover=True)

    def explore(directions: Sequence[Direction]) -> None:
        store.journal.explore(step.id, [each.seen_in(step.number) for each in directions], now=clock())

    def runs() -> list[RunSummary]:
        return [each for each in store.runs() if each.versions and each.run.id != step.run_id]

    def version(run: str, number: int | None) -> Version:
        try:
            return store.version(store.run(run).id, number)
        except (UnknownRun, UnknownVersion) as error:
            raise LookupError(str(error)) from None

    return Desk(
        inspect=evaluator.inspect,
        attempt=attempt,
        record=record,
        charge=partial(record_call, store, step.run_id, step, clock),
        remember=remember,
        hand_over=hand_over,
        explore=explore,
        left=left,
        listen=listen,
        runs=runs,
        version=version,
        news=news,
    )
