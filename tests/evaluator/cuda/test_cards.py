"""A card becomes a target: its own counts, and its architecture's figures for the rest."""

from dataclasses import replace

import pytest

from avo.evaluator.errors import EvaluatorUnavailable
from avo.evaluator.target import ScoreKind
from avo.evaluator.targets import get_target
from tests.evaluator.cuda.fake_device import CARD

H100 = get_target("h100")


def test_a_card_is_the_target_cuda_with_the_figures_of_its_architecture() -> None:
    target = replace(CARD, sms=114, l2_bytes=2**20).target()
    assert (target.name, target.product, target.kind) == ("cuda", "Fake H100", ScoreKind.MEASURED)
    assert (target.sms, target.l2_bytes) == (114, 2**20)
    figures = {"name": "h100", "product": H100.product, "kind": H100.kind, "sms": H100.sms, "l2_bytes": H100.l2_bytes}
    assert replace(target, **figures) == H100  # type: ignore[arg-type]


@pytest.mark.parametrize(("hbm", "like"), [(4.9e12, "h200"), (2.0e12, "h100")])
def test_cards_of_one_architecture_are_told_apart_by_their_bandwidth(hbm: float, like: str) -> None:
    target = replace(CARD, hbm_bytes_per_s=hbm).target()
    assert target.hbm_bytes_per_s == hbm
    assert target.clock_source == get_target(like).clock_source


def test_a_card_that_does_not_say_its_bandwidth_gets_the_highest() -> None:
    assert replace(CARD, hbm_bytes_per_s=0.0).target().hbm_bytes_per_s == get_target("h200").hbm_bytes_per_s


@pytest.mark.parametrize(("arch", "sms", "rate"), [(89, 128, 512), (89, 76, 1024), (90, 78, 1024), (90, 114, 4096)])
def test_only_a_known_card_has_a_rate_below_its_architectures(arch: int, sms: int, rate: int) -> None:
    assert replace(CARD, arch=arch, sms=sms, hbm_bytes_per_s=4.0e12).target().tensor_flop == rate


@pytest.mark.parametrize(("arch", "capability"), [(86, "8.6"), (110, "11.0")])
def test_an_architecture_without_figures_is_refused_in_one_line(arch: int, capability: str) -> None:
    expected = f"^Fake H100 has compute capability {capability}; this version measures on 8.0, 8.9, 9.0, 10.0"
    with pytest.raises(EvaluatorUnavailable, match=expected):
        replace(CARD, arch=arch).target()


def test_the_floor_is_the_peak_at_the_highest_clock_or_the_bytes_beyond_the_cache() -> None:
    assert CARD.floor_s(10**12, 0) == pytest.approx(1e12 / (4096 * 132 * 1.98e9))
    assert replace(CARD, max_clock_ghz=0.0).floor_s(10**12, 0) == pytest.approx(1e12 / (4096 * 132 * 1.83e9))
    assert CARD.floor_s(1, 10**9) == pytest.approx((10**9 - 50 * 2**20) / 3.35e12)
