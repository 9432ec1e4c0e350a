"""A judge in a process of its own, here or elsewhere: what hangs or kills it costs one verdict, not the search."""

import shlex
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from evaluator.candidate import Candidate, Incumbent
from evaluator.errors import EvaluatorUnavailable
from evaluator.evaluation import Evaluation, Fault, Status
from evaluator.inspection import Findings, Inspection, Look
from evaluator.problem import HELD_OUT
from evaluator.problems.loading import get_cases, get_problem, get_suite
from evaluator.sandbox.jobs import Sandbox
from evaluator.serving.child import ENVIRONMENT, Child, environment
from evaluator.serving.protocol import InspectRequest, ProfileRequest, Request, findings, greeting, profiles, verdict
from evaluator.target import Target, check_target

if TYPE_CHECKING:
    from evaluator.performance import Profile

_COMMAND_ENVIRONMENT = ENVIRONMENT | {"USER", "LOGNAME", "SSH_AUTH_SOCK"}
"""What a command of the user gets, which may be ssh: it asks the agent behind this socket for signatures."""
_TRIES = 2
"""A judge that dies on a candidate is started anew this often in all; then the candidate is to blame."""

_Answer = TypeVar("_Answer")


class ProcessEvaluator:
    """An evaluator that runs ``python -m evaluator`` as a child and restarts it when it dies.

    ``command`` names another way to start it, such as ``ssh gpu-box python -m evaluator``; the judge's arguments are
    added at its end, ``options`` last. Not thread-safe. Raises ``UnknownTarget`` or ``UnknownProblem`` at once for
    names that are none.
    """

    def __init__(
        self,
        target: str,
        suite: str,
        wall_s: float = 300.0,
        *,
        sandbox: Sandbox = Sandbox.AUTO,
        command: str | None = None,
        options: Sequence[str] = (),
    ) -> None:
        check_target(target)
        self._target = target
        self._suite = suite
        self._wall_s = wall_s
        self._program = (sys.executable, "-m", "evaluator") if command is None else _split(command)
        self._arguments = ("--target", target, "--suite", suite, "--sandbox", sandbox, "--wall", str(wall_s), *options)
        self._environment = environment(ENVIRONMENT if command is None else _COMMAND_ENVIRONMENT)
        self._child: Child | None = None
        self._judges_for: Target | None = None
        self._count = 0

    @property
    def target(self) -> Target:
        """What the judge's process says that it judges for; raises ``EvaluatorUnavailable`` when there is none."""
        self._running()
        assert self._judges_for is not None
        return self._judges_for

    def evaluate(self, candidate: Candidate, incumbent: Incumbent | None = None) -> Evaluation:
        """Return the verdict; no answer within ``wall_s`` seconds is ``TIMED_OUT``, a death ``CRASHED``."""
        return self._judged(Request(self._next_id(), candidate, incumbent), self._suite)

    def verify(self, candidate: Candidate) -> Evaluation:
        """Return the verdict on the shapes that are held out, or on the suite where the problem has none.

        No answer in time, or a death, is as for ``evaluate``.
        """
        held_out = HELD_OUT in get_problem(candidate.problem).suites
        return self._judged(Request(self._next_id(), candidate, held_out=True), HELD_OUT if held_out else self._suite)

    def profile(self, candidate: Candidate, case: str | None = None) -> "tuple[Profile, ...] | Fault":
        """Return the explanation; no answer in time, or a death, is a fault as for ``evaluate``."""
        get_cases(get_problem(candidate.problem), self._suite, case)
        request = ProfileRequest(self._next_id(), candidate, case)
        return self._ask(request.line(), lambda line: profiles(request, line))

    def inspect(self, inspection: Inspection) -> Findings:
        """Return what is seen; no answer in time, or a death, is a fault as for ``evaluate``."""
        if inspection.look is not Look.SCRIPT:
            get_cases(get_problem(inspection.problem), inspection.suite or self._suite, inspection.case)
        request = InspectRequest(self._next_id(), inspection)
        found = self._ask(request.line(), lambda line: findings(request, line))
        return Findings(found) if isinstance(found, Fault) else found

    def close(self) -> None:
        """End the child process and everything it started."""
        if self._child:
            self._child.end()
            self._child = None

    def __enter__(self) -> "ProcessEvaluator":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _judged(self, request: Request, suite: str) -> Evaluation:
        get_suite(get_problem(request.candidate.problem), suite)
        started = time.monotonic()
        found = self._ask(request.line(), lambda line: verdict(request, line))
        if isinstance(found, Fault):
            return Evaluation(found.status, found.message, self._target, suite, time.monotonic() - started)
        return found

    def _next_id(self) -> int:
        self._count += 1
        return self._count

    def _ask(self, request: str, read: Callable[[str], _Answer]) -> _Answer | Fault:
        last_words = ""
        for _ in range(_TRIES):
            child = self._running()
            try:
                line = child.ask(request, self._wall_s)
            except TimeoutError:
                child.kill()
                self._child = None
                return Fault(Status.TIMED_OUT, f"no verdict within {self._wall_s:g} s")
            if line:
                try:
                    return read(line)
                except EvaluatorUnavailable:
                    self.close()  # its next line may be anything, so it is not asked again
                    raise
            last_words = child.last_words()
            self.close()
        return Fault(Status.CRASHED, f"the judge's process died on this candidate: {last_words}")

    def _running(self) -> Child:
        if self._child is None:
            child = Child((*self._program, *self._arguments), self._environment, "the judge's process")
            try:
                self._judges_for = greeting(child.ready, self._target)
            except EvaluatorUnavailable:
                child.kill()
                raise
            self._child = child
        return self._child


def _split(command: str) -> tuple[str, ...]:
    try:
        words = tuple(shlex.split(command))
    except ValueError as error:
        raise EvaluatorUnavailable(f"the evaluator's command {command!r} cannot be read: {error}") from None
    if not words:
        raise EvaluatorUnavailable("the evaluator's command is empty: write one like: ssh gpu-box python -m evaluator")
    return words
