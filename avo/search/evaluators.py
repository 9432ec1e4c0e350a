"""The pool of evaluators that operators share. The caller who has waited longest gets the next one that is free."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from avo.config import RunConfig
from evaluator.errors import EvaluatorUnavailable
from evaluator.evaluators import Evaluator, judge_process
from evaluator.isolation import Sandbox

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
        self, start: Callable[[], Awaitable[E]], end: Callable[[E], None], count: int, pause_s: float = _PAUSE_S
    ) -> None:
        """Begin to start ``count`` evaluators; needs a running event loop.

        ``start`` returns an evaluator that is ready, or raises ``EvaluatorUnavailable``; ``end`` ends one.
        """
        self._start = start
        self._end = end
        self._pause_s = pause_s
        self._free: deque[tuple[int, E]] = deque()
        self._waiting: deque[asyncio.Future[tuple[int, E]]] = deque()
        self._failures = [0] * count
        self._trouble = ""
        self._supplies = [asyncio.ensure_future(self._supply(place)) for place in range(count)]

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
                await asyncio.sleep(self._pause_s)
            else:
                self._failures[place] = 0
                self._hand_out(place, evaluator)
                return

    def _check(self) -> None:
        """Raise ``EvaluatorUnavailable`` when no evaluator starts."""
        if min(self._failures) >= START_TRIES:
            raise EvaluatorUnavailable(self._trouble)

    def _tell_all(self) -> None:
        try:
            self._check()
        except EvaluatorUnavailable as error:
            while self._waiting:
                waiting = self._waiting.popleft()
                if not waiting.done():
                    waiting.set_exception(EvaluatorUnavailable(str(error)))


def run_evaluator(config: RunConfig) -> Evaluator:
    """Return a judge in a process of its own, as a run with this configuration has it.

    Raises ``UnknownTarget`` or ``UnknownProblem`` for unknown names.
    """
    return judge_process(
        config.target,
        config.suite,
        config.evaluation_wall_s,
        sandbox=Sandbox(config.sandbox),
        command=config.evaluator_command,
        options=measuring(config),
    )


def measuring(config: RunConfig) -> tuple[str, ...]:
    """Return the judge's arguments that matter where speed is measured."""
    if not config.measured:
        return ()
    found = ["--equivalence-margin", str(config.equivalence_margin), "--cascade", str(config.cascade)]
    given = {"--device": config.device, "--trace": config.trace, "--worker-prefix": config.worker_prefix}
    for option, value in given.items():
        found += [] if value is None else [option, value]
    return (*found, "--clock", config.clock)
