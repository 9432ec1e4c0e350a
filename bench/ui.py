"""The terminal UI on a long run: wall-clock and CPU seconds to first paint and to each view, and memory.

    python -m bench.ui [--attempts 100000] [--db PATH]

Makes a database with that many attempts, as large as real ones, where ``PATH`` does not exist yet; then opens the UI on
it, 200 columns by 50 lines, without a terminal to write to, and presses keys.
"""

import argparse
import asyncio
import json
import random
import resource
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from textual.pilot import Pilot
from textual.widgets import Static

from avo.evaluator.catalogue import get_problem, get_suite
from avo.evaluator.evaluation import CaseResult, CaseScore, Evaluation, Resources, Score, Status
from avo.evaluator.target import ScoreKind
from avo.lineage_db.records import RunState
from avo.lineage_db.store import Store
from avo.seeds import seed_source
from avo.tui.app import AvoApp
from avo.tui.attempts import ORDERS, Ledger
from avo.tui.lineage import LineageList
from avo.tui.lines import Lines

RUN = "long"
ACCEPTED_EVERY = 250
"""Attempts for each version."""
_START = datetime(2026, 1, 1, tzinfo=UTC)
_FAULTS = (
    (Status.INCORRECT, "case ragged: {} of 77 rows are wrong, relative error 0.{}"),
    (Status.DOES_NOT_FIT, "needs {} bytes of shared memory, h100 has 232448 a CTA: use fewer stages"),
    (Status.LOWERING_ERROR, "line {}: dot operands have shapes that do not match"),
    (Status.RACE, "programs {} and {} store to the same element of out"),
    (Status.TIMED_OUT, "no verdict within 300 s"),
)


def make(path: Path, attempts: int) -> None:
    """Write a run of ``attempts`` steps with an attempt each: two in five correct, every 250th a version."""
    with Store.open(str(path)) as store:
        run = store.create_run(
            name=RUN, problem="mha", target="h100", suite="paper", operator="mutate", seed=0, config={}, now=_START
        )
        store.set_run_state(run.id, RunState.STOPPED, now=_START)
    with sqlite3.connect(path) as connection:
        for rows in _rows(run.id, attempts):
            for table, row in rows.items():
                marks = ", ".join("?" * len(row))
                connection.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({marks})", tuple(row.values()))


def _rows(run_id: int, attempts: int) -> Iterator[dict[str, dict[str, Any]]]:
    """Yield the rows of each attempt by table."""
    draw = random.Random(0)
    names = [case.name for case in get_suite(get_problem("mha"), "paper")]
    source = seed_source("mha")
    for number in range(attempts):
        version, rest = divmod(number, ACCEPTED_EVERY)
        accepted = rest == 0
        speed = 150.0 + version + 0.9 * draw.random() * (not accepted)
        right = accepted or draw.random() < 0.4
        status, message = (Status.CORRECT, "") if right else draw.choice(_FAULTS)
        message = message.format(draw.randrange(77), draw.randrange(100))
        started = _START + timedelta(seconds=20 * number)
        moments = {"started": _moment(started), "finished": _moment(started + timedelta(seconds=19))}
        parents = json.dumps([max(0, version - 1 if accepted else version)] if number else [])
        change = f"BLOCK_M {draw.choice((32, 64, 128))} -> {draw.choice((64, 128))}, num_stages {number % 5}"
        judged = _evaluation(status, message, speed, names)
        step = {
            "id": number + 1, "run_id": run_id, "number": number, "worker": f"w{number % 8}", "operator": "mutate",
            "state": "done", "digest": f"{number:064x}", **moments, "reason": change,
        }  # fmt: skip
        attempt = {
            "id": number + 1, "run_id": run_id, "step_id": number + 1, "digest": f"{number:064x}",
            "plan_digest": judged.plan_digest, "status": status.value, "message": message,
            "geomean_tflops": judged.geomean_tflops, "seconds": 19.0, "change": change, "parents": parents, **moments,
            "evaluation": json.dumps(judged.to_json()), "source": f"{source}\nATTEMPT = {number}\n".encode(),
        }  # fmt: skip
        rows: dict[str, dict[str, Any]] = {"steps": step, "attempts": attempt}
        if accepted:
            rows["versions"] = {
                "run_id": run_id, "number": version, "attempt_id": number + 1, "parents": parents,
                "accepted": moments["finished"], "niche": "", "champion": 1, "step": number,
            }  # fmt: skip
        yield rows


