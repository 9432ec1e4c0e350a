"""``avo stop`` and ``avo pause``: send a request to the process that drives a run, wherever it is."""

import time
from typing import TYPE_CHECKING, Annotated

import typer

from avo.cli.common import DbOption, RunArgument, err, open_store

if TYPE_CHECKING:
    from avo.lineage_db.records import Request
    from avo.lineage_db.store import Store

_POLL_S = 0.5


def stop(
    run: RunArgument,
    now: Annotated[bool, typer.Option("--now", help="Abandon the steps under way instead of finishing them.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Return once the run has stopped.")] = False,
    db: DbOption = None,
) -> None:
    """Stop a run that another terminal or another machine works on, as Ctrl-C there does.

    Workers have 30 s to finish their steps. Later, avo resume RUN continues.

    Example: avo stop mha-h100
    """
    from avo.lineage_db.records import Request

    with open_store(db) as store:
        _ask(store, run, Request.STOP_NOW if now else Request.STOP)
        err.print(f"avo: run {run!r} is asked to stop{' at once' if now else ''}")
        if wait:
            _wait(store, run)


def pause(run: RunArgument, db: DbOption = None) -> None:
    """Start no new steps of a run until avo resume RUN. Steps under way are finished.

    Its workers stay alive, and its time (--max-hours) runs on. To free the machine, use avo stop.

    Example: avo pause mha-h100
    """
    from avo.lineage_db.records import Request

    with open_store(db) as store:
        _ask(store, run, Request.PAUSE)
    err.print(f"avo: run {run!r} pauses; continue with: avo resume {run}")


def _ask(store: "Store", run: str, request: "Request") -> None:
    from avo.search.run import utc_now

    store.driving.ask(store.run(run).id, request, now=utc_now())


def _wait(store: "Store", run: str) -> None:
    from avo.search.run import utc_now

    while store.run(run).driven_at(utc_now()):
        time.sleep(_POLL_S)
