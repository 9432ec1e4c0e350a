"""The SM clock of a run is what the SMs counted between two readings of the same SM."""

from typing import Any

import pytest
import torch

from avo.evaluator.cuda.clock import SmClock

Row = tuple[int, int, int]


@pytest.mark.parametrize(
    ("before", "after", "mhz"),
    [
        ([(3, 100, 7), (5, 9, 7)], [(5, 9 + 1_700_000, 7 + 10**6), (3, 100 + 1_800_000, 7 + 10**6)], 1750.0),
        ([(3, 100, 7)], [(4, 100 + 1_800_000, 7 + 10**6)], None),
        ([(3, 100, 7)], [(-1, -1, -1)], None),
        ([(3, 100, 7)], [(3, 100 + 18_000, 7 + 10_000)], None),
    ],
    ids=["the mean over SMs", "other SMs", "not read", "too short to tell"],
)
def test_only_sms_that_were_read_twice_count(before: list[Row], after: list[Row], mhz: float | None) -> None:
    clock: Any = SmClock.__new__(SmClock)
    clock._rows = torch.tensor([before, after])
    assert clock.mhz() == mhz
    assert clock.mhz() is None, "what was read is read once"
