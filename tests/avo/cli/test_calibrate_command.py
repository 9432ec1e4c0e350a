"""``avo calibrate``, and runs for the card that it kept."""

import json
import math
import random
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from avo.config import START, RunConfig
from avo.evaluator import known
from avo.evaluator.candidate import Candidate
from avo.evaluator.catalogue import get_problem
from avo.evaluator.judging.judge import Judge
from avo.evaluator.known import CARD, calibrated, figures, keep
from avo.evaluator.measurement import Entrant, MeasuredCase, Measurement, Sample
from avo.evaluator.performance import predict_time
from avo.evaluator.target import TARGETS, Target
from avo.lineage_db.records import Run
from avo.lineage_db.store import Store
from avo.search.judging import Judging
from avo.seeds import seed_source
from tests.avo.cli.conftest import Avo
from tests.avo.fakes import NOW, SEED
from tests.evaluator.test_calibration import CARD as MEASURED_ON
from tests.evaluator.test_calibration import measured
from tests.evaluator.test_known import LAB

FAST = replace(TARGETS["h100"], sustained_clock_ratio=0.92, sustained_clock_range=(0.92, 0.92))
"""The law of the times below: an H100 whose clock falls less than that of others."""


@pytest.fixture(autouse=True)
def cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's file, which is not there yet."""
    monkeypatch.setenv("AVO_CARDS", str(tmp_path / "cards.json"))
    monkeypatch.setattr(known, "_brought", {})
    return tmp_path / "cards.json"


def forget(cards: Path) -> None:
    """Be a process that never saw the file."""
    cards.unlink()
    known._brought.clear()


