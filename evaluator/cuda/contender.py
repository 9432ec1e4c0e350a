"""A candidate on the GPU, as the judge sees it: a worker process of its own, which can hang or die alone."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

from avo.evaluator import folders
from avo.evaluator.catalogue import name_of
from avo.evaluator.cuda.cards import Card
from avo.evaluator.cuda.device import Clocks, Setup, Timed, Took
from avo.evaluator.errors import EvaluatorUnavailable
from avo.evaluator.evaluation import CaseResult, Fault, Status
from avo.evaluator.problem import Case, Problem
from avo.evaluator.serving.child import Child, environment

if TYPE_CHECKING:
    from avo.evaluator.judging.speed import CompiledPlan

COMMAND = folders.command("avo.evaluator.cuda.worker")
PREPARE_S = 120.0
"""Limit for the worker's own work between two runs: inputs, their copy to the GPU, the reference."""
UNWATCHED_S = 1e6
"""Limit for everything where a profiler runs the worker."""
REPORT_S = 120.0
"""How long a profiler may take to write its report after the worker has ended."""
GRACE_S = 2.0
"""How much longer than its limit a run may seem to take, because the cache is emptied and code is loaded."""


class Timer(Protocol):
    """Whatever can be timed on one GPU."""

    def time(
        self, case: str, seeds: Sequence[int], limit_s: float, stretch_s: float = 0.0, graph: bool = True
    ) -> Timed | Fault:
        """Time and verify a run of an opened case for each seed of inputs; each may take ``limit_s``.

        Before each, it runs for ``stretch_s``. With ``graph`` the runs are replays of a graph where possible.
        """
        ...


class Contender(Timer, Protocol):
    """The plans of one candidate, ready to run on one GPU. A fault of the candidate is a value, and ends it."""

    @property
    def card(self) -> Card:
        """The GPU."""
        ...

    @property
    def setup(self) -> Setup:
        """What times depend on besides."""
        ...

    def open(self, problem: Problem, compiled: "CompiledPlan") -> Fault | None:
        """Allocate the memory of a plan."""
        ...

    def check(self, case: str, seed: int, limit_s: float) -> CaseResult | Fault:
        """Run an opened plan once, on inputs made with ``seed`` and for ``limit_s`` at most, and compare everything it
        wrote with the reference.
        """
        ...

    def forget(self, case: str) -> None:
        """Free the memory of an opened plan."""
        ...

    def close(self) -> None:
        """End it."""
        ...


class Link(Protocol):
    """A process, or a stand-in for one, that answers lines: see ``avo.evaluator.serving.child.Child``."""

    @property
    def ready(self) -> str:
        """The first line it wrote, for which this waits."""
        ...

    def ask(self, line: str, wall_s: float) -> str:
        """Return the next line after ``line`` was sent."""
        ...

    def next_line(self, wall_s: float) -> str:
        """Return the next line."""
        ...

    def last_words(self) -> str:
        """Return why it died."""
        ...

    def code(self, wall_s: float) -> int | None:
        """Return its exit code, negative for the signal that killed it; None if it does not end in ``wall_s``."""
        ...

    def end(self) -> None:
        """End it in good order."""
        ...

    def kill(self) -> bool:
        """End it at once, and return whether it ended."""
        ...


