from pathlib import Path

import pytest

from evaluator import cuda
from evaluator.errors import UnknownTarget
from evaluator.target import ARCHITECTURES, CUDA, TARGETS, ScoreKind, check_target, score_kind
from evaluator.targets import get_target

PEAK_TFLOPS = {"a100": 312, "h100": 989, "h200": 989, "b200": 2250}
"""Dense bf16, as NVIDIA publishes them."""


@pytest.mark.parametrize("name", TARGETS)
def test_peak_follows_from_the_figures(name: str) -> None:
    target = get_target(name)
    peak = target.tensor_flop * target.sms * target.clock_ghz / 1e3
    assert peak == pytest.approx(PEAK_TFLOPS[name], rel=0.01)


@pytest.mark.parametrize("name", TARGETS)
def test_every_figure_has_a_source(name: str) -> None:
    target = get_target(name)
    assert target.source
    assert target.clock_source
    assert target.kind is ScoreKind.PREDICTED


def test_an_unknown_target_is_named_with_the_known_ones() -> None:
    for asked in (get_target, check_target, score_kind):
        with pytest.raises(UnknownTarget, match=f"^unknown target 'v100': choose one of {ARCHITECTURES}, cuda$"):
            asked("v100")


@pytest.mark.parametrize("page", ["README.md", "docs/executor.md", "docs/performance-model.md"])
def test_pages_that_list_the_targets_list_all_of_them(page: str) -> None:
    text = (Path(__file__).parents[2] / page).read_text(encoding="utf-8")
    assert not [name for name in TARGETS if name not in text]


def test_what_an_architecture_has_follows_from_its_figures() -> None:
    ampere, hopper, blackwell = (TARGETS[name] for name in ("a100", "h100", "b200"))
    assert [target.bulk_copies for target in (ampere, hopper, blackwell)] == [False, True, True]
    assert [target.tensor_memory for target in (ampere, hopper, blackwell)] == [False, False, True]


def test_the_kind_of_a_targets_scores_follows_from_its_name_without_a_gpu() -> None:
    check_target(CUDA)
    assert score_kind(CUDA) is ScoreKind.MEASURED
    assert {score_kind(name) for name in TARGETS} == {ScoreKind.PREDICTED}


def test_cuda_is_whatever_card_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    card = get_target("h100")
    monkeypatch.setattr(cuda, "this_card", lambda: card)
    assert get_target(CUDA) is card
