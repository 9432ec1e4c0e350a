"""A session of somebody else's agent: each of its calls of a tool is part of a step of the run, one step at a time."""

from collections.abc import Callable
from concurrent.futures import Future
from datetime import datetime
from queue import SimpleQueue
from threading import Thread
from typing import Any

from agents.agentic import task
from agents.errors import AgentError
from agents.operator import VariationOperator
from agents.prompts import render
from agents.served import PendingCall, Served
from agents.tools.arguments import tool_specs
from avo.config import START, RunConfig
from avo.errors import AvoError, RunFailed, SeedFault
from avo.search.budget import Allowance
from avo.search.population import population
from avo.search.step import SeedOperator, StepOutcome, perform_step
from evaluator.catalogue import get_problem, get_suite
from evaluator.errors import EvaluatorError
from evaluator.evaluators import Evaluator
from evaluator.problem import HELD_OUT
from evaluator.target import Target
from knowledge_base.library import Library
from lineage_db.errors import StoreError
from lineage_db.records import Run, StepState
from lineage_db.store import Store

SESSIONS = "mcp-"
"""How the names of sessions begin that the database calls workers."""
PARTING_S = 5.0
"""How long a call may take to end once the agent has gone; then its step is abandoned under it."""


class Session:
    """Performs steps of one run as one of its workers, in a thread of its own, for as long as calls come."""

    def __init__(
        self,
        store: Store,
        run: Run,
        config: RunConfig,
        evaluator: Evaluator,
        *,
        worker: str,
        allowance: Allowance,
        clock: Callable[[], datetime],
    ) -> None:
        """``worker`` is a name of a session that no other has; ``evaluator`` is used by the thread alone."""
        self._store, self._run, self._config, self._evaluator = store, run, config, evaluator
        self._worker, self._allowance, self._clock = worker, allowance, clock
        self._problem = get_problem(run.problem)
        self._seeded = False
        self._calls: SimpleQueue[PendingCall | None] = SimpleQueue()
        self._target: Future[Target] = Future()
        self._thread = Thread(target=self._work, name="steps", daemon=True)
        self._thread.start()

    @property
    def tools(self) -> list[dict[str, Any]]:
        """The tools, as chat completions take them."""
        suites = tuple(name for name in self._problem.suites if name != HELD_OUT)
        cases = tuple(case.name for case in get_suite(self._problem, self._run.suite))
        return tool_specs(suites, cases)

    @property
    def instructions(self) -> str:
        """What an agent is told of the tools when it connects."""
        return render("mcp", run=self._run, versions=len(self._store.versions(self._run.id)))

    def task(self) -> str:
        """Return what the run's own agent is told; waits for the judge, and raises ``EvaluatorUnavailable``."""
        return render("system", **task(self._problem, self._target.result(), self._run.suite))

    def call(self, name: str, arguments: str) -> "Future[tuple[str, ...]]":
        """Have a call of a tool performed after those before it; ``arguments`` is JSON.

        The result is what the tool says, last, after what has to be told first. It never is an exception.
        """
        call = PendingCall(name, arguments)
        self._calls.put(call)
        return call.answer

    def close(self) -> None:
        """Take no more calls, and abandon a step that is open: the next session takes it up again."""
        self._calls.put(None)
        self._thread.join(PARTING_S)
        if self._thread.is_alive():
            reason = "the agent disconnected during a call"
            self._store.claims.abandon_running(self._run.id, reason=reason, now=self._clock(), worker=self._worker)

    def _next(self) -> PendingCall | None:
        while (call := self._calls.get()) is not None:
            if call.answer.set_running_or_notify_cancel():
                return call
        self._calls.put(None)  # whoever asks again is told the same
        return None

    def _work(self) -> None:
        try:
            self._target.set_result(self._evaluator.target)
        except EvaluatorError as error:
            self._target.set_exception(error)
        while (call := self._next()) is not None:
            served = Served(call, self._next)
            served.answer(self._step(served))

    def _step(self, served: Served) -> str:
        """Perform a step, and return what to tell of its end."""
        try:
            self._seed()
            outcome = self._perform(served)
            best = self._store.version(self._run.id)
        except (AvoError, AgentError, EvaluatorError, StoreError) as error:
            return f"error: {error}"
        except Exception as error:  # the thread outlives any step: who calls would wait for ever
            return f"error: {type(error).__name__}: {error}"
        return render(
            "step_over",
            said=served.said,
            step=outcome.number,
            version=outcome.version,
            failure="" if outcome.state is StepState.DONE else outcome.state.value,
            reason=outcome.reason,
            best=best,
            measured=self._config.measured,
            min_gain=self._config.min_gain,
        )

    def _seed(self) -> None:
        """Have the judge tested, and the run seeded, where no sitting has done so with this judge."""
        if self._seeded or (self._store.versions(self._run.id) and not self._config.judge_may_change):
            return
        outcome = self._perform(SeedOperator(self._run.config[START]["source"]))
        if outcome.state is not StepState.DONE:
            raise RunFailed(outcome.reason)
        if not self._store.versions(self._run.id):
            raise SeedFault(f"the seed does not pass: {outcome.reason}")
        self._seeded = True

    def _perform(self, operator: VariationOperator) -> StepOutcome:
        reason = "its worker was not heard of"
        self._store.claims.abandon_expired(self._run.id, reason=reason, now=self._clock(), workers=SESSIONS)
        return perform_step(
            self._store,
            self._run,
            operator,
            self._evaluator,
            worker=self._worker,
            min_gain=self._config.min_gain,
            alpha=self._config.alpha,
            patience=self._config.patience,
            population=population(self._config),
            clock=self._clock,
            knowledge=Library.load(),
            allowance=self._allowance,
        )
