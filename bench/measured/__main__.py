"""Compare the performance model with published measurements, without writing anything.

python -m bench.measured                       the tables, as bench.model puts them into docs/performance-model.md
python -m bench.measured mm attention          of some families only, and without the searches
python -m bench.measured --points mm           each measurement too
"""

import argparse

from bench.measured.families import FAMILIES
from bench.measured.statistics import judged
from bench.model import measured, searches


def main() -> None:
    """Print what is asked for."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m bench.measured", description=__doc__, formatter_class=raw)
    parser.add_argument("family", nargs="*", help=", ".join(FAMILIES))
    parser.add_argument("--points", action="store_true", help="print each measurement")
    parser.add_argument("--processes", type=int, default=2)
    asked = parser.parse_args()
    if unknown := set(asked.family) - set(FAMILIES):
        parser.error(f"no family is called {min(unknown)}: there are {', '.join(FAMILIES)}")
    names = tuple(asked.family) or tuple(FAMILIES)
    if asked.points:
        for each in judged(names, asked.processes):
            half = "held out" if each.held_out else "fitted"
            times = f"{each.measured_us:10.1f} {each.us:10.1f} ({each.low_us:.1f} to {each.high_us:.1f})"
            print(f"{times} {each.ratio:5.2f} {each.limiter:8} {half:8} {each.card} {each.family}: {each.label}")
    print("\n".join(measured(names, asked.processes)))
    if not asked.family:
        print("\n" + "\n".join(searches(asked.processes)))


if __name__ == "__main__":
    main()
