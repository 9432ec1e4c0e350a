"""Calibrated cards are targets: kept in the user's file, found by name, and taken along by those who lack the file."""

from dataclasses import replace
from pathlib import Path

import pytest

from avo.evaluator import known
from avo.evaluator.errors import BadCards, UnknownTarget
from avo.evaluator.known import calibrated, check_target, figures, keep, spelled, unspelled
from avo.evaluator.target import TARGETS, Fitted, score_kind, unchecked
from avo.evaluator.targets import get_target

LAB = replace(
    TARGETS["h100"],
    name="h100-lab",
    sustained_clock_ratio=0.875,
    fitted=(Fitted("hbm_share", 0.91, 0.905, 0.915),),
    held_against="12 times of 6 kernels",
)


@pytest.fixture(autouse=True)
def cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's file, which is not there yet, and a process that was told of no card."""
    monkeypatch.setenv("AVO_CARDS", str(tmp_path / "new" / "cards.json"))
    monkeypatch.setattr(known, "_brought", {})
    return tmp_path / "new" / "cards.json"


def test_a_card_that_is_kept_is_a_target(cards: Path) -> None:
    with pytest.raises(UnknownTarget, match="'h100-lab'"):
        check_target("h100-lab")
    assert keep(LAB) == cards
    keep(replace(LAB, name="other"))
    assert get_target("h100-lab") == LAB
    assert list(calibrated()) == ["h100-lab", "other"]
    assert score_kind("h100-lab") == "predicted"
    assert unchecked("h100-lab") == ""
    assert get_target("h100-lab").standing == "Predictions for h100-lab were held against 12 times of 6 kernels."
    with pytest.raises(UnknownTarget, match=r"rtx5090, h100-lab, other, cuda$"):
        check_target("v100")


@pytest.mark.parametrize(
    ("name", "why"),
    [("h100", "already"), ("cuda", "already"), ("kept", "already"), ("", "no name"), ("a b", "no name"), ("%7B", "no")],
)
def test_a_name_that_is_taken_or_malformed_is_refused(name: str, why: str) -> None:
    keep(replace(LAB, name="kept"))
    with pytest.raises(BadCards, match=why):
        keep(replace(LAB, name=name))
    assert list(calibrated()) == ["kept"]


@pytest.mark.parametrize("text", ["{", "[]x", '[{"name": "a"}]'])
def test_a_file_that_cannot_be_read_is_one_line(cards: Path, text: str) -> None:
    cards.parent.mkdir()
    cards.write_text(text)
    with pytest.raises(BadCards, match=r"^[^\n]*cards.json[^\n]*$"):
        check_target("h100-lab")
    assert get_target("h100").name == "h100"


def test_a_card_that_is_spelled_out_is_known_without_the_file(cards: Path) -> None:
    keep(LAB)
    text = spelled("h100-lab")
    cards.unlink()
    assert not set(text) & set(" '\"\\$`*?[]{}()<>|&;!#~\n")
    assert unspelled(text) == "h100-lab"
    assert get_target("h100-lab") == LAB
    assert (spelled("h100"), unspelled("h100"), figures("h100"), figures("cuda")) == ("h100", "h100", None, None)
