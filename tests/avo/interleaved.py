"""Several workers of one run in one process. One at a time goes on, drawn wherever it shows an operator, a judge or
death what they do: what happens depends on the seed alone.
"""

import hashlib
import json
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from threading import Lock, Semaphore, Thread
from typing import Any

from avo.agents.agentic import Agentic
from avo.agents.errors import StepLeft
from avo.agents.model import ChatMessage, Reply, ToolCall
from avo.agents.moves import MOVES
from avo.agents.mutate import Mutate
from avo.agents.operator import Brief, Proposal, VariationOperator
from avo.agents.served import PendingCall, Served
from avo.agents.settings import ModelSettings, Settings
from avo.agents.single_turn import SingleTurn
from avo.config import RunConfig
from avo.evaluator.candidate import Candidate
from avo.evaluator.evaluation import Evaluation, Status
from avo.evaluator.evaluators import Evaluator
from avo.evaluator.fake import FakeEvaluator
from avo.knowledge_base.library import Library
from avo.lineage_db.records import Run
from avo.lineage_db.store import Store
from avo.search.budget import Allowance
from avo.search.seeding import seed_operator
from avo.seeds import seed_source
from tests.avo.fakes import NOW, correct, make_run, make_work
from tests.avo.measured import MeasuringEvaluator, kernel

WHY = {"hypothesis": "there is less work to do", "change": "a number", "expected": "+1%"}
_SEED_LINES = set(seed_source("mha").splitlines())
SETTINGS = Settings((ModelSettings(name="m"),))


class Killed(BaseException):
    """A worker's process was killed."""


