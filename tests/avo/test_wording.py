"""How durations, gains and verdicts read."""

import pytest

from avo.wording import duration, first_line, percent, printable, verdicts
from evaluator.evaluation import Status


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-3, "0s"), (0.4, "0s"), (59.4, "59s"), (59.6, "1m 00s"), (65, "1m 05s"), (7620, "2h 07m"), (90000, "1d 01h")],
)
def test_a_duration_shows_its_two_largest_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_gain_has_a_sign_and_an_unknown_one_is_empty() -> None:
    assert [percent(0.0312), percent(-0.5), percent(None)] == ["+3.1%", "-50.0%", ""]


def test_correct_attempts_are_named_before_faulty_ones() -> None:
    assert verdicts({Status.DOES_NOT_FIT: 3, Status.CORRECT: 1}) == "1 correct, 3 does not fit"


def test_control_characters_of_a_candidate_do_not_reach_the_terminal() -> None:
    assert printable("a\x1b[2Jb\tc\nd") == "a [2Jb  c\nd"
    assert first_line("\n one\x07 \ntwo") == "one"
