"""What was measured of a run's kernels: kept whole, once, for the run that it was measured of; which figure tells."""

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select

from avo.evaluator.confirmation import Confirmation, findings
from avo.evaluator.measurement import BadMeasurement, Measurement
from avo.lineage_db.errors import ForeignMeasurement, NothingMeasured, UnknownRun
from avo.lineage_db.records import Run
from avo.lineage_db.store import Store
from avo.lineage_db.tables import measurements
from tests.avo.shortlisted import measured, sealed
from tests.decisions import accept
from tests.evaluator.test_confirmation import A100

DAY = timedelta(days=1)


@pytest.fixture
def run(store: Store, make: Any) -> Run:
    """A run with versions 0 and 1, which are its attempts 1 and 2."""
    run: Run = make.run(store)
    make.version(store, run, 400.0)
    step = make.step(store, run)
    attempt = make.attempt(store, step, 500.0, "x = 2\n", parents=(0,))
    make.conclude(store, step, attempt, parents=(0,), decide=accept)
    return run


def test_a_measurement_is_kept_whole_and_once(store: Store, run: Run, make: Any) -> None:
    made = measured(store, run.name)
    before = store.revision(run.id)
    assert store.measurements.ingest(made, now=make.now + DAY)
    assert store.revision(run.id) == (before[0], before[1] + 1), "displays notice"
    assert store.run(run.name) == run, "the run itself did nothing"
    assert not store.measurements.ingest(made, now=make.now + DAY)
    with store.measurements._database.transaction() as connection:
        (kept,) = connection.scalars(select(measurements.c.content))
    assert Measurement.from_json(json.dumps(kept)) == made
    found = store.measurements.of_run(run.id)
    assert [each.finding for each in found] == list(findings(made))
    assert {(each.card, each.uuid, each.unlike, each.digest) for each in found} == {
        ("NVIDIA H100 80GB HBM3", "GPU-1", "", made.digest)
    }
    assert [each.finding.confirmation for each in found] == [Confirmation.CONFIRMED] * 2


def test_only_measurements_of_the_runs_own_kernels_are_taken(store: Store, run: Run, make: Any) -> None:
    other = make.run(store, "other")
    made = measured(store, run.name)
    start, fast, *_ = made.entrants

    def refused(why: str, **changes: Any) -> None:
        with pytest.raises(ForeignMeasurement, match=why):
            store.measurements.ingest(sealed(replace(made, **changes)), now=make.now)

    refused("its v0 is not attempt 1 here: it was measured for another run called 'other'", run="other")
    refused("its v1 is not attempt 2 here", entrants=(start, replace(fast, digest="2" * 64)), samples=())
    refused("its v1 is not attempt 9 here", entrants=(start, replace(fast, attempt=9)), samples=())
    refused("its v7 is attempt 2, which has another name", entrants=(start, replace(fast, name="v7")), samples=())
    refused("its a2 is attempt 2, which has another name", entrants=(start, fast, replace(fast, name="a2")), samples=())
    refused("the run did not begin with v1", start="v1")
    refused("its predictions are for b200, not for h100", target="b200")
    with pytest.raises(UnknownRun, match="no run 'gone': choose one of other, mha-h100"):
        store.measurements.ingest(sealed(replace(made, run="gone")), now=make.now)
    with pytest.raises(BadMeasurement, match="'yesterday', which is no time"):
        store.measurements.ingest(sealed(replace(made, began="yesterday")), now=make.now)
    assert [store.measurements.of_run(each.id) for each in (run, other)] == [[], []]
    older = sealed(replace(made, entrants=(start, replace(fast, name="a2")), samples=()))
    assert store.measurements.ingest(older, now=make.now), "it has become a version since"


def later(store: Store, run: Run, day: int, **options: Any) -> Measurement:
    return sealed(replace(measured(store, run.name, **options), began=f"2026-12-{day:02}T01:00:00+00:00"))


def test_the_newest_verdict_tells_and_what_is_no_verdict_only_where_there_is_none(
    store: Store, run: Run, make: Any
) -> None:
    days: list[tuple[dict[str, Any], str, int]] = [
        ({"rounds": 0}, "unmeasured", 1),
        ({"rounds": 4}, "unmeasured", 2),  # has a figure
        ({"rounds": 0}, "unmeasured", 2),
        ({"rounds": 12}, "confirmed", 4),
        ({"rounds": 12, "card": A100, "status": "crashed"}, "confirmed", 4),
        ({"rounds": 12, "status": "incorrect"}, "refuted", 6),
    ]
    for day, (options, confirmation, told) in enumerate(days, 1):
        store.measurements.ingest(later(store, run, day, **options), now=make.now)
        fast = store.measurements.told(run.id)[2]
        assert (fast.finding.confirmation, fast.made.day) == (confirmation, told)


def test_the_fastest_is_that_of_the_newest_measurement_on_a_card_like_the_target(
    store: Store, run: Run, make: Any
) -> None:
    with pytest.raises(NothingMeasured, match="nothing was measured of 'mha-h100'"):
        store.measurements.fastest(run)
    store.measurements.ingest(later(store, run, 1, card=A100), now=make.now)
    with pytest.raises(NothingMeasured, match="only something on NVIDIA A100 was measured of 'mha-h100'"):
        store.measurements.fastest(run)
    for day, options, fastest in (
        (2, {"factor": 0.9}, 2),
        (3, {"factor": 1.1}, 1),
        (4, {"factor": 0.5, "status": "incorrect"}, 1),
        (5, {"rounds": 0}, 1),
    ):
        store.measurements.ingest(later(store, run, day, **options), now=make.now)
        assert store.measurements.fastest(run) == fastest
