"""Where a run has a measurement, every display has it beside the prediction; where it has none, none is changed."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from textual.pilot import Pilot

from avo.lineage_db.store import Store
from avo.report.reading import read_report
from avo.report.render import to_html, to_markdown
from avo.tui.app import AvoApp
from avo.watch.wording import briefly_measured
from avo.watch.wording import measured as in_words
from tests.avo.cli.conftest import Avo
from tests.avo.cli.conftest import avo as avo
from tests.avo.cli.conftest import sample_db as sample_db
from tests.avo.export.sample import chosen, passed
from tests.avo.sample_run import START, make_sample_run
from tests.avo.shortlisted import measured
from tests.avo.tui.playing import page, until
from tests.evaluator.test_confirmation import A100

BRIEF = "588 measured, confirmed"
WORDS = "confirmed: 588 (588 to 589) TFLOPS measured on NVIDIA H100 80GB HBM3, 2.26 of the predicted 260; 1.177"


@pytest.fixture
def db(tmp_path: Path) -> str:
    """A database with the run mha-h100 and a measurement of its v0 and v3."""
    path = str(tmp_path / "lineage.db")
    with Store.open(path) as store:
        store.measurements.ingest(measured(store, make_sample_run(path), factor=0.85), now=START)
    return path


def test_lineage_and_show_have_the_measured_figure_and_the_word(avo: Avo, db: str) -> None:
    lines = avo("lineage", "mha-h100", "--db", db).stdout.splitlines()
    assert "ON A CARD" in lines[1]
    assert "PREDICTED" in lines[1]
    assert BRIEF in lines[5]
    assert " unmeasured " in lines[3]
    found = [line["measured"] for line in json.loads(avo("lineage", "mha-h100", "--db", db, "--json").stdout)]
    assert [each and each["finding"]["confirmation"] for each in found] == ["confirmed", None, None, "confirmed"]
    assert WORDS in avo("show", "mha-h100", "--db", db).stdout
    assert "\nunmeasured: avo shortlist mha-h100\n" in avo("show", "mha-h100@1", "--db", db).stdout
    assert json.loads(avo("show", "mha-h100", "--db", db, "--json").stdout)["measured"] == found[3]
    for command in ("lineage", "show"):
        assert "measured" not in avo(command, "mha-h100").stdout.replace("not measured", "")


def test_what_cannot_be_told_is_not_called_measured(db: str) -> None:
    with Store.open(db) as store:
        for name, other in (("other", {"card": A100}), ("short", {"rounds": 4})):
            made = measured(store, "mha-h100", **other)  # type: ignore[arg-type]
            store.measurements.ingest(made, now=START)
            fast = next(e for e in store.measurements.of_run(1) if (e.digest, e.finding.entrant) == (made.digest, "v3"))
            assert " measured" not in in_words(fast, "mha-h100"), name
            assert briefly_measured(fast).startswith("unmeasured: 55"), name
            assert ("of the predicted" in in_words(fast, "mha-h100")) == (name == "short")


async def test_the_ui_shows_it_in_the_tree_and_in_the_detail_once_it_is_there(db: str, tmp_path: Path) -> None:
    plain = str(tmp_path / "plain.db")
    app = AvoApp(plain, make_sample_run(plain), poll_s=0.02)
    async with app.run_test(size=(160, 40)) as pilot:

        def shows(words: str, pilot: Pilot[None] = pilot) -> bool:
            return words in " ".join(page(pilot).split())

        await until(pilot, lambda: shows("★ v3"))
        assert not shows("TFLOPS measured")
        with Store.open(plain) as store:
            store.measurements.ingest(measured(store, "mha-h100", factor=0.85), now=START)
        await until(
            pilot,
            lambda: shows(f"★ v3 {BRIEF}") and shows("v1 unmeasured") and shows("confirmed: 588 (588 to 589) TFLOPS"),
        )


def test_the_report_no_longer_says_that_nothing_was_measured(db: str, tmp_path: Path) -> None:
    with Store.read(db) as store:
        report = read_report(store, "mha-h100", START)
    html, text = to_html(report, START), to_markdown(report, START)
    assert html.count(WORDS) == 1, "in the lineage"
    assert '<td class="n">588 (588 to 589)</td><td class="n">2.26</td>' in html, "in the section of cases"
    assert "Measured 588 (588 to 589) TFLOPS on NVIDIA H100 80GB HBM3: confirmed:" in html, "on top"
    assert f"{BRIEF}: BLOCK_N" in html
    assert "2 kernels later ran on a card" in html
    assert "none was measured" not in html
    assert f"- v3: {WORDS}" in text


def test_an_exported_package_says_it_in_its_readme_and_provenance(db: str) -> None:
    from avo.export.package import render_package

    with Store.read(db) as store:
        run, told = store.run("mha-h100"), store.measurements.told(1)[8]
        version = chosen(run, store.versions(run.id), told=told)
    files = render_package("mine", [passed(version, 260.0, 250.0)], datetime(2026, 1, 1, tzinfo=UTC))
    readme = " ".join(files["README.md"].split())
    assert WORDS in readme
    assert "not measured on a GPU" not in readme
    assert "| quick | 8k-full | 260 | 588 |" in readme
    (kernel,) = json.loads(files["build/torch-universal/mine/provenance.json"])["kernels"]
    assert kernel["measured"]["finding"]["confirmation"] == "confirmed"
