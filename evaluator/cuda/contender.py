"""A candidate on the GPU, as the judge sees it: a worker process of its own, which can hang or die alone."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

import msgspec

from evaluator.catalogue import name_of
from evaluator.cuda.cards import Card
from evaluator.cuda.device import Clocks, Took
from evaluator.errors import EvaluatorUnavailable
from evaluator.evaluation import CaseResult, Fault, Status
from evaluator.judging.speed import CompiledPlan
from evaluator.problem import Problem
from evaluator.serving.child import Child, environment

COMMAND = (sys.executable, "-m", "evaluator.cuda.worker")
PREPARE_S = 120.0
"""Limit for the worker's own work between two runs: inputs, their copy to the GPU, the reference."""
GRACE_S = 2.0
"""How much longer than its limit a run may seem to take, because the cache is emptied and code is loaded."""


@dataclass(frozen=True, slots=True)
class Timed:
    """The timed runs of one case, all of them verified."""

    runs: tuple[Took, ...]
    clocks: tuple[Clocks, ...]
    """The clocks of each run, where they could be read."""


class Contender(Protocol):
    """The plans of one candidate, ready to run on one GPU. A fault of the candidate is a value, and ends it."""

    @property
    def card(self) -> Card:
        """The GPU."""
        ...

    def open(self, problem: Problem, compiled: CompiledPlan) -> Fault | None:
        """Allocate the memory of a plan."""
        ...

    def check(self, case: str, seed: int, limit_s: float) -> CaseResult | Fault:
        """Run an opened plan once, on inputs made with ``seed`` and for ``limit_s`` at most, and compare everything it
        wrote with the reference.
        """
        ...

    def time(self, case: str, seeds: Sequence[int], limit_s: float) -> Timed | Fault:
        """Time and verify a run of an opened plan for each seed of inputs; each may take ``limit_s``."""
        ...

    def forget(self, case: str) -> None:
        """Free the memory of an opened plan."""
        ...

    def close(self) -> None:
        """End it."""
        ...


class Link(Protocol):
    """A process, or a stand-in for one, that answers lines: see ``evaluator.serving.child.Child``."""

    @property
    def ready(self) -> str:
        """The first line it wrote."""
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

    def end(self) -> None:
        """End it in good order."""
        ...

    def kill(self) -> bool:
        """End it at once, and return whether it ended."""
        ...


class WorkerContender:
    """A contender that is reached through the lines of ``evaluator.cuda.worker``."""

    def __init__(self, link: Link) -> None:
        """Take over ``link``. Raises ``EvaluatorUnavailable`` when the worker there has no GPU."""
        self._link = link
        hello = json.loads(link.ready)
        if "error" in hello:
            link.end()
            raise EvaluatorUnavailable(str(hello["error"]))
        self.card = msgspec.convert(hello["ready"], Card)

    def open(self, problem: Problem, compiled: CompiledPlan) -> Fault | None:
        """See ``Contender.open``."""
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

    def check(self, case: str, seed: int, limit_s: float) -> CaseResult | Fault:
        """See ``Contender.check``."""
        answer = self._ask("check", {"case": case, "seed": seed}, case, limit_s)
        return answer if isinstance(answer, Fault) else msgspec.convert(answer["result"], CaseResult)

    def time(self, case: str, seeds: Sequence[int], limit_s: float) -> Timed | Fault:
        """See ``Contender.time``."""
        answer = self._ask("time", {"case": case, "seeds": list(seeds)}, case, limit_s)
        if isinstance(answer, Fault):
            return answer
        clocks = [each for each in answer["clocks"] if each]
        return msgspec.convert({"runs": answer["runs"], "clocks": clocks}, Timed)

    def forget(self, case: str) -> None:
        """See ``Contender.forget``."""
        self._ask("close", {"case": case}, case, 0)

    def close(self) -> None:
        """End the worker."""
        self._link.end()

    def _ask(self, name: str, arguments: Mapping[str, Any], case: str, limit_s: float) -> dict[str, Any] | Fault:
        """Return the answer to a request, or the candidate's fault; each run may take ``limit_s``.

        Raises ``EvaluatorUnavailable`` when the fault is the machine's.
        """
        running = False
        try:
            line = self._link.ask(json.dumps({name: arguments}), PREPARE_S)
            while (answer := _read(line)) and "running" in answer:
                running = answer["running"]
                line = self._link.next_line(limit_s + GRACE_S if running else PREPARE_S)
        except TimeoutError:
            if not self._link.kill():
                raise EvaluatorUnavailable(
                    f"case {case}: the GPU worker survives being killed, so a kernel may still run on the card: "
                    "nvidia-smi --gpu-reset, or restart the machine"
                ) from None
            if running:
                return Fault(Status.TIMED_OUT, f"case {case}: a run did not end on the GPU within {limit_s:.3g} s")
            silence = f"the GPU worker is silent for {PREPARE_S:g} s without running a kernel"
            raise EvaluatorUnavailable(silence) from None
        if answer is None:
            message = f"case {case}: the process that ran it on the GPU died: {self._link.last_words()}"
            return Fault(Status.CRASHED, message)
        if "error" in answer:
            raise EvaluatorUnavailable(str(answer["error"]))
        if not (fault := answer.get("fault")):
            return answer
        message = str(fault["message"])
        return Fault(Status(fault["status"]), message if message.startswith("case ") else f"case {case}: {message}")


def _read(line: str) -> dict[str, Any] | None:
    """Return what a line says, None for the last one of a process that died, which may be half of one."""
    try:
        said = json.loads(line)
    except ValueError:
        return None
    return said if isinstance(said, dict) else None


def start_worker(command: Sequence[str] = COMMAND) -> WorkerContender:
    """Return a contender in a process of its own; raise ``EvaluatorUnavailable`` when there is no GPU for one."""
    inherited = environment()
    inherited.pop("CUDA_LAUNCH_BLOCKING", None)  # the host would wait within the times
    return WorkerContender(Child(command, inherited, "the GPU worker"))


def ask_card(command: Sequence[str] = COMMAND) -> Card:
    """Return which GPU this machine has; raise ``EvaluatorUnavailable`` when there is none."""
    contender = start_worker(command)
    contender.close()
    return contender.card
