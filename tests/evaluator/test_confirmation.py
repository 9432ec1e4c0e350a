"""What a measurement says of a kernel: confirmed, refuted or unmeasured, by what it shows and on which card."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import count

import numpy as np
import pytest

from avo.evaluator.confirmation import Confirmation, Finding, agreement, findings, unlike
from avo.evaluator.measurement import BadMeasurement, MeasuredCase, Measurement, Sample
from tests.evaluator.test_measurement import CASES, FAST, LIBRARY, START, measurement

H100 = {"name": "NVIDIA H100 80GB HBM3", "arch": 90, "sms": 132, "uuid": "GPU-1"}
A100 = {"name": "NVIDIA A100", "arch": 80, "sms": 108, "uuid": "GPU-2"}


def measured(
    factors: Sequence[float], *, noise: float = 0.002, card: object = H100, statuses: Sequence[str] = ()
) -> Measurement:
    """Return rounds on a card; in each ``FAST`` takes a factor of these of the time of ``START``, and noise."""
    random = np.random.default_rng(0)
    samples = []
    for number, factor in enumerate(factors):
        for name, times in ((START, 1.0), (FAST, factor), (LIBRARY, 1.1)):
            for case, base in (("8k-full", 2000.0), ("8k-causal", 1000.0)):
                us = base * times * float(np.exp(random.normal(0, noise)))
                samples.append(Sample(number // 4 + 1, number % 4 + 1, name, case, us, us, 1700, 0, 60, 650.0))
    plain = measurement()
    found = dict(enumerate(statuses))
    entrants = tuple(replace(each, status=found.get(n, each.status)) for n, each in enumerate(plain.entrants))
    return replace(plain, card=card, samples=tuple(samples), entrants=entrants)  # type: ignore[arg-type]


def of_fast(made: Measurement) -> Finding:
    return findings(made)[1]


@pytest.mark.parametrize(
    ("made", "confirmation", "reason"),
    [
        (measured([0.9] * 12), Confirmation.CONFIRMED, "times as fast as v1 in 12 rounds"),
        (measured([0.9] * 4), Confirmation.UNMEASURED, "4 rounds cannot tell whether it is over 1% faster than v1"),
        (measured([1.1] * 12), Confirmation.REFUTED, "slower than v1: 0.9"),
        (measured([0.996] * 40), Confirmation.REFUTED, "as fast as v1 within 1%, in 40 rounds"),
        (measured([0.99] * 40), Confirmation.UNMEASURED, "40 rounds cannot tell whether"),
        (measured([0.9] * 12, statuses=("crashed",)), Confirmation.UNMEASURED, "no round of it beside a right one"),
        (measured([0.9] * 12, statuses=("correct", "incorrect")), Confirmation.REFUTED, "incorrect on NVIDIA H100"),
        (measured([], statuses=("correct", "out_of_bounds")), Confirmation.REFUTED, "out of bounds on NVIDIA H100"),
        (measured([], statuses=("correct", "lowering_error")), Confirmation.UNMEASURED, "lowering error on NVIDIA"),
        (measured([], statuses=("correct", "unmeasured")), Confirmation.UNMEASURED, "it has not run"),
        (measured([]), Confirmation.UNMEASURED, "no round of it beside a right one of v1"),
        (
            measured([0.9] * 12, card=A100),
            Confirmation.UNMEASURED,
            "NVIDIA A100 (sm_80, 108 SMs) is no h100",
        ),
        (
            measured([], card=A100, statuses=("correct", "crashed")),
            Confirmation.UNMEASURED,
            "crashed on NVIDIA A100",
        ),
    ],
)
def test_a_kernel_is_confirmed_or_refuted_by_what_was_shown(
    made: Measurement, confirmation: Confirmation, reason: str
) -> None:
    found = of_fast(made)
    assert (found.confirmation, reason in found.reason) == (confirmation, True), found.reason


def test_equally_fast_kernels_are_hardly_ever_confirmed() -> None:
    random = np.random.default_rng(1)
    made = [of_fast(measured(np.exp(random.normal(-0.008, 0.01, 24)))) for _ in range(60)]
    assert sum(each.confirmation is Confirmation.CONFIRMED for each in made) <= 3  # ALPHA, less than MARGIN faster


def test_what_the_run_began_with_is_confirmed_where_it_ran_right() -> None:
    (right, _), (wrong, _) = findings(measured([0.9])), findings(measured([0.9], statuses=("incorrect",)))
    assert (right.confirmation, right.times_start) == (Confirmation.CONFIRMED, 1.0)
    assert wrong.confirmation is Confirmation.REFUTED


def test_figures_are_geometric_means_with_quartiles_beside_the_predicted_ones() -> None:
    found = of_fast(measured([0.9] * 12))
    assert found.measured
    assert found.measured.low < found.measured.tflops < found.measured.high
    assert found.measured.tflops == pytest.approx(10**12 / 1800 / 1e6, rel=2e-3)
    assert (found.predicted.low, found.predicted.high) == (pytest.approx(300), pytest.approx(500))
    assert found.of_predicted == pytest.approx(found.measured.tflops / 400)
    assert found.times_start == pytest.approx(1 / 0.9, rel=2e-3)
    assert not found.within, "555 TFLOPS are more than the high end"
    assert of_fast(measured([1.2] * 12)).within
    half = replace(measured([0.9]), cases=(*CASES, MeasuredCase("16k", 10**12, 500.0)))
    predicted = {each.name: (1.0, 1.0, 1.0) for each in half.cases}
    half = replace(half, entrants=tuple(replace(e, predicted=e.predicted and predicted) for e in half.entrants))
    assert [(each.measured, each.of_predicted, each.within) for each in findings(half)] == [(None, None, False)] * 2


def test_agreement_counts_the_pairs_in_the_predicted_order() -> None:
    plain, numbers = of_fast(measured([0.9])), count()

    def finding(predicted: float, tflops: float | None) -> Finding:
        ranges = [None if each is None else replace(plain.predicted, tflops=each) for each in (predicted, tflops)]
        return replace(plain, attempt_id=next(numbers), predicted=ranges[0], measured=ranges[1])  # type: ignore[arg-type]

    assert agreement([finding(1, 10), finding(2, 30), finding(3, 20), finding(3, 40), finding(9, None)]) == (4, 5)


def test_a_card_is_like_the_target_by_architecture_and_multiprocessors() -> None:
    assert unlike(measured([])) == ""
    assert "132 SMs" in unlike(measured([], card={**H100, "sms": 114}))
    assert unlike(measured([], card={})) == "a card without a name (sm_None, None SMs) is no h100 (sm_90, 132 SMs)"
    assert "names no kind of card" in unlike(replace(measured([]), target="cuda"))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"cases": ()}, "no cases"),
        ({"cases": (replace(CASES[0], flops=0), CASES[1])}, "without work"),
        ({"cases": (replace(CASES[0], flops=10**400), CASES[1])}, "without work"),
        ({"cases": (*CASES, MeasuredCase("16k", 1, 1.0))}, "no prediction of each case"),
        ({"start": LIBRARY}, "no kernel of it"),
        ({"samples": (replace(measured([1.0]).samples[0], us=1e300),)}, "run of less than"),
    ],
)
def test_figures_that_cannot_be_true_are_refused(changes: dict[str, object], why: str) -> None:
    with pytest.raises(BadMeasurement, match=why):
        findings(replace(measured([0.9]), **changes))  # type: ignore[arg-type]
