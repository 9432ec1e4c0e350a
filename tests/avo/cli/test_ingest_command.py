"""What a card measured comes home: taken in once, shown beside what was predicted, and refused with a reason."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import Result

from avo.cli.common import load
from avo.cli.run import _start
from avo.config import START as START_OF
from avo.config import RunConfig
from avo.lineage_db.store import Store
from tests.avo.sample_run import START, make_sample_run
from tests.avo.shortlisted import measured, sealed

Avo = Callable[..., Result]


@pytest.fixture
def db(tmp_path: Path) -> str:
    """A database with the run mha-h100, and beside it what was measured of its v0 and v3."""
    path = str(tmp_path / "lineage.db")
    make_sample_run(path)
    with Store.open(path) as store:
        made = measured(store, "mha-h100", factor=0.85)
        (tmp_path / "measured.json").write_text(made.to_json())
        start, fast, *others = made.entrants
        foreign = replace(made, entrants=(start, replace(fast, digest="9" * 64), *others))
        (tmp_path / "foreign.json").write_text(sealed(foreign).to_json())
        (tmp_path / "gone.json").write_text(sealed(replace(made, run="gone")).to_json())
        (tmp_path / "edited.json").write_text(made.to_json().replace('"attempt": 8', '"attempt": 7'))
        (tmp_path / "other.json").write_text("[" * 10**5)
    return path


def test_what_was_measured_stands_beside_what_was_predicted(avo: Avo, db: str) -> None:
    lines = [" ".join(line.split()) for line in avo("ingest", "measured.json", "--db", db).stdout.splitlines()]
    assert lines[1] == "KERNEL OR LIBRARY PREDICTED RANGE MEASURED QUARTILES OF PREDICTED TIMES v0 VERDICT"
    assert lines[2].startswith("v0 100 90.0 to 120 500 499 to 500 5.00 1.000 confirmed it ran right")
    assert lines[3].startswith("v3 260 234 to 312 588 588 to 589 2.26 1.177 confirmed 1.177 times as fast")
    assert lines[4] == "SDPA, cuDNN 2.11 455 0.909"
    assert lines[5] == "1 of 1 pairs of kernels are in the predicted order, 0 of 2 kernels in the predicted range"
    assert lines[6].startswith("NVIDIA H100 80GB HBM3, 2026-12-02T01:00:00+00:00, driver")
    assert lines[6].endswith("1700 to 1700 MHz, 60 to 60 C, 650 to 650 W of 700 W")


def test_a_file_is_taken_in_once(avo: Avo, db: str) -> None:
    first, again = (avo("ingest", "measured.json", "--db", db, "--json") for _ in range(2))
    (one,), (two,) = json.loads(first.stdout), json.loads(again.stdout)
    assert (one.pop("new"), two.pop("new"), one == two, again.exit_code) == (True, False, True, 0)
    assert again.stderr == "avo: measured.json was taken in before: nothing has changed\n"
    assert [each["finding"]["confirmation"] for each in one["kernels"]] == ["confirmed", "confirmed"]
    with Store.read(db) as store:
        assert len(store.measurements.of_run(1)) == 2


@pytest.mark.parametrize(
    ("file", "why"),
    [
        ("foreign.json", "foreign.json: its v3 is not attempt 8 here: it was measured for another run"),
        ("gone.json", "gone.json: no run 'gone': choose one of mha-h100"),
        ("edited.json", "edited.json: it was changed after measure.py wrote it: its digest does not fit"),
        ("other.json", "other.json: "),
        ("none.json", "cannot read none.json: No such file or directory"),
        ("lineage.db", "lineage.db: it is not JSON: is it whole?"),
    ],
)
def test_what_is_no_measurement_of_a_run_here_is_refused_in_a_line(avo: Avo, db: str, file: str, why: str) -> None:
    result = avo("ingest", file, "--db", db)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"avo: {why}")
    assert result.stderr.count("\n") == 1
    with Store.read(db) as store:
        assert store.measurements.of_run(1) == []


def test_what_was_measured_fastest_has_a_name_and_a_run_goes_on_from_it(avo: Avo, db: str) -> None:
    refused = avo("show", "mha-h100@measured", "--db", db)
    assert (refused.exit_code, "avo: nothing was measured of 'mha-h100'" in refused.stderr) == (2, True)
    with Store.open(db) as store:
        for factor, fastest in ((0.85, 3), (1.2, 0)):
            made = replace(measured(store, "mha-h100", factor=factor), began=f"2026-12-0{factor * 5:.0f}")
            store.measurements.ingest(sealed(made), now=START)
            found = load(store, "mha-h100@measured")
            assert (found.label, found.version) == (f"mha-h100@{fastest}", store.version(1, fastest))
        start = _start(store, RunConfig(problem="mha", target="h100"), "mha-h100@measured", None)[START_OF]
        assert start == [{"origin": "mha-h100@0", "source": store.version(1, 0).attempt.source}]
