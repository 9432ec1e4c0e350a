"""Following a database: what is passed on, and how long the pauses are."""

from itertools import pairwise
from pathlib import Path
from queue import Queue
from threading import Event, Thread

from avo.lineage_db.errors import DatabaseUnavailable, StoreError, UnknownRun
from avo.lineage_db.store import Store
from avo.watch.follow import follow
from avo.watch.view import RunView, read_view
from tests.avo.recorded import Recorded
from tests.avo.sample_run import START


def read(store: Store, previous: RunView | None) -> RunView:
    return read_view(store, "live", START, previous)


class Watched:
    """Follows a run in a thread and queues what comes."""

    def __init__(self, url: str) -> None:
        self._queue: Queue[RunView | StoreError] = Queue()
        self._stop = Event()
        self._thread = Thread(target=follow, args=(url, read, self._queue.put, self._stop, 0.01))
        self._thread.start()

    def until(self, kind: type[RunView | StoreError]) -> list[RunView | StoreError]:
        """Return what comes, up to the first of ``kind``."""
        seen = [self._queue.get(timeout=600)]
        while not isinstance(seen[-1], kind):
            seen.append(self._queue.get(timeout=600))
        return seen

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()


def test_following_waits_for_the_database_and_then_for_the_run(tmp_path: Path) -> None:
    watched = Watched(str(tmp_path / "lineage.db"))
    assert "no database" in str(watched.until(DatabaseUnavailable)[-1])
    with Store.open(str(tmp_path / "lineage.db")) as store:
        seen = watched.until(UnknownRun)
        Recorded(store)
        seen += watched.until(RunView)
        watched.stop()
    assert all(str(one) != str(two) for one, two in pairwise(seen)), "a complaint is not repeated"


def test_following_reads_once_more_when_it_is_stopped(store: Store) -> None:
    run = Recorded(store)
    received: list[RunView | StoreError] = []
    stop = Event()

    def receive(news: RunView | StoreError) -> None:
        received.append(news)
        if len(received) == 1:
            stop.set()
            run.finish()

    follow(store.url, read, receive, stop, 60.0)
    assert [news.run.state.value for news in received if isinstance(news, RunView)] == ["running", "finished"]


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

    follow(store.url, read, lambda _: None, stop, 1.0, idle_s=2.0, wake=Wake())
    assert waits == [1.0, 1.5, 2.0, 2.0, 1.0, 1.5, 1.5, 2.0]
