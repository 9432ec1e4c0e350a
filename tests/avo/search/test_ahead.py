"""What would be accepted is examined while the operator goes on; what was found is news, and is not found out again."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from avo.agents.briefing import opening
from avo.agents.operator import Brief, Proposal
from avo.evaluator.candidate import Candidate
from avo.evaluator.evaluation import Evaluation, Status
from avo.evaluator.evaluators import AnyRequest, EvaluateRequest, VerifyRequest
from avo.evaluator.fake import FakeEvaluator
from avo.lineage_db.decision import Ruling
from avo.lineage_db.store import Store
from avo.search.seeding import SeedOperator
from avo.search.step import StepOutcome
from tests.avo.fakes import SEED, Scripted, judge, make_run, make_work, submit

LIMIT_S = 60.0
"""Ends a broken test only."""


class Several(FakeEvaluator):
    """Several evaluators, whose examinations end when ``go`` is set."""

    at_once = 2

    def __init__(self) -> None:
        super().__init__(judge)
        self.go, self.begun = threading.Event(), threading.Semaphore(0)

    def ask(self, request: AnyRequest) -> object:
        if isinstance(request, VerifyRequest):
            self.begun.release()
            assert self.go.wait(LIMIT_S)
        return super().ask(request)


class Desk:
    def __init__(self, path: Path) -> None:
        self.store = Store.open(str(path))
        self.run = make_run(self.store)
        self.judge = Several()
        self.judge.go.set()
        self.work = make_work(self.store, self.run, self.judge)
        self.work.perform(SeedOperator(SEED), "w0")
        self.judge.verified.clear()
        self.judge.go.clear()
        self.judge.begun = threading.Semaphore(0)

    def step(self, vary: Callable[[Brief], Proposal]) -> StepOutcome:
        return self.work.perform(Scripted(vary), "w0")


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path / "ahead.db")
    yield made
    made.judge.go.set()
    made.store.close()


def news(brief: Brief) -> str:
    """Wait for news and return it."""
    for _ in range(int(LIMIT_S * 100)):
        if found := brief.desk.news():
            return "\n".join(found)
        threading.Event().wait(0.01)
    raise AssertionError("there was no news")


def test_an_attempt_that_would_be_accepted_is_examined_once_while_its_operator_goes_on(desk: Desk) -> None:
    def vary(brief: Brief) -> Proposal:
        attempt = submit(brief, "tflops = 150.0")
        assert desk.judge.begun.acquire(timeout=LIMIT_S)
        assert brief.desk.news() == []
        submit(brief, "tflops = 90.0")  # meanwhile
        desk.judge.go.set()
        assert (
            news(brief)
            == f"attempt {attempt.id} was examined closely: it passed: submit it, unless there is a better one"
        )
        assert brief.desk.news() == []
        return Proposal(attempt, "faster")

    assert desk.step(vary).version == 1
    assert [each.candidate.source for each in desk.judge.verified] == ["tflops = 150.0"]


def test_a_submission_waits_for_the_examination_that_is_under_way(desk: Desk) -> None:
    def vary(brief: Brief) -> Proposal:
        attempt = submit(brief, "tflops = 150.0")
        assert desk.judge.begun.acquire(timeout=LIMIT_S)
        threading.Timer(0.05, desk.judge.go.set).start()
        return Proposal(attempt, "faster")

    assert desk.step(vary).version == 1
    assert len(desk.judge.verified) == 1


def test_what_is_refused_is_news_before_it_is_submitted(desk: Desk) -> None:
    def held_out(candidate: Candidate) -> Evaluation:
        return Evaluation(Status.INCORRECT, "wrong at 12 keys", "h100", "held_out", 0.1)

    desk.judge.held_out = held_out
    desk.judge.go.set()

    def vary(brief: Brief) -> Proposal:
        attempt = submit(brief, "tflops = 150.0")
        return Proposal(attempt, news(brief))

    outcome = desk.step(vary)
    assert outcome.version is None
    assert "it is refused: correct on the suite, but incorrect" in outcome.reason
    assert len(desk.judge.verified) == 1


def test_of_attempts_that_wait_only_the_fastest_is_examined(desk: Desk) -> None:
    def vary(brief: Brief) -> Proposal:
        first = submit(brief, "tflops = 150.0")
        assert desk.judge.begun.acquire(timeout=LIMIT_S)
        submit(brief, "tflops = 160.0")
        last = submit(brief, "tflops = 170.0")
        desk.judge.go.set()
        told = news(brief)
        told += "" if f"attempt {last.id} " in told else news(brief)
        assert f"attempt {first.id} " in told
        assert f"attempt {last.id} " in told
        return Proposal(last, "faster")

    assert desk.step(vary).version == 1
    assert [each.candidate.source for each in desk.judge.verified] == ["tflops = 150.0", "tflops = 170.0"]


def test_with_one_evaluator_nothing_is_examined_ahead(desk: Desk) -> None:
    desk.judge.at_once = 1  # type: ignore[misc]
    desk.judge.go.set()

    def vary(brief: Brief) -> Proposal:
        attempt = submit(brief, "tflops = 150.0")
        assert desk.judge.verified == []
        return Proposal(attempt, "faster")

    assert desk.step(vary).version == 1
    assert len(desk.judge.verified) == 1


def test_the_verdict_of_an_examination_that_outlives_its_step_is_in_the_brief_of_the_next(desk: Desk) -> None:
    ids: list[int] = []

    def held_out(candidate: Candidate) -> Evaluation:
        return Evaluation(Status.INCORRECT, "wrong at 12 keys", "h100", "held_out", 0.1)

    desk.judge.held_out = held_out

    def leave(brief: Brief) -> Proposal:
        ids.append(submit(brief, "tflops = 150.0").id)
        assert desk.judge.begun.acquire(timeout=LIMIT_S)
        ids.append(submit(brief, "tflops = 160.0").id)  # waits, and is never examined
        return Proposal(None, "out of budget")

    def read(brief: Brief) -> Proposal:
        return Proposal(None, opening(brief, SEED))

    assert desk.step(leave).version is None
    assert "examined closely" not in desk.step(read).reason, "it is still under way"
    desk.judge.go.set()
    told = next(told for told in (desk.step(read).reason for _ in range(999)) if "examined closely" in told)
    assert f"- attempt {ids[0]} was examined closely: it is refused: correct on the suite, but incorrect" in told
    later = desk.step(read).reason
    assert "not accepted: correct on the suite, but incorrect" in later.partition("Latest attempts")[2]
    assert "examined closely" not in later
    assert [each.candidate.source for each in desk.judge.verified] == ["tflops = 150.0"]
    kept = desk.store.attempt(desk.run.id, ids[0])
    assert kept.decision
    assert (kept.decision.ruling, kept.evaluation.examined) == (Ruling.EXAMINED, Status.INCORRECT)


def test_what_passed_after_its_step_is_submitted_without_another_examination(desk: Desk) -> None:
    def leave(brief: Brief) -> Proposal:
        submit(brief, "tflops = 150.0")
        assert desk.judge.begun.acquire(timeout=LIMIT_S)
        return Proposal(None, "out of budget")

    def take(brief: Brief) -> Proposal:
        number = int(news(brief).partition(" was examined closely: it passed")[0].removeprefix("attempt "))
        return Proposal(brief.desk.attempt(number), "passed before")

    desk.step(leave)
    desk.judge.go.set()
    assert desk.step(take).version == 1
    assert len(desk.judge.verified) == 1


def test_an_operator_that_reads_no_news_submits_what_was_examined_ahead_and_leaves_the_rest(desk: Desk) -> None:
    """As ``mutate`` does: what it never reads is kept until somebody does."""

    def vary(brief: Brief) -> Proposal:
        left = submit(brief, "tflops = 110.0")
        assert desk.judge.begun.acquire(timeout=LIMIT_S)
        attempt = submit(brief, "tflops = 150.0")
        desk.judge.go.set()
        assert desk.judge.begun.acquire(timeout=LIMIT_S)
        ids.append(left.id)
        return Proposal(attempt, "faster")

    ids: list[int] = []
    assert desk.step(vary).version == 1
    assert desk.step(lambda brief: Proposal(submit(brief, "tflops = 160.0"), "faster")).version == 2
    judged = [each.candidate.source for each in desk.judge.verified]
    assert judged == ["tflops = 110.0", "tflops = 150.0", "tflops = 160.0"]
    assert desk.work.ahead.news() == [
        f"attempt {ids[0]} was examined closely: it passed: submit it, unless there is a better one"
    ]


class Meeting(FakeEvaluator):
    """Two evaluators. Evaluations end once as many are under way as the barrier has parties."""

    at_once = 2

    def __init__(self) -> None:
        super().__init__(judge)
        self.barrier = threading.Barrier(1)

    def ask(self, request: AnyRequest) -> object:
        if isinstance(request, EvaluateRequest):
            self.barrier.wait(LIMIT_S)
        return super().ask(request)


def test_evaluations_of_one_step_are_under_way_side_by_side_and_each_is_recorded_once(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "meeting.db"))
    run, evaluator = make_run(store), Meeting()
    work = make_work(store, run, evaluator)
    work.perform(SeedOperator(SEED), "w0")
    evaluator.barrier = threading.Barrier(2)
    ends: list[list[int]] = []

    def vary(brief: Brief) -> Proposal:
        assert brief.at_once == 2
        for sources in (["tflops = 110.0", "tflops = 120.0"], ["tflops = 130.0"] * 2):
            with ThreadPoolExecutor(2) as threads:
                ends.append([each.id for each in threads.map(lambda source: submit(brief, source), sources)])
        return Proposal(None, "enough")

    assert work.perform(Scripted(vary), "w0").reason == "enough"
    assert [sorted(found) for found in ends] == [[2, 3], [4, 4]], "one candidate, one attempt"
    assert len(store.attempts(run.id)) == 4
    store.close()
