"""The reader: what it reads is what is wanted, and no more than that."""

from collections.abc import Sequence

import pytest

from avo.evaluator.evaluation import Status
from avo.lineage_db.errors import DatabaseUnavailable, UnknownRun
from avo.lineage_db.records import Outcome, RunState
from avo.lineage_db.store import Store
from avo.tui.reader import RunReader, Want
from tests.avo.recorded import HOUR, Recorded
from tests.avo.tui.agent_run import record


@pytest.fixture
def run(store: Store) -> Recorded:
    return record(store)


def reader_of(run: Recorded) -> RunReader:
    return RunReader("agent", lambda: run.now)


def test_an_unchanged_run_that_is_asked_the_same_gives_the_same_picture(run: Recorded) -> None:
    reader = reader_of(run)
    first = reader.read(run.store, None)
    assert reader.read(run.store, first) is first
    assert (first.view.attempts, first.view.steps) == (4, 4)
    assert not first.groups
    reader.ask(Want(memories=True))
    assert reader.wake.is_set()
    second = reader.read(run.store, first)
    assert second.view is first.view
    assert second.versions is first.versions, "what has not changed is not read again"
    assert len(second.memories) == 1


def test_versions_that_were_read_are_kept(run: Recorded) -> None:
    reader = reader_of(run)
    first = reader.read(run.store, None)
    run.step(500.0, (2,), "more")
    second = reader.read(run.store, first)
    assert all(one is other for one, other in zip(first.versions, second.versions, strict=False))
    assert second == reader_of(run).read(run.store, None)


def test_verdicts_are_counted_once_as_they_come(run: Recorded) -> None:
    reader = reader_of(run)
    reader.ask(Want(groups=True))
    picture = reader.read(run.store, None)
    run.step(Status.INCORRECT, (0,))
    later = reader.read(run.store, picture)
    fresh = reader_of(run)
    fresh.ask(Want(groups=True))
    assert later.groups == fresh.read(run.store, None).groups
    assert {group.status: len(group.attempts) for group in later.groups} == {Status.CORRECT: 3, Status.INCORRECT: 2}


def test_groups_are_whole_after_a_reading_that_failed_between_two_pages(
    run: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, outcomes = reader_of(run), run.store.pages.outcomes
    reader.ask(Want(groups=True))

    def failing(run_id: int, *, after: int, limit: int) -> Sequence[Outcome]:
        if after:
            raise DatabaseUnavailable("gone")
        return outcomes(run_id, after=after, limit=limit)

    with monkeypatch.context() as patched:
        patched.setattr(run.store.pages, "outcomes", failing)
        with pytest.raises(DatabaseUnavailable):
            reader.read(run.store, None)
    groups = reader.read(run.store, None).groups
    assert sum(len(group.attempts) for group in groups) == 4


def test_a_transcript_goes_on_where_it_was_read(run: Recorded) -> None:
    reader = reader_of(run)
    reader.ask(Want(transcript=3))
    first = reader.read(run.store, None)
    assert first.transcript is not None
    run.store.journal.add_message(first.transcript.work.step.id, "message", {"role": "user"}, now=run.now)
    second = reader.read(run.store, first)
    assert second.transcript is not None
    assert [message.number for message in second.transcript.messages] == [0, 1]
    assert second.transcript.messages[0] is first.transcript.messages[0]


def test_a_driver_that_goes_silent_is_news_though_nothing_is_written(run: Recorded) -> None:
    reader = reader_of(run)
    first = reader.read(run.store, None)
    assert first.view.state is RunState.RUNNING
    run.wait(HOUR.total_seconds())
    second = reader.read(run.store, first)
    assert second.view.revision == first.view.revision
    assert second.view.state is RunState.INTERRUPTED
    assert reader.read(run.store, second) is second


def test_a_run_that_is_gone_is_the_stores_error(run: Recorded) -> None:
    reader = RunReader("nothing", lambda: run.now)
    with pytest.raises(UnknownRun):
        reader.read(run.store, None)
