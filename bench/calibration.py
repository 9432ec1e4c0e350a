"""Calibrate by published measurements as if each publication were a card: what half of it says of the other half.

python -m bench.calibration             prints the table
python -m bench.calibration --write     also puts it into docs/performance-model.md, between its markers
"""

from avo.evaluator.performance import Timing
from avo.evaluator.performance.calibrating import (
    CONSTANTS,
    LEAST_KERNELS,
    Agreement,
    Timed,
    calibrate,
    figures_at,
    with_figures,
)
from avo.evaluator.target import TARGETS, Fitted, Target
from bench.measured.points import Row
from bench.measured.statistics import every_row
from bench.model import DOCUMENT
from bench.tables import Table, head, main, row


def halves() -> Table:
    """Errors on the half that is not fitted to, from the card's published constants, and from slow ones."""
    yield from head(
        "publication", "card", "kernels", "times", "determined", "error before / after", "pairs in order",
        "determined from slow constants", "error before / after",
    )  # fmt: skip
    publications: dict[str, list[Row]] = {}
    for each in every_row():
        publications.setdefault(str(each.problem[0]), []).append(each)
    for name, rows in publications.items():
        times, card = [_timed(each) for each in rows], rows[0].source.card
        if len({each.kernel for each in times}) < LEAST_KERNELS:
            continue
        cells: list[object] = []
        for base in (TARGETS[card], _slowed(TARGETS[card])):
            found = calibrate(times, base)
            determined = ", ".join(each.name for each in found.constants if each.found) or "none"
            cells += [determined, f"{found.before.error:.1%} / {found.after.error:.1%}"]
            if base is TARGETS[card]:
                cells.append(_orders(found.before, found.after))
        yield row(name, card, found.kernels, found.times, *cells)


def _timed(each: Row) -> Timed:
    """Return a row as a time of a kernel: of the package Liger a row is a size, of others a configuration."""
    kernel = each.label.split(",")[0] if each.family == "liger" else each.label
    launches = tuple(launch.work for launch in each.launches)
    timing = Timing(each.source.cold, each.source.graph)
    return Timed(kernel, str(each.problem[1:]), launches, each.least_bytes, each.measured_us, timing)


def _slowed(card: Target) -> Target:
    """Return a card of whose constants the slow ends were published, with ranges as far to both sides."""
    published = (each for name in CONSTANTS for each in figures_at(card, name))
    return with_figures(
        card, [Fitted(each.name, each.slow, 2 * each.slow - each.value, each.value) for each in published]
    )


def _orders(*found: Agreement) -> str:
    return " / ".join("" if each.order is None else f"{each.order:.0%}" for each in found).strip(" /")


if __name__ == "__main__":
    main("bench.calibration", __doc__, {"halves": halves}, DOCUMENT)
