"""Is ``mutate`` better than a tuner? Runs of ``mutate``, of Optuna's TPE and of random search over the same moves.

python -m bench.search                                     does the runs that are missing: some hours
python -m bench.search --problem mha --operator mutate     does some of them
python -m bench.search --gluon                             does those of mutate that start from the seeds in Gluon too
python -m bench.search --write                             does none, and puts tables and picture into docs/search.md

Each run has one worker and ends when its best attempt has 98% of the best score known (bench/known), or after 60
attempts; a tuner's after three times those of mutate. Its record is a file in --records. A record counts as missing
once the best score known is another, because a better kernel was found or the model has changed. A run that was stopped
is done again, but what the judge said is kept in --answers, so that it takes little time; all runs share these answers.
Every speed is predicted, on the suite quick.
"""

import argparse
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from itertools import product
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from pathlib import Path

from bench.search import curves
from bench.search.remembering import ROOT
from bench.search.runs import OPERATORS, PROBLEMS, SEEDS, TARGETS, Cell, Place, Record, best_known, make, read
from bench.search.schedule import missing, next_run, places, time_left
from bench.tables import put

HERE = Path(__file__).parent
PAGE, PICTURE = ROOT / "docs" / "search.md", ROOT / "docs" / "pictures" / "search.svg"

TABLES = {"reached": False, "reached with Gluon": True}
"""Tables of the page by name, and whether they are of runs that start from the seeds in Gluon too."""

Known = dict[Cell, float]


def perform(
    wanted: Sequence[Place],
    known: Known,
    records: Path,
    answers: Path,
    processes: int,
    run: Callable[..., Record] = make,
) -> None:
    """Do the runs that are missing, each in a process of its own by ``run``, and print how far they are.

    One that fails is not done again, and the others go on.
    """
    context = multiprocessing.get_context("spawn")
    running: dict[SpawnProcess, tuple[Place, float]] = {}
    took: list[tuple[Place, float]] = []
    failed: list[Place] = []
    while True:
        found = {record.place: record for record in read(records, known)}
        while len(running) < processes:
            due = next_run(wanted, found, [*failed, *(place for place, _ in running.values())])
            if due is None:
                break
            place, most = due
            arguments = (place, known[place.cell], most, records, answers)
            process = context.Process(target=run, args=arguments, daemon=True)
            process.start()
            running[process] = place, time.monotonic()
        if not running:
            break
        ended = wait([process.sentinel for process in running])
        for process in [process for process in running if process.sentinel in ended]:
            process.join()  # a sentinel can be ready before the process has ended
            place, began = running.pop(process)
            if process.exitcode:
                failed.append(place)
                print(f"{place.name}: failed, and is left out", flush=True)
            else:
                took.append((place, time.monotonic() - began))
        found = {record.place: record for record in read(records, known)}
        print(_progress(wanted, found, time_left(wanted, found, took, processes)), flush=True)
    waiting = [place.name for place in wanted if missing(place, found)]
    if waiting:
        print(f"not run, as they or the runs of mutate that they wait for failed: {', '.join(waiting)}")


def _progress(wanted: Sequence[Place], found: dict[Place, Record], left: float | None) -> str:
    there = sum(not missing(place, found) for place in wanted)
    about = "" if left is None else f", about {left / 60:.0f} min left"
    return f"{there} of {len(wanted)} runs are in{about}"


def main() -> None:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.search", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--problem", nargs="+", choices=PROBLEMS[False])
    parser.add_argument("--target", nargs="+", choices=TARGETS, default=TARGETS)
    parser.add_argument("--operator", nargs="+", choices=OPERATORS)
    parser.add_argument(
        "--gluon", action="store_true", help="start from all seeds, held against the best kernel of any kind"
    )
    parser.add_argument("--seeds", type=int, default=len(SEEDS), help="how many of the seeds, from 0")
    parser.add_argument("--records", type=Path, default=HERE / "records")
    parser.add_argument("--answers", type=Path, default=ROOT / ".avo" / "search")
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--write", action="store_true", help="run nothing, write the page")
    asked = parser.parse_args()
    operators = asked.operator or (OPERATORS[:1] if asked.gluon else OPERATORS)
    if not asked.write and set(operators) != {"mutate"} and find_spec("optuna") is None:
        parser.error("tpe and random need optuna: pip install -e '.[dev]', or --operator mutate")
    if asked.gluon and "fsa" in (asked.problem or ()):
        parser.error("fsa has no seed in Gluon: leave out --gluon, or --problem fsa")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the runs end with this process
    wanted = places(asked.problem or PROBLEMS[asked.gluon], asked.target, operators, asked.seeds, asked.gluon)
    if asked.write:
        cells = {cell for gluon in TABLES.values() for cell in product(PROBLEMS[gluon], TARGETS, [gluon])}
    else:
        cells = {place.cell for place in wanted}
    known = {cell: best_known(cell, asked.answers) for cell in cells}
    if not asked.write:
        perform(wanted, known, asked.records, asked.answers, asked.processes)
    found = read(asked.records, known)
    page = PAGE.read_text()
    for name, gluon in TABLES.items():
        if asked.write or gluon == asked.gluon:
            table = "\n".join(curves.table(found, gluon))
            print(table, end="\n\n")
            page = put(page, f"bench.search: {name}", table)
    if asked.write:
        PICTURE.write_text(curves.draw(found))
        PAGE.write_text(page)


if __name__ == "__main__":
    main()
