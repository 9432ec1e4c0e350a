"""The panel: one run on a terminal, drawn from a snapshot."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from rich.console import Group, RenderableType
from rich.constrain import Constrain
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from avo.watch.snapshot import Comparison, Snapshot, compare, gain, geomean
from avo.watch.wording import duration, first_line, percent, place, spent, verdicts
from evaluator.evaluation import Score
from evaluator.problem import Baseline
from lineage_db.records import RunState

RECENT_VERSIONS = 4
MOST_WORKERS = 8
WIDEST = 100
"""Columns: on a wider terminal, longer bars say no more."""


@dataclass(frozen=True, slots=True)
class Budget:
    """How far a run may go."""

    max_attempts: int | None
    """Of the whole run."""
    deadline: datetime | None
    began: datetime
    """Start of the time that ends with ``deadline``."""
    max_tokens: int | None = None
    max_usd: float | None = None
    """Of the whole run, as the tokens."""

    def used(self, snapshot: Snapshot, now: datetime) -> float | None:
        """Return the fraction used of whichever limit is nearer, 0 to 1; None without a limit."""
        parts = []
        if self.max_attempts:
            parts.append(len(snapshot.attempts) / self.max_attempts)
        if self.max_tokens:
            parts.append(snapshot.spend.tokens / self.max_tokens)
        if self.max_usd:
            parts.append(snapshot.spend.usd / self.max_usd)
        if self.deadline and self.deadline > self.began:
            parts.append((now - self.began) / (self.deadline - self.began))
        return min(1.0, max(parts)) if parts else None

    def left_s(self, snapshot: Snapshot, now: datetime) -> float | None:
        """Return the seconds until the nearer limit, negative beyond it; None without one or, for attempts, a rate."""
        left = []
        if self.deadline:
            left.append((self.deadline - now).total_seconds())
        if self.max_attempts and snapshot.attempts_per_minute:
            left.append((self.max_attempts - len(snapshot.attempts)) / snapshot.attempts_per_minute * 60)
        return min(left) if left else None


def panel(snapshot: Snapshot, *, now: datetime, budget: Budget, baselines: Sequence[Baseline]) -> RenderableType:
    """Return the whole display of a run."""
    run = snapshot.run
    score = snapshot.best.attempt.evaluation.score if snapshot.best else None
    parts: list[RenderableType] = [_attempts(snapshot, now, budget)]
    if score:
        parts += ["", _speed(snapshot, score, baselines)]
    if len(snapshot.versions) > 1:
        parts += ["", _accepted(snapshot)]
    if snapshot.running:
        parts += ["", _workers(snapshot, now)]
    state = RunState.PAUSED if run.paused else run.state
    title = Text.assemble((run.name, "bold"), "  ", (state, STATE_STYLE[state]))
    target = place(score) if score else run.target
    subtitle = Text(f"{run.problem} for {target}, suite {run.suite}, operator {run.operator}", style="dim")
    framed = Panel(
        Group(*parts), title=title, title_align="left", subtitle=subtitle, subtitle_align="left", padding=(0, 1)
    )
    return Constrain(framed, WIDEST)


STATE_STYLE = {
    RunState.RUNNING: "green", RunState.PAUSED: "yellow", RunState.STOPPED: "yellow", RunState.FINISHED: "cyan",
    RunState.INTERRUPTED: "bright_red",
}  # fmt: skip


def _attempts(snapshot: Snapshot, now: datetime, budget: Budget) -> RenderableType:
    table = _grid()
    made = f"{len(snapshot.attempts)}" + (f" of {budget.max_attempts}" if budget.max_attempts else "")
    rate = snapshot.attempts_per_minute
    table.add_row("attempts", Text(made + (f", {rate:.1f} a minute" if rate else "")))
    if snapshot.counts:
        table.add_row("", Text(verdicts(snapshot.counts), style="dim"))
    accepted = f"{len(snapshot.versions)} accepted"
    if snapshot.last_gain:
        accepted += f", the last {duration((now - snapshot.last_gain).total_seconds())} ago"
    table.add_row("versions", Text(accepted))
    if snapshot.spend.calls:
        table.add_row("models", Text(spent(snapshot.spend, budget.max_tokens, budget.max_usd)))
    if snapshot.trouble and snapshot.run.state is RunState.RUNNING:
        table.add_row("", Text(f"last call: {first_line(snapshot.trouble)}", style="yellow"))
    used = budget.used(snapshot, now)
    if used is not None and snapshot.run.state is RunState.RUNNING:
        left = budget.left_s(snapshot, now)
        bar = Table.grid(padding=(0, 2))
        bar.add_row(
            ProgressBar(total=1.0, completed=used, width=30, complete_style="cyan", finished_style="cyan"),
            Text("" if left is None else f"{duration(left)} left"),
        )
        table.add_row("budget", bar)
    return table


def _speed(snapshot: Snapshot, score: Score, baselines: Sequence[Baseline]) -> RenderableType:
    """Bars on one scale: the seed, the published baselines, the best."""
    best, seed = snapshot.best, snapshot.seed
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


def _against(comparison: Comparison) -> str:
    times = f"published, best is {comparison.ours / comparison.published:.2f} x"
    return times if comparison.shared == comparison.total else f"{times} on {comparison.shared} of {comparison.total}"


def _accepted(snapshot: Snapshot) -> RenderableType:
    table = Table.grid(padding=(0, 2, 0, 0), expand=True)
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    for version in reversed(snapshot.versions[1:][-RECENT_VERSIONS:]):
        table.add_row(
            Text(f"v{version.number}", "dim"),
            f"{geomean(version):.1f}",
            Text(percent(gain(version, snapshot.by_number)), "green"),
            Text(first_line(version.attempt.change)),
        )
    return table


def _workers(snapshot: Snapshot, now: datetime) -> RenderableType:
    table = _grid()
    for step in sorted(snapshot.running, key=lambda step: step.worker)[:MOST_WORKERS]:
        tried = sum(attempt.step_number == step.number for attempt in snapshot.attempts)
        doing = f"step {step.number}, {step.operator}, {duration((now - step.started).total_seconds())}"
        table.add_row(step.worker, Text(doing + (f", {tried} tried" if tried else "")))
    if len(snapshot.running) > MOST_WORKERS:
        table.add_row("", Text(f"and {len(snapshot.running) - MOST_WORKERS} more", style="dim"))
    return table


def _grid() -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True, min_width=8)
    table.add_column(overflow="fold")
    return table
