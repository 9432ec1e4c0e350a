"""Coroutines whose bodies are ordinary functions: each has a thread, and only one of these runs at a time."""

import threading
from collections.abc import Callable


class _Cancelled(BaseException):
    """Ends a coroutine that is no longer needed."""


class Coroutine:
    """A body that runs until it hands over, and goes on when it is resumed."""

    def __init__(self, body: Callable[[], None]) -> None:
        self.started = self.done = False
        self._body = body
        self._cancelled = False
        self._error: BaseException | None = None
        # Taken from the start: plain locks, as semaphores take several times as long.
        self._go, self._back = threading.Lock(), threading.Lock()
        self._go.acquire()
        self._back.acquire()
        self._thread = threading.Thread(target=self._main, daemon=True)
        self._thread.start()

    def _main(self) -> None:
        self._go.acquire()
        try:
            if not self._cancelled:
                self._body()
        except _Cancelled as cancelled:
            if not self._cancelled:  # it handed over for the coroutine that it is resumed in, and that one ends
                self._error = cancelled
        except BaseException as error:
            self._error = error
        self.done = True
        self._back.release()

    def resume(self) -> None:
        """Let the body continue until it hands over or ends; raise what it raises."""
        self.started = True
        self._go.release()
        self._back.acquire()
        if self.done:
            self._thread.join()
        if self._error is not None:
            raise self._error

    def hand_over(self) -> None:
        """Return to whoever resumed this coroutine; called from its body."""
        self._back.release()
        self._go.acquire()
        if self._cancelled:
            raise _Cancelled

    def cancel(self) -> None:
        """End the body where it is, if it has not ended."""
        if not self.done:
            self._cancelled = True
            self.resume()
