"""The pool of evaluators that operators share. The caller who has waited longest gets the next one that is free."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from queue import Empty, LifoQueue
from threading import Lock
from typing import Any, Generic, TypeVar

from avo.evaluator.errors import EvaluatorUnavailable
from avo.evaluator.evaluators import AnyRequest, Evaluator, Tell
from avo.evaluator.inspection import Findings, Inspection
from avo.evaluator.target import Target

START_TRIES = 3
"""How often in a row each evaluator may fail to start before those who wait are told."""
_PAUSE_S = 1.0

E = TypeVar("E")
T = TypeVar("T")


class Pool(Generic[E]):
    """A number of evaluators, each asked one thing at a time; one that has no answer is replaced by a new one.

    Only callers queue here, each for one answer: what they have found so far is in the database.
    """

    def __init__(
        self,
        start: Callable[[], Awaitable[E]],
        end: Callable[[E], None],
        count: int,
        spare: int = 0,
        pause_s: float = _PAUSE_S,
    ) -> None:
        """Begin to start ``count`` evaluators, but for the ``spare`` ones of them, which are started when someone would
        wait otherwise, and given up where they do not start; needs a running event loop.

        ``start`` returns an evaluator that is ready, or raises ``EvaluatorUnavailable``; ``end`` ends one.
        """
        self._start = start
        self._end = end
        self._pause_s = pause_s
        self._free: deque[tuple[int, E]] = deque()
        self._waiting: deque[asyncio.Future[tuple[int, E]]] = deque()
        self._failures = [0] * count
        self._eager = count - spare
        self._trouble = ""
        self._supplies = [asyncio.ensure_future(self._supply(place)) for place in range(self._eager)]

    async def ask(self, question: Callable[[E], Awaitable[T]]) -> T:
        """Return the answer of the next evaluator that is free; raises ``EvaluatorUnavailable``."""
        place, evaluator = await self._next()
        try:
            answer = await question(evaluator)
        except BaseException:
            self._end(evaluator)
            self._supplies[place] = asyncio.ensure_future(self._supply(place))
            raise
        self._hand_out(place, evaluator)
        return answer

    def close(self) -> None:
        """Start no more evaluators."""
        for supply in self._supplies:
            supply.cancel()

    async def _next(self) -> tuple[int, E]:
        if self._free:
            return self._free.popleft()
        self._check()
        waiting: asyncio.Future[tuple[int, E]] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        starting = sum(not supply.done() for supply in self._supplies)
        if len(self._waiting) > starting and (place := len(self._supplies)) < len(self._failures):
            self._supplies.append(asyncio.ensure_future(self._supply(place)))
        return await waiting

    def _hand_out(self, place: int, evaluator: E) -> None:
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.done():  # it is when its asker has gone
                waiting.set_result((place, evaluator))
                return
        self._free.append((place, evaluator))

    async def _supply(self, place: int) -> None:
        """Start an evaluator for ``place``, again and again until one is ready."""
        while True:
            try:
                evaluator = await self._start()
            except EvaluatorUnavailable as error:
                self._failures[place] += 1
                self._trouble = str(error)
                self._tell_all()
                if place >= self._eager and self._failures[place] >= START_TRIES:
                    return
                await asyncio.sleep(self._pause_s)
            else:
                self._failures[place] = 0
                self._hand_out(place, evaluator)
                return

    def _check(self) -> None:
        """Raise ``EvaluatorUnavailable`` when no evaluator starts."""
        if min(self._failures[: len(self._supplies)]) >= START_TRIES:
            raise EvaluatorUnavailable(self._trouble)

    def _tell_all(self) -> None:
        try:
            self._check()
        except EvaluatorUnavailable as error:
            while self._waiting:
                waiting = self._waiting.popleft()
                if not waiting.done():
                    waiting.set_exception(EvaluatorUnavailable(str(error)))


class SideBySide(Evaluator):
    """Several evaluators, each asked one thing at a time.

    All but the first are started when one would have to wait, and done without where they do not start or answer.
    """

    def __init__(self, start: Callable[[], Evaluator], count: int) -> None:
        """``start`` returns one of ``count`` evaluators."""
        self._start = start
        self._count = count
        self._first = start()
        self._started = [self._first]
        self._starting = Lock()
        self._free = LifoQueue[Evaluator]()
        self._free.put(self._first)

    @property
    def target(self) -> Target:
        """What they judge for."""
        return self._first.target

    @property
    def at_once(self) -> int:
        """How many evaluators there are."""
        return self._count

    def ask(self, request: AnyRequest) -> Any:
        """Return the answer of one that is free."""
        return self._with(lambda evaluator: evaluator.ask(request))

    def follow(self, request: AnyRequest, tell: Tell) -> Any:
        """Return the answer like ``ask``; ``tell`` hears how far it is."""
        return self._with(lambda evaluator: evaluator.follow(request, tell))

    def inspect_all(self, inspections: Sequence[Inspection]) -> list[Findings]:
        """Return what is seen of each."""
        with ThreadPoolExecutor(min(self._count, len(inspections)) or 1) as threads:
            return list(threads.map(self.inspect, inspections))

    def close(self) -> None:
        """End all. Whoever is asking has no answer."""
        with self._starting, ExitStack() as ends:
            self._count = 0
            for each in self._started:
                ends.callback(each.close)

    def _with(self, question: Callable[[Evaluator], Any]) -> Any:
        while True:
            evaluator = self._next()
            try:
                answer = question(evaluator)
            except BaseException as error:
                if not isinstance(error, EvaluatorUnavailable) or evaluator is self._first or not self._count:
                    self._free.put(evaluator)
                    raise
                with self._starting:
                    self._count -= 1
                    self._started.remove(evaluator)
                evaluator.close()
            else:
                self._free.put(evaluator)
                return answer

    def _next(self) -> Evaluator:
        with self._starting:
            with suppress(Empty):
                return self._free.get_nowait()
            if len(self._started) < self._count:
                try:
                    self._started.append(self._start())
                    return self._started[-1]
                except EvaluatorUnavailable:
                    self._count -= 1
        return self._free.get()
