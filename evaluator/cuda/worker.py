"""``python -m avo.evaluator.cuda.worker``: one candidate's plans on the GPU, by JSON objects, one a line, in order.

<- {"imported": true}                                                              the GPU is not touched yet
-> {"begin": {}}
<- {"ready": {"name": "NVIDIA H100 80GB HBM3", ...}, "setup": {...}}                 a ``Card`` and a ``Setup``
-> {"open": {"problem": "mha", "case": {...}, "plan": {...}, "binaries": [...]}}
<- {"ok": true}                                                                    its memory is allocated
-> {"check": {"case": "odd-full", "seed": 1}}                                       one run, everything compared
<- {"result": {...}}                                                                a ``CaseResult``
-> {"time": {"case": "8k-full", "seeds": [5, 6], "stretch_s": 0.1, "graph": true}}   a run a seed, each verified
<- {"runs": [{...}, {...}], "clocks": [{...}, null], "ungraphed": ""}               one ``Took`` and ``Clocks`` a seed
-> {"close": {"case": "odd-full"}}                                                  its memory is free again
<- {"running": true} ... {"running": false}                                         around what a kernel can hang in
<- {"fault": {"status": "crashed", ...}} or {"error": "..."}                        instead of any answer

What goes wrong while a candidate's kernels run is the candidate's fault, but for errors that no kernel brings about:
these and everything else are the machine's. After a fault of the device nothing can be trusted any more, and the
process ends. The parent enforces time limits.
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
from dataclasses import asdict, replace
from typing import Any

import msgspec
import torch

from avo.evaluator.binary import Binary
from avo.evaluator.capture.plan_reading import plan_from_json
from avo.evaluator.catalogue import get_problem
from avo.evaluator.cuda.blame import first_line, is_machines, is_too_much
from avo.evaluator.cuda.device import Device, DeviceFault, Enqueue, MachineFault, NotRecorded, PlanFault
from avo.evaluator.cuda.running import Running
from avo.evaluator.evaluation import Fault, Status
from avo.evaluator.judging.compare import Checked
from avo.evaluator.plan import LaunchPlan
from avo.evaluator.problem import Case, Problem

FIRST = 2**61
"""Bit by which the seed of a first launch differs from that of the first run after it."""
_TOO_MUCH = "kernels ask for more memory at launch than the GPU has left"
Say = Callable[[Mapping[str, Any]], None]


class _KernelFault(Exception):
    """What CUDA, torch or Triton's launcher reports while a candidate's kernels run."""


class Worker:
    """Answers requests on one device, which ``open_device`` returns."""

    def __init__(self, open_device: Callable[[], Device], say: Say) -> None:
        self._open_device, self._say = open_device, say
        self.device: Device
        self._running: dict[str, Running] = {}
        self._replays: dict[tuple[str, bool], Enqueue] = {}
        """What enqueues the work of a case, with a graph or without."""
        self._ungraphed: dict[str, str] = {}
        """Why a case has no graph."""

    def answer(self, line: str) -> bool:
        """Answer a request, and return whether more can be answered."""
        ((name, arguments),) = json.loads(line).items()
        handlers: dict[str, Callable[..., dict[str, Any]]]
        handlers = {"begin": self.begin, "open": self.open, "check": self.check, "time": self.time, "close": self.close}
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

    def begin(self) -> dict[str, Any]:
        """Open the device."""
        try:
            self.device = self._open_device()
        except (RuntimeError, AssertionError) as error:  # of torch's and Triton's first look at it
            raise MachineFault(first_line(error)) from None
        return {"ready": asdict(self.device.card), "setup": asdict(self.device.setup)}

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
        checked = self._run(running, seed, running.enqueue, whole=True)
        return _refused(checked.fault) if checked.fault else {"result": asdict(checked.result)}

    def time(self, case: str, seeds: list[int], stretch_s: float, graph: bool) -> dict[str, Any]:
        """Run a plan once for each seed, on new inputs, poisoned memory and a cold cache; time and verify each run.

        Before each, the plan runs for ``stretch_s`` on the inputs of the run before, so that the clock is the one it
        has under lasting work. They are not those of the timed run: what it needs could be worked out during the
        stretch. With ``graph`` the runs are replays of a graph, where one can be recorded.
        """
        running = self._running[case]
        # On other inputs than those of the first run: a stretch on them comes before it.
        if (case, False) not in self._replays and (fault := self._first(running, seeds[0] ^ FIRST)):
            return _refused(fault)
        if graph and case not in self._ungraphed and (case, True) not in self._replays:
            self._record(running)
        replay = self._replays[case, graph and case not in self._ungraphed]
        runs: list[dict[str, Any]] = []
        clocks = []

        def timed() -> None:
            runs.append(asdict(self.device.time(replay)))

        for seed in seeds:
            if stretch_s:
                with self._watched():
                    self.device.sustain(replay, stretch_s)
            if fault := self._run(running, seed, timed, again=replay).fault:
                return _refused(fault)
            sampled = self.device.clocks()
            clocks.append(None if sampled is None else asdict(sampled))
        return {"runs": runs, "clocks": clocks, "ungraphed": self._ungraphed.get(case, "")}

    def _first(self, running: Running, seed: int) -> Fault | None:
        """Launch a plan a first time, which loads code.

        The launch's result is the canary: after it was found correct, a wrong number in it must be noticed.
        """
        if fault := self._run(running, seed, running.enqueue).fault:
            return fault
        running.spoil()
        if not running.verify().fault:
            raise AssertionError("a number that was made wrong was accepted as right")
        self._replays[running.case.name, False] = running.enqueue
        return None

    def _record(self, running: Running) -> None:
        """Record a plan as a graph, or note why it has none."""
        case = running.case.name
        if running.ungraphed:
            self._ungraphed[case] = running.ungraphed
            return
        with self._watched():
            try:
                self._replays[case, True] = self.device.record(running.enqueue)
            except NotRecorded as error:
                self._ungraphed[case] = str(error)

    def _run(
        self, running: Running, seed: int, enqueue: Enqueue, *, whole: bool = False, again: Enqueue | None = None
    ) -> Checked:
        """Run a plan on the inputs of ``seed``, and compare what it wrote.

        A wrong result is run ``again`` on the same inputs: one that is then right is not put down to the kernel alone,
        as some releases of Triton make code for some cards that is not deterministic
        (https://github.com/triton-lang/triton/issues/9871, B200 with Triton 3.6; /issues/10590, B300 with 3.7).
        """
        found = self._once(running, seed, enqueue, whole)
        if found.fault is None or self._once(running, seed, again or enqueue, whole).fault:
            return found
        why = (
            f"{found.fault.message}; run again on the same inputs, it was right: the kernel has a race, or this Triton "
            "makes code of it that is not deterministic on this card"
        )
        return replace(found, fault=replace(found.fault, message=why))

    def _once(self, running: Running, seed: int, enqueue: Enqueue, whole: bool) -> Checked:
        running.renew(seed, whole=whole)
        with self._watched():
            running.prepare()
            enqueue()
        running.collect()
        return running.verify()

    def close(self, case: str) -> dict[str, Any]:
        """Forget a plan."""
        del self._running[case]
        self._ungraphed.pop(case, None)
        for graph in (False, True):
            self._replays.pop((case, graph), None)
        return {"ok": True}

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Tell the parent while kernels run; what goes wrong meanwhile is their fault, if it can be."""
        self._say({"running": True})
        try:
            yield
            self.device.synchronize()
        except torch.OutOfMemoryError as error:
            raise DeviceFault(f"{_TOO_MUCH}: {first_line(error)}") from None
        except RuntimeError as error:
            raise _blamed(error) from None
        self._say({"running": False})


_IMPORTED = {"imported": True}


def serve(open_device: Callable[[], Device], lines: Iterable[str], say: Say) -> None:
    """Answer requests until they end or the device fails."""
    worker = Worker(open_device, say)
    say(_IMPORTED)
    for line in lines:
        if not worker.answer(line):
            return


class LocalLink:
    """A link to a worker in this process."""

    ready = json.dumps(_IMPORTED)

    def __init__(self, make: Callable[[Say], Worker]) -> None:
        """Let the worker that ``make`` returns answer requests."""
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


def _blamed(error: RuntimeError) -> Exception:
    """Return what an error of CUDA, torch or Triton's launcher means while a candidate's kernels run."""
    said = first_line(error)
    if is_machines(error):
        return MachineFault(
            f"the GPU reports: {said}: no kernel brings that about: nvidia-smi -q and dmesg (Xid) say more; "
            "nvidia-smi --gpu-reset, or restart the machine"
        )
    return DeviceFault(f"{_TOO_MUCH}: {said}") if is_too_much(error) else _KernelFault(said)


_THREADS = 16
_PR_SET_PDEATHSIG = 1
"""prctl.h"""


def main(open_device: Callable[[], Device] | None = None) -> int:
    """Serve standard input, on the device that ``open_device`` returns, by default this process's GPU."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # a kernel that hangs outlives no judge
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints goes to standard error

    def say(answer: Mapping[str, Any]) -> None:
        print(json.dumps(answer), file=answers, flush=True)

    from avo.evaluator.cuda.triton_device import TritonDevice

    # The judge uses one thread; here the reference must be quick.
    torch.set_num_threads(min(_THREADS, len(os.sched_getaffinity(0))))
    serve(open_device or TritonDevice, sys.stdin, say)
    return 0


if __name__ == "__main__":
    sys.exit(main())
