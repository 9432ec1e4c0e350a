"""What the lineage database costs as a run grows: ``python -m bench.store [--url URL] [--folder DIR]``.

Up to each size a run is filled in bulk; then ``WINDOW`` steps of one worker are written as a run writes them: claim a
step, read its brief, announce the candidate, look whether it or its plan is known, record the attempt, finish the step.
Each attempt is durable before the next begins. The medians of each part are printed, their sum, and the median of the
CPU time of this process, which on a busy machine says more. One attempt in 500 is accepted.
"""

import argparse
import os
import statistics
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import insert

from avo.evaluator.candidate import Candidate
from avo.evaluator.evaluation import CaseResult, CaseScore, Evaluation, Resources, Score, Status
from avo.evaluator.target import ScoreKind
from avo.lineage_db import queries, tables
from avo.lineage_db.decision import Decision, Ruling
from avo.lineage_db.records import Attempt, Run, Step, StepState, Version
from avo.lineage_db.store import Store
from avo.search.acceptance import Thresholds, decide
from avo.seeds import seed_source

if TYPE_CHECKING:
    from psycopg import Connection

SIZES = (1_000, 10_000, 100_000)
WINDOW = 300
ACCEPTED = 500
PARTS = ("claim", "brief", "announce", "look up", "record", "finish")


def evaluation(tflops: float, number: int) -> Evaluation:
    """Return an evaluation as large as the judge's are."""
    cases = tuple(
        CaseScore(f"{4 << i}k-{mask}", tflops, 1e6 / tflops, "tensor", {"tensor": 0.6, "exp": 0.8, "issue": 0.7})
        for i in range(4)
        for mask in ("causal", "full")
    )
    return Evaluation(
        Status.CORRECT,
        "",
        "h100",
        "quick",
        seconds=4.0,
        score=Score(ScoreKind.PREDICTED, "h100", cases),
        cases=tuple(CaseResult(f"case-{i}", True, 0.002, 1e-6) for i in range(20)),
        resources=(Resources("attention_kernel", 168, 0, 65536, 0, 4, 3),),
        plan_digest=f"{number:064x}",
    )


def bulk(store: Store, run: Run, first: int, last: int) -> None:
    """Write the steps, attempts and versions numbered from ``first`` up to ``last``, as they would have been."""
    source, now = seed_source("mha"), datetime.now(UTC)
    done = {"run_id": run.id, "worker": "w0", "operator": "bench", "state": StepState.DONE.value, "reason": "tried"}
    for begin in range(first, last, 1000):
        numbers = range(begin, min(begin + 1000, last))
        versions = [number for number in numbers if number % ACCEPTED == 0]
        with store._database.transaction(write=True) as connection:
            made = connection.execute(
                insert(tables.steps).returning(tables.steps.c.id, sort_by_parameter_order=True),
                [{**done, "number": n, "turn": n, "unfinished": 0, "started": now, "finished": now} for n in numbers],
            )
            steps = made.scalars().all()
            next_attempt = queries.next_attempt(connection, run.id)
            attempts = {number: next_attempt + place for place, number in enumerate(numbers)}
            rows: list[dict[str, object]] = []
            for number, step in zip(numbers, steps, strict=True):
                if number % ACCEPTED < 2 or not rows:  # the evaluations in between are the same
                    found = evaluation(speed(number), number)
                    written = found.to_json()
                rows.append(
                    {
                        "id": attempts[number], "run_id": run.id, "step_id": step, "digest": f"{number:064x}",
                        "plan_digest": f"{number:064x}", "status": found.status.value, "message": "",
                        "geomean_tflops": found.geomean_tflops, "seconds": 4.0, "change": "BLOCK_M 64 -> 128",
                        "parents": (), "started": now, "finished": now,
                        "evaluation": written, "source": f"{source}\nNUMBER = {number}\n",
                    }
                )  # fmt: skip
            connection.execute(insert(tables.attempts), rows)
            if versions:
                accepted = [
                    {"run_id": run.id, "number": n // ACCEPTED, "attempt_id": attempts[n], "parents": (),
                     "accepted": now, "niche": "", "champion": True}
                    for n in versions
                ]  # fmt: skip
                connection.execute(insert(tables.versions), accepted)


def analyse(url: str) -> None:
    """Have PostgreSQL analyse its tables, which it does by itself as they grow, but not while they are filled."""
    with connected(url) as connection:
        connection.execute("ANALYZE")


def connected(url: str) -> "Connection[tuple[Any, ...]]":
    """Return a connection to the PostgreSQL database of a store, separate from the store's own."""
    import psycopg

    return psycopg.connect(url.replace("+psycopg", ""))


