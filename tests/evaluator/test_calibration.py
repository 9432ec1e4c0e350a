"""Times of two cards, of sessions that disagree, and of kernels that are refused here calibrate nothing."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from avo.evaluator.calibration import calibrated_by
from avo.evaluator.measurement import Measurement
from avo.evaluator.performance.calibrating import NotCalibrated
from tests.evaluator.test_measurement import measurement

CARD = {
    "name": "NVIDIA H100 80GB HBM3",
    "arch": 90,
    "sms": 132,
    "l2_bytes": 50 * 2**20,
    "max_clock_ghz": 1.98,
    "hbm_bytes_per_s": 3.352e12,
    "driver": "570.86",
}


def measured(card: Mapping[str, Any] = CARD, later: float = 1.0) -> Measurement:
    """Two sessions, of which the second took ``later`` times as long."""
    made = measurement()
    samples = (replace(each, us=each.us * later ** (each.session - 1)) for each in made.samples)
    return replace(made, card=card, samples=tuple(samples))


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ([measured(later=1.1)], r"those of session 1 of file 1 differ from those of session 2 of file 1 by -9%"),
        ([measured(), measured(later=1.0), measured(later=0.8)], "contradict each other"),
        ([measured(), measured(CARD | {"name": "NVIDIA H200"})], "two cards, NVIDIA H100 80GB HBM3 and NVIDIA H200"),
        ([measured({"name": "NVIDIA H100", "arch": 90})], "does not describe its card: .*sms"),
    ],
)
def test_files_that_contradict_each_other_are_refused(files: list[Measurement], why: str) -> None:
    with pytest.raises(NotCalibrated, match=why):
        calibrated_by(files, "lab", lambda doing: None)


def test_kernels_that_are_refused_here_have_no_times() -> None:
    with pytest.raises(NotCalibrated, match="there are times of 0 kernels"):
        calibrated_by([measured(later=1.03)], "lab", lambda doing: None)
