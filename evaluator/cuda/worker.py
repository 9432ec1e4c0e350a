"""``python -m evaluator.cuda.worker``: one candidate's plans on the GPU, one JSON object per line in and out, in order.

<- {"ready": {"name": "NVIDIA H100 80GB HBM3", ...}}                                a ``Card``; or {"error": "..."}
-> {"open": {"problem": "mha", "case": {...}, "plan": {...}, "binaries": [...]}}
<- {"ok": true}                                                                    its memory is allocated
-> {"check": {"case": "odd-full", "seed": 1}}                                       one run, everything compared
<- {"result": {...}}                                                                a ``CaseResult``
-> {"time": {"case": "8k-full", "seeds": [5, 6]}}                                   a run a seed, each verified
<- {"runs": [{...}, {...}], "clocks": [{...}, null]}                                one ``Took`` and ``Clocks`` a seed
-> {"close": {"case": "odd-full"}}                                                  its memory is free again
<- {"running": true} ... {"running": false}                                         around what a kernel can hang in
<- {"fault": {"status": "crashed", ...}} or {"error": "..."}                        instead of any answer

What goes wrong while a candidate's kernels run is the candidate's fault, everything else the machine's. After a fault
of the device nothing can be trusted any more, and the process ends. The parent enforces time limits.
"""

import ctypes
import json
import os
import signal
import sys
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import msgspec
import torch

from evaluator.binary import Binary
from evaluator.capture.plan_reading import plan_from_json
from evaluator.catalogue import get_problem
from evaluator.cuda.cards import Card
from evaluator.cuda.device import Device, DeviceFault, Enqueue, MachineFault, PlanFault
from evaluator.cuda.running import Running
from evaluator.evaluation import Fault, Status
from evaluator.plan import LaunchPlan
from evaluator.problem import Case, Problem

_TOO_MUCH = "kernels ask for more memory at launch than the GPU has left"
Say = Callable[[Mapping[str, Any]], None]


class _KernelFault(Exception):
    """What CUDA, torch or Triton's launcher reports while a candidate's kernels run."""


