"""Examining ahead: an attempt that would be accepted is examined closely while its operator goes on."""

from collections.abc import Callable
from concurrent.futures import Future
from threading import Lock

from avo.agents.pending import Pending
from avo.lineage_db.decision import Decision, Ruling
from avo.lineage_db.records import Attempt

Examine = Callable[[Attempt], Decision | None]
"""Examines an attempt and records what was found; returns why it is refused, if it is."""


class Ahead:
    """Examines one attempt of a worker at a time. Of those that wait, the fastest is enough: only one is submitted.

    An examination that outlives its step is news of the worker's next step.
    """

    def __init__(self) -> None:
        self._pending: Pending[Decision | None] = Pending(1)
        self._begun: dict[int, float] = {}
        self._lock = Lock()

    def begin(self, attempt: Attempt, examine: Examine) -> None:
        """Examine an attempt, if it would be accepted and was not examined, as soon as the one before is."""
        if attempt.decision is None or attempt.decision.ruling is not Ruling.ACCEPTABLE:
            return
        with self._lock:
            if attempt.id in self._begun or attempt.evaluation.examined is not None:
                return
            self._withdraw(attempt.evaluation.own_tflops)
            self._begun[attempt.id] = attempt.evaluation.own_tflops
            self._pending.begin(attempt.id, lambda: examine(attempt))

    def result(self, attempt: Attempt, examine: Examine) -> Decision | None:
        """Return what the examination of an attempt that was begun ahead found, or examine it now. It is no news."""
        found = self.take(attempt)
        if found is None or found.exception() is not None:
            return examine(attempt)
        return found.result()

    def take(self, attempt: Attempt) -> "Future[Decision | None] | None":
        """Return the examination of an attempt that was begun ahead, if any. It is no news any more."""
        with self._lock:
            self._begun.pop(attempt.id, None)
            return self._pending.take(attempt.id)

    def news(self) -> list[str]:
        """Return what was found since the last call, a line for each attempt."""
        with self._lock:
            ended = self._pending.ended()
            for number in ended:
                del self._begun[number]
        return [f"attempt {number} was examined closely: {_said(each)}" for number, each in ended.items()]

    def close(self) -> None:
        """End with a step: begin nothing that waits. What is under way goes on."""
        with self._lock:
            self._withdraw()

    def _withdraw(self, tflops: float | None = None) -> None:
        """Withdraw what waits and is no faster than ``tflops``; None: all."""
        for number, each in list(self._begun.items()):
            if (tflops is None or each <= tflops) and self._pending.withdraw(number):
                del self._begun[number]


def _said(ended: "Future[Decision | None]") -> str:
    if error := ended.exception():
        return f"no verdict ({error}); it is examined again when it is submitted"
    refused = ended.result()
    return f"it is refused: {refused.sentence}" if refused else "it passed: submit it, unless there is a better one"
