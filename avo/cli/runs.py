"""``avo runs``: all runs, one per line."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from avo.cli.common import DbOption, JsonOption, console, print_json, read_store
from avo.evaluator.target import score_kind
from avo.watch.tables import gain, row, table
from avo.watch.wording import percent

if TYPE_CHECKING:
    from rich.table import Table

    from avo.evaluator.units import Unit
    from avo.lineage_db.records import RunSummary


_ANY = 10_000
"""A width that every table fits."""


def runs(db: DbOption = None, as_json: JsonOption = False) -> None:
    """List all runs, newest first.

    Attempts are judged in full (TRIED), looks only compiled and predicted; versions are KEPT.

    Example: avo runs --json
    """
    from avo.search.transfer import progress

    with read_store(db) as store:
        found = store.runs()
        now = datetime.now(UTC)
        records = [_record(summary, now) for summary in found]
        if as_json:
            for record, summary in zip(records, found, strict=True):
                taken = progress(store, summary.run)
                record["transferred"] = taken.to_json() if taken else None
                spend = store.journal.spend(summary.run.id)
                record["calls"], record["tokens"], record["usd"] = spend.calls, spend.tokens, spend.usd
            print_json(records)
            return
    made = _table(records, now, narrow=False)
    fits = console.measure(made, options=console.options.update(max_width=_ANY)).maximum <= console.width
    console.print(made if fits else _table(records, now, narrow=True))


def _table(records: Sequence[dict[str, Any]], now: datetime, *, narrow: bool) -> "Table":
    """Return the runs as a table; a narrow one says problem, target and operator in a line of their own."""
    # Scores of one kind share a column, so that a predicted one never stands under measured ones.
    kinds = sorted({record["score_kind"] for record in records})
    about = ("problem", "target", "operator")
    lines = table(
        "RUN", *(() if narrow else map(str.upper, about)), "STATE", ">TRIED", ">LOOKS", ">KEPT",
        *(f">{kind.upper()}" for kind in kinds), ">GAIN", ">AGE",
        title="All runs; best scores in TFLOPS unless said otherwise, geometric mean over the run's suite", gap=1,
    )  # fmt: skip
    for record in records:
        best = "" if record["score"] is None else _unit(record).cell(record["score"])
        row(
            lines, record["name"], *(() if narrow else (record[each] for each in about)), record["state"],
            record["attempts"], record["looks"] or "", record["versions"],
            *(best if kind == record["score_kind"] else "" for kind in kinds),
            percent(record["gain"]), _age(now - datetime.fromisoformat(record["created"])),
        )  # fmt: skip
        if narrow:
            row(lines, ", ".join(record[each] for each in about), style="dim")
    return lines


def _unit(record: dict[str, Any]) -> "Unit":
    from avo.evaluator.units import unit_of

    return unit_of(record["problem"], record["suite"], record["target"])


def _record(summary: "RunSummary", now: datetime) -> dict[str, Any]:
    run = summary.run
    return {
        "name": run.name,
        "problem": run.problem,
        "target": run.target,
        "suite": run.suite,
        "operator": run.operator,
        "state": run.state_at(now),
        "attempts": summary.attempts,
        "looks": run.looks,
        "versions": summary.versions,
        "score": summary.best_geomean,
        "seed_score": summary.seed_geomean,
        "score_kind": score_kind(run.target),
        "gain": None if summary.best_geomean is None else gain(summary.best_geomean, summary.seed_geomean),
        "created": run.created.isoformat(),
        "updated": run.updated.isoformat(),
    }


def _age(age: timedelta) -> str:
    for unit, name in ((timedelta(days=1), "d"), (timedelta(hours=1), "h"), (timedelta(minutes=1), "min")):
        if age >= unit:
            return f"{age // unit} {name}"
    return "now"