class Worker:
    """Answers requests on one device."""

    def __init__(self, device: Device, say: Say) -> None:
        self.device, self._say = device, say
        self._running: dict[str, Running] = {}
        self._replays: dict[str, Enqueue] = {}

    def answer(self, line: str) -> bool:
        """Answer a request, and return whether more can be answered."""
        ((name, arguments),) = json.loads(line).items()
        handlers: dict[str, Callable[..., dict[str, Any]]]
        handlers = {"open": self.open, "check": self.check, "time": self.time, "close": self.close}
        try:
            self._say(handlers[name](**arguments))
        except PlanFault as error:
            self._say(_fault(Status.FORBIDDEN, str(error)))
        except DeviceFault as error:
            self._say(_fault(Status.DOES_NOT_FIT, str(error)))
        except _KernelFault as error:
            self._say(_fault(Status.CRASHED, f"the GPU reports: {error}"))
            return False
        except MachineFault as error:
            self._say({"error": str(error)})
            return False
        except torch.OutOfMemoryError as error:
            self._say({"error": f"out of memory on the GPU: {first_line(error)}"})
            return False
        except Exception as error:
            traceback.print_exc()
            self._say({"error": f"the GPU worker failed: {error!r:.300}"})
            return False
        return True

    def open(self, problem: str, case: Any, plan: Any, binaries: list[dict[str, Any]]) -> dict[str, Any]:
        """Allocate the memory of a plan."""
        found = get_problem(problem)
        opened = msgspec.convert(case, type(found.correctness_cases[0]))  # a problem may extend ``Case``
        loaded = msgspec.convert(binaries, list[Binary])
        self._running[opened.name] = self.running(found, opened, plan_from_json(plan), loaded)
        return {"ok": True}

    def running(self, problem: Problem, case: Case, plan: LaunchPlan, binaries: Sequence[Binary]) -> Running:
        """Return what runs for an opened case."""
        return Running(self.device, problem, case, plan, binaries)

    def check(self, case: str, seed: int) -> dict[str, Any]:
        """Run a plan once, and compare everything that it should have written."""
        running = self._running[case]
        running.renew(seed, whole=True)
        with self._watched():
            running.enqueue()
        running.collect()
        checked = running.verify()
        return _refused(checked.fault) if checked.fault else {"result": asdict(checked.result)}

    def time(self, case: str, seeds: list[int]) -> dict[str, Any]:
        """Run a plan once for each seed, on new inputs, poisoned memory and a cold cache; time and verify each run."""
        running = self._running[case]
        if case not in self._replays and (fault := self._record(running, seeds[0])):
            return _refused(fault)
        runs, clocks = [], []
        for seed in seeds:
            running.renew(seed)
            with self._watched():
                took = self.device.time(self._replays[case])
            running.collect()
            if fault := running.verify().fault:
                return _refused(fault)
            runs.append(asdict(took))
            sampled = self.device.clocks()
            clocks.append(None if sampled is None else asdict(sampled))
        return {"runs": runs, "clocks": clocks}

    def _record(self, running: Running, seed: int) -> Fault | None:
        """Record a plan as a graph, after a first launch, which loads code: a graph cannot do that.

        The launch's result is the canary: after it was found correct, a wrong number in it must be noticed.
        """
        running.renew(seed)
        with self._watched():
            running.enqueue()
        running.collect()
        if fault := running.verify().fault:
            return fault
        running.spoil()
        if not running.verify().fault:
            raise AssertionError("a number that was made wrong was accepted as right")
        with self._watched():
            self._replays[running.case.name] = self.device.record(running.enqueue)
        return None

    def close(self, case: str) -> dict[str, Any]:
        """Forget a plan."""
        del self._running[case]
        self._replays.pop(case, None)
        return {"ok": True}

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Tell the parent while kernels run; what goes wrong meanwhile is their fault."""
        self._say({"running": True})
        try:
            yield
            self.device.synchronize()
        except torch.OutOfMemoryError as error:
            raise DeviceFault(f"{_TOO_MUCH}: {first_line(error)}") from None
        except RuntimeError as error:
            raise _KernelFault(first_line(error)) from None
        self._say({"running": False})


def serve(device: Device, lines: Iterable[str], say: Say) -> None:
    """Answer requests until they end or the device fails."""
    worker = Worker(device, say)
    say({"ready": asdict(device.card)})
    for line in lines:
        if not worker.answer(line):
            return


class LocalLink:
    """A link to a worker in this process."""

    def __init__(self, card: Card, make: Callable[[Say], Worker]) -> None:
        """Let the worker that ``make`` returns answer requests."""
        self.ready = json.dumps({"ready": asdict(card)})
        self._said: deque[str] = deque()
        self._worker = make(lambda answer: self._said.append(json.dumps(answer)))

    def ask(self, line: str, wall_s: float) -> str:
        """Return the answer; the time limit is not enforced."""
        self._worker.answer(line)
        return self.next_line(wall_s)

    def next_line(self, wall_s: float) -> str:
        """Return the next line."""
        return self._said.popleft()

    def last_words(self) -> str:
        """Return nothing: it cannot die alone."""
        return ""

    def end(self) -> None:
        """Nothing is left behind."""

    def kill(self) -> bool:
        """Nothing is left behind."""
        return True


def _refused(fault: Fault) -> dict[str, Any]:
    return {"fault": asdict(fault)}


def _fault(status: Status, message: str) -> dict[str, Any]:
    return _refused(Fault(status, message))


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or the error's type."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


_THREADS = 16
_PR_SET_PDEATHSIG = 1
"""prctl.h"""


def main() -> int:
    """Serve standard input. Exit code 2 without a GPU."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # a kernel that hangs outlives no judge
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints goes to standard error

    def say(answer: Mapping[str, Any]) -> None:
        print(json.dumps(answer), file=answers, flush=True)

    from evaluator.cuda.triton_device import TritonDevice

    # The judge uses one thread; here the reference must be quick.
    torch.set_num_threads(min(_THREADS, len(os.sched_getaffinity(0))))
    try:
        device = TritonDevice()
    except (MachineFault, RuntimeError, AssertionError) as error:
        say({"error": first_line(error)})
        return 2
    serve(device, sys.stdin, say)
    return 0


if __name__ == "__main__":
    sys.exit(main())
