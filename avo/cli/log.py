"""``avo log``: what happened in a run."""

import json
from threading import Event as Flag
from typing import TYPE_CHECKING, Annotated

import typer

from avo.cli.common import DbOption, RunArgument, read_store
from avo.watch.tables import one_line

if TYPE_CHECKING:
    from avo.lineage_db.errors import StoreError
    from avo.lineage_db.store import Store
    from avo.watch.events import Event, EventReader

_INTERVAL_S, _IDLE_S = 0.5, 5.0


def log(
    run: RunArgument,
    follow: Annotated[bool, typer.Option("--follow", help="Keep printing until the run ends.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")] = False,
    db: DbOption = None,
) -> None:
    """Print what happened in a run, in order: its steps, attempts, versions, failed model calls and the supervisor.

    It is read from the database, so what happened while nobody watched is there too. Times are UTC.

    Example: avo log mha-h100 --follow
    """
    from avo.search.run import utc_now
    from avo.watch.events import EventReader

    reader = EventReader(run)
    with read_store(db) as store:
        url = store.url
        _print(reader.read(store, utc_now()), as_json)
    if follow:
        _follow(url, reader, as_json)


def _follow(url: str, reader: "EventReader", as_json: bool) -> None:
    from avo.search.run import utc_now
    from avo.watch.follow import follow

    stop = Flag()

    def read(store: "Store", previous: "list[Event] | None") -> "list[Event]":
        new = reader.read(store, utc_now())
        if reader.over:
            stop.set()
        return new or (previous if previous is not None else new)

    def receive(news: "list[Event] | StoreError") -> None:
        if isinstance(news, list):
            _print(news, as_json)

    try:
        follow(url, read, receive, stop, _INTERVAL_S, idle_s=_IDLE_S)
    except KeyboardInterrupt:
        return


def _print(events: "list[Event]", as_json: bool) -> None:
    for event in events:
        if as_json:
            print(json.dumps(event.to_json()))
        else:
            print(f"{event.time:%Y-%m-%d %H:%M:%S} {one_line(event.text)}")
    print(end="", flush=True)