def speed(number: int) -> float:
    """Return the speed of an attempt: one in ``ACCEPTED`` is faster than all before."""
    best: float = 100.0 * 1.02 ** (number // ACCEPTED)
    return best if number % ACCEPTED == 0 else 0.9 * best


def work(store: Store, run: Run, first: int, last: int) -> None:
    """Write the attempts from ``first`` up to ``last`` one by one, and print what that took."""
    source = seed_source("mha")
    spent: dict[str, list[float]] = defaultdict(list)
    store.history(run.id)  # what a worker remembers
    for number in range(first, last):
        candidate = Candidate("mha", f"{source}\nNUMBER = {number}\n")
        digest, found, now = candidate.digest, evaluation(speed(number), number), datetime.now(UTC)
        cpu, marks = time.process_time(), [time.perf_counter()]
        step = store.claims.claim(run.id, worker="w0", operator="bench", now=now)
        marks.append(time.perf_counter())
        history = store.history(run.id)
        marks.append(time.perf_counter())
        assert store.claims.announce(step.id, digest, now=now)
        marks.append(time.perf_counter())
        assert found.plan_digest is not None
        assert store.attempts_of_plan(run.id, found.plan_digest) == []
        marks.append(time.perf_counter())
        parents = (history.versions[-1].number,) if history.versions else ()
        attempt = record(store, step, candidate, found, parents)
        marks.append(time.perf_counter())
        finish(store, step, attempt, parents)
        marks.append(time.perf_counter())
        spent["CPU"].append(time.process_time() - cpu)
        for part, (before, after) in zip(PARTS, pairwise(marks), strict=True):
            spent[part].append(after - before)
    figures = [1e3 * statistics.median(spent[part]) for part in PARTS]
    columns = "".join(f"{figure:>10.2f}" for figure in figures)
    used = 1e3 * statistics.median(spent["CPU"])
    print(f"{last:>9,}{columns}{sum(figures):>10.2f}{used:>10.2f}{megabytes(store.url):>9.0f}", flush=True)


def record(store: Store, step: Step, candidate: Candidate, found: Evaluation, parents: tuple[int, ...]) -> Attempt:
    """Record an attempt."""
    now = datetime.now(UTC)
    return store.results.record_attempt(
        step_id=step.id,
        candidate=candidate,
        change="BLOCK_M 64 -> 128",
        parents=parents,
        evaluation=found,
        started=now,
        finished=now,
    )


def last_word(versions: Sequence[Version], submitted: Attempt) -> Decision:
    """Decide as acceptance does, without a closer look."""
    decision = decide(versions, submitted.evaluation, Thresholds(0.01, 0.9))
    assert decision is not None
    return replace(decision, ruling=Ruling.ACCEPTED) if decision.ruling is Ruling.ACCEPTABLE else decision


def finish(store: Store, step: Step, attempt: Attempt, parents: tuple[int, ...]) -> Version | None:
    """Finish a step."""
    return store.results.conclude(
        step.id, attempt_id=attempt.id, parents=parents, reason="tried", now=datetime.now(UTC), decide=last_word
    )


def megabytes(url: str) -> float:
    """Return the size of a database in megabytes."""
    if url.startswith("sqlite:///"):
        return os.path.getsize(url.removeprefix("sqlite:///")) / 1e6
    with connected(url) as connection:
        row = connection.execute("SELECT pg_database_size(current_database())").fetchone()
    assert row is not None
    return float(row[0]) / 1e6


def fsync_ms(folder: Path) -> float:
    """Return the median time that appending 4 KiB to a file and syncing it takes, in ms."""
    took = []
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        for _ in range(200):
            before = time.perf_counter()
            file.write(bytes(4096))
            file.flush()
            os.fdatasync(file.fileno())
            took.append(time.perf_counter() - before)
    return 1e3 * statistics.median(took)


def main() -> None:
    """Fill one database and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", help="an empty PostgreSQL database; default: an SQLite file in a new folder")
    parser.add_argument("--folder", type=Path, help="where the new folder is made; default: the temporary folder")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        kernel = subprocess.run(["uname", "-sr"], capture_output=True, text=True, check=True).stdout.strip()
        print(f"{os.cpu_count()} CPUs, {kernel}, fdatasync of 4 KiB {fsync_ms(Path(folder)):.2f} ms")
        url = given.url or f"{folder}/lineage.db"
        print("postgresql" if given.url else "sqlite")
        print(" attempts" + "".join(f"{part:>10}" for part in PARTS) + "       sum       CPU       MB   (ms, medians)")
        with Store.open(url) as store:
            run = store.create_run(
                name=store.free_run_name("bench"), problem="mha", target="h100", suite="quick", operator="bench",
                seed=0, config={"start": [{"origin": "plain", "source": seed_source("mha")}]}, now=datetime.now(UTC),
            )  # fmt: skip
            for before, size in pairwise((0, *SIZES)):
                bulk(store, run, before, size - WINDOW)
                if given.url:
                    analyse(store.url)
                work(store, run, size - WINDOW, size)


if __name__ == "__main__":
    main()
