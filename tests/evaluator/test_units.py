"""How speeds are written."""

import pytest

from avo.evaluator.catalogue import get_problem, get_suite
from avo.evaluator.performance.constants import constants_of
from avo.evaluator.target import LAUNCH_US, TARGETS
from avo.evaluator.units import TFLOPS, figure, rooflines_us, unit_of, units_of


@pytest.mark.parametrize(
    ("value", "text"),
    [(612.3, "612"), (98.44, "98.4"), (0.71234, "0.712"), (1234.5, "1230"), (9.996, "10.0"), (999.6, "1000"), (0, "0")],
)
def test_a_speed_has_three_digits(value: float, text: str) -> None:
    assert figure(value) == text


def test_a_case_that_tensor_cores_bound_is_in_tflops() -> None:
    assert unit_of("mha", "quick", "h100") == TFLOPS
    assert TFLOPS.said(612.3, "predicted", "443 to 707") == "612 (443 to 707) predicted TFLOPS"
    assert TFLOPS.cell(612.3) == "612"


def test_a_case_that_memory_bounds_is_in_time_bandwidth_and_share_of_the_peak() -> None:
    case = units_of("decode", "quick", "h100")["32k-b1-q1"]
    at_the_peak = case.flops / (case.nbytes / TARGETS["h100"].hbm_bytes_per_s) / 1e12
    assert case.said(at_the_peak / 2, "predicted") == "80.2 us, 1680 predicted GB/s, 50% of the peak"
    assert case.cell(at_the_peak / 2) == "80.2 us, 1680 GB/s, 50%"
    assert unit_of("decode", "quick", "h100").head == "us, GB/s, of peak"


def test_a_case_shorter_than_a_launch_is_in_time() -> None:
    assert units_of("mha-h16x16-256x8", "quick", "h100")["256x8"].nbytes, "memory takes longer than computing"
    assert units_of("mha-h1x1-512x1", "quick", "h100")["512x1"].nbytes, "a launch takes longer than both"
    assert constants_of(TARGETS["h100"]).launch_us == LAUNCH_US, "one launch takes the same everywhere"


def test_a_mean_over_cases_of_both_kinds_is_in_tflops() -> None:
    found = units_of("decode", "paper", "h20")
    assert {bool(unit.nbytes) for unit in found.values()} == {True, False}
    assert unit_of("decode", "paper", "h20") == TFLOPS


def test_a_measured_card_is_known_by_its_name_and_another_has_no_peak() -> None:
    assert unit_of("decode", "quick", "cuda", "NVIDIA H200").peak == TARGETS["h200"].hbm_bytes_per_s
    assert unit_of("decode", "quick", "cuda", "NVIDIA H100 PCIe").head == "us, GB/s"
    assert unit_of("no-such-problem", "quick", "h100") == TFLOPS


def test_a_roofline_is_of_products_or_of_memory_whichever_takes_longer() -> None:
    problem, card = get_problem("mha"), TARGETS["h100"]
    (full,) = (case for case in get_suite(problem, "quick") if case.name == "8k-full")
    assert rooflines_us("mha", "quick", "h100")["8k-full"] == pytest.approx(
        problem.flops(full) / card.dense_flops_per_s * 1e6
    )
    nbytes = units_of("decode", "quick", "h100")["32k-b1-q1"].nbytes
    assert rooflines_us("decode", "quick", "h100")["32k-b1-q1"] == pytest.approx(nbytes / card.hbm_bytes_per_s * 1e6)


@pytest.mark.parametrize(("problem", "target"), [("mha", "cuda"), ("no-such-problem", "h100")])
def test_what_is_not_known_has_no_roofline(problem: str, target: str) -> None:
    assert rooflines_us(problem, "quick", target) == {}
