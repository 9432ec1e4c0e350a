"""Runs work in threads and hands out each result once."""

from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Generic, TypeVar

T = TypeVar("T")


class Pending(Generic[T]):
    """Work by number, at most ``most`` at a time, the oldest first. Not thread-safe itself."""

    def __init__(self, most: int) -> None:
        self._threads = ThreadPoolExecutor(most)
        self._begun: dict[int, Future[T]] = {}

    def __len__(self) -> int:
        """Return how many have not ended, waiting ones included."""
        return len(self._running())

    def begin(self, number: int, work: Callable[[], T]) -> "Future[T]":
        """Begin ``work`` as soon as there is a thread for it."""
        self._begun[number] = self._threads.submit(work)
        return self._begun[number]

    def begun(self, number: int) -> "Future[T] | None":
        """Return what was begun under this number and not handed out; None: nothing."""
        return self._begun.get(number)

    def take(self, number: int) -> "Future[T] | None":
        """Return what was begun under this number, which ``ended`` does not hand out any more, unless it is withdrawn
        as it waits for a thread: then None.
        """
        return None if number not in self._begun or self.withdraw(number) else self._begun.pop(number)

    def withdraw(self, number: int) -> bool:
        """Forget work that still waits for a thread; False where it does not."""
        withdrawn = self._begun[number].cancel()
        if withdrawn:
            del self._begun[number]
        return withdrawn

    def ended(self) -> "dict[int, Future[T]]":
        """Return what has ended since the last call, by number."""
        return {number: self._begun.pop(number) for number, each in list(self._begun.items()) if each.done()}

    def wait(self) -> None:
        """Wait until one more has ended, if any is under way."""
        wait(self._running(), return_when=FIRST_COMPLETED)

    def _running(self) -> "list[Future[T]]":
        return [each for each in self._begun.values() if not each.done()]
