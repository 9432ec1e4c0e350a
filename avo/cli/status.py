"""``avo status``: what a run is doing now."""

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from threading import Event
from typing import TYPE_CHECKING, Annotated

import typer

from avo.agents.operator import COMMAND_OPERATOR
from avo.cli.common import DbOption, JsonOption, RunArgument, console, fail, print_json, read_store
from avo.limits import ATTEMPTS, TOKENS, USD
from avo.subject import subject
from avo.watch.tables import row, table
from avo.watch.wording import (
    UNSAID,
    amount,
    awaited,
    counted,
    duration,
    ending,
    first_line,
    looked,
    out_of,
    paying,
    percent,
    spent,
    standing,
    turned_down,
    under_way,
    valued,
    verdicts,
)

if TYPE_CHECKING:
    from rich.console import RenderableType

    from avo.lineage_db.errors import StoreError
    from avo.lineage_db.store import Store
    from avo.watch.view import RunView, StepProgress

_INTERVAL_S, _IDLE_S = 1.0, 5.0


def status(
    run: RunArgument,
    watch: Annotated[bool, typer.Option("--watch", help="Keep it up to date until the run ends or Ctrl-C.")] = False,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="What was tried, gained and spent since then, and what to do: 30m, 8h or 2d ago."
        ),
    ] = None,
    db: DbOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a run is doing: who works on what since when, how fast it goes, what it has spent and gained.

    With --watch and --json: one JSON object per line, each time that something has changed.

    Example: avo status mha-h100 --watch

    Example: avo status mha-h100 --since 8h
    """
    from avo.search.run import utc_now
    from avo.watch.view import read_view, to_json

    if since is not None:
        if watch:
            fail("--since tells what has been: leave out --watch")
        _digest(run, _ago(since), db, as_json)
        return
    with read_store(db) as store:
        found = read_view(store, run, utc_now())
        url = store.url
    if watch:
        _watch(url, run, as_json)
    elif as_json:
        print_json(to_json(found, utc_now()))
    else:
        console.print(in_words(found, utc_now()))


def _ago(text: str) -> timedelta:
    """Return the span of ``30m``, ``8h`` or ``2d``."""
    number, unit = text[:-1], {"m": "minutes", "h": "hours", "d": "days"}.get(text[-1:])
    try:
        if unit is None or (span := timedelta(**{unit: float(number)})) <= timedelta(0):
            raise ValueError
    except (ValueError, OverflowError):
        fail(f"--since: {text!r} should be a time such as 30m, 8h or 2d")
    return span


def _digest(run: str, span: timedelta, db: str | None, as_json: bool) -> None:
    from avo.search.run import utc_now
    from avo.watch.digest import read_digest

    now = utc_now()
    with read_store(db) as store:
        since = now - min(span, now - store.run(run).created)  # a longer span may end before all dates
        found = read_digest(store, run, since, now)
    if as_json:
        print_json(found.to_json())
        return
    lines = table("", "", title=f"{run} {found.period}: {subject(found.view.run)} for {found.view.run.target}")
    lines.show_header = False
    for each in found.rows():
        row(lines, *each)
    console.print(lines)


def _watch(url: str, run: str, as_json: bool) -> None:
    from rich.live import Live

    from avo.search.run import utc_now
    from avo.watch.follow import follow
    from avo.watch.view import RunView, read_view, to_json

    stop, shown = Event(), _Shown()

    def receive(news: "RunView | StoreError") -> None:
        shown.latest = news if isinstance(news, RunView) else shown.latest
        if isinstance(news, RunView) and as_json:
            print(json.dumps(to_json(news, utc_now()), allow_nan=False), flush=True)
        if isinstance(news, RunView) and news.over:
            stop.set()

    def read(store: "Store", previous: "RunView | None") -> "RunView":
        return read_view(store, run, utc_now(), previous)

    try:
        if as_json:
            follow(url, read, receive, stop, _INTERVAL_S, idle_s=_IDLE_S)
            return
        if not console.is_terminal:
            fail("--watch needs a terminal: leave it out, or add --json")
        with Live(shown, console=console, refresh_per_second=1):
            follow(url, read, receive, stop, _INTERVAL_S, idle_s=_IDLE_S)
    except KeyboardInterrupt:
        return


class _Shown:
    """The latest view, drawn again each time, so that times move on."""

    def __init__(self) -> None:
        self.latest: RunView | None = None

    def __rich_console__(self, *_: object) -> "Iterator[RenderableType]":
        from avo.search.run import utc_now

        if self.latest is not None:
            yield in_words(self.latest, utc_now())


def in_words(view: "RunView", now: datetime) -> "RenderableType":
    """Return a view of a run for people."""
    from avo.evaluator.target import unchecked
    from avo.lineage_db.decision import unresolved
    from avo.watch.scores import scored

    run, rates = view.run, view.rates(now)
    lines = table("", "", title=f"{run.name}: {subject(run)} for {run.target}, suite {run.suite}, {run.operator}")
    lines.show_header = False
    row(lines, "state", standing(run, view.state) + ending(run, view.state))
    if run.driver:
        row(lines, "driver", f"{run.driver}{_lease(run.driver_until, now)}")
    if view.doing:
        row(lines, "now", under_way(view.doing, now))
    for work in view.working:
        row(lines, work.step.worker, _doing(work, now))
        for doing in work.step.doing or ():
            row(lines, "", under_way(doing, now))
        if work.step.reply:
            row(lines, "", awaited(work.step.reply, now))
    rate = f", {sum(rates.values()):.1f} a minute" if rates else ""
    made = (
        f"{out_of(view.attempts, ATTEMPTS.most(run.config))}{rate} in {counted(view.steps, 'step')}{looked(run.looks)}"
    )
    row(lines, "attempts", made)
    if view.counts:
        row(lines, "", verdicts(view.counts))
    if rates:
        row(lines, "a minute", ", ".join(f"{each:.1f} {found.words}" for found, each in rates.items()))
    since = f", the last {duration((now - view.last_gain).total_seconds())} ago" if view.last_gain else ""
    row(lines, "versions", f"{view.versions}{since}")
    if view.unresolved:
        row(lines, "", unresolved(view.unresolved))
    for number, attempt in enumerate(view.turned_down):
        row(lines, "" if number else "last refused", f"attempt {attempt.attempt_id}, {turned_down(attempt)}")
    if view.best:
        score = scored(view.best)
        grown = f", {percent(view.gain, view.width)} over the seed" if view.gain else ""
        row(lines, "best", f"v{view.best.number}, {valued(score, view.unit)}{grown}")
        if doubt := unchecked(run.target):
            row(lines, "", doubt)
    if view.spend.calls:
        row(lines, "models", spent(view.spend, TOKENS.most(run.config), USD.most(run.config)))
        for each in view.models:
            row(lines, "", paying(each))
    if view.accounts:
        row(lines, "left", ", ".join(amount(each.left, each.limit.unit) for each in view.accounts))
    if not view.spend.calls and view.run.operator == COMMAND_OPERATOR:
        row(lines, "models", UNSAID)
    if view.trouble:
        row(lines, "last call", first_line(view.trouble), style="yellow")
    if view.told:
        ago = duration((now - view.told.made).total_seconds())
        row(lines, "supervisor", f"{view.told.level}, {ago} ago: {view.told.reason}")
    return lines


def _doing(work: "StepProgress", now: datetime) -> str:
    step = work.step
    tried = f", {work.tried} tried" if work.tried else ""
    since = duration((now - step.started).total_seconds())
    return f"step {step.number}, {step.operator}, for {since}{tried}{looked(step.looks)}{_lease(step.lease_until, now)}"


def _lease(until: datetime | None, now: datetime) -> str:
    if until is None:
        return ""
    left = (until - now).total_seconds()
    return f", lease for {duration(left)}" if left >= 0 else f", lease ran out {duration(-left)} ago"