def _moment(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M:%S.%f")


def _evaluation(status: Status, message: str, speed: float, names: list[str]) -> Evaluation:
    cases = tuple(CaseResult(name, True, 0.0021, 1e-6) for name in ("square", "ragged", "odd", *names))
    if status is not Status.CORRECT:
        return Evaluation(status, message, "h100", "paper", 19.0, cases=cases[:3])
    busy = {"tensor": 0.41, "exp": 0.93, "issue": 0.7, "alu": 0.35, "fma": 0.4, "shared": 0.2}
    scored = tuple(CaseScore(name, speed, 1e6 / speed, "exp", busy, speed * 0.9, speed * 1.1) for name in names)
    resources = (Resources("attention_kernel", 168, 0, 65536, 0, 4, 3),)
    score = Score(ScoreKind.PREDICTED, "h100", scored)
    return Evaluation(status, "", "h100", "paper", 19.0, score, cases, resources, f"{speed:064.6f}")


async def walk(path: Path) -> None:
    """Open the UI, go through its views and print how long each takes to show what was read."""
    print("   wall      CPU")
    bare = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    began = time.monotonic(), time.process_time()
    app = AvoApp(str(path), RUN)
    async with app.run_test(size=(200, 50)) as pilot:

        async def timed(what: str, shown: Callable[[], bool], *keys: str) -> None:
            wall, cpu = (time.monotonic(), time.process_time()) if keys else began
            if keys:
                await pilot.press(*keys)
            while not shown():
                await pilot.pause(0.02)
            print(f"{time.monotonic() - wall:7.2f} s {time.process_time() - cpu:7.2f} s  {what}")

        def read(selector: str) -> bool:
            lines = app.screen.query_one(selector, Lines)
            return lines.count > 0 and "..." not in {str(lines.row(index))[-3:] for index in lines.sight}

        def titled(words: str) -> Callable[[], bool]:
            return lambda: (
                words in str(app.screen.query_one("#attempts-title", Static).content) and read("#attempts-table")
            )

        await timed("first paint: the lineage and its best version", lambda: bool(_options(pilot)))
        await timed(
            "ten versions further", lambda: app.screen.query_one(LineageList).selected == 10, "home", *["j"] * 10
        )
        await timed("trajectory: all attempts are read", lambda: _says(pilot, "best"), "t")
        await timed("attempts", lambda: read("#attempts-table"), "a")
        await timed("the oldest attempt", lambda: read("#attempts-table") and _under(pilot) == 1, "end")
        await timed("the largest group of failures", lambda: read("#attempts-table"), "shift+tab", *["j"] * 3)
        await timed("steps", lambda: read("#steps"), "s")
        await timed("lineage", lambda: app.screen.query_one("#lineage-view").display, "l")
        await timed("attempts again", lambda: read("#attempts-table"), "a")
        for order in ORDERS:
            await timed(f"all attempts, {order} first", titled(f"{order} first"), "shift+tab", "home", "enter", "home")
            await timed("thirty pages further", lambda: read("#attempts-table"), *["pagedown"] * 30)
            await pilot.press("o")
        await timed("a search for two words", titled("with race 64"), "slash", *"race", "space", *"64", "enter")
        await timed("thirty pages further", lambda: read("#attempts-table"), *["pagedown"] * 30)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{peak:7.0f} MiB memory at most, {bare:.0f} MiB of it before the database was opened")


def _options(pilot: Pilot[None]) -> int:
    return len(pilot.app.screen.query_one(LineageList).options) if pilot.app.screen.query(LineageList) else 0


def _says(pilot: Pilot[None], words: str) -> bool:
    return words in str(pilot.app.screen.query_one("#legend", Static).content)


def _under(pilot: Pilot[None]) -> int | None:
    return pilot.app.screen.query_one(Ledger).under


def main() -> None:
    """Make the database, open the UI on it and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--attempts", type=int, default=100_000)
    parser.add_argument("--db", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = options.db or Path(folder) / "long.db"
        if not path.exists():
            started = time.monotonic()
            make(path, options.attempts)
            print(f"{time.monotonic() - started:7.2f} s  to make {path.stat().st_size / 2**20:.0f} MiB")
        asyncio.run(walk(path))


if __name__ == "__main__":
    main()
