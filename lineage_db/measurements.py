"""Measurements: what cards measured of a run's kernels, beside what was predicted of them."""

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, bindparam, insert, select

from avo.evaluator.confirmation import Confirmation, Finding, findings, unlike
from avo.evaluator.evaluation import Status
from avo.evaluator.measurement import BadMeasurement, Measurement
from avo.lineage_db import queries
from avo.lineage_db.engine import Part, transactional
from avo.lineage_db.errors import ForeignMeasurement, NothingMeasured
from avo.lineage_db.records import AttemptSummary, Run
from avo.lineage_db.rows import record
from avo.lineage_db.tables import attempts, measurements, runs


@dataclass(frozen=True, slots=True)
class Measured:
    """What one card measured of one kernel, in one call of ``measure.py``."""

    digest: str
    """Of the whole measurement."""
    card: str
    uuid: str
    """Tells the card from all others; empty if its driver did not say."""
    unlike: str
    """Why the card says nothing about the run's target; empty if it is of that kind."""
    made: datetime
    """When it began."""
    finding: Finding

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        finding = {**asdict(self.finding), "of_predicted": self.finding.of_predicted, "within": self.finding.within}
        return {**asdict(self), "made": self.made.isoformat(), "finding": finding}


_OF_RUN = (
    select(*(measurements.c[name] for name in ("digest", "card", "uuid", "unlike", "made", "kernels")))
    .where(measurements.c.run_id == bindparam("run_key"))
    .order_by(measurements.c.made.desc(), measurements.c.id.desc())
)


class Measurements(Part):
    """What was measured of the kernels of runs."""

    @transactional(write=True)
    def ingest(self, connection: Connection, measurement: Measurement, *, now: datetime) -> bool:
        """Add a measurement, whole, and return whether it is new; one that is there already is left as it is.

        Raises ``UnknownRun``, ``ForeignMeasurement`` if a kernel is not that run's, or ``BadMeasurement``.
        """
        found = connection.execute(select(runs).where(runs.c.name == measurement.run)).one_or_none()
        if found is None:
            raise queries.unknown_run(connection, measurement.run)
        run = record(Run, found)
        queries.lock_run(connection, run.id, run.updated)  # the run itself did nothing
        if connection.scalar(select(measurements.c.id).where(measurements.c.digest == measurement.digest)):
            return False
        ids = [each.attempt for each in measurement.kernels]
        known = queries.summaries_where(connection, run.id, attempts.c.id.in_(ids))
        _check(measurement, run, {each.attempt_id: each for each in known})
        values = {
            "run_id": run.id,
            "digest": measurement.digest,
            "card": measurement.card_name,
            "uuid": str(measurement.card.get("uuid") or ""),
            "unlike": unlike(measurement),
            "made": _began(measurement),
            "ingested": now,
            "kernels": [asdict(each) for each in findings(measurement)],
            "content": json.loads(measurement.to_json()),
        }
        connection.execute(insert(measurements).values(values))
        return True

    @transactional()
    def of_run(self, connection: Connection, run_id: int) -> list[Measured]:
        """Return all that was measured of the run's kernels, the newest measurement first."""
        rows = connection.execute(_OF_RUN, {"run_key": run_id})
        return [record(Measured, row, finding=finding) for row in rows for finding in row.kernels]

    def told(self, run_id: int) -> dict[int, Measured]:
        """Return by attempt which of its measurements tells: the newest that confirms or refutes it.

        If none does, it is the newest that has a figure, else the newest.
        """

        def weight(each: Measured) -> tuple[bool, bool, datetime]:
            finding = each.finding
            return finding.confirmation is not Confirmation.UNMEASURED, finding.measured is not None, each.made

        oldest_first = reversed(self.of_run(run_id))  # of a file that grew, the one that was taken in last
        found = {each.finding.attempt_id: each for each in sorted(oldest_first, key=weight)}
        return dict(sorted(found.items()))

    def fastest(self, run: Run) -> int:
        """Return the attempt of the run that was measured fastest, by the geometric mean over the cases.

        What counts is the newest measurement with a right kernel on a card like the run's target: speeds of two days
        are not compared. Raises ``NothingMeasured``.
        """
        found = self.of_run(run.id)
        ran = [each for each in found if each.finding.status == Status.CORRECT and not each.unlike]
        speeds = [(each.finding.measured.tflops, each) for each in ran if each.finding.measured]
        if not speeds:
            raise NothingMeasured(run.name, run.target, sorted({each.card for each in found}))
        newest = [(tflops, each) for tflops, each in speeds if each.digest == speeds[0][1].digest]
        return max(newest, key=lambda pair: pair[0])[1].finding.attempt_id


def _began(measurement: Measurement) -> datetime:
    try:
        began = datetime.fromisoformat(measurement.began)
        return (began if began.tzinfo else began.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise BadMeasurement(f"it began at {measurement.began!r:.60}, which is no time") from None


def _check(measurement: Measurement, run: Run, known: dict[int, AttemptSummary]) -> None:
    """Raise ``ForeignMeasurement`` unless all kernels are attempts of the run, ``known`` by their ids."""
    if measurement.target != run.target:
        raise ForeignMeasurement(run.name, f"its predictions are for {measurement.target}, not for {run.target}")
    seen = set[int]()
    for each in measurement.kernels:
        found = known.get(each.attempt or 0)
        if found is None or found.digest != each.digest:
            raise ForeignMeasurement(run.name, f"its {each.name} is not attempt {each.attempt} here")
        if each.name not in (f"v{found.version}", f"a{found.attempt_id}") or found.attempt_id in seen:
            raise ForeignMeasurement(run.name, f"its {each.name} is attempt {each.attempt}, which has another name")
        if each.name == measurement.start and found.parents:
            raise ForeignMeasurement(run.name, f"the run did not begin with {each.name}")
        seen.add(found.attempt_id)
