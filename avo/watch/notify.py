"""Notifications: a command of the user that is run when a run finds a new best, stalls or comes to an end."""

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from types import TracebackType

from agents.supervisor import Level
from avo.watch.events import Event, EventKind
from avo.watch.wording import first_line
from lineage_db.records import RunState

TIMEOUT_S = 30.0
"""Longest time that the command may take."""
_ENDS = (RunState.STOPPED, RunState.FINISHED)


def reason(event: Event) -> str:
    """Return why somebody wants to know of ``event``: ``best``, ``stall``, ``stop`` or ``failure``; else nothing."""
    if event.kind is EventKind.VERSION and event.data["best"] and event.data["version"] > 0:
        return "best"
    if event.kind is EventKind.SUPERVISOR and event.data["level"] in (Level.REDIRECT, Level.RESTART):
        return "stall"
    if event.kind is EventKind.RUN and event.data["state"] in _ENDS:
        return "stop"
    return "failure" if event.kind is EventKind.FAILURE else ""


class Notifier:
    """Runs the command, one call after the other, in a thread of its own; a failure is one warning.

    The shell that runs it has the event as JSON on its standard input, and in its environment ``AVO_EVENT`` (see
    ``reason``), ``AVO_RUN`` and ``AVO_TEXT``. At the end the calls that wait have ``timeout_s`` together.
    """

    def __init__(self, command: str, say: Callable[[str], None], timeout_s: float = TIMEOUT_S) -> None:
        self._command = command
        self._say = say
        self._timeout_s = timeout_s
        self._waiting: SimpleQueue[Event | None] = SimpleQueue()
        self._stalled = False
        self._thread = Thread(target=self._work, name="notify", daemon=True)

    def __enter__(self) -> "Notifier":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._waiting.put(None)
        self._thread.join(self._timeout_s)

    def take(self, event: Event) -> None:
        """Run the command for ``event``, soon, if it is worth it; for a stall once, until there is a new version."""
        if event.kind is EventKind.VERSION:
            self._stalled = False
        why = reason(event)
        if why and not (why == "stall" and self._stalled):
            self._waiting.put(event)
        self._stalled |= why == "stall"

    def _work(self) -> None:
        while (event := self._waiting.get()) is not None:
            if trouble := self._run(event):
                self._say(f"the notification of {reason(event)} failed: {trouble}")

    def _run(self, event: Event) -> str:
        """Run the command and return in words what went wrong."""
        told = {"AVO_EVENT": reason(event), "AVO_RUN": event.run, "AVO_TEXT": event.text}
        try:
            process = subprocess.Popen(
                ["/bin/sh", "-c", self._command],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                env={**os.environ, **told},
                start_new_session=True,  # Ctrl-C is not meant for it, and all that it starts ends with it
            )
        except (OSError, ValueError) as error:
            return str(error)
        try:
            _, said = process.communicate(json.dumps(event.to_json()), self._timeout_s)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return f"it took longer than {self._timeout_s:g} s"
        return f"exit code {process.returncode}: {first_line(said)}" if process.returncode else ""
