"""What ends or spoils long runs elsewhere: none of it does here."""

import shutil
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from avo.agents.operator import Brief, Proposal
from avo.config import RunConfig
from avo.evaluator.candidate import Candidate
from avo.evaluator.evaluation import Evaluation, Status
from avo.evaluator.fake import FakeEvaluator
from avo.lineage_db.records import RunState
from avo.lineage_db.store import Store
from avo.search.run import RunSession, Stop
from avo.search.seeding import SeedOperator
from tests.avo.fakes import NOW, SEED, Climber, InlineCrew, Scripted, judge, make_run, make_work, proposing, submit


@pytest.mark.parametrize("status", [Status.TIMED_OUT, Status.CRASHED])
def test_a_candidate_that_loops_or_exits_costs_its_own_attempt_and_nothing_else(store: Store, status: Status) -> None:
    """The judge's own tests, with attacks, show that it gives these verdicts and goes on."""

    def verdict(candidate: Candidate) -> Evaluation:
        bad = candidate.source == "bad"
        return Evaluation(status, "it does not come back", "h100", "quick", 300.0) if bad else judge(candidate)

    run = make_run(store)
    crew = InlineCrew(store, run, Scripted(proposing("bad"), Climber().vary), FakeEvaluator(verdict))
    config = RunConfig(workers=1, max_attempts=6)
    run = RunSession(
        store, run, config, deadline=None, hire=crew.hire, stop=Stop(), say=print, clock=lambda: NOW
    ).drive()
    attempts = store.attempt_summaries(run.id)
    assert run.state is RunState.FINISHED
    assert [attempt.status for attempt in attempts] == [Status.CORRECT, status, *[Status.CORRECT] * 4]
    assert max(attempt.step_number for attempt in attempts if attempt.version is not None) > 1


def test_time_in_which_an_operator_thinks_is_no_time_of_its_attempt(store: Store) -> None:
    now = NOW

    def thinks(brief: Brief) -> Proposal:
        nonlocal now
        now += timedelta(hours=2)
        return Proposal(submit(brief, "tflops = 120.0"), "slept on it")

    def clock() -> datetime:
        return now

    run = make_run(store)
    for operator in (SeedOperator(SEED), Scripted(thinks)):
        make_work(store, run, FakeEvaluator(judge), clock=clock).perform(operator, "w0")
    attempt = store.attempts(run.id)[1]
    assert (attempt.started, attempt.finished) == (NOW + timedelta(hours=2), NOW + timedelta(hours=2))
    assert store.attempt_summaries(run.id)[1].version == 1


@pytest.mark.parametrize(
    "share", [0.77, *(pytest.param(share, marks=pytest.mark.long) for share in (0.0, 0.2, 0.5, 0.999))]
)
def test_a_log_torn_in_the_middle_costs_the_last_writes_and_never_starts_over(tmp_path: Path, share: float) -> None:
    path, torn = tmp_path / "runs.db", tmp_path / "torn.db"
    with Store.open(str(path)) as store:
        run = make_run(store)
        crew = InlineCrew(store, run, Climber(), FakeEvaluator(judge))
        config = RunConfig(workers=1, max_attempts=8)
        with Store.open(str(path)):  # closing the last store would fold the log into the file
            RunSession(
                store, run, config, deadline=None, hire=crew.hire, stop=Stop(), say=print,
                clock=lambda: NOW,
            ).drive()  # fmt: skip
            shutil.copy(path, torn)
            log = Path(f"{path}-wal").read_bytes()
            Path(f"{torn}-wal").write_bytes(log[: int(share * len(log))])
            whole = store.attempt_summaries(run.id)
    if share == 0.0:
        return
    with Store.open(str(torn), create=False) as store:
        kept = store.attempt_summaries(run.id)
        assert [attempt.digest for attempt in kept] == [attempt.digest for attempt in whole[: len(kept)]]
        assert len(kept) >= int(share * len(whole)) - 2
        crew = InlineCrew(store, run, Climber(), FakeEvaluator(judge))
        RunSession(
            store, run, config, deadline=None, hire=crew.hire, stop=Stop(), say=print,
            clock=lambda: NOW,
        ).drive()  # fmt: skip
        assert [attempt.digest for attempt in store.attempt_summaries(run.id)] == [attempt.digest for attempt in whole]