def any_kernel(candidate: Candidate) -> Evaluation:
    """Call most kernels correct, and as fast as they have new lines and good luck; some have the plans of others."""
    if "canary_kernel" in candidate.source:
        return Evaluation(Status.INCORRECT, "a wrong number", "h100", "quick", 0.1)
    if "_canary_entry" in candidate.source:
        return correct(1.0)
    number = int(hashlib.sha256(candidate.digest.encode()).hexdigest()[:6], 16)
    if not number % 5:
        return Evaluation(Status.INCORRECT, "wrong", "h100", "quick", 0.1)
    tflops = 50.0 + 6.0 * len(set(candidate.source.splitlines()) - _SEED_LINES) + number % 11
    found = correct(tflops, plan=f"plan of {tflops}")
    assert found.score is not None
    draws = tuple(tflops * (1 + (number // 2**shift % 16 - 8) / 100) for shift in (4, 8, 12))
    return replace(found, score=replace(found.score, cases=(replace(found.score.cases[0], draws=draws),)))


@dataclass(frozen=True)
class World:
    """What a run starts from, what agents write in it, and who judges that."""

    seeds: Sequence[str]
    kernels: Sequence[str]
    judge: Callable[[Callable[[], None]], Evaluator]
    """Returns a judge that calls its argument before each verdict."""
    target: str = "h100"


def _predicting(pause: Callable[[], None]) -> Evaluator:
    def verdict(candidate: Candidate) -> Evaluation:
        pause()
        return any_kernel(candidate)

    evaluator = FakeEvaluator(verdict)
    evaluator.held_out = any_kernel
    return evaluator


def _measuring(pause: Callable[[], None]) -> Evaluator:
    evaluator = MeasuringEvaluator()
    evaluator.before_answering = lambda source: pause()
    return evaluator


PREDICTED = World(
    [seed_source("mha"), f"{seed_source('mha')}\nSECOND = True\n"],
    [f"{seed_source('mha')}\nTRIED = {number}\n" for number in range(12)],
    _predicting,
)
"""Agents write so few kernels that they meet."""
MEASURED = World(
    [kernel(100.0), kernel(90.0)], [kernel(100.0 + number) for number in range(20)], _measuring, target="cuda"
)


class Turns:
    """Lets one worker go on at a time."""

    def __init__(self, seed: int, workers: Sequence[str]) -> None:
        self.chance = random.Random(seed)
        self._gates = {worker: Semaphore(0) for worker in workers}
        self._lock = Lock()

    def begin(self) -> None:
        """Let the first go on."""
        self._gates[self.chance.choice(sorted(self._gates))].release()

    def wait(self, worker: str) -> None:
        """Wait until it is ``worker``'s turn."""
        self._gates[worker].acquire()

    def pause(self, worker: str) -> None:
        """Let anyone go on, perhaps ``worker``."""
        self.begin()
        self.wait(worker)

    def end(self, worker: str) -> None:
        """Leave, and let another go on."""
        del self._gates[worker]
        if self._gates:
            self.begin()


class Writing:
    """A model, or another's agent: it writes kernels, has them evaluated, and submits one of those that are correct."""

    def __init__(self, chance: random.Random, kernels: Sequence[str]) -> None:
        self._chance, self._kernels = chance, kernels
        self._attempts: list[int] = []

    def calls(self, results: Sequence[str]) -> list[tuple[str, dict[str, Any]]]:
        """Return the next calls, given the results of the last."""
        self._attempts += [int(found) for text in results for found in re.findall(r"^attempt (\d+)\b.*: correct", text)]
        if self._chance.random() < 0.6:
            source = self._chance.choice(self._kernels)
            return [("write_source", {"source": source}), ("evaluate", WHY), ("edit_source", {"old": "?", "new": "!"})]
        chosen = self._chance.choice([None, *self._attempts])
        return [("submit", {"attempt": chosen, "change": "a number", "seen": "as expected"})]

    def complete(self, messages: Sequence[ChatMessage], tools: Sequence[Mapping[str, Any]]) -> Reply:
        """Answer as the model of ``agent``, or of ``single_turn``, which has no tools."""
        if not tools:
            said = "".join(f"{name}: {words}\n" for name, words in WHY.items())
            return Reply(f"{said}```python\n{self._chance.choice(self._kernels)}```")
        results = [str(message["content"]) for message in messages[-3:] if message["role"] == "tool"]
        asked = enumerate(self.calls(results))
        return Reply("", tuple(ToolCall(f"c{number}", name, json.dumps(given)) for number, (name, given) in asked))

    def served(self) -> Iterator[PendingCall]:
        """Yield calls as another's agent makes them."""
        results: list[str] = []
        while True:
            made = [PendingCall(name, json.dumps(given)) for name, given in self.calls(results)]
            yield from made
            results = [call.answer.result()[-1] for call in made if call.answer.done()]


class Watched:
    """An operator before and after which others may go on."""

    def __init__(self, inner: VariationOperator, pause: Callable[[], None]) -> None:
        self.name = inner.name
        self._inner, self._pause = inner, pause

    def vary(self, brief: Brief) -> Proposal:
        """Do as the other operator does."""
        self._pause()
        proposal = self._inner.vary(brief)
        self._pause()
        return proposal


class Interleaved:
    """A run on which several workers make steps."""

    def __init__(self, store: Store, config: RunConfig, world: World, *, workers: int = 3, deaths: float = 0.0) -> None:
        self.store, self.config, self._world = store, config, world
        self.run: Run = make_run(store, config, seeds=world.seeds)
        self._now, self._deaths = NOW, deaths
        self._names = [f"w{number}" for number in range(workers)]
        self._turns = Turns(config.seed, self._names)
        self._failures: list[BaseException] = []

    def clock(self) -> datetime:
        """Return a time that is later each time."""
        self._now += timedelta(seconds=1)
        return self._now

    def make(self, steps: int, operators: Sequence[str]) -> None:
        """Have each worker make some steps, each with one of ``operators``."""
        judge = self._world.judge(lambda: None)
        make_work(self.store, self.run, judge, self.config, clock=self.clock).perform(seed_operator(self.run), "w0")
        threads = [Thread(target=self._work, args=(name, steps, operators)) for name in self._names]
        for thread in threads:
            thread.start()
        self._turns.begin()
        for thread in threads:
            thread.join()
        self.store.claims.abandon_running(self.run.id, reason="over", now=self.clock())
        if self._failures:
            raise self._failures[0]

    def _work(self, worker: str, steps: int, operators: Sequence[str]) -> None:
        chance = random.Random(f"{worker} {self.config.seed}")

        def pause() -> None:
            self._turns.pause(worker)
            if chance.random() < self._deaths:
                raise Killed

        judge = self._world.judge(pause)
        looks = Allowance(step_looks=self.config.step_looks)
        work = make_work(
            self.store, self.run, judge, self.config, clock=self.clock, knowledge=Library.load(), allowance=looks
        )
        self._turns.wait(worker)
        try:
            for _ in range(steps):
                operator = Watched(_operator(chance.choice(operators), chance, self._world.kernels), pause)
                try:
                    work.perform(operator, worker)
                except Killed:
                    self.store.claims.abandon_running(self.run.id, reason="killed", now=self.clock(), worker=worker)
        except BaseException as error:
            self._failures.append(error)
        finally:
            self._turns.end(worker)


def few_moves() -> Mutate:
    """Return the operator with so few moves that workers meet on the same candidates."""
    return Mutate([move for move in MOVES if move.name in ("stages", "tile", "warps")])


def _operator(name: str, chance: random.Random, kernels: Sequence[str]) -> VariationOperator:
    if name == "mutate":
        return few_moves()
    model = Writing(chance, kernels)
    if name == "mcp":
        calls = model.served()

        def more() -> PendingCall | None:
            if chance.random() < 0.05:
                raise StepLeft("gone")
            return next(calls)

        return Served(None, more)
    return (Agentic if name == "agent" else SingleTurn)(SETTINGS, lambda *_: model)
