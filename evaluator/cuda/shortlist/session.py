"""``python -m avo.evaluator.cuda.shortlist.session ORDERS``: a process that times the entrants of a shortlist in turn.

ORDERS are ``Orders`` as JSON. What it finds are JSON objects on standard output, one a line:

{"ready": {"card": {...}, "setup": {...}, "cases": [{...}]}}   a ``Card``, a ``Setup`` and ``MeasuredCase``s
{"doing": "v12, 8k-full", "entrant": "v12", "limit_s": 20.0}   what comes next, and how long it may take
{"entrant": "v12", "status": "correct", "message": ""}         the verdict on it, which may change to a fault
{"sample": {...}}                                              a ``Sample``
{"ungraphed": "...", "entrant": "v12"}                         why its runs are no replays of a graph
{"others": ["..."]}                                            who else computes on the card
{"error": "..."}                                               why nothing can be measured here

All entrants share one process, and of each case one memory: where code and buffers lie is then the same for all, and a
small card has room. After an error of the device the process ends with exit code 3, and the next one leaves out the
entrant that brought it about. After a graph could not be recorded it ends with exit code 4, and the next one runs that
entrant without.
"""

import json
import os
import random
import secrets
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from avo.evaluator.catalogue import get_problem, get_suite, libraries_know
from avo.evaluator.cuda.blame import first_line
from avo.evaluator.cuda.called import EntryRunning, library_running
from avo.evaluator.cuda.device import Device, DeviceFault, KernelFault, MachineFault, NotRecorded
from avo.evaluator.cuda.libraries import LIBRARIES
from avo.evaluator.cuda.protocol import STRETCH_S, TimedCase
from avo.evaluator.cuda.running import Running
from avo.evaluator.cuda.runs import Runs, blamed
from avo.evaluator.errors import EvaluatorUnavailable
from avo.evaluator.evaluation import Fault, Status
from avo.evaluator.measurement import UNMEASURED, MeasuredCase, Sample
from avo.evaluator.modules import imported
from avo.evaluator.problem import Case, Problem, smallest_of_each

BROKEN = 3
"""Exit code where the device has failed."""
UNGRAPHED = 4
"""Exit code where a graph could not be recorded: see ``Runs.time``."""
FIRST_S = (60.0, 300.0)
"""How long an entrant's first launch of a case may take, with all that it compiles: least and most, else a third of the
time for opening, so that one that hangs leaves time for the others.
"""
_OPENING = 0.5
"""The share of a process's time in which entrants are opened."""
_GRACE_S = 10.0
"""How much longer than its limit a run may seem to take: inputs are made, and results compared."""
_THREADS = 16
Say = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True)
class Orders:
    """What one process is to do."""

    problem: str
    suite: str
    kernels: Mapping[str, str]
    """Files of the kernels by name, in the order in which they are opened."""
    session: int
    seconds: float
    """How long rounds are begun, half of it after entrants are opened. The first is run in any case."""
    without: Sequence[str] = ()
    """Entrants that are left out."""
    ungraphed: Mapping[str, str] = field(default_factory=dict)
    """Why entrants are run without a graph."""


class Left(Exception):
    """An entrant is given up, and not the process: (status, why)."""


