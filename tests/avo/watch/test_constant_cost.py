"""What looking at a run costs does not grow with the run, nor what a step costs the database."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Engine, event

from avo.evaluator.candidate import Candidate
from avo.evaluator.resolution import Difference
from avo.lineage_db.decision import Lead
from avo.lineage_db.records import Attempt, RunState, Step
from avo.lineage_db.store import Store
from avo.tui.reader import Picture, RunReader
from avo.watch.progress import News, read_news
from avo.watch.view import RunView, read_view
from bench.long_run import lengthen
from tests.avo.recorded import Recorded
from tests.avo.sample_run import START, make_evaluation
from tests.decisions import accept

LENGTHS = (2_000, 6_000)
"""Attempts of a shorter and a longer run: in both, what is bounded has reached its bound."""
_EVERY = 100
"""Instructions of SQLite's virtual machine that are counted as one."""


class Cost:
    """Rows that came from a database, and the work in it."""

    def __init__(self) -> None:
        self.rows = 0
        self.work = 0

    def watch(self, connection: sqlite3.Connection, _: object) -> None:
        """Count what a new connection does."""

        def row(_: sqlite3.Cursor, values: tuple[object, ...]) -> tuple[object, ...]:
            self.rows += 1
            return values

        def work() -> int:
            self.work += 1
            return 0

        connection.row_factory = row
        connection.set_progress_handler(work, _EVERY)


@contextmanager
def watched() -> Iterator[Cost]:
    """Count what connections that are opened in this context do."""
    cost = Cost()
    event.listen(Engine, "connect", cost.watch)
    try:
        yield cost
    finally:
        event.remove(Engine, "connect", cost.watch)


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Databases of runs of ``LENGTHS``."""
    made = []
    for attempts in LENGTHS:
        made.append(tmp_path_factory.mktemp("long") / "lineage.db")
        with Store.open(str(made[-1])) as store:
            run = Recorded(store)
            run.drive()
            store.set_run_state(run.run.id, RunState.RUNNING, now=START, config={"max_steps": 10**6})  # counts steps
            run.step(100.0)
            run.step(120.0, (0,))
            run.step(121.0, (1,), accept=False, decision=Lead(1, Difference(0.01, 0.5)).decide(0.01, 0.9))
            store.journal.add_call(
                run.run.id, None, model="m", input_tokens=9, cached_tokens=0, output_tokens=9, usd=0.1, seconds=1.0,
                error="", now=START,
            )  # fmt: skip
            store.journal.intervene(
                run.run.id, after_step=2, level="nudge", reason="stuck", directions=["a"], source="", restart_from=None,
                now=START, seen=0,
            )  # fmt: skip
        lengthen(made[-1], attempts, accepted_every=50)
    return made


def go_on(store: Store) -> None:
    """Make an attempt that is accepted, and leave a step running with another."""
    run = store.run("live")

    def evaluate(tflops: float) -> tuple[Step, Attempt]:
        step = store.claims.claim(run.id, worker="w", operator="mutate", now=START)
        attempt = store.results.record_attempt(
            step_id=step.id, candidate=Candidate("mha", f"x = {step.number}\n"), change="", parents=(1,),
            evaluation=make_evaluation(tflops), started=START, finished=START,
        )  # fmt: skip
        return step, attempt

    step, attempt = evaluate(130.0)
    store.results.conclude(step.id, attempt_id=attempt.id, parents=(1,), reason="", now=START, decide=accept)
    evaluate(90.0)


def view(store: Store, previous: RunView | None) -> RunView:
    """Read what ``avo status``, the live display and the metrics show."""
    return read_view(store, "live", START, previous)


def news(store: Store, previous: News | None) -> News:
    """Read what a log shows."""
    return read_news(store, "live", START, previous)


def picture() -> Callable[[Store, Picture | None], Picture]:
    """Return what reads for the terminal UI."""
    return RunReader("live", lambda: START).read


@pytest.mark.parametrize("make", [lambda: view, lambda: news, picture], ids=["view", "log", "ui"])
def test_what_a_refresh_reads_does_not_depend_on_the_length_of_the_run(
    paths: list[Path], make: Callable[[], Callable[[Store, object], object]]
) -> None:
    rows, work = [], []
    for path in paths:
        read = make()
        with watched() as cost, Store.open(str(path)) as store:
            first = read(store, None)
            go_on(store)
            before = cost.rows, cost.work
            assert read(store, first) is not first
            rows.append(cost.rows - before[0])
            work.append(cost.work - before[1])
    assert rows[0] == rows[1]
    assert rows[0] < 500
    assert work[1] < 1.2 * work[0], "it is not SQLite that reads the whole run instead"


def test_the_first_reading_fetches_no_more_of_a_longer_run(paths: list[Path]) -> None:
    rows = []
    for path in paths:
        with watched() as cost, Store.open(str(path)) as store:
            before = cost.rows
            view(store, None)
            rows.append(cost.rows - before)
    assert rows[0] == rows[1]


@pytest.mark.long
def test_a_step_of_a_longer_run_is_no_more_work_for_the_database(paths: list[Path]) -> None:
    work = []
    for path in paths:
        with watched() as cost, Store.open(str(path)) as store:
            run = store.run("live")
            store.history(run.id)
            before = cost.work
            step = store.claims.claim(run.id, worker="w", operator="mutate", now=START)
            assert store.claims.announce(step.id, "a digest", now=START)
            assert store.attempts_of_plan(run.id, "a plan's") == []
            go_on(store)
            store.history(run.id)
            work.append(cost.work - before)
    assert work[1] < 1.2 * work[0]
