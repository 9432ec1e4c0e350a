"""The session of an agent that is not ours: each tool call is part of a step of the run, one step at a time."""

from concurrent.futures import Future
from dataclasses import replace
from queue import SimpleQueue
from threading import Thread
from typing import Any

from avo.agents.errors import AgentError
from avo.agents.operator import VariationOperator
from avo.agents.prompts import render
from avo.agents.served import PendingCall, Served
from avo.agents.task import task
from avo.agents.tools.arguments import tool_specs
from avo.errors import AvoError, RunFailed, SeedFault
from avo.evaluator.catalogue import get_problem, get_suite
from avo.evaluator.errors import EvaluatorError
from avo.evaluator.problem import HELD_OUT
from avo.evaluator.target import Target
from avo.knowledge_base.library import Library
from avo.lineage_db.errors import StoreError
from avo.lineage_db.records import StepState
from avo.search.seeding import seed_operator
from avo.search.step import StepOutcome, Work

SESSIONS = "mcp-"
"""How the worker names of agents' sessions begin in the database."""
PARTING_S = 5.0
"""How long a call may take to end once the agent has gone; then its step is abandoned."""


class AgentSession:
    """Performs steps of one run as one of its workers, in a thread of its own, for as long as calls come."""

    def __init__(self, work: Work, worker: str) -> None:
        """``worker`` is a name that no other session has. Only the thread uses the evaluator of ``work``."""
        self._work, self._worker = work, worker
        self._store, self._run, self._config = work.store, work.run, work.config
        self._problem = get_problem(work.run.problem)
        self._seeded = False
        self._calls: SimpleQueue[PendingCall | None] = SimpleQueue()
        self._target: Future[Target] = Future()
        self._thread = Thread(target=self._serve, name="steps", daemon=True)
        self._thread.start()

    @property
    def tools(self) -> list[dict[str, Any]]:
        """The tools, as chat completions take them."""
        suites = tuple(name for name in self._problem.suites if name != HELD_OUT)
        cases = tuple(case.name for case in get_suite(self._problem, self._run.suite))
        return tool_specs(suites, cases)

    @property
    def instructions(self) -> str:
        """What an agent is told about the tools when it connects."""
        return render("mcp", run=self._run, versions=len(self._store.versions(self._run.id)))

    def task(self) -> str:
        """Return what the run's own agent is told; waits for the judge, and raises ``EvaluatorUnavailable``."""
        return render("system", **task(self._problem, self._target.result(), self._run.suite, self._config.requirement))

    def call(self, name: str, arguments: str) -> "Future[tuple[str, ...]]":
        """Queue a call of a tool; ``arguments`` is JSON.

        The last text of the result is what the tool says; any texts before it have to be read first. The result is
        never an exception.
        """
        call = PendingCall(name, arguments)
        self._calls.put(call)
        return call.answer

    def close(self) -> None:
        """Take no more calls, and abandon an open step: the next session continues it."""
        self._calls.put(None)
        self._thread.join(PARTING_S)
        if self._thread.is_alive():
            reason = "the agent disconnected during a call"
            self._store.claims.abandon_running(self._run.id, reason=reason, now=self._work.clock(), worker=self._worker)

    def _next(self) -> PendingCall | None:
        while (call := self._calls.get()) is not None:
            if call.answer.set_running_or_notify_cancel():
                return call
        self._calls.put(None)  # a caller that asks again is told the same
        return None

    def _serve(self) -> None:
        try:
            self._target.set_result(self._work.evaluator.target)
        except EvaluatorError as error:
            self._target.set_exception(error)
        while (call := self._next()) is not None:
            served = Served(call, self._next)
            served.answer(self._step(served))

    def _step(self, served: Served) -> str:
        """Perform a step, and return what to tell the agent about its end."""
        try:
            self._seed()
            outcome = self._perform(served)
            best = self._store.version(self._run.id)
        except (AvoError, AgentError, EvaluatorError, StoreError) as error:
            return f"error: {error}"
        except Exception as error:  # the thread outlives any step: the caller would wait forever
            return f"error: {type(error).__name__}: {error}"
        return render(
            "step_over",
            said=served.said,
            step=outcome.number,
            version=outcome.version,
            failure="" if outcome.state is StepState.DONE else outcome.state.value,
            reason=outcome.reason,
            best=best,
            requirement=self._config.requirement,
        )

    def _seed(self) -> None:
        """Have the judge tested, and the run seeded, where no session has done so with this judge."""
        if self._seeded or (self._store.versions(self._run.id) and not self._config.judge_may_change):
            return
        outcome = self._perform(seed_operator(self._run))
        if outcome.state is not StepState.DONE:
            raise RunFailed(outcome.reason)
        if not self._store.versions(self._run.id):
            raise SeedFault(outcome.reason)
        self._seeded = True

    def _perform(self, operator: VariationOperator) -> StepOutcome:
        reason = "its worker was not heard from"
        self._store.claims.abandon_expired(self._run.id, reason=reason, now=self._work.clock(), workers=SESSIONS)
        work = replace(self._work, knowledge=Library.load())  # documents may have been added since the last step
        return work.perform(operator, self._worker)
