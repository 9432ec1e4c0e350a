"""``python -m avo.evaluator.cuda.worker``: runs plans, libraries and kernels' files on the GPU, by JSON objects, one a
line, in order. ``--alone``: it needs no second process on the card.

<- {"imported": true}                                                              the GPU is not touched yet
-> {"begin": {}}
<- {"ready": {"name": "NVIDIA H100 80GB HBM3", ...}, "setup": {...}}                 a ``Card`` and a ``Setup``
-> {"open": {"problem": "mha", "case": {...}, "plan": {...}, "binaries": [...]}}
<- {"ok": true}                                                                    its memory is allocated
-> {"call": {"problem": "mha", "case": {...}, "by": "FlexAttention", "name": "8k-full"}}    a library, or a file
<- {"ok": true}                                                                    its calls share a case's memory
-> {"check": {"case": "odd-full", "seed": 1}}                                       one run, everything compared
<- {"result": {...}}                                                                a ``CaseResult``
-> {"time": {"case": "8k-full", "seeds": [5, 6], "stretch_s": 0.1, "graph": true}}   a run a seed, each verified
<- {"runs": [{...}, {...}], "clocks": [{...}], "ungraphed": ""}                     a ``Timed``; no runs: no graph
-> {"close": {"case": "odd-full"}}                                                  its memory is free again
<- {"running": true} ... {"running": false}                                         around what a kernel can hang in
<- {"fault": {"status": "crashed", ...}} or {"error": "..."}                        instead of any answer

What goes wrong while a candidate's kernels run is the candidate's fault, but for errors that no kernel brings about:
these and everything else are the machine's. After a fault that the device keeps nothing can be trusted any more, nor
after a graph could not be recorded: such an answer has ``"last": true``, and the process ends. The parent enforces time
limits.
"""

import ctypes
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch

from avo.evaluator.binary import Binary
from avo.evaluator.catalogue import get_problem
from avo.evaluator.cuda.blame import first_line
from avo.evaluator.cuda.called import EntryRunning, entry_of, hosted, library_running
from avo.evaluator.cuda.device import (
    Device,
    DeviceFault,
    HostFault,
    KernelFault,
    MachineFault,
    NotRecorded,
    PlanFault,
    Timed,
)
from avo.evaluator.cuda.libraries import library_called
from avo.evaluator.cuda.running import Running
from avo.evaluator.cuda.runs import Runs
from avo.evaluator.evaluation import Fault, Status

Say = Callable[[Mapping[str, Any]], None]


class Worker:
    """Answers requests on one device, which ``open_device`` returns."""

    def __init__(self, open_device: Callable[[], Device], say: Say) -> None:
        self._open_device, self._say = open_device, say
        self.device: Device
        self._runs: Runs
        self._first: dict[str, Running] = {}
        """What was called first of each case, whose memory all later calls share."""

    def answer(self, line: str) -> bool:
        """Answer a request, and return whether more can be answered."""
        ((name, arguments),) = json.loads(line).items()
        handlers: tuple[Callable[..., dict[str, Any]], ...]
        handlers = (self.begin, self.open, self.call, self.check, self.time, self.close)
        last = False
        try:
            answer = {each.__name__: each for each in handlers}[name](**arguments)
        except PlanFault as error:
            answer = _fault(Status.FORBIDDEN, str(error))
        except DeviceFault as error:
            answer = _fault(Status.DOES_NOT_FIT, str(error))
        except HostFault as error:
            answer, last = _fault(Status.NO_ENTRY, str(error)), self._broken()
        except KernelFault as error:
            answer, last = _fault(Status.CRASHED, f"the GPU reports: {error}"), self._broken()
        except NotRecorded as error:
            answer, last = asdict(Timed((), (), str(error))), True
        except MachineFault as error:
            answer, last = {"error": str(error)}, True
        except torch.OutOfMemoryError as error:
            answer = {"error": f"out of memory on the GPU: {first_line(error)}"}
        except Exception as error:
            traceback.print_exc()
            answer, last = {"error": f"the GPU worker failed: {error!r:.300}"}, True
        self._say({**answer, "last": True} if last else answer)
        return not last

    def _broken(self) -> bool:
        """Return whether the device is, and not one launch alone."""
        try:
            self.device.synchronize()
        except RuntimeError:
            return True
        return False

    def begin(self) -> dict[str, Any]:
        """Open the device."""
        try:
            self.device = self._open_device()
        except (RuntimeError, AssertionError) as error:  # of torch's and Triton's first look at it
            raise MachineFault(first_line(error)) from None
        self._runs = Runs(self.device, lambda running: self._say({"running": running}))
        return {"ready": asdict(self.device.card), "setup": asdict(self.device.setup)}

    def open(self, problem: str, case: Any, plan: Any, binaries: list[dict[str, Any]]) -> dict[str, Any]:
        """Allocate the memory of a plan."""
        import msgspec  # a machine that only measures a shortlist need not have it

        from avo.evaluator.capture.plan_reading import plan_from_json

        found = get_problem(problem)
        opened = msgspec.convert(case, type(found.correctness_cases[0]))  # a problem may extend ``Case``
        loaded = msgspec.convert(binaries, list[Binary])
        self._runs.open(opened.name, Running(self.device, found, opened, plan_from_json(plan), loaded))
        return {"ok": True}

    def call(self, problem: str, case: dict[str, Any], by: str, name: str) -> dict[str, Any]:
        """Open a case that the library ``by`` computes, or the entry function of that file; it is then ``name``."""
        found = get_problem(problem)
        opened = type(found.correctness_cases[0])(**case)
        with self._runs.watched(), hosted():
            if library := library_called(by):
                made: Callable[..., Running] = partial(
                    library_running, attend=library.prepare(opened, self.device.place)
                )
            else:
                made = partial(EntryRunning, entry=entry_of(Path(by), found.entry))
        running = made(self.device, found, case=opened, beside=self._first.get(opened.name))
        self._first.setdefault(opened.name, running)
        self._runs.open(name, running)
        return {"ok": True}

    def check(self, case: str, seed: int) -> dict[str, Any]:
        """Run a plan once, and compare everything that it should have written."""
        checked = self._runs.check(case, seed)
        return _refused(checked.fault) if checked.fault else {"result": asdict(checked.result)}

    def time(self, case: str, seeds: list[int], stretch_s: float, graph: bool) -> dict[str, Any]:
        """Time and verify a run of a plan for each seed: see ``Runs.time``."""
        timed = self._runs.time(case, seeds, stretch_s, graph)
        return _refused(timed) if isinstance(timed, Fault) else asdict(timed)

    def close(self, case: str) -> dict[str, Any]:
        """Forget a plan."""
        self._runs.forget(case)
        return {"ok": True}


IMPORTED = {"imported": True}
"""The first line."""


def serve(open_device: Callable[[], Device], lines: Iterable[str], say: Say) -> None:
    """Answer requests until they end or the device fails."""
    worker = Worker(open_device, say)
    say(IMPORTED)
    for line in lines:
        if not worker.answer(line):
            return


def _refused(fault: Fault) -> dict[str, Any]:
    return {"fault": asdict(fault)}


def _fault(status: Status, message: str) -> dict[str, Any]:
    return _refused(Fault(status, message))


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
    serve(open_device or partial(TritonDevice, alone="--alone" in sys.argv), sys.stdin, say)
    return 0


if __name__ == "__main__":
    sys.exit(main())
