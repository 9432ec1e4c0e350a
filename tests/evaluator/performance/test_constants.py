"""The table of constants: complete, sourced, and with ranges that contain their values."""

import pytest

from evaluator.performance.constants import Constants, End, constants, figures
from evaluator.target import TARGETS

FASTER_WHEN_LARGER = ("bytes", "lanes", "share")


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_every_constant_has_a_source_and_a_range_around_its_value(target: str) -> None:
    for name, figure in figures(TARGETS[target].arch).items():
        assert any(digit.isdigit() for digit in figure.source) or figure.source.startswith("estimate"), name
        low, high = sorted((figure.slow, figure.fast))
        assert low <= figure.value <= high, name
        assert low >= 0, name


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_the_slow_end_is_the_slow_one(target: str) -> None:
    for name, figure in figures(TARGETS[target].arch).items():
        if name.endswith(FASTER_WHEN_LARGER):
            assert figure.slow <= figure.fast, name
        else:
            assert figure.slow >= figure.fast, name


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_the_sustained_clock_is_within_its_range(target: str) -> None:
    low, high = TARGETS[target].sustained_clock_range
    assert low <= TARGETS[target].sustained_clock_ratio <= high
    assert high <= 1 or target.startswith("rtx")  # whose boost clock is a promise, not a limit


def test_an_architecture_without_figures_is_named_with_where_to_add_them() -> None:
    with pytest.raises(LookupError, match=r"11\.0 has no figures in evaluator/performance/constants\.py: add"):
        constants(110)


def test_an_architecture_has_its_own_figures_at_each_end() -> None:
    assert constants(80).mma_sync_share == 1
    assert constants(90).mma_sync_share == pytest.approx(0.62)
    slow, nominal, fast = (constants(90, end).global_latency for end in (End.SLOW, End.NOMINAL, End.FAST))
    assert slow > nominal > fast
    assert set(figures(90)) == set(Constants.__dataclass_fields__)
