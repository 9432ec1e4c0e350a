"""A judge in a process of its own, here or on another machine: a candidate that hangs or kills it costs one verdict."""

import shlex
import time
from collections.abc import Sequence
from threading import Lock
from typing import Any

from avo.evaluator import folders
from avo.evaluator.errors import EvaluatorUnavailable
from avo.evaluator.evaluation import Evaluation, Fault, Status
from avo.evaluator.evaluators import (
    CLOSELY,
    TO_COMPARE,
    WALL_S,
    AnyRequest,
    Evaluator,
    ProfileRequest,
    Tell,
    VerifyRequest,
    suite_of,
)
from avo.evaluator.inspection import Findings, Inspection
from avo.evaluator.known import check_target, spelled, unspelled
from avo.evaluator.sandbox.isolation import Sandbox
from avo.evaluator.sandbox.patience import Patience
from avo.evaluator.serving.child import ENVIRONMENT, Child, environment
from avo.evaluator.serving.protocol import greeting, read_answer, read_progress, request_line
from avo.evaluator.target import ScoreKind, Target

_COMMAND_ENVIRONMENT = ENVIRONMENT | {"USER", "LOGNAME", "SSH_AUTH_SOCK"}
"""Variables that a user's command gets. It may be ssh, which asks the agent behind this socket for signatures."""
_TRIES = 2
"""Number of judges that may die on a candidate before the candidate is to blame."""
_CLOSED = "the evaluator has been closed"
_RAISE = ": --wall, or evaluation_wall_s in a run's configuration, gives more"


class ProcessEvaluator(Evaluator):
    """An evaluator that runs ``python -m avo.evaluator`` as a child and restarts it when it dies.

    ``command`` names another way to start it, such as ``ssh gpu-box python -m avo.evaluator``; the judge's arguments
    are added at its end, ``options`` last. ``target`` may be ``spelled``. Threads are answered one after the other.
    Raises ``UnknownTarget``.
    """

    def __init__(
        self,
        target: str,
        suite: str,
        wall_s: float = WALL_S,
        *,
        sandbox: Sandbox = Sandbox.AUTO,
        command: str | None = None,
        options: Sequence[str] = (),
    ) -> None:
        self._target = target = unspelled(target)
        check_target(target)
        self._suite = suite
        self._wall_s = wall_s
        self._program = folders.command("avo.evaluator") if command is None else _split(command)
        limits = ("--sandbox", sandbox, "--wall", str(wall_s))
        self._arguments = ("--target", spelled(target), "--suite", suite, *limits, *options)
        self._environment = environment(ENVIRONMENT if command is None else _COMMAND_ENVIRONMENT)
        self._child: Child | None = None
        self._judges_for: Target | None = None
        self._count = 0
        self._asking = Lock()
        self._closed = False

    @property
    def target(self) -> Target:
        """What the judge's process says that it judges for."""
        self._running()
        assert self._judges_for is not None
        return self._judges_for

    def ask(self, request: AnyRequest) -> Any:
        """Return the answer, see ``follow``."""
        return self.follow(request, lambda progress: None)

    def follow(self, request: AnyRequest, tell: Tell) -> Any:
        """Return the answer; ``tell`` hears how far it is.

        No answer within ``wall_s`` seconds, ``CLOSELY`` times that before acceptance and ``TO_COMPARE`` more where
        speed is measured, is the fault ``TIMED_OUT``, a death ``CRASHED``. Time in which the judge waits for a
        processor does not count, unless it is on another machine, nor what it says that it waits for other judges.
        """
        suite, started = suite_of(request, self._suite), time.monotonic()
        with self._asking:
            self._count += 1
            answer = self._answer(self._count, request, tell)
        if not isinstance(answer, Fault) or isinstance(request, ProfileRequest):
            return answer
        if isinstance(request, Inspection):
            return Findings(answer)
        return Evaluation(answer.status, answer.message, self._target, suite, time.monotonic() - started)

    def close(self) -> None:
        """End the child process and everything it started. Whoever is or will be asking has no answer."""
        self._closed = True
        self._end()

    def _end(self) -> None:
        child, self._child = self._child, None
        if child:
            child.end()

    def _answer(self, number: int, request: AnyRequest, tell: Tell) -> Any:
        last_words = ""
        for _ in range(_TRIES):
            child = self._running()
            measured = self._judges_for is not None and self._judges_for.kind is ScoreKind.MEASURED
            wall_s = self._wall_s * (CLOSELY if isinstance(request, VerifyRequest) else 1 + TO_COMPARE * measured)
            patience = Patience(child.pid, wall_s, itself=True, counting=True)
            try:
                line = _next_line(child, patience) if child.tell(request_line(number, request)) else ""
                while heard := read_progress(number, line):
                    tell(heard)
                    line = _next_line(child, patience, waits=heard.waits)
            except TimeoutError as error:
                child.kill()
                self._child = None
                return Fault(Status.TIMED_OUT, f"no verdict within {error}{_RAISE}")
            if line:
                try:
                    return read_answer(number, request, line)
                except EvaluatorUnavailable:
                    self._end()  # its next line may be anything, so it is not asked again
                    raise
            last_words = child.last_words()
            self._end()
        if self._closed:
            raise EvaluatorUnavailable(_CLOSED)
        return Fault(Status.CRASHED, f"the judge's process died on this candidate: {last_words}")

    def _running(self) -> Child:
        if self._closed:
            raise EvaluatorUnavailable(_CLOSED)
        if self._child is None:
            child = Child((*self._program, *self._arguments), self._environment, "the judge's process")
            try:
                self._judges_for = greeting(child.ready, self._target)
            except EvaluatorUnavailable:
                child.kill()
                raise
            self._child = child
            if self._closed:  # in the meantime
                self._end()
                raise EvaluatorUnavailable(_CLOSED)
        return self._child


def _next_line(child: Child, patience: Patience, *, waits: bool = False) -> str:
    """Return the next line of a child, "" when it died. Raises ``TimeoutError``, which says after how long.

    ``waits``: the time until that line does not count.
    """
    while True:
        over = "" if waits else patience.over()
        try:
            return child.next_line(0.0 if over else patience.look_s)  # what was said in time is heard
        except TimeoutError:
            if over:
                raise TimeoutError(over) from None
        finally:
            if waits:
                patience.leave_out()


def _split(command: str) -> tuple[str, ...]:
    try:
        words = tuple(shlex.split(command))
    except ValueError as error:
        raise EvaluatorUnavailable(f"the evaluator's command {command!r} cannot be read: {error}") from None
    if not words:
        raise EvaluatorUnavailable(
            "the evaluator's command is empty: write one like: ssh gpu-box python -m avo.evaluator"
        )
    return words