class Session:
    """Entrants on one device."""

    def __init__(self, device: Device, orders: Orders, say: Say) -> None:
        self._device, self._orders, self._say = device, orders, say
        self._problem: Problem = get_problem(orders.problem)
        self._cases: Sequence[Case] = get_suite(self._problem, orders.suite)
        self._timed = {case.name: TimedCase.of(self._problem, case, device.card) for case in self._cases}
        self._chance = random.Random(secrets.randbits(64))
        self._runs = Runs(device, lambda running: None)
        self._libraries = {library.name: library for library in LIBRARIES if libraries_know(self._problem)}
        self._first: dict[str, Running] = {}
        """What was opened first of each case, whose memory all share."""
        self._in = list[str]()
        """The entrants that run."""
        self._ungraphed = dict(orders.ungraphed)
        self._others: tuple[str, ...] = ()
        self._opening_s = _OPENING * orders.seconds
        self._first_s = min(max(self._opening_s / 3, FIRST_S[0]), FIRST_S[1])
        self._began = time.monotonic()

    def run(self) -> None:
        """Open entrants, then time them in rounds."""
        cases = [asdict(MeasuredCase(c.name, c.flops, c.floor_s * 1e6)) for c in self._timed.values()]
        self._say({"ready": {"card": asdict(self._device.card), "setup": asdict(self._device.setup), "cases": cases}})
        for name in (*self._orders.kernels, *self._libraries):
            if time.monotonic() > self._began + self._opening_s and self._in:
                self._tell(name, UNMEASURED, "no time was left to open it")
            elif name not in self._orders.without and self._attempt(self._open, name):
                self._in.append(name)
        order, number = list[str](), 0
        while self._in and (not number or not self._over()):
            number += 1
            # Every other round goes the other way, so that a drift of the card is the same for all.
            order = order[::-1] if number % 2 == 0 else self._chance.sample(self._in, len(self._in))
            for case in self._chance.sample(self._cases, len(self._cases)):
                for name in order:
                    if name in self._in and not self._attempt(self._time, name, case, number):
                        self._in.remove(name)

    def _over(self) -> bool:
        """Return whether no more rounds are begun."""
        return time.monotonic() > self._began + self._orders.seconds

    def _open(self, name: str) -> None:
        """Verify everything that it writes in small cases, then run it once in each case that is timed."""
        make = self._loaded(name)
        for small in smallest_of_each(self._problem.correctness_cases):
            self._doing(name, f"checking {small.name}", self._first_s)
            key = f"{name}, {small.name}"
            self._runs.open(key, make(small))
            checked = self._runs.check(key, self._chance.getrandbits(62))
            self._runs.forget(key)
            if checked.fault:
                raise Left(checked.fault.status, checked.fault.message)
        for case in self._cases:
            self._doing(name, f"running {case.name} a first time", self._first_s)
            running = make(case, self._first.get(case.name))
            self._first.setdefault(case.name, running)
            self._runs.open(f"{name}, {case.name}", running)
            self._run(name, case, stretch_s=0.0)
        why = self._ungraphed.get(name)
        self._tell(name, Status.CORRECT, f"without a graph: {why}" if why else "")

    def _loaded(self, name: str) -> Callable[..., Running]:
        """Return what makes of a case, beside another's memory, what runs."""
        if library := self._libraries.get(name):
            return partial(library_running, self._device, self._problem, library)
        file = Path(self._orders.kernels[name])
        try:
            module = imported(file, f"shortlisted_{file.stem}")
        except Exception as error:  # of a kernel for another Triton, say
            raise Left(UNMEASURED, f"{file.name}: {type(error).__name__}: {first_line(error)}") from None
        if (entry := getattr(module, self._problem.entry, None)) is None:
            raise Left(Status.NO_ENTRY, f"{file.name} has no function {self._problem.entry}")
        return partial(EntryRunning, self._device, self._problem, entry)

    def _time(self, name: str, case: Case, number: int) -> None:
        stretch_s = STRETCH_S * self._chance.uniform(0.8, 1.2)
        self._doing(name, f"round {number}, {case.name}", self._timed[case.name].limit_s + stretch_s + _GRACE_S)
        timed = self._run(name, case, stretch_s)
        (took,) = timed.runs
        sample = Sample(self._orders.session, number, name, case.name, took.seconds * 1e6, took.wall_s * 1e6)
        for clocks in timed.clocks:
            if clocks.others and clocks.others != self._others:
                self._others = clocks.others
                self._say({"others": list(clocks.others)})
            mhz = round(clocks.mean_mhz or clocks.sm_mhz)
            sample = replace(sample, sm_mhz=mhz, reasons=clocks.reasons, celsius=clocks.celsius, watts=clocks.watts)
        self._say({"sample": asdict(sample)})

    def _run(self, name: str, case: Case, stretch_s: float) -> Any:
        # Kernels are compared with each other: where one has no graph, none has.
        alone = name in self._libraries
        graph = name not in self._ungraphed and (alone or self._ungraphed.keys().isdisjoint(self._orders.kernels))
        seeds = [self._chance.getrandbits(62)]
        try:
            timed = self._runs.time(f"{name}, {case.name}", seeds, stretch_s, graph)
        except NotRecorded as error:
            self._say({"ungraphed": str(error), "entrant": name})
            raise
        if isinstance(timed, Fault):
            raise Left(timed.status, timed.message)
        if fault := self._timed[case.name].impossible([run.seconds for run in timed.runs]):
            raise Left(fault.status, fault.message)
        if timed.ungraphed:
            self._ungraphed[name] = timed.ungraphed
            self._say({"ungraphed": timed.ungraphed, "entrant": name})
        return timed

    def _attempt(self, do: Callable[..., None], name: str, *more: Any) -> bool:
        """Return whether the entrant goes on. Raises where the device has failed."""
        try:
            do(name, *more)
        except Left as left:
            self._tell(name, *left.args)
        except DeviceFault as error:
            self._tell(name, Status.DOES_NOT_FIT, first_line(error))
        except (MachineFault, NotRecorded):
            raise
        except KernelFault as error:
            self._synchronize()
            crashed = name in self._orders.kernels and "CUDA" in str(error)  # else Triton's compiler raises
            self._tell(name, Status.CRASHED if crashed else UNMEASURED, f"the GPU reports: {error}")
        except Exception as error:  # of host code, of another release of Triton, or of a library
            self._synchronize()
            self._tell(name, UNMEASURED, f"{type(error).__name__}: {first_line(error)}")
        else:
            return True
        for case in self._cases:
            with suppress(KeyError):
                self._runs.forget(f"{name}, {case.name}")
        return False

    def _synchronize(self) -> None:
        """Raise where the device is broken, and not this launch alone: ``MachineFault`` if no kernel does that."""
        try:
            self._device.synchronize()
        except RuntimeError as error:
            if isinstance(fault := blamed(error, self._device.trouble()), MachineFault):
                raise fault from None
            raise

    def _doing(self, name: str, what: str, limit_s: float) -> None:
        self._say({"doing": f"{name}, {what}", "entrant": name, "limit_s": limit_s})

    def _tell(self, name: str, status: str, message: str) -> None:
        release = self._libraries[name].release if name in self._libraries else ""
        self._say({"entrant": name, "status": str(status), "message": message[:500], "release": release})


def main(arguments: Sequence[str], open_device: Callable[[], Device] | None = None) -> int:
    """Follow the orders on the device that ``open_device`` returns, by default this process's GPU."""

    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a kernel or a library prints goes to standard error

    def say(found: Mapping[str, Any]) -> None:
        print(json.dumps(found), file=answers, flush=True)

    torch.set_num_threads(_THREADS)
    try:
        from avo.evaluator.cuda.triton_device import TritonDevice

        Session(
            open_device() if open_device else TritonDevice(alone=True), Orders(**json.loads(arguments[0])), say
        ).run()
    except EvaluatorUnavailable as error:  # the machine's fault, or a card without figures
        say({"error": str(error)})
        return BROKEN
    except NotRecorded:
        return UNGRAPHED
    except RuntimeError as error:
        print(f"the device failed: {error}", file=sys.stderr)
        return BROKEN
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
