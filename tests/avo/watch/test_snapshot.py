"""Snapshots: what they hold, what they cost, and how they are followed."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from queue import Queue
from threading import Event, Thread

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avo.watch.snapshot import Snapshot, compare, follow, gain, read_snapshot
from evaluator.evaluation import CaseScore, Score, Status
from evaluator.problem import Baseline
from evaluator.target import ScoreKind
from lineage_db.errors import DatabaseUnavailable, StoreError, UnknownRun
from lineage_db.store import Store
from tests.avo.recorded import Recorded
from tests.avo.sample_run import make_sample_run


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(str(tmp_path / "lineage.db")) as opened:
        yield opened


def test_a_snapshot_counts_verdicts_and_finds_seed_and_best(store: Store, tmp_path: Path) -> None:
    name = make_sample_run(store.url)
    snapshot = read_snapshot(store, name)
    assert snapshot.counts == {Status.CORRECT: 5, Status.INCORRECT: 2, Status.DOES_NOT_FIT: 1}
    assert snapshot.seed is not None
    assert snapshot.best is not None
    assert (snapshot.seed.number, snapshot.best.number) == (0, 3)
    assert snapshot.last_gain == snapshot.versions[-1].accepted
    assert [attempt.version for attempt in snapshot.attempts] == [0, 1, None, 2, None, None, None, 3]


def test_an_unchanged_run_gives_the_same_snapshot(store: Store) -> None:
    name = make_sample_run(store.url)
    first = read_snapshot(store, name)
    assert read_snapshot(store, name, first) is first


def test_a_snapshot_built_on_another_equals_one_built_from_nothing(store: Store) -> None:
    run = Recorded(store)
    snapshot = read_snapshot(store, "live")
    for verdict in (100.0, Status.INCORRECT, 120.0, 130.0):
        step = run.claim()
        snapshot = read_snapshot(store, "live", snapshot)
        attempt = run.evaluate(step, verdict, (0,) if snapshot.versions else ())
        snapshot = read_snapshot(store, "live", snapshot)
        run.conclude(step, attempt, attempt.evaluation.correct)
    run.finish()
    assert read_snapshot(store, "live", snapshot) == read_snapshot(store, "live")


def test_an_attempt_that_was_read_before_it_was_accepted_gets_its_version(store: Store) -> None:
    run = Recorded(store)
    step = run.claim()
    attempt = run.evaluate(step, 100.0, ())
    before = read_snapshot(store, "live")
    run.conclude(step, attempt, True)
    after = read_snapshot(store, "live", before)
    assert (before.attempts[0].version, after.attempts[0].version) == (None, 0)


def test_workers_are_busy_only_while_the_run_goes_on(store: Store) -> None:
    run = Recorded(store)
    run.claim("worker-1")
    assert [step.worker for step in read_snapshot(store, "live").running] == ["worker-1"]
    run.finish()
    assert read_snapshot(store, "live").running == ()


def test_pauses_and_abandoned_steps_do_not_lower_the_rate(store: Store) -> None:
    run = Recorded(store)
    run.step(100.0, seconds=30)
    lost = run.claim()
    run.wait(36000)
    run.abandon(lost)
    run.step(110.0, (0,), seconds=30)
    assert read_snapshot(store, "live").attempts_per_minute == pytest.approx(2.0)


def test_the_time_of_steps_side_by_side_counts_once(store: Store) -> None:
    run = Recorded(store)
    first = run.claim("worker-0")
    run.wait(20)
    second = run.claim("worker-1")
    run.wait(20)
    run.conclude(first, run.evaluate(first, 100.0, ()), True)
    run.wait(20)
    run.conclude(second, run.evaluate(second, Status.INCORRECT, ()), False)
    assert read_snapshot(store, "live").attempts_per_minute == pytest.approx(2.0)


def test_no_rate_is_claimed_before_a_step_has_ended(store: Store) -> None:
    run = Recorded(store)
    run.evaluate(run.claim(), 100.0, ())
    assert read_snapshot(store, "live").attempts_per_minute is None


def test_the_best_is_the_last_version_whatever_a_lucky_sample_says_of_an_earlier_one(store: Store) -> None:
    run = Recorded(store)
    run.step(600.0)
    run.step(590.0, (0,))
    best = read_snapshot(store, run.run.name).best
    assert best is not None
    assert best.number == 1


def test_a_gain_is_over_the_fastest_parent(store: Store) -> None:
    run = Recorded(store)
    run.step(100.0)
    run.step(120.0, (0,))
    run.step(132.0, (0, 1))
    snapshot = read_snapshot(store, "live")
    assert [gain(version, snapshot.by_number) for version in snapshot.versions] == [
        None,
        pytest.approx(0.2),
        pytest.approx(0.1),
    ]


def test_an_unknown_run_is_the_stores_error(store: Store) -> None:
    with pytest.raises(UnknownRun):
        read_snapshot(store, "nothing")


def _score(**cases: float) -> Score:
    return Score(
        ScoreKind.PREDICTED, "h100", tuple(CaseScore(name, value, 1.0, "exp") for name, value in cases.items())
    )


def test_a_baseline_is_compared_over_the_cases_that_both_have() -> None:
    score = _score(a=100.0, b=400.0)
    partial = Baseline("partial", "h100", {"a": 200.0, "c": 5.0}, "")
    whole = Baseline("whole", "h100", {"a": 100.0, "b": 100.0}, "")
    foreign = Baseline("foreign", "b200", {"a": 100.0}, "")
    apart = Baseline("apart", "h100", {"c": 100.0}, "")
    found = compare(score, [partial, whole, foreign, apart])
    assert [(c.name, c.shared, c.total) for c in found] == [("whole", 2, 2), ("partial", 1, 2)]
    assert [c.ours for c in found] == [pytest.approx(200.0), pytest.approx(100.0)]
    assert [c.published for c in found] == [pytest.approx(100.0), pytest.approx(200.0)]


@given(st.lists(st.floats(1.0, 2000.0), min_size=1, max_size=8), st.floats(0.1, 10.0))
def test_a_score_compared_with_a_multiple_of_itself_has_that_ratio(values: list[float], factor: float) -> None:
    score = _score(**{f"case{index}": value for index, value in enumerate(values)})
    (found,) = compare(score, [Baseline("scaled", "h100", {c.case: c.tflops * factor for c in score.cases}, "")])
    assert found.published / found.ours == pytest.approx(factor)


class Watched:
    """Follows a run in a thread and queues what comes."""

    def __init__(self, url: str, name: str) -> None:
        self._queue: Queue[Snapshot | StoreError] = Queue()
        self._stop = Event()
        self._thread = Thread(
            target=follow,
            args=(url, lambda store, old: read_snapshot(store, name, old), self._queue.put, self._stop, 0.01),
        )
        self._thread.start()

    def until(self, kind: type[Snapshot | StoreError]) -> list[Snapshot | StoreError]:
        """Return what comes, up to the first of ``kind``."""
        seen = [self._queue.get(timeout=600)]
        while not isinstance(seen[-1], kind):
            seen.append(self._queue.get(timeout=600))
        return seen

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()


def test_following_waits_for_the_database_and_then_for_the_run(tmp_path: Path) -> None:
    watched = Watched(str(tmp_path / "lineage.db"), "live")
    assert "no database" in str(watched.until(DatabaseUnavailable)[-1])
    with Store.open(str(tmp_path / "lineage.db")) as store:
        seen = watched.until(UnknownRun)
        Recorded(store)
        seen += watched.until(Snapshot)
        watched.stop()
    assert all(str(one) != str(two) for one, two in pairwise(seen)), "a complaint is not repeated"


def test_following_reads_once_more_when_it_is_stopped(store: Store) -> None:
    run = Recorded(store)
    received: list[Snapshot | StoreError] = []
    stop = Event()

    def receive(news: Snapshot | StoreError) -> None:
        received.append(news)
        if len(received) == 1:
            stop.set()
            run.finish()

    follow(store.url, lambda store, old: read_snapshot(store, "live", old), receive, stop, 60.0)
    assert [news.run.state.value for news in received if isinstance(news, Snapshot)] == ["running", "finished"]


def test_following_waits_longer_while_nothing_changes_and_can_be_woken(store: Store) -> None:
    run = Recorded(store)
    waits: list[float] = []
    stop = Event()

    class Wake(Event):
        """Time that passes at once: the run changes in the fourth pause, the sixth is ended from outside."""

        def wait(self, timeout: float | None = None) -> bool:
            assert timeout is not None
            assert not self.is_set(), "a wake that is not cleared would read without end"
            waits.append(timeout)
            if len(waits) == 4:
                run.claim()
            if len(waits) == 8:
                stop.set()
            if len(waits) == 6:
                self.set()
            return self.is_set()

    follow(store.url, lambda s, old: read_snapshot(s, "live", old), lambda _: None, stop, 1.0, idle_s=2.0, wake=Wake())
    assert waits == [1.0, 1.5, 2.0, 2.0, 1.0, 1.5, 1.5, 2.0]
