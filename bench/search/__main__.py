"""Is ``mutate`` better than a tuner? Runs of ``mutate``, of Optuna's TPE and of random search over the same moves.

python -m bench.search                                     does the runs that are missing: many hours
python -m bench.search --problem mha --operator mutate     does some of them
python -m bench.search --write                             does none, and puts table and picture into docs/search.md

Each run has one worker and ends when its best version has 98% of the best score known (bench/known), or after 60
attempts. Its record is a file in --records. A record counts as missing once the best score known is another, because a
better kernel was found or the model has changed. A run that was stopped is done again, but what the judge said is kept
in --answers, so that it takes little time; all runs share these answers. Every speed is predicted, on the suite quick.
"""

import argparse
import multiprocessing
import os
from functools import partial
from pathlib import Path

from bench.search import curves
from bench.search.remembering import ROOT
from bench.search.runs import OPERATORS, PROBLEMS, TARGETS, make, places, read
from bench.tables import put

HERE = Path(__file__).parent
PAGE, PICTURE = ROOT / "docs" / "search.md", ROOT / "docs" / "pictures" / "search.svg"


def main() -> None:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.search", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--problem", nargs="+", choices=PROBLEMS, default=PROBLEMS)
    parser.add_argument("--target", nargs="+", choices=TARGETS, default=TARGETS)
    parser.add_argument("--operator", nargs="+", choices=OPERATORS, default=OPERATORS)
    parser.add_argument("--seeds", type=int, default=5, help="how many of the seeds, from 0")
    parser.add_argument("--records", type=Path, default=HERE / "records")
    parser.add_argument("--answers", type=Path, default=ROOT / ".avo" / "search")
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--write", action="store_true", help="run nothing, write the page")
    asked = parser.parse_args()
    if not asked.write:
        wanted = [each for each in places(asked.problem, asked.target, asked.operator) if each.seed < asked.seeds]
        with multiprocessing.get_context("spawn").Pool(asked.processes, maxtasksperchild=1) as pool:
            for _ in pool.imap_unordered(partial(make, records=asked.records, answers=asked.answers), wanted):
                pass
    found = read(asked.records, asked.answers)
    table = "\n".join(curves.table(found))
    print(table)
    if asked.write:
        PICTURE.write_text(curves.draw(found))
        PAGE.write_text(put(PAGE.read_text(), "bench.search: reached", table))


if __name__ == "__main__":
    main()
