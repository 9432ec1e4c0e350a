"""A session: one worker times the entrants of a shortlist in turn.

All entrants share its process, and of each case one memory: where code and buffers lie is then the same for all, and a
small card has room. What ends the worker ends the session, and the next one leaves out the entrant that did it; after a
graph could not be recorded, it runs that entrant without.
"""

import random
import secrets
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path

from avo.evaluator.catalogue import get_problem, get_suite, libraries_know
from avo.evaluator.cuda import libraries
from avo.evaluator.cuda.contender import Contender
from avo.evaluator.cuda.device import Timed
from avo.evaluator.cuda.protocol import STRETCH_S, TimedCase
from avo.evaluator.cuda.shortlist.book import Book
from avo.evaluator.errors import EvaluatorUnavailable
from avo.evaluator.evaluation import Fault, Status
from avo.evaluator.measurement import UNMEASURED, Sample
from avo.evaluator.problem import Case, smallest_of_each
from avo.evaluator.serving.child import Child

FIRST_S = (60.0, 300.0)
"""How long an entrant's first launch of a case may take, with all that it compiles: least and most, else a third of the
time for opening, so that one that hangs leaves time for the others.
"""
_OPENING = 0.5
"""The share of a session's time in which entrants are opened."""


class Left(Exception):
    """An entrant is given up: (status, why)."""


class Over(Exception):
    """The worker has ended."""


class Session:
    """The entrants in one worker, for ``seconds``; ``kernels`` are files by name, in the order to open them."""

    def __init__(self, child: Child, book: Book, kernels: Mapping[str, Path], number: int, seconds: float) -> None:
        self._child, self._book, self._kernels, self._number = child, book, kernels, number
        self._problem = get_problem(book.found.problem)
        self._cases = get_suite(self._problem, book.found.suite)
        self._libraries = [each.name for each in libraries.LIBRARIES if libraries_know(self._problem)]
        self._worker = Contender(child)
        self._timed: dict[str, TimedCase] = {}
        self._chance = random.Random(secrets.randbits(64))
        self._in = list[str]()
        """The entrants that run."""
        self._seconds = seconds
        self._began = time.monotonic()
        self._first_s = min(max(_OPENING * seconds / 3, FIRST_S[0]), FIRST_S[1])

    def begin(self) -> None:
        """Open the card. Raises ``EvaluatorUnavailable`` where nothing can be measured on it."""
        card, setup = self._worker.card, self._worker.setup
        self._timed = {case.name: TimedCase.of(self._problem, case, card) for case in self._cases}
        cases = tuple(each.measured for each in self._timed.values())
        self._book.found = replace(self._book.found, card=asdict(card), setup=asdict(setup), cases=cases)

    def run(self) -> bool:
        """Open entrants, then time them in rounds; return whether nothing has ended the worker before its time.

        The first round is run in any case. Raises ``EvaluatorUnavailable`` for a fault of the machine.
        """
        try:
            for name in (*self._kernels, *self._libraries):
                if self._in and time.monotonic() > self._began + _OPENING * self._seconds:
                    self._book.judge(name, UNMEASURED, "no time was left to open it")
                elif not self._book.left_out(name) and self._attempt(self._open, name):
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
        except Over:
            return False
        return True

    def _over(self) -> bool:
        """Return whether no more rounds are begun."""
        return time.monotonic() > self._began + self._seconds

    def _open(self, name: str) -> None:
        """Verify everything that it writes in small cases, then run it once in each case that is timed."""
        for small in smallest_of_each(self._problem.correctness_cases):
            say(f"{name}, checking {small.name}")
            called = self._call(name, small)
            self._right(self._worker.check(called, self._chance.getrandbits(62), self._first_s), called)
            self._worker.forget(called)
        for case in self._cases:
            say(f"{name}, running {case.name} a first time")
            self._call(name, case)
            self._run(name, case, 0.0, self._first_s)
        why = self._book.ungraphed.get(name)
        self._book.judge(name, Status.CORRECT, f"without a graph: {why}" if why else "")

    def _call(self, name: str, case: Case) -> str:
        """Have the worker open a case; return what it is called there."""
        called = _called(name, case)
        by = str(self._kernels.get(name, name))
        self._right(self._worker.call(self._problem, case, by, called, self._first_s), called)
        return called

    def _time(self, name: str, case: Case, number: int) -> None:
        say(f"{name}, round {number}, {case.name}")
        timed = self._run(name, case, STRETCH_S * self._chance.uniform(0.8, 1.2), self._timed[case.name].limit_s)
        (took,) = timed.runs
        sample = Sample(self._number, number, name, case.name, took.seconds * 1e6, took.wall_s * 1e6)
        for clocks in timed.clocks:
            others = {*self._book.found.others, *clocks.others}
            self._book.found = replace(self._book.found, others=tuple(sorted(others)))
            mhz = round(clocks.mean_mhz or clocks.sm_mhz)
            sample = replace(sample, sm_mhz=mhz, reasons=clocks.reasons, celsius=clocks.celsius, watts=clocks.watts)
        self._book.keep(sample)

    def _run(self, name: str, case: Case, stretch_s: float, limit_s: float) -> Timed:
        # Kernels are compared with each other: where one has no graph, none has.
        alone, ungraphed = name in self._libraries, self._book.ungraphed
        graph = name not in ungraphed and (alone or ungraphed.keys().isdisjoint(self._kernels))
        seeds, called = [self._chance.getrandbits(62)], _called(name, case)
        timed = self._worker.time(called, seeds, limit_s, stretch_s, graph)
        self._right(timed, called)
        assert isinstance(timed, Timed)
        if timed.ungraphed:
            ungraphed.setdefault(name, timed.ungraphed)
        if not timed.runs:
            raise Over
        self._right(self._timed[case.name].impossible([run.seconds for run in timed.runs]), called)
        return timed

    def _right(self, found: object, called: str) -> None:
        """Raise ``Left`` for a fault, and ``Over`` where others have killed the worker, perhaps for want of memory."""
        if not isinstance(found, Fault):
            return
        killed = self._worker.ended and self._child.code(1.0) in (-signal.SIGKILL, -signal.SIGTERM)
        if killed and found.status is Status.CRASHED:
            raise Over
        # What host code raises may be for another release of Triton, or of a library.
        status = UNMEASURED if found.status is Status.NO_ENTRY else found.status
        raise Left(status, found.message.removeprefix(f"case {called}: "))

    def _attempt(self, do: Callable[..., None], name: str, *more: object) -> bool:
        """Return whether the entrant goes on. Raises ``Over`` where it has ended the worker."""
        try:
            do(name, *more)
        except Left as left:
            self._book.judge(name, *left.args)
        except EvaluatorUnavailable as error:
            if self._worker.ended:
                raise
            self._book.judge(name, UNMEASURED, str(error))
        else:
            return True
        if self._worker.ended:
            raise Over
        for case in self._cases:
            self._worker.forget(_called(name, case))
        return False


def _called(name: str, case: Case) -> str:
    return f"{case.name} of {name}"


def say(text: str) -> None:
    """Tell how far it is: on a terminal in one line, elsewhere by the tables alone."""
    if sys.stdout.isatty():
        print(f"\r\033[K{text}", end="\n" if "\n" in text else "", flush=True)
    elif "\n" in text:
        print(text, flush=True)