def of_law(sources: Iterable[str], card: Target) -> Measurement:
    """What ``measure.py`` would find of kernels whose times are those predicted for ``card``, with 2% of noise."""
    problem, chance = get_problem("mha"), random.Random(3)
    entrants, cases, samples = [], {}, []
    with Judge(TARGETS["h100"], "quick") as judge:
        for number, source in enumerate(sources):
            name = f"a{number}"
            entrants.append(Entrant(name, "correct", attempt=number, source=source, predicted={}))
            for plan in judge.planned(Candidate("mha", source)):
                us = predict_time(plan.works, card, least_bytes=problem.least_bytes(plan.case)).us
                cases[plan.case.name] = MeasuredCase(plan.case.name, problem.flops(plan.case), 1.0)
                for session in (1, 2):
                    noisy = us * math.exp(chance.gauss(0, 0.02))
                    samples.append(Sample(session, 1, name, plan.case.name, noisy, noisy))
    return Measurement(
        "s", "r", "mha", "quick", "h100", "a0", MEASURED_ON, {}, "2026-12-02T01:00:00+00:00", 60.0,
        tuple(cases.values()), tuple(entrants), tuple(samples),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["measured.json", "--name", "h100"], "there is a target 'h100' already"),
        (["measured.json", "--name", "a b"], "'a b' is no name for a card"),
        (["nowhere.json"], "cannot read nowhere.json: No such file"),
        (["edited.json"], "edited.json: it was changed after measure.py wrote it"),
        (["measured.json", "--name", "lab"], "those of session 1 of file 1 differ from those of session 2 of file 1"),
    ],
)
def test_what_cannot_be_calibrated_is_one_line_and_keeps_nothing(
    avo: Avo, cards: Path, tmp_path: Path, arguments: list[str], why: str
) -> None:
    text = measured(later=1.2).to_json()
    (tmp_path / "measured.json").write_text(text)
    (tmp_path / "edited.json").write_text(text.replace('"us": 2020.0', '"us": 2019.0', 1))
    result = avo("calibrate", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert why in result.stderr
    assert result.stderr.count("\n") == 1
    assert not cards.exists()


def made_run(url: str) -> Run:
    """A run for the calibrated card, as ``avo run`` stores it."""
    config = RunConfig(target=LAB.name).model_dump()
    stored = {**config, START: [{"origin": "seed", "source": SEED}], CARD: figures(LAB.name)}
    with Store.open(url, create=True) as store:
        return store.create_run(
            name="lab", problem="mha", target=LAB.name, suite="quick", operator="mutate", seed=0, config=stored, now=NOW
        )  # fmt: skip


def test_a_run_is_judged_and_reported_for_its_card_after_the_file_is_gone(
    avo: Avo, cards: Path, tmp_path: Path
) -> None:
    keep(LAB)
    url = str(tmp_path / "runs.db")
    made_run(url)
    forget(cards)
    with Store.open(url, create=False) as store:
        run = store.run("lab")
    judging = Judging.of(RunConfig.stored(run, {}))
    known._brought.clear()  # as in a process of Ray, which gets ``judging``
    with judging.start() as judge:
        assert judge.target == LAB
    page = tmp_path / "report.html"
    shown = avo("report", "lab", "--db", url, "--out", str(page))
    assert shown.exit_code == 0, shown.stderr
    assert LAB.standing in page.read_text()
    assert "h100-lab" in avo("runs", "--db", url).stdout


def test_another_card_of_that_name_is_refused_by_a_database_that_has_one(avo: Avo, cards: Path, tmp_path: Path) -> None:
    keep(LAB)
    url = str(tmp_path / "runs.db")
    made_run(url)
    forget(cards)
    keep(replace(LAB, sustained_clock_ratio=0.9))
    result = avo("run", "--target", LAB.name, "--db", url, "--max-attempts", "1")
    assert result.exit_code == 2
    assert result.stderr.endswith("--target: lab was made for another 'h100-lab': calibrate under another name\n")


def _predicted(source: str, card: Target) -> dict[str, float]:
    """Microseconds by case."""
    with Judge(card, "quick") as judge:
        plans = judge.planned(Candidate("mha", source))
    least = get_problem("mha").least_bytes
    return {each.case.name: predict_time(each.works, card, least_bytes=least(each.case)).us for each in plans}


@pytest.mark.long
def test_a_run_for_a_calibrated_card_predicts_the_law_of_its_times_and_is_resumed_without_the_file(
    avo: Avo, cards: Path, tmp_path: Path
) -> None:
    options = ((4, 1), (8, 1), (4, 2), (8, 2))
    plain = seed_source("mha", "plain")
    sources = [
        re.sub(r"num_stages=\d", f"num_stages={stages}", re.sub(r"num_warps=\d", f"num_warps={warps}", plain))
        for warps, stages in options
    ]
    file = tmp_path / "measured.json"
    file.write_text(of_law(sources, FAST).to_json())
    result = avo("calibrate", str(file), "--name", "lab")
    assert result.exit_code == 0, result.stderr
    assert re.search(r"clock under load +0\.81 +0\.(8[6-9]|9\d)", result.stdout)
    assert re.search(r"rate of HBM +0\.93 +not determined by these times", result.stdout)
    before, after = map(float, re.search(r"mean error .* ([\d.]+)% +([\d.]+)%", result.stdout).groups())  # type: ignore[union-attr]
    assert after < 0.6 * before

    kernel, url = tmp_path / "seed.py", str(tmp_path / "runs.db")
    kernel.write_text(sources[0])
    asked = ["--db", url, "--workers", "1", "--evaluators", "1"]
    made = avo("run", "--target", "lab", "--seed-kernel", str(kernel), "--max-attempts", "1", "--name", "lab", *asked)
    assert made.exit_code == 0, made.stderr
    own, others_us = (_predicted(sources[0], card) for card in (calibrated()["lab"], TARGETS["h100"]))
    assert all(own[case] < 0.97 * others_us[case] for case in own)
    forget(cards)
    more = avo("resume", "lab", "--db", url, "--max-attempts", "2")
    assert more.exit_code == 0, more.stderr
    assert json.loads(avo("runs", "--db", url, "--json").stdout)[0]["target"] == "lab"
    with Store.open(url, create=False) as store:
        first, *others = store.attempts(store.run("lab").id)
        assert others
    spent = {case.case: case.time_us for case in first.evaluation.score.cases}  # type: ignore[union-attr]
    assert spent == pytest.approx(own, rel=0.01)
    assert {each.evaluation.target for each in (first, *others)} == {"lab"}
