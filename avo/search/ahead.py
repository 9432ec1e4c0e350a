"""Examining ahead: an attempt that would be accepted is examined closely while its operator goes on."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock

from avo.lineage_db.decision import Decision, Ruling
from avo.lineage_db.records import Attempt

Examine = Callable[[Attempt], Decision | None]
"""Examines an attempt and records what was found; returns why it is refused, if it is."""


class Ahead:
    """Examines one attempt of a step at a time. Of those that wait, the fastest is enough: only one is submitted."""

    def __init__(self, examine: Examine) -> None:
        self._examine = examine
        self._threads = ThreadPoolExecutor(1)
        self._begun: dict[int, tuple[Attempt, Future[Decision | None]]] = {}
        self._told: set[int] = set()
        self._lock = Lock()

    def begin(self, attempt: Attempt) -> None:
        """Examine an attempt, if it would be accepted and was not examined, as soon as the one before is."""
        if attempt.decision is None or attempt.decision.ruling is not Ruling.ACCEPTABLE:
            return
        with self._lock:
            if attempt.id in self._begun or attempt.evaluation.examined is not None:
                return
            for number, (other, waiting) in list(self._begun.items()):
                if other.evaluation.own_tflops <= attempt.evaluation.own_tflops and waiting.cancel():
                    del self._begun[number]
            self._begun[attempt.id] = attempt, self._threads.submit(self._examine, attempt)

    def result(self, attempt: Attempt) -> Decision | None:
        """Return what the examination of an attempt that was begun ahead found, or examine it now."""
        with self._lock:
            found = self._begun.get(attempt.id)
            ahead = found is not None and (found[1].done() or not found[1].cancel())
        if found is None or not ahead or found[1].exception() is not None:
            return self._examine(attempt)
        return found[1].result()

    def news(self) -> list[str]:
        """Return what was found since the last call, a line for each attempt."""
        with self._lock:
            ended = {
                number: each for number, (_, each) in self._begun.items() if each.done() and number not in self._told
            }
            self._told |= ended.keys()
        return [f"attempt {number} was examined closely: {_said(each)}" for number, each in ended.items()]

    def close(self) -> None:
        """Begin nothing more, and wait for nothing."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _said(ended: "Future[Decision | None]") -> str:
    if error := ended.exception():
        return f"no verdict ({error}); it is examined again when it is submitted"
    refused = ended.result()
    return f"it is refused, {refused.told}" if refused else "it passed: submit it, unless you can do better"
