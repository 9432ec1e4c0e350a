"""The live display: shows a run on a console while it goes on, from a thread that reads its database."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import Event, Thread
from types import TracebackType

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.constrain import Constrain
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from agents.operator import COMMAND_OPERATOR
from avo.watch.follow import follow
from avo.watch.scores import BaselineComparison, compare, geomean
from avo.watch.view import RunView, read_view
from avo.watch.wording import (
    STATE_STYLE,
    UNSAID,
    awaited,
    duration,
    first_line,
    looked,
    percent,
    place,
    spent,
    verdict,
    verdicts,
)
from evaluator.evaluation import Score
from evaluator.problem import Baseline
from lineage_db.decision import Ruling, unresolved
from lineage_db.errors import StoreError
from lineage_db.records import Accepted, AttemptSummary, RunState
from lineage_db.store import Store

MOST_WORKERS = 8
_WAITING = 50
"""Number of attempts whose submission is waited for."""
WIDEST = 100
"""Widest panel, in columns: longer bars would not say more."""


@dataclass(frozen=True, slots=True)
class Budget:
    """The limits of a run."""

    max_attempts: int | None
    """Limit of the whole run."""
    deadline: datetime | None
    began: datetime
    """Start of the time that ends with ``deadline``."""
    max_tokens: int | None = None
    max_usd: float | None = None
    """Limits of the whole run."""

    def used(self, view: RunView, now: datetime) -> float | None:
        """Return the used fraction, 0 to 1, of the limit that is nearest; None without a limit."""
        parts = []
        if self.max_attempts:
            parts.append(view.attempts / self.max_attempts)
        if self.max_tokens:
            parts.append(view.spend.tokens / self.max_tokens)
        if self.max_usd:
            parts.append(view.spend.usd / self.max_usd)
        if self.deadline and self.deadline > self.began:
            parts.append((now - self.began) / (self.deadline - self.began))
        return min(1.0, max(parts)) if parts else None

    def left_s(self, view: RunView, now: datetime) -> float | None:
        """Return the seconds until the nearest limit, negative beyond it; None if there is none or the rate is not
        known.
        """
        left = []
        if self.deadline:
            left.append((self.deadline - now).total_seconds())
        if self.max_attempts and view.attempts_per_minute:
            left.append((self.max_attempts - view.attempts) / view.attempts_per_minute * 60)
        return min(left) if left else None


@dataclass(frozen=True, slots=True)
class News:
    """A run, and what happened in it since the reading before."""

    view: RunView
    attempts: tuple[AttemptSummary, ...]
    """New attempts, oldest first."""
    accepted: tuple[Accepted, ...]
    """New versions, oldest first."""
    waiting: tuple[int, ...] = ()
    """Ids of attempts that would be accepted if they were submitted, at most ``_WAITING``, oldest first."""
    refused: tuple[AttemptSummary, ...] = ()
    """Attempts that were waiting in the reading before and are refused now."""


def read_news(store: Store, run_name: str, now: datetime, previous: News | None = None) -> News:
    """Return the run as it is at ``now`` with what is new in it; ``previous`` itself if nothing has changed.

    Raises the store's errors.
    """
    view = read_view(store, run_name, now, previous.view if previous else None)
    if previous is None:
        return News(view, (), ())
    if previous.view is view:
        return previous
    attempts = [
        attempt
        for attempt in store.attempt_summaries(view.run.id, after=previous.view.revision[0])
        if attempt.attempt_id <= view.revision[0]
    ]
    accepted = store.pages.accepted(view.run.id, after=previous.view.versions - 1)
    waited = store.pages.attempts(view.run.id, previous.waiting) if previous.waiting else []
    waiting = [each.attempt_id for each in (*waited, *attempts) if _ruling(each) is Ruling.ACCEPTABLE]
    return News(
        view,
        tuple(attempts),
        tuple(version for version in accepted if version.number < view.versions),
        tuple(waiting[-_WAITING:]),
        tuple(each for each in waited if each.decision and each.decision.refused),
    )


def _ruling(attempt: AttemptSummary) -> Ruling | None:
    return attempt.decision.ruling if attempt.decision else None


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
        max_attempts: int | None = None,
        max_tokens: int | None = None,
        max_usd: float | None = None,
        deadline: datetime | None = None,
        baselines: Sequence[Baseline] = (),
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        interval_s: float = 0.5,
    ) -> None:
        """All limits but ``deadline`` are those of the whole run. ``deadline`` is aware. ``baselines`` are the
        problem's.
        """
        self._store_url = store_url
        self._run_name = run_name
        self._console = console
        self._interval_s = interval_s
        self._clock = clock
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
            yield panel(latest, now=self._clock(), budget=self._budget, baselines=self._baselines)
        else:
            yield Text(f"waiting for {self._run_name}{f': {latest}' if latest else ''}", style="dim")


class LineView:
    """What a log shows: the run's state at first, then a line for each attempt, accepted version and new state."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._last: RunView | None = None

    def receive(self, news: News | StoreError) -> None:
        """Print what is new in ``news``; errors are left out."""
        if not isinstance(news, News):
            return
        view, last = news.view, self._last
        self._last = view
        if last is None:
            self._print(
                f"run {view.run.name}: {view.run.state}, {view.attempts} attempts{looked(view.run.looks)}, "
                f"{view.versions} accepted"
            )
            return
        for attempt in news.attempts:
            if attempt.geomean_tflops:
                found = f"{attempt.geomean_tflops:.1f} {view.kind} TFLOPS" if view.kind else ""
            else:
                found = first_line(attempt.message)
            words = f"{verdict(attempt.status)}: {found}" if found else verdict(attempt.status)
            why = f"; {attempt.decision.told}" if attempt.decision and attempt.decision.refused else ""
            self._print(f"attempt {attempt.attempt_id} {words} [{_change(attempt.change)}]{why}")
        for attempt in news.refused:
            if attempt.decision:
                self._print(f"attempt {attempt.attempt_id} {attempt.decision.told}")
        for version in news.accepted:
            grown = f", {percent(version.gain)}" if version.gain is not None else ""
            tflops = f"{version.geomean_tflops:.1f} {view.kind} TFLOPS"
            self._print(f"version {version.number} accepted: {tflops}{grown} [{_change(version.change)}]")
        if view.trouble and view.trouble != last.trouble:
            self._print(f"model: {first_line(view.trouble)}")
        if view.run.state is not last.run.state:
            self._print(f"run {view.run.name}: {view.run.state}")

    def _print(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


def _change(change: str) -> str:
    return first_line(change) or "seed"


def panel(view: RunView, *, now: datetime, budget: Budget, baselines: Sequence[Baseline]) -> RenderableType:
    """Return the panel that shows a run."""
    run = view.run
    score = view.best.attempt.evaluation.score if view.best else None
    parts: list[RenderableType] = [_attempts(view, now, budget)]
    if score:
        parts += ["", _speed(view, score, baselines)]
    if view.versions > 1:
        parts += ["", _accepted(view)]
    if view.working:
        parts += ["", _workers(view, now)]
    state = RunState.PAUSED if run.paused else run.state
    title = Text.assemble((run.name, "bold"), "  ", (state, STATE_STYLE[state]))
    target = place(score) if score else run.target
    subtitle = Text(f"{run.problem} for {target}, suite {run.suite}, operator {run.operator}", style="dim")
    framed = Panel(
        Group(*parts), title=title, title_align="left", subtitle=subtitle, subtitle_align="left", padding=(0, 1)
    )
    return Constrain(framed, WIDEST)


def _attempts(view: RunView, now: datetime, budget: Budget) -> RenderableType:
    table = _grid()
    made = f"{view.attempts}" + (f" of {budget.max_attempts}" if budget.max_attempts else "")
    rate = view.attempts_per_minute
    rated = f", {rate:.1f} a minute" if rate else ""
    table.add_row("attempts", Text(f"{made}{rated}{looked(view.run.looks)}"))
    if view.counts:
        table.add_row("", Text(verdicts(view.counts), style="dim"))
    accepted = f"{view.versions} accepted"
    if view.last_gain:
        accepted += f", the last {duration((now - view.last_gain).total_seconds())} ago"
    table.add_row("versions", Text(accepted))
    if view.unresolved:
        table.add_row("", Text(unresolved(view.unresolved), style="yellow"))
    if view.refused and not view.over:
        attempt_id, decision = view.refused
        table.add_row("", Text(f"attempt {attempt_id} {decision.told}", style="dim"))
    if view.spend.calls:
        table.add_row("models", Text(spent(view.spend, budget.max_tokens, budget.max_usd)))
    elif view.run.operator == COMMAND_OPERATOR:
        table.add_row("models", Text(UNSAID))
    if view.trouble and view.run.state is RunState.RUNNING:
        table.add_row("", Text(f"last call: {first_line(view.trouble)}", style="yellow"))
    used = budget.used(view, now)
    if used is not None and view.run.state is RunState.RUNNING:
        left = budget.left_s(view, now)
        bar = Table.grid(padding=(0, 2))
        bar.add_row(
            ProgressBar(total=1.0, completed=used, width=30, complete_style="cyan", finished_style="cyan"),
            Text("" if left is None else f"{duration(left)} left"),
        )
        table.add_row("budget", bar)
    return table


def _speed(view: RunView, score: Score, baselines: Sequence[Baseline]) -> RenderableType:
    """Return bars on one scale: the seed, the published baselines and the best version."""
    best, seed = view.best, view.seed
    assert best is not None
    assert seed is not None
    comparisons = compare(score, baselines)
    top = max(geomean(best), geomean(seed), *(comparison.published for comparison in comparisons), 0.0)
    table = Table.grid(padding=(0, 2, 0, 0), expand=True)
    table.add_column(style="dim", no_wrap=True, max_width=22)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(ratio=1)
    table.add_column(no_wrap=True)
    bars = [("seed", geomean(seed), "bright_black", f"{score.kind}")]
    bars += [(c.name, c.published, "blue", _against(c)) for c in comparisons]
    times = geomean(best) / geomean(seed)
    bars.append((f"best, v{best.number}", geomean(best), "green", f"{score.kind}, {times:.2f} x seed"))
    table.add_row("", "TFLOPS", "", "")
    for name, tflops, colour, remark in bars:
        bar = ProgressBar(total=top, completed=tflops, complete_style=colour, finished_style=colour, style="black")
        table.add_row(name, Text(f"{tflops:.1f}", style="bold" if colour == "green" else ""), bar, Text(remark, "dim"))
    return table


def _against(comparison: BaselineComparison) -> str:
    times = f"published, best is {comparison.ours / comparison.published:.2f} x"
    return times if comparison.shared == comparison.total else f"{times} on {comparison.shared} of {comparison.total}"


def _accepted(view: RunView) -> RenderableType:
    table = Table.grid(padding=(0, 2, 0, 0), expand=True)
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    for version in reversed([version for version in view.recent if version.number]):
        table.add_row(
            Text(f"v{version.number}", "dim"),
            f"{version.geomean_tflops:.1f}",
            Text(percent(version.gain), "green"),
            Text(first_line(version.change)),
        )
    return table


def _workers(view: RunView, now: datetime) -> RenderableType:
    table = _grid()
    for work in view.working[:MOST_WORKERS]:
        step = work.step
        doing = f"step {step.number}, {step.operator}, {duration((now - step.started).total_seconds())}"
        table.add_row(step.worker, Text(doing + (f", {work.tried} tried" if work.tried else "") + looked(step.looks)))
        if step.reply:
            table.add_row("", Text(awaited(step.reply, now), style="dim"))
    if len(view.working) > MOST_WORKERS:
        table.add_row("", Text(f"and {len(view.working) - MOST_WORKERS} more", style="dim"))
    return table


def _grid() -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True, min_width=8)
    table.add_column(overflow="fold")
    return table
