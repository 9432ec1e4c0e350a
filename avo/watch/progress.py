"""Progress: shows a run on a console while it goes on, by reading its database from a thread."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from threading import Event, Thread
from types import TracebackType

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.text import Text

from avo.watch.panel import Budget, panel
from avo.watch.snapshot import Snapshot, follow, gain, geomean, read_snapshot
from avo.watch.wording import first_line, percent, verdict
from evaluator.problem import Baseline
from lineage_db.errors import StoreError


class RunProgress:
    """Follows one run between ``with`` and its end: a live panel on a terminal, else one line for each piece of news.

    It never writes to the database, waits for one that is not there yet, and leaves the run's last state on the screen.
    """

    def __init__(
        self,
        *,
        store_url: str,
        run_name: str,
        console: Console,
        max_attempts: int | None = None,
        max_tokens: int | None = None,
        max_usd: float | None = None,
        deadline: datetime | None = None,
        baselines: Sequence[Baseline] = (),
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        interval_s: float = 0.5,
    ) -> None:
        """Limits without ``deadline`` are of the whole run; ``deadline`` is aware; ``baselines`` are the problem's."""
        self._store_url = store_url
        self._run_name = run_name
        self._console = console
        self._interval_s = interval_s
        self._live = LiveView(run_name, Budget(max_attempts, deadline, clock(), max_tokens, max_usd), baselines, clock)
        self._stop = Event()
        self._thread = Thread(target=self._show, name="progress", daemon=True)

    def __enter__(self) -> "RunProgress":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _show(self) -> None:
        if self._console.is_terminal:
            with Live(self._live, console=self._console, refresh_per_second=2):
                self._follow(self._live.receive)
        else:
            self._follow(LineView(self._console).receive)

    def _follow(self, receive: Callable[[Snapshot | StoreError], None]) -> None:
        follow(
            self._store_url,
            lambda store, previous: read_snapshot(store, self._run_name, previous),
            receive,
            self._stop,
            self._interval_s,
        )


class LiveView:
    """What a terminal shows: drawn anew each time, so that times move on."""

    def __init__(
        self, run_name: str, budget: Budget, baselines: Sequence[Baseline], clock: Callable[[], datetime]
    ) -> None:
        self._run_name = run_name
        self._budget = budget
        self._baselines = baselines
        self._clock = clock
        self._latest: Snapshot | StoreError | None = None

    def receive(self, news: Snapshot | StoreError) -> None:
        """Show ``news``; an error does not replace a snapshot."""
        if isinstance(news, Snapshot) or not isinstance(self._latest, Snapshot):
            self._latest = news

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        latest = self._latest
        if isinstance(latest, Snapshot):
            yield panel(latest, now=self._clock(), budget=self._budget, baselines=self._baselines)
        else:
            yield Text(f"waiting for {self._run_name}{f': {latest}' if latest else ''}", style="dim")


class LineView:
    """What a log shows: how the run stood at first, then a line for each attempt, accepted version and new state."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._last: Snapshot | None = None

    def receive(self, news: Snapshot | StoreError) -> None:
        """Print what is new in ``news``; errors pass."""
        if not isinstance(news, Snapshot):
            return
        last, self._last = self._last, news
        if last is None:
            self._print(
                f"run {news.run.name}: {news.run.state}, {len(news.attempts)} attempts, {len(news.versions)} accepted"
            )
            return
        for attempt in news.attempts[len(last.attempts) :]:
            if attempt.geomean_tflops:
                found = f"{attempt.geomean_tflops:.1f} {news.kind} TFLOPS" if news.kind else ""
            else:
                found = first_line(attempt.message)
            words = f"{verdict(attempt.status)}: {found}" if found else verdict(attempt.status)
            self._print(f"attempt {attempt.attempt_id} {words} [{_change(attempt.change)}]")
        for version in news.versions[len(last.versions) :]:
            grown = percent(gain(version, news.by_number))
            self._print(
                f"version {version.number} accepted: {geomean(version):.1f} {news.kind} TFLOPS"
                f"{f', {grown}' if grown else ''} [{_change(version.attempt.change)}]"
            )
        if news.trouble and news.trouble != last.trouble:
            self._print(f"model: {first_line(news.trouble)}")
        if news.run.state is not last.run.state:
            self._print(f"run {news.run.name}: {news.run.state}")

    def _print(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


def _change(change: str) -> str:
    return first_line(change) or "seed"
