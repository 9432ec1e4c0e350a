"""The desk of one step: what its operator reads and writes beside evaluations, in the database."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from agents.desk import Desk
from agents.model import Usage
from avo.search.budget import Allowance
from evaluator.evaluators import Evaluator
from lineage_db.errors import UnknownAttempt
from lineage_db.records import Attempt, Run, Step
from lineage_db.store import Store


def desk(
    store: Store,
    run: Run,
    step: Step,
    evaluator: Evaluator,
    allowance: Allowance,
    *,
    taken_up: Sequence[Step],
    clock: Callable[[], datetime],
) -> Desk:
    """Return the desk of ``step``, which goes on with what the steps ``taken_up`` left unfinished."""

    def attempt(attempt_id: int) -> Attempt:
        try:
            return store.attempt(run.id, attempt_id)
        except UnknownAttempt as error:
            raise LookupError(str(error)) from None

    def record(kind: str, content: dict[str, Any]) -> None:
        store.journal.add_message(step.id, kind, content, now=clock())

    def charge(*, model: str, usage: Usage, usd: float | None, seconds: float, error: str) -> None:
        store.journal.add_call(
            run.id,
            step.id,
            model=model,
            input_tokens=usage.input_tokens,
            cached_tokens=usage.cached_tokens,
            output_tokens=usage.output_tokens,
            usd=usd,
            seconds=seconds,
            error=error,
            now=clock(),
        )

    def remember(note: str) -> None:
        store.journal.remember(step.id, note, now=clock())

    return Desk(
        inspect=evaluator.inspect,
        attempt=attempt,
        record=record,
        charge=charge,
        remember=remember,
        left=lambda: allowance.left(store, run, (*taken_up, step), clock()),
    )
