"""Sessions of somebody else's agent, without the protocol: steps, their ends, and what is told of them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from avo.config import RunConfig
from avo.evaluator.errors import EvaluatorUnavailable
from avo.evaluator.evaluation import Evaluation, Status
from avo.evaluator.fake import FakeEvaluator
from avo.lineage_db.driving import LEASE
from avo.lineage_db.records import StepState
from avo.lineage_db.store import Store
from avo.search.agent_session import AgentSession
from avo.search.budget import Allowance
from avo.search.run import RunSession, Stop
from tests.agents.world import WHY
from tests.avo.fakes import NOW, SEED, Climber, InlineCrew, judge, make_run, make_work


class Office:
    """A run, and sessions that work on it."""

    def __init__(self, path: Path) -> None:
        self.store = Store.open(str(path))
        self.run = make_run(self.store)
        self.evaluator = FakeEvaluator(judge)
        self.sessions: list[AgentSession] = []

    def session(self, allowance: Allowance = Allowance()) -> AgentSession:  # noqa: B008
        worker = f"mcp-{len(self.sessions)}"
        work = make_work(self.store, self.run, self.evaluator, RunConfig(), allowance=allowance)
        made = AgentSession(work, worker)
        self.sessions.append(made)
        return made

    def close(self) -> None:
        for session in self.sessions:
            session.close()
        self.store.close()


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    made = Office(tmp_path / "runs.db")
    yield made
    made.close()


def call(session: AgentSession, name: str, arguments: str = "{}") -> str:
    return session.call(name, arguments).result(timeout=600)[-1]


def write(session: AgentSession, tflops: float) -> str:
    return call(session, "write_source", f'{{"source": "tflops = {tflops}"}}')


def evaluate(session: AgentSession) -> str:
    return call(session, "evaluate", '{{"hypothesis": "{hypothesis}", "change": "{change}", "expected": "{expected}"}}'
                .format(**WHY))  # fmt: skip


def submit(session: AgentSession, attempt: Any) -> str:
    return call(session, "submit", f'{{"attempt": {attempt}, "change": "a number", "seen": "what was hoped for"}}')


def test_the_first_call_has_the_judge_tested_and_begins_a_step(office: Office) -> None:
    told = office.session().call("view_source", "{}").result(timeout=600)
    assert told[-1].strip() == f"1 {SEED}"
    assert "# Task" in told[0]
    assert "# Lineage" in told[1]
    seed, step = office.store.steps(office.run.id)
    assert "canary" in seed.reason
    assert (step.state, step.worker, step.operator) == (StepState.RUNNING, "mcp-0", "mcp")


def test_what_is_not_accepted_is_told_with_the_rule_and_the_best(office: Office) -> None:
    session = office.session()
    write(session, 100.1)
    evaluate(session)
    over = submit(session, 2)
    assert "Step 1 is over without a new version" in over
    assert "; not accepted: +0.1% in the mean over version 0, +1% is needed\n" in over
    assert "higher than the best version's by at least 1%" in over
    assert "The best is now version 0 with 100 TFLOPS." in over
    assert "takes this one up" not in over
    write(session, 120)
    evaluate(session)
    assert "Step 2 is over: accepted as version 1" in submit(session, 3)


def test_a_wrong_result_on_shapes_held_out_is_told(office: Office) -> None:
    office.evaluator.held_out = lambda candidate: Evaluation(Status.INCORRECT, "no", "h100", "held_out", 0.1)
    session = office.session()
    error = call(session, "read_lineage")
    assert error.startswith("error: no seed passes: ")
    assert "at other shapes" in error


def test_a_step_may_end_without_an_attempt(office: Office) -> None:
    session = office.session()
    assert "nothing submitted: what was hoped for" in submit(session, "null")
    assert [step.state for step in office.store.steps(office.run.id)][1] is StepState.DONE


def test_a_step_that_was_left_is_continued_by_the_next_session(office: Office) -> None:
    first = office.session()
    write(first, 120)
    evaluate(first)
    call(first, "remember", '{"note": "numbers may be larger"}')
    first.close()
    left = office.store.steps(office.run.id)[1]
    assert (left.state, left.reason) == (StepState.ABANDONED, "the agent disconnected before it submitted")
    second = office.session()
    told = second.call("view_source", "{}").result(timeout=600)
    assert told[-1].strip() == "1 tflops = 120"
    assert "attempt 2: correct" in told[1]
    assert "# Lineage\nVersions, predicted TFLOPS" in told[1]
    assert "- numbers may be larger\n" in told[1]
    assert "accepted as version 1" in submit(second, 2)
    assert office.store.steps(office.run.id)[2].redoes == 1


def test_a_step_that_another_process_abandons_goes_on_with_the_next_call(office: Office) -> None:
    session = office.session()
    write(session, 120)
    office.store.claims.abandon_running(office.run.id, reason="the run was stopped", now=NOW)
    said = evaluate(session)
    assert said.startswith("error: step 1 was abandoned: ")
    assert said.endswith("The call was not performed.\nThe next call begins another step or continues this one.")
    assert "120 predicted TFLOPS" in evaluate(session)


def test_a_driver_of_the_run_leaves_the_steps_of_sessions_alone_and_they_its_own(office: Office) -> None:
    session = office.session()
    write(session, 120)
    evaluate(session)
    config = RunConfig(workers=1, max_attempts=4)
    crew = InlineCrew(office.store, office.run, Climber(), FakeEvaluator(judge))
    RunSession(
        office.store, office.run, config, deadline=None, hire=crew.hire, stop=Stop(), say=print,
        clock=lambda: NOW,
    ).drive()  # fmt: skip
    expired = office.store.claims.claim(office.run.id, worker="w0", operator="any", now=NOW - 2 * LEASE)
    assert "Step 1 is over" in submit(session, 2)
    write(session, 130)
    states = {step.number: step.state for step in office.store.steps(office.run.id)}
    assert states[1] is StepState.DONE
    assert states[expired.number] is StepState.RUNNING, "that is for its driver to see, which has to replace its worker"


def test_two_sessions_work_on_one_run(office: Office) -> None:
    first, second = office.session(), office.session()
    for session, tflops in ((first, 120), (second, 130)):
        write(session, tflops)
        evaluate(session)
    assert "accepted as version 1" in submit(second, 3)
    assert "The best is now version 1 with 130 " in submit(first, 2)


def test_a_judge_that_is_gone_costs_a_call_not_the_session(office: Office) -> None:
    def gone(candidate: Any) -> Evaluation:
        raise EvaluatorUnavailable("the GPU fell off the bus")

    session = office.session()
    write(session, 120)
    office.evaluator.verdict = gone
    assert evaluate(session) == "error: the GPU fell off the bus"
    office.evaluator.verdict = judge
    assert "correct, 120 " in evaluate(session)


def test_evaluations_of_a_step_are_limited(office: Office) -> None:
    session = office.session(Allowance(step_evaluations=1))
    for tflops in (120, 130):
        write(session, tflops)
        said = evaluate(session)
    assert said.startswith("error: no evaluations are left")
    assert "accepted as version 1" in submit(session, 2)


def test_a_call_that_the_client_gave_up_is_not_carried_out(office: Office) -> None:
    session = office.session()
    waiting = [session.call("write_source", f'{{"source": "tflops = {100 + number}"}}') for number in range(20)]
    cancelled = [each for each in waiting[1:] if each.cancel()]
    waiting[0].result(timeout=600)
    assert call(session, "read_lineage")
    assert all(each.cancelled() for each in cancelled)
