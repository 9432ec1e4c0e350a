"""Constants that times determine are found again, others stay as they are, and times that teach nothing are refused."""

import math
import random
from dataclasses import replace

import pytest

from avo.evaluator.performance.calibrating import Calibration, NotCalibrated, Timed, calibrate
from avo.evaluator.performance.constants import DRAWS, constants_of, figures
from avo.evaluator.performance.memory import Timing
from avo.evaluator.performance.model import predict_time
from avo.evaluator.target import TARGETS, Fitted, Target
from bench.variants import launch_work
from tests.evaluator.performance.test_model import TUNED

H100 = TARGETS["h100"]
COLD = Timing(cold=True)
CASES = {"compute": (4096, 16, 10**6), "memory": (128, 1, 4 * 10**9), "short": (128, 1, 10**3)}
"""Length and rows of attention, and bytes that must pass HBM."""
ALL = tuple(CASES)


def law(*, clock: float = 0.89, hbm: float = 0.91, launch: float = 1.75) -> Target:
    """A card whose clock, rate of HBM and cost of a launch are not those of other H100s."""
    event = 2.9 + (launch - 1.7) * 1.0 / 0.6  # as far within its range
    own = {"hbm_share": hbm, "launch_us": launch, "event_us": event}
    fitted = tuple(Fitted(name, value, value, value) for name, value in own.items())
    return replace(H100, sustained_clock_ratio=clock, sustained_clock_range=(clock, clock), fitted=fitted)


def times(card: Target, *cases: str, kernels: int = 8, noise: float = 0.02) -> list[Timed]:
    """What kernels of several sizes take on ``card``, with noise of this standard deviation."""
    chance, found = random.Random(7), []
    for number in range(kernels):
        for case in cases:
            length, rows, least_bytes = CASES[case]
            rows, least_bytes = rows * (1 + number), least_bytes * (1 + number)
            launches = (launch_work(TUNED, 90, length, rows),)
            us = predict_time(launches, card, least_bytes=least_bytes).us * math.exp(chance.gauss(0, noise))
            found.append(Timed(f"kernel {number}", case, launches, least_bytes, us, COLD))
    return found


def value(found: Calibration, name: str) -> float | None:
    (constant,) = (each for each in found.constants if each.name == name)
    return constant.found and constant.found.value


@pytest.mark.long
def test_constants_that_differ_are_found_again_and_the_error_falls_on_the_other_half() -> None:
    found = calibrate(times(law(), *ALL), H100)
    found.check()
    assert value(found, "clock under load") == pytest.approx(0.89, abs=0.02)
    assert value(found, "rate of HBM") == pytest.approx(0.91, abs=0.006)
    assert value(found, "launch") == pytest.approx(1.75, abs=0.05)
    assert found.before.error > 0.05
    assert found.after.error < 0.025
    assert (found.kernels, found.times) == (8, 24)


@pytest.mark.long
def test_constants_that_the_times_do_not_determine_stay_as_they_were() -> None:
    found = calibrate(times(law(), "compute"), H100)
    assert value(found, "clock under load") is not None
    assert [value(found, name) for name in ("rate of L2", "rate of HBM", "launch")] == [None] * 3
    assert found.card.fitted == () or {each.name for each in found.card.fitted} == {"arithmetic_power"}
    assert found.card.hbm_bytes_per_s == H100.hbm_bytes_per_s


def test_a_calibrated_card_is_predicted_with_its_own_constants_and_less_doubt() -> None:
    card = calibrate(times(law(), *ALL), H100).card
    shares = [constants_of(card, draw).hbm_share for draw in range(DRAWS)]
    assert constants_of(card).hbm_share == pytest.approx(0.91, abs=0.006)
    assert max(shares) - min(shares) < 0.5 * (0.96 - 0.9)
    for one in times(law(), *ALL, noise=0.0):
        assert predict_time(one.launches, card, least_bytes=one.least_bytes).us == pytest.approx(one.us, rel=0.03)


def test_a_constant_beyond_its_published_range_is_at_its_end_and_says_so() -> None:
    found = calibrate(times(law(hbm=0.88), "memory"), H100)
    (rate,) = (each for each in found.constants if each.name == "rate of HBM")
    assert rate.at_end
    assert value(found, "rate of HBM") == figures(90)["hbm_share"].slow


def test_few_outliers_do_not_move_a_constant() -> None:
    made = times(law(), "memory", kernels=12)
    made[3] = replace(made[3], us=3 * made[3].us)
    assert value(calibrate(made, H100), "rate of HBM") == pytest.approx(0.91, abs=0.008)


def test_times_of_fewer_than_four_kernels_are_too_few() -> None:
    with pytest.raises(NotCalibrated, match="there are times of 3 kernels, and it takes 4 at least"):
        calibrate(times(law(), *ALL, kernels=3), H100)


def test_times_of_a_card_like_all_others_teach_nothing() -> None:
    with pytest.raises(NotCalibrated, match="too few, too much alike or contradict each other"):
        calibrate(times(H100, *ALL), H100).check()


def test_halves_that_contradict_each_other_are_refused() -> None:
    slow, fast = times(law(clock=0.77), "compute"), times(law(clock=0.91), "compute")
    mixed = [fast[i] if i in (0, 3, 4, 7) else slow[i] for i in range(8)]
    with pytest.raises(NotCalibrated, match="contradict each other"):
        calibrate(mixed, H100).check()


def test_times_that_no_such_card_takes_are_refused() -> None:
    with pytest.raises(NotCalibrated, match=r"the times contradict the model: .* mean error is still \d+%"):
        calibrate([replace(each, us=2 * each.us) for each in times(law(), *ALL)], H100).check()
