"""Whoever looks at a run sees it as it was at one moment, whatever is written meanwhile."""

from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Engine, event

from avo.lineage_db.store import Store
from avo.report.reading import read_report
from avo.tui.reader import RunReader
from avo.watch.events import EventReader
from avo.watch.progress import read_news
from avo.watch.view import read_view
from tests.avo.recorded import Recorded
from tests.avo.sample_run import START


@pytest.mark.parametrize(
    "read",
    [
        lambda store: read_view(store, "live", START),
        lambda store: EventReader("live").read(store, START),
        lambda store: read_report(store, "live", START),
        lambda store: RunReader("live", lambda: START).read(store, None),
    ],
    ids=["view", "events", "report", "ui"],
)
def test_a_reading_sees_nothing_of_what_is_written_during_it(tmp_path: Path, read: Callable[[Store], object]) -> None:
    with Store.open(str(tmp_path / "lineage.db")) as writer, Store.open(writer.url) as store:
        run = Recorded(writer)
        run.claim()
        before = read(store)
        written = []

        def write(*_: object) -> None:
            if not written:
                written.append(True)
                run.step(100.0)
                run.finish()

        event.listen(Engine, "after_cursor_execute", write)
        try:
            during = read(store)
        finally:
            event.remove(Engine, "after_cursor_execute", write)
        assert written
        assert during == before
        assert read(store) != before


def test_what_was_written_during_a_reading_is_news_in_the_next(tmp_path: Path) -> None:
    with Store.open(str(tmp_path / "lineage.db")) as writer, Store.open(writer.url) as store:
        run = Recorded(writer)
        run.step(100.0)
        news = read_news(store, "live", START)
        run.claim()
        written = []

        def write(*_: object) -> None:
            if not written:
                written.append(True)
                run.step(125.0, (0,))

        event.listen(Engine, "after_cursor_execute", write)
        try:
            news = read_news(store, "live", START, news)
        finally:
            event.remove(Engine, "after_cursor_execute", write)
        assert (news.attempts, news.accepted) == ((), ())
        news = read_news(store, "live", START, news)
        assert [attempt.attempt_id for attempt in news.attempts] == [2]
        assert [version.number for version in news.accepted] == [1]
