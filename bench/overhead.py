"""What the framework itself costs an attempt.

    python -m bench.overhead [--attempts N] [--workers N ...]
    python -m bench.overhead --display --before 100000 --attempts 2000 --workers 2

Runs real worker processes under Ray with an evaluator and an operator that take no time, so what is left is everything
but evaluation and model: leases, briefs, the pool, Ray's calls, the database, the driver. Printed for each number of
workers: milliseconds between attempts, CPU milliseconds of all processes for each, over the second half of the run, and
the resident memory of the driver and of the largest operator worker at a tenth of the run and at its end.

With ``--display`` the driver shows the run on a terminal, and the processor time of a refresh is printed: all that the
threads of the display take in half a second, in which the run is read and drawn once. ``--before`` lengthens the run by
copied attempts first (SQLite only).
"""

import argparse
import os
import tempfile
import threading
import time
from contextlib import nullcontext
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from threading import Event, Thread
from typing import TextIO

from rich.console import Console

from avo.agents.operator import Brief, Proposal
from avo.config import START, RunConfig
from avo.evaluator.candidate import Candidate
from avo.evaluator.catalogue import get_problem
from avo.evaluator.evaluation import CaseScore, Evaluation, Score, Status
from avo.evaluator.fake import FakeEvaluator
from avo.evaluator.target import ScoreKind
from avo.lineage_db.records import Run
from avo.lineage_db.store import Store
from avo.search.run import RunSession, Stop
from avo.search.workers import hire
from avo.watch.progress import RunProgress
from bench.long_run import lengthen

_TICKS = os.sysconf("SC_CLK_TCK")
INTERVAL_S = 0.5
"""Time between two refreshes of the live display."""


class Counting:
    """Submits a source that differs from all others."""

    name = "counting"

    def vary(self, brief: Brief) -> Proposal:
        """Submit a new source."""
        source = f"tflops = 100.0\nseed = {brief.seed}\n"
        parent = brief.versions[-1].number
        return Proposal(brief.evaluate(brief.candidate(source), change="seed", parents=(parent,)), "told")


def verdict(candidate: Candidate) -> Evaluation:
    """Find the seed correct, its wrong variant wrong, and everything else as slow as the seed's slow variant."""
    if "_canary_kernel" in candidate.source:
        return Evaluation(Status.INCORRECT, "a wrong number", "h100", "quick", 0.0)
    tflops = 100.0 if candidate.source == SEED else 50.0
    score = Score(ScoreKind.PREDICTED, "h100", (CaseScore("one", tflops, 1.0, "tensor"),))
    return Evaluation(Status.CORRECT, "", "h100", "quick", 0.0, score, plan_digest=candidate.digest)


SEED = "tflops = 100.0\n"


def relatives(pid: int) -> list[int]:
    """Return ``pid`` and its descendants."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
    found, new = [pid], {pid}
    while new := {child for child, parent in parents.items() if parent in new}:
        found += new
    return found


def cpu_seconds(pids: list[int]) -> float:
    """Return the CPU seconds of those processes that still exist."""
    total = 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += int(fields[11]) + int(fields[12])
    return total / _TICKS


def megabytes(pid: int) -> float:
    """Return the resident memory of a process."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    except OSError:
        return 0.0


def operators(pids: list[int]) -> list[int]:
    """Return the processes that are operator workers."""
    found = []
    for pid in pids:
        try:
            if b"OperatorWorker" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
        except OSError:
            continue
    return found


def display_seconds() -> float:
    """Return the processor time of the threads that read and draw the live display in this process."""
    return sum(
        time.clock_gettime(time.pthread_getcpuclockid(thread.ident))
        for thread in threading.enumerate()
        if thread.ident and (thread.name == "progress" or type(thread).__name__ == "_RefreshThread")
    )