class WorkerContender:
    """A contender that is reached through the lines of ``avo.evaluator.cuda.worker``.

    Its worker may still be importing what it needs. The GPU is first touched when something is asked of it, which
    raises ``EvaluatorUnavailable`` when the worker does not start or has no GPU.
    """

    def __init__(self, link: Link, *, watched: bool = True) -> None:
        """Take over ``link``; ``watched``: enforce limits of time."""
        self._link, self._watched = link, watched
        self.ended = False
        """Whether nothing more can be asked of it."""

    @property
    def card(self) -> Card:
        """See ``Contender.card``."""
        return self._begun[0]

    @property
    def setup(self) -> Setup:
        """See ``Contender.setup``."""
        return self._begun[1]

    @cached_property
    def _begun(self) -> tuple[Card, Setup]:
        try:
            line = self._link.ready
            while _is_noise(line):
                line = self._link.next_line(PREPARE_S)
            line = self._answer('{"begin": {}}', PREPARE_S)
        except TimeoutError:
            self._link.kill()
            raise EvaluatorUnavailable(f"the GPU worker does not open the GPU within {PREPARE_S:g} s") from None
        answer = _read(line)
        if answer is None or "ready" not in answer:
            why = str(answer["error"]) if answer else f"the GPU worker does not start: {self._link.last_words()}"
            self._link.end()
            raise EvaluatorUnavailable(why)
        return Card(**answer["ready"]), Setup(**answer["setup"])

    def open(self, problem: Problem, compiled: "CompiledPlan") -> Fault | None:
        """See ``Contender.open``."""
        import msgspec  # a machine that only measures a shortlist need not have it

        plan = compiled.plan
        request = {
            "problem": name_of(problem),
            "case": asdict(compiled.case),
            "plan": plan.to_json(),
            # What only the performance model reads stays here.
            "binaries": msgspec.to_builtins(
                [replace(compiled.binaries[kernel], ptx="", listing="") for kernel in plan.kernels]
            ),
        }
        answer = self._ask("open", request, compiled.case.name, 0)
        return answer if isinstance(answer, Fault) else None

    def call(self, problem: Problem, case: Case, by: str, name: str, limit_s: float) -> Fault | None:
        """Have a case computed by a library, or by a kernel's file, which may take ``limit_s`` to be imported; in other
        requests it is called ``name``. All calls of a case share one memory.
        """
        request = {"problem": name_of(problem), "case": asdict(case), "by": by, "name": name}
        answer = self._ask("call", request, name, limit_s)
        return answer if isinstance(answer, Fault) else None

    def check(self, case: str, seed: int, limit_s: float) -> CaseResult | Fault:
        """See ``Contender.check``."""
        answer = self._ask("check", {"case": case, "seed": seed}, case, limit_s)
        return answer if isinstance(answer, Fault) else CaseResult(**answer["result"])

    def time(
        self, case: str, seeds: Sequence[int], limit_s: float, stretch_s: float = 0.0, graph: bool = True
    ) -> Timed | Fault:
        """See ``Timer.time``."""
        arguments = {"case": case, "seeds": list(seeds), "stretch_s": stretch_s, "graph": graph}
        answer = self._ask("time", arguments, case, limit_s + stretch_s)
        if isinstance(answer, Fault):
            return answer
        clocks = (Clocks(**{**each, "others": tuple(each["others"])}) for each in answer["clocks"])
        return Timed(tuple(Took(**each) for each in answer["runs"]), tuple(clocks), answer["ungraphed"])

    def forget(self, case: str) -> None:
        """See ``Contender.forget``."""
        self._ask("close", {"case": case}, case, 0)

    def close(self) -> None:
        """End the worker."""
        self._link.end()

    def kill(self) -> None:
        """End the worker at once, whatever it is doing."""
        self._link.kill()

    def _ask(self, name: str, arguments: Mapping[str, Any], case: str, limit_s: float) -> dict[str, Any] | Fault:
        """Return the answer to a request, or the candidate's fault; each run may take ``limit_s``.

        Raises ``EvaluatorUnavailable`` when the fault is the machine's.
        """
        assert self._begun
        running = False
        try:
            line = self._answer(json.dumps({name: arguments}), PREPARE_S)
            while (answer := _read(line)) and "running" in answer:
                running = answer["running"]
                line = self._next_line(limit_s + GRACE_S if running else PREPARE_S)
        except TimeoutError:
            self.ended = True
            if not self._link.kill():
                raise EvaluatorUnavailable(
                    f"case {case}: the GPU worker survives being killed, so a kernel may still run on the card: "
                    "nvidia-smi --gpu-reset, or restart the machine"
                ) from None
            if running:
                return Fault(Status.TIMED_OUT, f"case {case}: a run did not end on the GPU within {limit_s:.3g} s")
            silence = f"the GPU worker is silent for {PREPARE_S:g} s without running a kernel"
            raise EvaluatorUnavailable(silence) from None
        self.ended = answer is None or "last" in answer
        if answer is None:
            message = f"case {case}: the process that ran it on the GPU died: {self._link.last_words()}"
            return Fault(Status.CRASHED, message)
        if "error" in answer:
            raise EvaluatorUnavailable(str(answer["error"]))
        if not (fault := answer.get("fault")):
            return answer
        message = str(fault["message"])
        return Fault(Status(fault["status"]), message if message.startswith("case ") else f"case {case}: {message}")

    def _answer(self, line: str, wall_s: float) -> str:
        answer = self._link.ask(line, self._limit(wall_s))
        return self._next_line(wall_s) if _is_noise(answer) else answer

    def _next_line(self, wall_s: float) -> str:
        while _is_noise(line := self._link.next_line(self._limit(wall_s))):
            pass
        return line

    def _limit(self, wall_s: float) -> float:
        return wall_s if self._watched else UNWATCHED_S


def _is_noise(line: str) -> bool:
    """Return whether a profiler wrote this line, not its worker: ncu's begin with ``==PROF==`` or ``==ERROR==``."""
    return line.startswith("==")


def _read(line: str) -> dict[str, Any] | None:
    """Return what a line says, None for the last one of a process that died, which may be half of one."""
    try:
        said = json.loads(line)
    except ValueError:
        return None
    return said if isinstance(said, dict) else None


def start_worker(
    command: Sequence[str] = COMMAND,
    prefix: Sequence[str] = (),
    device: str | None = None,
    *,
    watched: bool | None = None,
) -> WorkerContender:
    """Return a contender in a process of its own, which is starting; raise ``EvaluatorUnavailable`` without a process.

    ``prefix`` is put before its command: a profiler, under which no time is limited, unless it is ``watched``.
    ``device`` is the uuid of the GPU; None: the first that this process sees.
    """
    inherited = environment()
    inherited.pop("CUDA_LAUNCH_BLOCKING", None)  # the host would wait within the times
    if device is not None:
        inherited["CUDA_VISIBLE_DEVICES"] = device
    child = Child((*prefix, *command), inherited, "the GPU worker")
    if prefix:
        child.end_s = REPORT_S
    return WorkerContender(child, watched=not prefix if watched is None else watched)


def ask_card(command: Sequence[str] = COMMAND, device: str | None = None) -> Card:
    """Return which GPU this machine has, or of several the one that ``start_worker`` takes, after an empty kernel has
    run on it; raise ``EvaluatorUnavailable`` when there is none.
    """
    contender = start_worker(command, device=device)
    try:
        return contender.card
    finally:
        contender.close()
