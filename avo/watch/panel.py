"""The panel: a run on a terminal while it goes on, its budget, its best, and what each worker is doing."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from rich.console import Group, RenderableType
from rich.constrain import Constrain
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from avo.agents.operator import COMMAND_OPERATOR
from avo.evaluator.evaluation import Score
from avo.evaluator.problem import Baseline
from avo.evaluator.target import unchecked
from avo.limits import ATTEMPTS, TOKENS, USD
from avo.lineage_db.decision import unresolved
from avo.lineage_db.records import Doing, RunState
from avo.subject import subject
from avo.watch.scores import BaselineComparison, compare, geomean
from avo.watch.view import RunView
from avo.watch.wording import (
    STATE_STYLE,
    UNSAID,
    amount,
    awaited,
    cut,
    duration,
    ending,
    first_line,
    in_a_list,
    looked,
    out_of,
    paying,
    percent,
    place,
    spent,
    turned_down,
    under_way,
    verdicts,
)

MOST_WORKERS = 8
_MOST_WHY = 160
"""Characters of a line that says why an attempt is no version: more than acceptance says, less than some judges do."""
WIDEST = 100
"""Widest panel, in columns: longer bars would not say more."""


@dataclass(frozen=True, slots=True)
class Budget:
    """The time of a session, and with it the limits of the run."""

    deadline: datetime | None
    began: datetime
    """Start of the time that ends with ``deadline``."""

    def used(self, view: RunView, now: datetime) -> float | None:
        """Return the used fraction, 0 to 1, of the limit that is nearest; None without a limit."""
        parts = [each.used / each.most for each in view.accounts]
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
        most = ATTEMPTS.most(view.run.config)
        if most and view.attempts_per_minute:
            each, since = 60 / view.attempts_per_minute, (now - view.latest[0][0]).total_seconds()
            # No more has passed than one attempt takes: it may take longer this time, or the run was resumed.
            rest = (most - view.attempts) * each - min(each, since)
            left += [rest] if rest > 0 else []  # nobody knows how much longer the last attempt takes
        return min(left) if left else None


def panel(
    view: RunView, *, now: datetime, budget: Budget, baselines: Sequence[Baseline], most: int | None = None
) -> RenderableType:
    """Return the panel that shows a run, with the last ``most`` refusals and versions; None: with all of the view's."""
    run = view.run
    score = view.best.attempt.evaluation.score if view.best else None
    parts: list[RenderableType] = [_attempts(view, now, budget, most)]
    if score:
        parts += ["", _speed(view, score, baselines), *([Text(view.headline)] if most is None else [])]
        if doubt := unchecked(run.target):
            parts.append(Text(doubt, style="dim"))
    if view.versions > 1 and most != 0:
        parts += ["", _accepted(view, most)]
    if doing := _at_work(view, now):
        parts += ["", doing]
    state = RunState.PAUSED if run.paused else run.state
    title = Text.assemble((run.name, "bold"), "  ", (state, STATE_STYLE[state]))
    target = place(score) if score else run.target
    subtitle = Text(f"{subject(run)} for {target}, suite {run.suite}, operator {run.operator}", style="dim")
    framed = Panel(
        Group(*parts), title=title, title_align="left", subtitle=subtitle, subtitle_align="left", padding=(0, 1)
    )
    return Constrain(framed, WIDEST)