class Watch:
    """Observes the run and its processes from a thread: at a tenth, at half and at the end."""

    def __init__(self, url: str, run_id: int, attempts: int) -> None:
        self.seen: dict[float, tuple[float, float, int, float, float]] = {}
        self.display: dict[float, float] = {}
        """Processor time of the display's threads so far."""
        self._arguments = url, run_id, attempts
        self._over = Event()
        self._thread = Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        url, run_id, attempts = self._arguments
        with Store.open(url, create=False) as store:
            last = store.count_attempts(run_id)[1]
            for share in (0.1, 0.5, 0.98):
                while store.count_attempts(run_id, after=last)[0] < share * attempts and not self._over.wait(0.2):
                    pass
                pids = relatives(os.getpid())
                largest = max((megabytes(pid) for pid in operators(pids)), default=0.0)
                count = store.count_attempts(run_id)[0]
                self.display[share] = display_seconds()
                self.seen[share] = (time.time(), cpu_seconds(pids), count, megabytes(os.getpid()), largest)

    def close(self) -> None:
        """Stop looking."""
        self._over.set()
        self._thread.join()


def measure(url: str, workers: int, attempts: int, before: int, *, display: bool) -> None:
    """Do a run and print its line."""
    config = RunConfig(workers=workers, max_attempts=attempts, max_steps=10**9)  # so that steps are counted, too
    with Store.open(url) as store:
        now = datetime.now(UTC)
        run = store.create_run(
            name=store.free_run_name("overhead"), problem="mha", target="h100", suite="quick", operator="counting",
            seed=0, config={**config.model_dump(), START: [{"origin": "seed", "source": SEED}]}, now=now,
        )  # fmt: skip
        if before:
            perform(store, run, config.model_copy(update={"max_attempts": 2}))
            lengthen(Path(store.url.removeprefix("sqlite:///")), before, accepted_every=500)
            config = config.model_copy(update={"max_attempts": store.count_attempts(run.id)[0] + attempts})
        watch = Watch(store.url, run.id, attempts)
        with Path(os.devnull).open("w") as nobody, show(store, run, nobody) if display else nullcontext():
            perform(store, run, config)
        watch.close()
    (_, _, _, driver, worker), (then, cpu, made, _, _), (now_, cpu_now, after, driver_now, worker_now) = (
        watch.seen[share] for share in (0.1, 0.5, 0.98)
    )
    made = after - made
    spent = (watch.display[0.98] - watch.display[0.5]) / (now_ - then) * INTERVAL_S
    print(
        f"{workers:>7}{1e3 * (now_ - then) / made:>14.1f}{1e3 * (cpu_now - cpu) / made:>14.1f}"
        f"{driver:>12.0f} -> {driver_now:<6.0f}{worker:>8.0f} -> {worker_now:<6.0f}"
        f"{f'{1e3 * spent:>10.1f}' if display else ''}",
        flush=True,
    )


def perform(store: Store, run: Run, config: RunConfig) -> None:
    """Work on the run until it has as many attempts as ``config`` says."""
    RunSession(
        store,
        run,
        config,
        deadline=None,
        hire=partial(
            hire, store.url, run.name, config, make_operator=Counting, make_evaluator=partial(FakeEvaluator, verdict)
        ),
        stop=Stop(),
        say=print,
    ).drive()


def show(store: Store, run: Run, file: TextIO) -> RunProgress:
    """Return the live display of the run, for a terminal that writes to ``file``."""
    console = Console(file=file, force_terminal=True, width=100, height=50)
    baselines = get_problem(run.problem).baselines
    return RunProgress(store_url=store.url, run_name=run.name, console=console, baselines=baselines)


def main() -> None:
    """Measure each number of workers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--attempts", type=int, default=10_000)
    parser.add_argument("--workers", type=int, nargs="+", default=[2, 8])
    parser.add_argument("--url", help="a PostgreSQL database; default: an SQLite file in a new folder")
    parser.add_argument("--before", type=int, default=0, help="attempts that the run has made before")
    parser.add_argument("--display", action="store_true", help="show the run on a terminal")
    given = parser.parse_args()
    if given.before and given.url:
        parser.error("--before copies rows by SQLite: leave out --url")
    print(f"{os.cpu_count()} CPUs, {given.attempts} attempts, {'postgresql' if given.url else 'sqlite'}")
    head = "workers    ms/attempt    CPU ms/att.     driver MB        operator MB"
    print(f"{head}   CPU ms/refresh, {given.before} attempts before" if given.display else head)
    for workers in given.workers:
        with tempfile.TemporaryDirectory() as folder:
            url = given.url or f"{folder}/lineage.db"
            measure(url, workers, given.attempts, given.before, display=given.display)


if __name__ == "__main__":
    main()
