"""The sequential test on paired log ratios: its error, exactly and by simulation, and its verdicts."""

from itertools import product

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from avo.evaluator.cuda.sequential import BLOCK, OTHER_ALPHA, ROUNDS, between, decide, evidence, verdicts
from avo.evaluator.evaluation import Verdict

MARGIN = 0.005
SIZES = st.lists(st.floats(min_value=0, max_value=1e3), min_size=1, max_size=9)


@given(SIZES)
@example([0.0, 2.225073858507e-311, 1.0])
@settings(max_examples=30, deadline=None)
def test_over_all_signs_of_given_magnitudes_the_capital_is_what_it_was_at_first(sizes: list[float]) -> None:
    signs = np.array(list(product((-1.0, 1.0), repeat=len(sizes))))
    assert evidence(signs * sizes).mean(axis=0) == pytest.approx(1.0)


@given(SIZES, st.floats(min_value=0.01, max_value=0.5))
@settings(max_examples=30, deadline=None)
def test_however_often_one_looks_equals_are_called_faster_at_most_as_often_as_allowed(
    sizes: list[float], alpha: float
) -> None:
    signs = np.array(list(product((-1.0, 1.0), repeat=len(sizes))))
    ever = (evidence(signs * sizes) >= 1 / alpha).any(axis=-1)
    assert ever.mean() <= alpha


@pytest.mark.long
@pytest.mark.parametrize("mean", [0.0, -0.001])
@pytest.mark.parametrize("noise", ["cauchy", "two clocks", "growing"])
def test_neither_tails_nor_steps_nor_growth_of_the_noise_make_equals_or_slower_ones_faster(
    mean: float, noise: str
) -> None:
    random = np.random.default_rng(3)
    shape = (1000, ROUNDS[-1])
    made = {
        "cauchy": 0.003 * random.standard_cauchy(shape),
        "two clocks": random.choice([-0.02, 0.0, 0.02], p=[0.1, 0.8, 0.1], size=shape)
        + 1e-4 * random.normal(size=shape),
        "growing": 0.01 * random.normal(size=shape) * np.linspace(0.1, 5, shape[1]),
    }[noise]
    ever = (evidence(mean + made) >= 1 / 0.05).any(axis=-1)
    assert ever.mean() <= 0.05


def test_the_unit_of_the_ratios_does_not_matter() -> None:
    ratios = np.random.default_rng(0).normal(0.5, 1.0, size=40)
    assert evidence(ratios) == pytest.approx(evidence(1e-4 * ratios))


@pytest.mark.parametrize(
    ("rounds", "alpha", "verdict"),
    [
        ([], 0.05, Verdict.UNDECIDED),
        ([0.01] * 4, 0.05, Verdict.UNDECIDED),
        ([0.01] * 24, 0.05, Verdict.FASTER),
        ([0.01] * 24, 1e-4, Verdict.UNDECIDED),
        ([-0.01] * 8, 1e-9, Verdict.SLOWER),
        ([0.0] * 8, 0.05, Verdict.EQUIVALENT),
        ([0.001, -0.001] * 4, 0.05, Verdict.EQUIVALENT),
        ([0.02, -0.02] * 8, 0.05, Verdict.UNDECIDED),
    ],
)
def test_verdicts(rounds: list[float], alpha: float, verdict: Verdict) -> None:
    assert decide(rounds, alpha, MARGIN) is verdict


def test_a_gain_within_the_margin_is_equivalent_however_clear() -> None:
    assert decide([0.004] * ROUNDS[-1], 0.05, MARGIN) is Verdict.EQUIVALENT


def test_a_gain_as_large_as_the_margin_is_seldom_called_equivalent_or_faster() -> None:
    ratios = np.log1p(MARGIN) + 0.005 * np.random.default_rng(5).normal(size=(300, ROUNDS[-1]))
    found = verdicts(ratios, OTHER_ALPHA, MARGIN)
    assert (found == Verdict.EQUIVALENT).any(axis=-1).mean() <= OTHER_ALPHA
    assert (found == Verdict.FASTER).any(axis=-1).mean() <= OTHER_ALPHA


def test_one_outlier_does_not_hide_a_clear_gain() -> None:
    assert decide([0.01] * 22 + [-5.0] + [0.01] * 81, 0.01, MARGIN) is Verdict.FASTER


@pytest.mark.parametrize("lasting", [0.003, 0.0042, 0.01])
def test_what_processes_differ_by_for_as_long_as_they_live_makes_equals_no_faster(lasting: float) -> None:
    random = np.random.default_rng(7)
    pairs = np.repeat(lasting * random.normal(size=(1000, len(ROUNDS))), BLOCK, axis=-1)
    ratios = np.log1p(MARGIN) + pairs + 0.001 * random.normal(size=(1000, ROUNDS[-1]))
    assert (verdicts(ratios, 0.05, MARGIN) == Verdict.FASTER).any(axis=-1).mean() <= 0.05
    found = [between(each) for each in (pairs + 0.001 * random.normal(size=pairs.shape))[:20]]
    assert np.mean(np.array(found, float)) == pytest.approx(lasting, rel=0.1)


def test_what_processes_differ_by_is_known_of_two_pairs_and_is_not_the_noise_of_their_rounds() -> None:
    assert between([0.01] * (2 * BLOCK - 1)) is None
    noise = 0.01 * np.random.default_rng(8).normal(size=(200, 64 * BLOCK))
    assert np.mean([between(each) for each in noise]) < 0.001
