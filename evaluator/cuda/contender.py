"""A candidate on the GPU, as the judge sees it: a worker process of its own, which can hang or die alone."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

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


class Contender:
    """What runs in one worker, which is reached through the lines of ``avo.evaluator.cuda.worker``. A fault of what it
    runs is a value; after one of its plans nothing more is asked of it.

    Its worker may still be importing what it needs. The GPU is first touched when something is asked of it, which
    raises ``EvaluatorUnavailable`` when the worker does not start or has no GPU.
    """

    def __init__(self, child: Child, *, watched: bool = True) -> None:
        """Take over ``child``; ``watched``: enforce limits of time."""
        self._child, self._watched = child, watched
        self.ended = False
        """Whether nothing more can be asked of it."""

    @property
    def card(self) -> Card:
        """The GPU."""
        return self._begun[0]

    @property
    def setup(self) -> Setup:
        """What times depend on besides."""
        return self._begun[1]

    @cached_property
    def _begun(self) -> tuple[Card, Setup]:
        try:
            line = self._child.ready
            while _is_noise(line):
                line = self._child.next_line(PREPARE_S)
            line = self._answer('{"begin": {}}', PREPARE_S)
        except TimeoutError:
            self.ended = True
            self._child.kill()
            raise EvaluatorUnavailable(f"the GPU worker does not open the GPU within {PREPARE_S:g} s") from None
        answer = _read(line)
        if answer is None or "ready" not in answer:
            why = str(answer["error"]) if answer else f"the GPU worker does not start: {self._child.last_words()}"
            self.ended = True
            self._child.end()
            raise EvaluatorUnavailable(why)
        return Card(**answer["ready"]), Setup(**answer["setup"])

    def open(self, problem: Problem, compiled: "CompiledPlan") -> Fault | None:
        """Allocate the memory of a plan."""
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
        """Run an opened case once, on inputs made with ``seed`` and for ``limit_s`` at most, and compare everything it
        wrote with the reference.
        """
        answer = self._ask("check", {"case": case, "seed": seed}, case, limit_s)
        return answer if isinstance(answer, Fault) else CaseResult(**answer["result"])

    def time(
        self, case: str, seeds: Sequence[int], limit_s: float, stretch_s: float = 0.0, graph: bool = True
    ) -> Timed | Fault:
        """Time and verify a run of an opened case for each seed of inputs; each may take ``limit_s``.

        Before each, it runs for ``stretch_s``. With ``graph`` the runs are replays of a graph where possible; without
        runs none could be recorded, and the worker has ended.
        """
        arguments = {"case": case, "seeds": list(seeds), "stretch_s": stretch_s, "graph": graph}
        answer = self._ask("time", arguments, case, limit_s + stretch_s)
        if isinstance(answer, Fault):
            return answer
        clocks = (Clocks(**{**each, "others": tuple(each["others"])}) for each in answer["clocks"])
        return Timed(tuple(Took(**each) for each in answer["runs"]), tuple(clocks), answer["ungraphed"])

    def forget(self, case: str) -> None:
        """Free the memory of an opened case; what the calls of a case share stays until the worker ends."""
        self._ask("close", {"case": case}, case, 0)

    def close(self) -> None:
        """End the worker."""
        self._child.end()

    def kill(self) -> None:
        """End the worker at once, whatever it is doing."""
        self._child.kill()

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
            if not self._child.kill():
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
            message = f"case {case}: the process that ran it on the GPU died: {self._child.last_words()}"
            return Fault(Status.CRASHED, message)
        if "error" in answer:
            raise EvaluatorUnavailable(str(answer["error"]))
        if not (fault := answer.get("fault")):
            return answer
        message = str(fault["message"])
        return Fault(Status(fault["status"]), message if message.startswith("case ") else f"case {case}: {message}")

    def _answer(self, line: str, wall_s: float) -> str:
        answer = self._child.ask(line, self._limit(wall_s))
        return self._next_line(wall_s) if _is_noise(answer) else answer

    def _next_line(self, wall_s: float) -> str:
        while _is_noise(line := self._child.next_line(self._limit(wall_s))):
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
) -> Contender:
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
    return Contender(child, watched=not prefix if watched is None else watched)


def ask_card(command: Sequence[str] = COMMAND, device: str | None = None) -> Card:
    """Return which GPU this machine has, or of several the one that ``start_worker`` takes, after an empty kernel has
    run on it; raise ``EvaluatorUnavailable`` when there is none.
    """
    contender = start_worker(command, device=device)
    try:
        return contender.card
    finally:
        contender.close()
