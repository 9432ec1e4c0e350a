"""What the lineage database costs as a run grows: ``python -m bench.store [--attempts N] [--url URL] [--folder DIR]``.

A run of one worker is written as a run is: claim a step, read its brief, announce the candidate, look whether it is
known, record the attempt, finish the step. Each attempt is durable before the next begins. The last ``WINDOW`` steps
before each size are timed, the median of each part is printed, with the sum. One attempt in 500 is accepted.
"""

import argparse
import os
import statistics
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

from avo.acceptance import accepts
from evaluator.candidate import Candidate
from evaluator.evaluation import CaseResult, CaseScore, Evaluation, Resources, Score, Status
from evaluator.target import ScoreKind
from lineage_db.records import Attempt, Run, Step, Version
from lineage_db.store import Store
from seeds import seed_source

SIZES = (1_000, 10_000, 100_000)
WINDOW = 300
ACCEPTED = 500
PARTS = ("claim", "brief", "announce", "look up", "record", "finish")


def evaluation(tflops: float, number: int) -> Evaluation:
    """Return one of the size that the judge's are."""
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


def fill(store: Store, run: Run, attempts: int, sizes: Sequence[int]) -> None:
    """Write ``attempts`` attempts and print a line at each of ``sizes``."""
    source = seed_source("mha")
    best = 100.0
    spent: dict[str, list[float]] = defaultdict(list)
    for number in range(attempts):
        marks = [time.perf_counter()]
        now = datetime.now(UTC)
        step = store.claim_step(run.id, worker="w0", operator="bench", now=now)
        marks.append(time.perf_counter())
        history = store.history(run.id)
        marks.append(time.perf_counter())
        faster = number % ACCEPTED == 0
        best *= 1.02 if faster else 1.0
        candidate = Candidate("mha", f"{source}\nNUMBER = {number}\n")
        digest = candidate.digest
        found = evaluation(best if faster else best * 0.9, number)
        marks.append(time.perf_counter())
        assert store.announce(step.id, digest, now=now)
        marks.append(time.perf_counter())
        assert store.known_attempt(run.id, digest) is None
        marks.append(time.perf_counter())
        parents = (history.versions[-1].number,) if history.versions else ()
        attempt = record(store, step, candidate, found, parents)
        marks.append(time.perf_counter())
        finish(store, step, attempt, parents)
        marks.append(time.perf_counter())
        took = [after - before for before, after in pairwise(marks)]
        del took[2]  # making the candidate, which is the operator's
        for part, seconds in zip(PARTS, took, strict=True):
            spent[part].append(seconds)
        if number + 1 in sizes:
            report(store, number + 1, spent)


def record(store: Store, step: Step, candidate: Candidate, found: Evaluation, parents: tuple[int, ...]) -> Attempt:
    """Record an attempt."""
    now = datetime.now(UTC)
    return store.record_attempt(
        step_id=step.id,
        candidate=candidate,
        change="BLOCK_M 64 -> 128",
        parents=parents,
        evaluation=found,
        started=now,
        finished=now,
    )


def finish(store: Store, step: Step, attempt: Attempt, parents: tuple[int, ...]) -> Version | None:
    """Finish a step."""
    return store.conclude_step(
        step.id,
        attempt_id=attempt.id,
        parents=parents,
        reason="tried",
        now=datetime.now(UTC),
        decide=lambda versions, submitted: accepts(versions, submitted, 0.01),
    )


def report(store: Store, size: int, spent: dict[str, list[float]]) -> None:
    """Print what each part took lately, in ms, and how large the database is."""
    figures = [1e3 * statistics.median(spent[part][-WINDOW:]) for part in PARTS]
    columns = "".join(f"{figure:>10.2f}" for figure in figures)
    print(f"{size:>9,}{columns}{sum(figures):>10.2f}{megabytes(store.url):>9.0f}", flush=True)


def megabytes(url: str) -> float:
    """Return the size of a database."""
    if url.startswith("sqlite:///"):
        return os.path.getsize(url.removeprefix("sqlite:///")) / 1e6
    import psycopg

    with psycopg.connect(url.replace("+psycopg", "")) as connection:
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
    parser.add_argument("--attempts", type=int, default=SIZES[-1])
    parser.add_argument("--url", help="an empty PostgreSQL database; default: an SQLite file in a new folder")
    parser.add_argument("--folder", type=Path, help="where the new folder is made; default: the temporary folder")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        kernel = subprocess.run(["uname", "-sr"], capture_output=True, text=True, check=True).stdout.strip()
        print(f"{os.cpu_count()} CPUs, {kernel}, fdatasync of 4 KiB {fsync_ms(Path(folder)):.2f} ms")
        url = given.url or f"{folder}/lineage.db"
        print("postgresql" if given.url else "sqlite")
        print(" attempts" + "".join(f"{part:>10}" for part in PARTS) + "       sum       MB   (ms, medians)")
        with Store.open(url) as store:
            run = store.create_run(
                name=store.free_run_name("bench"), problem="mha", target="h100", suite="quick", operator="bench",
                seed=0, config={"start": {"source": seed_source("mha")}}, now=datetime.now(UTC),
            )  # fmt: skip
            fill(store, run, given.attempts, [size for size in (100, *SIZES) if size <= given.attempts])


if __name__ == "__main__":
    main()