def _attempts(view: RunView, now: datetime, budget: Budget, most: int | None) -> RenderableType:
    table, settings = _grid(), view.run.config
    rate = None if view.over else view.attempts_per_minute
    rated = f", {rate:.1f} a minute" if rate else ""
    table.add_row("attempts", Text(f"{out_of(view.attempts, ATTEMPTS.most(settings))}{rated}{looked(view.run.looks)}"))
    if view.counts:
        table.add_row("", Text(verdicts(view.counts), style="dim"))
    accepted = f"{view.versions} accepted"
    if view.last_gain:
        accepted += f", the last {duration((now - view.last_gain).total_seconds())} ago"
    table.add_row("versions", Text(accepted))
    if view.unresolved:
        table.add_row("", Text(unresolved(view.unresolved), style="yellow"))
    if view.turned_down and not view.over:
        for number, attempt in enumerate(view.turned_down[:most]):
            why = cut(f"attempt {attempt.attempt_id} {turned_down(attempt)}", _MOST_WHY)
            table.add_row("" if number else "refused", Text(why, style="dim"))
    if view.spend.calls:
        table.add_row("models", Text(spent(view.spend, TOKENS.most(settings), USD.most(settings))))
        for each in view.models:
            table.add_row("", Text(paying(each), style="dim"))
    elif view.run.operator == COMMAND_OPERATOR:
        table.add_row("models", Text(UNSAID))
    if view.trouble and view.run.state is RunState.RUNNING:
        table.add_row("", Text(f"last call: {first_line(view.trouble)}", style="yellow"))
    used = budget.used(view, now)
    if view.run.ended_by:
        table.add_row("ended", Text(ending(view.run, view.run.state).removeprefix("; ")))
    if used is not None and view.run.state is RunState.RUNNING:
        left = budget.left_s(view, now)
        others = [each for each in view.accounts if each.limit not in (ATTEMPTS, TOKENS, USD)]  # these have lines
        words = [f"{each.used} of {amount(each.most, each.limit.unit)}" for each in others]
        words += [] if left is None else [f"{duration(left)} left"]
        bar = Table.grid(padding=(0, 2))
        bar.add_row(
            ProgressBar(total=1.0, completed=used, width=30, complete_style="cyan", finished_style="cyan"),
            Text(", ".join(words)),
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
    unit = view.unit
    table.add_row("", unit.head, "", "")
    for name, tflops, colour, remark in bars:
        bar = ProgressBar(total=top, completed=tflops, complete_style=colour, finished_style=colour, style="black")
        number = Text(unit.cell(tflops), style="bold" if colour == "green" else "")
        table.add_row(name, number, bar, Text(remark, "dim"))
    return table


def _against(comparison: BaselineComparison) -> str:
    times = f"published, best is {comparison.ratio} x"
    return times if comparison.shared == comparison.total else f"{times} on {comparison.shared} of {comparison.total}"


def _accepted(view: RunView, most: int | None) -> RenderableType:
    table = Table.grid(padding=(0, 2, 0, 0), expand=True)
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    width = view.width
    for version in [version for version in reversed(view.recent) if version.number][:most]:
        table.add_row(
            Text(f"v{version.number}", "dim"),
            view.unit.cell(version.geomean_tflops),
            Text(percent(version.gain, width), "green"),
            Text(first_line(in_a_list(version.change))),
        )
    return table


def _at_work(view: RunView, now: datetime) -> RenderableType | None:
    """Return what the driver and the workers are doing, None if nobody does anything."""
    table = _grid()
    if view.doing:
        table.add_row("now", _doing(view.doing, now))
    for work in view.working[:MOST_WORKERS]:
        step = work.step
        doing = f"step {step.number}, {step.operator}, {duration((now - step.started).total_seconds())}"
        table.add_row(step.worker, Text(doing + (f", {work.tried} tried" if work.tried else "") + looked(step.looks)))
        for each in step.doing or ():
            table.add_row("", _doing(each, now))
        if step.reply:
            table.add_row("", Text(awaited(step.reply, now), style="dim"))
    if len(view.working) > MOST_WORKERS:
        table.add_row("", Text(f"and {len(view.working) - MOST_WORKERS} more", style="dim"))
    return table if table.row_count else None


def _doing(doing: Doing, now: datetime) -> RenderableType:
    words = Text(under_way(doing, now), style="dim")
    if not doing.of:
        return words
    row = Table.grid(padding=(0, 2, 0, 0))
    row.add_row(ProgressBar(total=doing.of, completed=doing.done, width=12, complete_style="cyan"), words)
    return row


def _grid() -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True, min_width=8)
    table.add_column(overflow="fold")
    return table
