"""What CTAs that are resident together leave of L1 to spilled registers."""

import pytest

from avo.evaluator.binary import Binary
from avo.evaluator.performance.residency import spills_missed
from avo.evaluator.targets import get_target

KIB = 1024


def missed(spilled: int, target: str, shared_bytes: int, resident: int) -> float:
    binary = Binary("kernel", target, b"", "", 128, 255, 512, shared_bytes, 0)
    return spills_missed(spilled, binary, get_target(target), resident)


def test_spilled_registers_that_fit_l1_are_found_there() -> None:
    assert missed(0, "h100", 96 * KIB, 2) == 0
    assert missed(28 * KIB, "h100", 96 * KIB, 1) == 0
    assert missed(46 * KIB, "h100", 40 * KIB, 2) == 0


@pytest.mark.parametrize(
    ("target", "shared_bytes", "resident", "left"),
    [
        ("h100", 31 * KIB, 2, 192 * KIB),  # two fit by registers, and take 64 KiB of 256
        ("h100", 40 * KIB, 2, 156 * KIB),  # 82 KiB: 100 are shared
        ("h100", 40 * KIB, 1, 156 * KIB),  # also where fewer are resident than fit
        ("h100", 49 * KIB, 2, 28 * KIB),  # all 228 that can be shared, as Triton asks for them
        ("a100", 80 * KIB, 2, 28 * KIB),  # 164, of 192
        ("rtx4090", 99 * KIB, 1, 28 * KIB),  # 100, of 128
    ],
)
def test_more_than_shared_memory_leaves_of_l1_goes_on_to_l2(
    target: str, shared_bytes: int, resident: int, left: int
) -> None:
    assert missed(256 * KIB, target, shared_bytes, resident) == pytest.approx(1 - left / (256 * KIB * resident))
