"""What acceptance is worth on a simulated GPU: errors over a whole run, power, and bias of what is recorded."""

import numpy as np
import pytest

from avo.config import RunConfig
from avo.evaluator.evaluation import Verdict
from avo.search.acceptance import share_of_alpha
from bench.acceptance import KINDS, SimulatedGpu, compare, offer, search

CONFIG = RunConfig(alpha=0.05)


def test_the_shares_of_all_comparisons_come_to_the_alpha_of_the_run() -> None:
    count = 10**5
    spent = sum(share_of_alpha(0.05, number) for number in range(1, count))
    rest_at_most = share_of_alpha(0.05, count) * (1 + count / 0.6)  # the integral of the series
    assert spent < 0.05 < spent + rest_at_most


@pytest.mark.long
def test_an_identical_kernel_offered_a_hundred_times_is_accepted_at_most_once_and_in_few_runs() -> None:
    accepted = np.stack([offer(SimulatedGpu(np.random.default_rng(1), kind), 100, 20, CONFIG) for kind in KINDS])
    assert accepted.max() <= 1
    assert np.mean(accepted > 0) <= CONFIG.alpha


@pytest.mark.long
@pytest.mark.parametrize(("noise", "power"), [(0.01, (0.99, 0.95, 0.75)), (0.005, (0.99, 0.99, 0.99))])
def test_a_gain_of_a_percent_is_found_as_often_as_told_early_and_late_in_a_run(
    noise: float, power: tuple[float, ...]
) -> None:
    numbers = (1, 100, 1000)
    ratios = SimulatedGpu(np.random.default_rng(1), noise=noise).log_ratios(np.full((len(numbers), 300), 0.01))
    verdict, _ = compare(ratios, numbers, CONFIG)
    assert all((verdict == Verdict.FASTER).mean(axis=-1) >= power)


@pytest.mark.long
@pytest.mark.parametrize("margin", [CONFIG.equivalence_margin, 1e-6])
def test_what_two_processes_of_a_kernel_lastingly_differ_by_makes_no_version(margin: float) -> None:
    config = CONFIG.model_copy(update={"equivalence_margin": margin})
    accepted = offer(SimulatedGpu(np.random.default_rng(1), noise=0.003, placement=0.01), 100, 15, config)
    assert accepted.max() <= 1
    assert np.mean(accepted > 0) <= 0.1


@pytest.mark.long
def test_the_recorded_best_of_a_long_run_is_what_it_is_measured_to_be_again() -> None:
    runs = search(SimulatedGpu(np.random.default_rng(1)), 500, 8, CONFIG)
    assert runs.true.min() > 1.2
    assert abs(np.mean(np.log(runs.recorded / runs.remeasured))) < 0.003
    assert abs(np.mean(np.log(runs.recorded / runs.true))) < 0.003
    assert np.mean(np.log(runs.luckiest / runs.luckiest_true)) > 0.003, "the simulation would show a bias"
