"""The table of constants: complete, sourced, and with ranges that contain their values."""

import pytest

from avo.evaluator.performance.constants import DRAWS, Constants, constants, figures, place
from avo.evaluator.target import TARGETS

FASTER_WHEN_LARGER = ("bytes", "lanes", "share", "queue", "merging", "clock")


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_every_constant_has_a_source_and_a_range_around_its_value(target: str) -> None:
    for name, figure in figures(TARGETS[target].arch).items():
        assert any(digit.isdigit() for digit in figure.source) or figure.source.startswith(("estimate", "fitted")), name
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


def test_an_architecture_has_its_own_figures() -> None:
    assert constants(80).mma_sync_share == 1
    assert constants(90).mma_sync_share == pytest.approx(0.62)
    assert set(figures(90)) == set(Constants.__dataclass_fields__)


@pytest.mark.parametrize("arch", sorted({target.arch for target in TARGETS.values()}))
def test_the_draws_of_a_constant_are_spread_evenly_over_its_range(arch: int) -> None:
    for name, figure in figures(arch).items():
        drawn = [getattr(constants(arch, draw), name) for draw in range(DRAWS)]
        low, high = sorted((figure.slow, figure.fast))
        assert all(low <= value <= high for value in drawn), name
        assert figure.at(0) == figure.slow
        assert figure.at(0.5) == getattr(constants(arch), name) == figure.value
        assert figure.at(1) == figure.fast
        assert sorted(place(name, draw) for draw in range(DRAWS)) == pytest.approx(
            [(step + 0.5) / DRAWS for step in range(DRAWS)]
        )  # each once: a Latin hypercube


def test_constants_are_drawn_in_orders_of_their_own() -> None:
    names = list(Constants.__dataclass_fields__)
    orders = {tuple(place(name, draw) for draw in range(DRAWS)) for name in names}
    assert len(orders) == len(names)


def test_a_draw_is_the_same_for_all_kernels_and_at_all_times() -> None:
    first = [constants(90, draw) for draw in range(DRAWS)]
    constants.cache_clear()
    assert [constants(90, draw) for draw in range(DRAWS)] == first
    # in another process, too: the order is no hash that differs between them
    assert place("l2_bytes", 0) == pytest.approx(9.5 / DRAWS)
