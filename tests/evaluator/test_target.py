import re
from dataclasses import fields
from pathlib import Path

import pytest

from avo.evaluator import cuda
from avo.evaluator.errors import UnknownTarget
from avo.evaluator.known import check_target
from avo.evaluator.target import CARDS, CUDA, TARGETS, Architecture, ScoreKind, score_kind, unchecked
from avo.evaluator.targets import get_target

PEAK_TFLOPS = {
    "a100": 312, "h100": 989, "h200": 989, "h20": 148, "rtx4090": 165.2, "l40s": 366, "b200": 2250, "b300": 2250,
    "rtx5090": 209.5,
}  # fmt: skip
"""Dense bf16 with sums in fp32, as NVIDIA publishes them."""


@pytest.mark.parametrize("name", TARGETS)
def test_peak_follows_from_the_figures(name: str) -> None:
    target = get_target(name)
    peak = target.tensor_flop * target.sms * target.clock_ghz / 1e3
    assert peak == pytest.approx(PEAK_TFLOPS[name], rel=0.01)


@pytest.mark.parametrize("name", TARGETS)
def test_every_figure_has_a_source(name: str) -> None:
    target = get_target(name)
    for source in (target.architecture_source, target.source, target.clock_source):
        assert any(char.isdigit() for char in source) or source.startswith(("estimate", "same", "taken over")), source
    assert target.kind is ScoreKind.PREDICTED


@pytest.mark.parametrize("name", TARGETS)
def test_no_figure_is_missing(name: str) -> None:
    may_be_none = {"tensor_memory_columns", "fp32_sums_at_half_rate", "held_against", "fitted"}
    target = get_target(name)
    assert not [
        field.name for field in fields(target) if not getattr(target, field.name) and field.name not in may_be_none
    ]


def test_cards_of_an_architecture_have_its_figures_but_for_the_tensor_rate() -> None:
    shared = [field.name for field in fields(Architecture) if field.name != "tensor_flop"]
    figures = {(t.arch, tuple(getattr(t, name) for name in shared)) for t in TARGETS.values()}
    assert len(figures) == len({arch for arch, _ in figures})


def test_a_card_that_nobody_held_against_measurements_says_so() -> None:
    assert unchecked("rtx5090") == "Predictions for rtx5090 were not held against anything."
    assert get_target("h100").standing.startswith("Predictions for h100 were held against published timings of ")
    assert unchecked("h100") == unchecked(CUDA) == ""


def test_an_unknown_target_is_named_with_the_known_ones() -> None:
    for asked in (get_target, check_target):
        with pytest.raises(UnknownTarget, match=f"^unknown target 'v100': choose one of {CARDS}, cuda$"):
            asked("v100")


@pytest.mark.parametrize("page", ["README.md", "docs/executor.md", "docs/performance-model.md"])
def test_pages_that_list_the_targets_list_all_of_them(page: str) -> None:
    text = (Path(__file__).parents[2] / page).read_text(encoding="utf-8")
    assert not [name for name in TARGETS if not re.search(rf"\b{name}\b", text)]


def test_the_page_about_measuring_lists_the_architectures_that_are_known() -> None:
    text = (Path(__file__).parents[2] / "docs/cuda.md").read_text(encoding="utf-8")
    archs = {target.arch for target in TARGETS.values()}
    assert not [arch for arch in archs if not re.search(rf" {arch // 10}\.{arch % 10}\b", text)]


def test_what_an_architecture_has_follows_from_its_figures() -> None:
    cards = [TARGETS[name] for name in ("a100", "rtx4090", "h100", "b200", "b300", "rtx5090")]
    assert [target.bulk_copies for target in cards] == [False, False, True, True, True, True]
    assert [target.asynchronous_products for target in cards] == [False, False, True, True, True, False]
    assert [target.tensor_memory for target in cards] == [False, False, False, True, True, False]


def test_the_kind_of_a_targets_scores_follows_from_its_name_without_a_gpu() -> None:
    check_target(CUDA)
    assert score_kind(CUDA) is ScoreKind.MEASURED
    assert {score_kind(name) for name in TARGETS} == {ScoreKind.PREDICTED}


def test_cuda_is_whatever_card_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    card = get_target("h100")
    monkeypatch.setattr(cuda, "this_card", lambda: card)
    assert get_target(CUDA) is card
