"""A measurement survives its file, is refused where it was changed, and says what each entrant reached."""

import hashlib
import json
import math
from dataclasses import replace

import pytest

from avo.evaluator.measurement import BadMeasurement, Entrant, MeasuredCase, Measurement, Sample

START, FAST, LIBRARY = "v1", "v12", "SDPA, cuDNN"
CASES = (MeasuredCase("8k-full", 10**12, 500.0), MeasuredCase("8k-causal", 5 * 10**11, 250.0))
PREDICTED = {case.name: (300.0, 400.0, 500.0) for case in CASES}


def measurement() -> Measurement:
    """Return two sessions of two rounds, in which ``FAST`` takes 0.8 times as long as ``START``."""
    samples = []
    for session, number in ((1, 1), (1, 2), (2, 1), (2, 2)):
        for name, factor in ((START, 1.0), (FAST, 0.8), (LIBRARY, 0.9)):
            for case, base in (("8k-full", 2000.0), ("8k-causal", 1000.0)):
                us = base * factor * (1 + 0.01 * number)
                samples.append(Sample(session, number, name, case, us, us + 5.0, 1700, 0, 60, 650.0))
    return Measurement(
        "a1b2", "mha-h100", "mha", "quick", "h100", START,
        {"name": "NVIDIA H100", "arch": 90}, {"versions": "CUDA 12.8", "power_limit_w": 700.0, "overhead_s": 1e-6},
        "2026-12-02T01:00:00+00:00", 290.0, CASES,
        (
            Entrant(START, "correct", attempt=1, digest="11", source="a = 1", predicted=PREDICTED),
            Entrant(FAST, "correct", attempt=38, digest="22", source="a = 2", predicted=PREDICTED),
            Entrant(LIBRARY, "correct", release="2.11"),
        ),
        tuple(samples),
    )  # fmt: skip


def test_a_measurement_survives_its_file() -> None:
    written = measurement()
    read = Measurement.from_json(written.to_json())
    assert read.digest
    assert replace(read, digest="") == written
    assert [each.name for each in read.kernels] == [START, FAST]


def test_a_file_of_a_release_without_a_field_is_read() -> None:
    data = json.loads(measurement().to_json())
    del data["others"], data["digest"]
    sealed = hashlib.sha256(json.dumps({**data, "digest": ""}, sort_keys=True).encode()).hexdigest()
    assert Measurement.from_json(json.dumps({**data, "digest": sealed})).others == ()


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ('"us": 2020.0', '"us": 1020.0', "changed after measure.py wrote it"),
        ('"format": "avo measured 1"', '"format": "other"', "its format is 'other'"),
        ('"seconds": 290.0', '"seconds": "long"', "changed after measure.py wrote it"),
        ('"seconds": 290.0,', "", "changed after measure.py wrote it"),
        ("{", "[", "not JSON"),
    ],
)
def test_a_file_that_was_changed_is_refused(old: str, new: str, why: str) -> None:
    text = measurement().to_json()
    assert old in text
    with pytest.raises(BadMeasurement, match=why):
        Measurement.from_json(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("field", "value", "why"),
    [
        ("us", "long", "not as measure.py writes it"),
        ("us", 100.0, "which no kernel can"),
        ("us", -1.0, "which no kernel can"),
        ("entrant", "v99", "does not name"),
    ],
)
def test_a_file_that_cannot_be_true_is_refused(field: str, value: object, why: str) -> None:
    first, *others = measurement().samples
    wrong = replace(measurement(), samples=(replace(first, **{field: value}), *others))  # type: ignore[arg-type]
    with pytest.raises(BadMeasurement, match=why):
        Measurement.from_json(wrong.to_json())


def test_speeds_are_medians_with_quartiles_by_case() -> None:
    speed = measurement().speeds(START)["8k-full"]
    assert speed.runs == 4
    assert speed.low_us == pytest.approx(2020.0)
    assert speed.median_us == pytest.approx(2030.0)
    assert speed.tflops == pytest.approx(10**12 / 2030.0 / 1e6)
    assert measurement().reached(START).tflops == pytest.approx(speed.tflops)


def test_an_entrant_without_runs_of_every_case_has_no_rank() -> None:
    half = replace(measurement(), samples=tuple(s for s in measurement().samples if s.case == "8k-full"))
    assert half.reached(START) is None
    assert half.ratios(FAST) == []


def test_ratios_are_of_rounds() -> None:
    assert measurement().ratios(FAST) == pytest.approx([math.log(1 / 0.8)] * 4)
