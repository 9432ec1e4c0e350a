"""What CTAs that are resident together leave of L1 to spilled registers."""

import pytest

from evaluator.binary import Binary
from evaluator.performance.residency import spills_missed
from evaluator.targets import get_target

KIB = 1024


def missed(spilled: int, target: str, shared_bytes: int, resident: int) -> float:
    binary = Binary("kernel", target, b"", "", 128, 255, 512, shared_bytes, 0)
    return spills_missed(spilled, binary, get_target(target), resident)


def test_spilled_registers_that_fit_l1_are_found_there() -> None:
    assert missed(0, "h100", 96 * KIB, 2) == 0
    assert missed(60 * KIB, "h100", 96 * KIB, 1) == 0  # 100 KiB are shared, 156 are left


@pytest.mark.parametrize(
    ("target", "shared_bytes", "resident", "left"),
    [
        ("h100", 97 * KIB, 2, 60 * KIB),  # 196 KiB, of 256
        ("h100", 98 * KIB, 2, 28 * KIB),  # 198 KiB need all 228 that can be shared
        ("a100", 80 * KIB, 2, 28 * KIB),  # 162 KiB need all 164, of 192
        ("rtx4090", 99 * KIB, 1, 28 * KIB),  # 100 KiB, of 128
    ],
)
def test_more_than_shared_memory_leaves_of_l1_goes_on_to_l2(
    target: str, shared_bytes: int, resident: int, left: int
) -> None:
    assert missed(64 * KIB, target, shared_bytes, resident) == pytest.approx(1 - left / (64 * KIB * resident))
