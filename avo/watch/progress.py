"""The live display: shows a run on a console while it goes on, from a thread that reads its database."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from threading import Event, Thread
from types import TracebackType

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.constrain import Constrain
from rich.live import Live
from rich.text import Text

from avo.evaluator.problem import Baseline
from avo.lineage_db.errors import StoreError
from avo.lineage_db.records import Accepted, AttemptSummary, Doing, PendingReply
from avo.lineage_db.store import Store
from avo.watch.follow import follow
from avo.watch.panel import Budget, panel
from avo.watch.view import RunView, read_view
from avo.watch.wording import awaited, counted, ending, first_line, headline, looked, percent

_LONG = timedelta(seconds=25)
"""Shortest wait for an endpoint that a log tells of: others end while it is read."""
_ECHO = "^C"
"""What a terminal writes behind the panel at Ctrl-C. Where it does not fit, it begins a line unknown to Rich, and the
panel's first line stays on the screen.
"""


@dataclass(frozen=True, slots=True)
class News:
    """A run, and what happened in it since the reading before."""

    view: RunView
    attempts: tuple[AttemptSummary, ...]
    """New attempts, oldest first."""
    accepted: tuple[Accepted, ...]
    """New versions, oldest first."""
    waiting: tuple[int, ...] = ()
    """Ids of the latest attempts that would be accepted if they were submitted."""
    refused: tuple[AttemptSummary, ...] = ()
    """Attempts that were waiting in the reading before and are refused now."""


def read_news(store: Store, run_name: str, now: datetime, previous: News | None = None) -> News:
    """Return the run as it is at ``now`` with what is new in it; ``previous`` itself if nothing has changed.

    Raises the store's errors.
    """
    return store.snapshot(lambda: _read_news(store, run_name, now, previous))


def _read_news(store: Store, run_name: str, now: datetime, previous: News | None) -> News:
    view = read_view(store, run_name, now, previous.view if previous else None)
    if previous is None:
        return News(view, (), (), store.pages.acceptable(view.run.id))
    if previous.view is view:
        return previous
    attempts = store.attempt_summaries(view.run.id, after=previous.view.revision[0])
    accepted = store.pages.accepted(view.run.id, after=previous.view.versions - 1)
    refused = store.pages.refused(view.run.id, previous.waiting) if previous.waiting else []
    return News(view, tuple(attempts), tuple(accepted), store.pages.acceptable(view.run.id), tuple(refused))


class RunProgress:
    """Follows one run while its context lasts: a live panel on a terminal, one line for each piece of news elsewhere.

    It never writes to the database, waits for one that does not exist yet, and leaves the run's last state on the
    screen.
    """

    def __init__(
        self,
        *,
        store_url: str,
        run_name: str,
        console: Console,
        deadline: datetime | None = None,
        baselines: Sequence[Baseline] = (),
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        interval_s: float = 0.5,
    ) -> None:
        """``deadline`` ends the session and is aware. ``baselines`` are the problem's."""
        self._store_url = store_url
        self._run_name = run_name
        self._console = console
        self._interval_s = interval_s
        self._clock = clock
        self._live = LiveView(run_name, Budget(deadline, clock()), baselines, clock)
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
            with Live(self._live, console=self._console, refresh_per_second=2, redirect_stdout=False):
                follow(
                    self._store_url,
                    lambda store, previous: read_view(store, self._run_name, self._clock(), previous),
                    self._live.receive,
                    self._stop,
                    self._interval_s,
                )
        else:
            follow(
                self._store_url,
                lambda store, previous: read_news(store, self._run_name, self._clock(), previous),
                LineView(self._console).receive,
                self._stop,
                self._interval_s,
            )


class LiveView:
    """What a terminal shows. It is drawn again at each refresh, so that times move on."""

    def __init__(
        self, run_name: str, budget: Budget, baselines: Sequence[Baseline], clock: Callable[[], datetime]
    ) -> None:
        self._run_name = run_name
        self._budget = budget
        self._baselines = baselines
        self._clock = clock
        self._latest: RunView | StoreError | None = None

    def receive(self, news: RunView | StoreError) -> None:
        """Show ``news``; an error does not replace a view."""
        if isinstance(news, RunView) or not isinstance(self._latest, RunView):
            self._latest = news

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        latest = self._latest
        if isinstance(latest, RunView):
            yield self._fitting(latest, console, options)
        else:
            yield Text(f"waiting for {self._run_name}{f': {latest}' if latest else ''}", style="dim")

    def _fitting(self, view: RunView, console: Console, options: ConsoleOptions) -> RenderableType:
        """Return the panel with as many refusals and versions as leave room for what the workers do, its last part."""
        now, width = self._clock(), options.max_width - len(_ECHO)
        for most in (None, 2, 1, 0):
            shown = panel(view, now=now, budget=self._budget, baselines=self._baselines, most=most)
            fitting = Constrain(shown, width)
            if len(console.render_lines(fitting, options, pad=False)) <= options.size.height:
                break
        return fitting


class LineView:
    """What a log shows: the run's state at first, then a line for each attempt, accepted version and new state."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._last: RunView | None = None
        self._said: set[Doing] = set()
        self._waits: set[PendingReply] = set()

    def receive(self, news: News | StoreError) -> None:
        """Print what is new in ``news``; errors are left out."""
        if not isinstance(news, News):
            return
        view, last = news.view, self._last
        self._last = view
        if last is None:
            self._print(
                f"run {view.run.name}: {view.run.state}, {counted(view.attempts, 'attempt')}{looked(view.run.looks)}, "
                f"{view.versions} accepted"
            )
            last = view
        for attempt in news.attempts:
            if attempt.geomean_tflops:
                found = view.unit.said(attempt.geomean_tflops, view.kind) if view.kind else ""
            else:
                found = first_line(attempt.message)
            words = f"{attempt.status.words}: {found}" if found else attempt.status.words
            why = f"; {attempt.decision.told}" if attempt.decision and attempt.decision.refused else ""
            self._print(f"attempt {attempt.attempt_id} {words} [{_change(attempt.change)}]{why}")
        for attempt in news.refused:
            if attempt.decision:
                self._print(f"attempt {attempt.attempt_id} {attempt.decision.told}")
        for version in news.accepted:
            grown = f", {percent(version.gain, view.width)}" if version.gain is not None else ""
            speed = view.unit.said(version.geomean_tflops, view.kind or "")
            self._print(f"version {version.number} accepted: {speed}{grown} [{headline(version.change) or 'seed'}]")
        if view.trouble and view.trouble != last.trouble:
            self._print(f"model {first_line(view.trouble)}")
        for reply in (work.step.reply for work in view.working):
            if reply and reply.until and reply.until - reply.asked >= _LONG and reply not in self._waits:
                self._waits.add(reply)
                self._print(awaited(reply, reply.asked))
        for doing in _slow(view):  # now, so after what has come of it
            if (begun := replace(doing, done=0, of=0, words="")) not in self._said:
                self._said.add(begun)
                self._print(first_line(doing.what))
        if view.run.state is not last.run.state:
            self._print(f"run {view.run.name}: {view.run.state}{ending(view.run, view.run.state)}")

    def _print(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


def _slow(view: RunView) -> list[Doing]:
    """Return what may take a minute: what is done around the work of the workers, with the seeds, and examinations."""
    doing = [doing for work in view.working for doing in work.step.doing or ()]
    slow = [each for each in doing if not view.versions or each.what.startswith("examining ")]
    return [view.doing] if view.doing else slow


def _change(change: str) -> str:
    return first_line(change) or "seed"
