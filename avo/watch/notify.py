"""Notifications: a command of the user's, run when a run finds a new best, stalls, ends or fails, and once a day."""

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from types import TracebackType

from avo.agents.supervisor import Level
from avo.lineage_db.records import RunState
from avo.watch.events import Event, EventKind
from avo.watch.wording import first_line

TIMEOUT_S = 30.0
"""Longest time that the command may take, in seconds."""
_ENDS = (RunState.STOPPED, RunState.FINISHED)


def reason(event: Event) -> str:
    """Return why the user wants to know of ``event``: ``best``, ``stall``, ``stop``, ``daily`` or ``failure``; empty if
    they do not.
    """
    if event.kind is EventKind.VERSION and event.data["best"] and event.data["version"] > 0:
        return "best"
    if event.kind is EventKind.SUPERVISOR and event.data["level"] in (Level.REDIRECT, Level.RESTART):
        return "stall"
    if event.kind is EventKind.RUN and event.data["state"] in _ENDS:
        return "stop"
    if event.kind is EventKind.DIGEST:
        return "daily"
    return "failure" if event.kind is EventKind.FAILURE else ""


class Notifier:
    """Runs the command in a thread of its own, one call at a time. A command that fails causes a warning.

    The command is run by a shell, with the event as JSON on its standard input and with ``AVO_EVENT`` (see ``reason``),
    ``AVO_RUN`` and ``AVO_TEXT`` in its environment. When the context ends, the calls that still wait have ``timeout_s``
    seconds together.
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
        """Queue the command for ``event`` if it is worth a notification; a stall is reported once until there is a new
        version.
        """
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
        """Run the command; return in words what went wrong, empty if nothing did."""
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
                start_new_session=True,  # Ctrl-C does not reach it, and it is ended with everything that it started
            )
        except (OSError, ValueError) as error:
            return str(error)
        try:
            _, said = process.communicate(json.dumps(event.to_json()) + "\n", self._timeout_s)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return f"it took longer than {self._timeout_s:g} s"
        return f"exit code {process.returncode}: {first_line(said)}" if process.returncode else ""
