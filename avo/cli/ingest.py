"""``avo ingest``: what a card measured of a run's kernels comes home."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from avo.cli.common import DbOption, JsonOption, console, err, fail, open_store, print_json
from avo.watch.tables import one_line, row, table

if TYPE_CHECKING:
    from avo.evaluator.measurement import Measurement
    from avo.lineage_db.measurements import Measured


def ingest(
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="measured.json, as measure.py wrote it.")],
    db: DbOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take in what a card measured of a run's kernels, beside what was predicted.

    measure.py of a shortlist writes it. A file that is no measurement, was edited, or is of kernels that the run does
    not have is refused; those before it stay. One that was taken in before changes nothing, and exit code is 0.

    Example: avo ingest shortlist/measured.json
    """
    from avo.evaluator.measurement import BadMeasurement
    from avo.lineage_db.errors import ForeignMeasurement, UnknownRun

    records = []
    with open_store(db) as store:
        for file in files:
            made = read_measurement(file)
            try:
                new = store.measurements.ingest(made, now=datetime.now(UTC))
            except (BadMeasurement, ForeignMeasurement, UnknownRun) as error:
                fail(f"{file}: {error}")
            if not new:
                err.print(f"avo: {file} was taken in before: nothing has changed")
            found = [each for each in store.measurements.of_run(store.run(made.run).id) if each.digest == made.digest]
            records.append(_record(made, found, new))
            if not as_json:
                _print(made, found, records[-1])
    if as_json:
        print_json(records)


def read_measurement(file: Path) -> "Measurement":
    """Return what measure.py wrote; leave with one line where it is something else."""
    from avo.evaluator.measurement import BadMeasurement, Measurement

    try:
        return Measurement.from_json(file.read_bytes())
    except OSError as error:
        fail(f"cannot read {file}: {error.strerror}")
    except (BadMeasurement, RecursionError) as error:
        fail(f"{file}: {error}")


def _record(made: "Measurement", found: "Sequence[Measured]", new: bool) -> dict[str, Any]:
    from avo.evaluator.confirmation import agreement, times_start

    in_order, pairs = agreement(each.finding for each in found)
    libraries = [
        {
            "name": each.name, "release": each.release, "status": each.status, "message": each.message,
            "tflops": (of := made.reached(each.name)) and of.tflops, "times_start": times_start(made, each.name),
        }
        for each in made.entrants
        if each.attempt is None
    ]  # fmt: skip
    return {
        "run": made.run, "new": new, "conditions": made.conditions(), "kernels": [each.to_json() for each in found],
        "libraries": libraries, "in_predicted_order": in_order, "pairs": pairs,
    }  # fmt: skip


def _print(made: "Measurement", found: "Sequence[Measured]", record: dict[str, Any]) -> None:
    from avo.evaluator.units import unit_of

    unit = unit_of(made.problem, made.suite, made.target)
    title = f"{made.run}: {unit.head}, geometric means of {len(made.cases)} cases of {made.suite}"
    columns = (">PREDICTED", ">RANGE", ">MEASURED", ">QUARTILES", ">OF PREDICTED", f">TIMES {made.start}", "VERDICT")
    shown = table("KERNEL OR LIBRARY", *columns, "", title=title)
    for measured in found:
        each, ours, theirs = measured.finding, measured.finding.measured, measured.finding.predicted
        row(
            shown, each.entrant, unit.cell(theirs.tflops), unit.between(theirs.low, theirs.high),
            ours and unit.cell(ours.tflops), ours and unit.between(ours.low, ours.high),
            (ours and not measured.unlike and f"{each.of_predicted:.2f}") or None,
            each.times_start and f"{each.times_start:.3f}", each.confirmation, each.reason,
        )  # fmt: skip
    for each in record["libraries"]:
        tflops, times = each["tflops"], each["times_start"]
        row(
            shown, f"{each['name']} {each['release']}", "", "", tflops and unit.cell(tflops), "", "",
            times and f"{times:.3f}", "" if each["status"] == "correct" else each["status"], each["message"],
        )  # fmt: skip
    console.print(shown)
    words = f"{record['in_predicted_order']} of {record['pairs']} pairs of kernels are in the predicted order"
    if not any(each.unlike for each in found):
        words += f", {sum(each.finding.within for each in found)} of {len(found)} kernels in the predicted range"
    console.print(f"{words}\n{one_line(record['conditions'])}", soft_wrap=True)
