"""How durations, gains and verdicts read."""

import pytest

from avo.evaluator.evaluation import CaseScore, Comparison, Score, Status, Verdict
from avo.evaluator.target import ScoreKind
from avo.watch.wording import (
    compared,
    count,
    cut,
    duration,
    first_line,
    headline,
    in_a_list,
    looked,
    percent,
    printable,
    resolved,
    spread,
    unit,
    verdicts,
)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-3, "0s"), (0.4, "0s"), (59.4, "59s"), (59.6, "1m 00s"), (65, "1m 05s"), (7620, "2h 07m"), (90000, "1d 01h")],
)
def test_a_duration_shows_its_two_largest_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_gain_has_a_sign_and_an_unknown_one_is_empty() -> None:
    assert [percent(0.0312), percent(-0.5), percent(None)] == ["+3.1%", "-50%", ""]


def test_looks_are_added_to_a_number_of_attempts_where_there_are_any() -> None:
    assert [looked(number) for number in (0, 1, 1234)] == ["", ", 1 look", ", 1,234 looks"]


def test_correct_attempts_are_named_before_faulty_ones() -> None:
    assert verdicts({Status.DOES_NOT_FIT: 3, Status.CORRECT: 1}) == "1 correct, 3 does not fit"


def test_control_characters_of_a_candidate_do_not_reach_the_terminal() -> None:
    assert printable("a\x1b[2Jb\tc\nd") == "a [2Jb  c\nd"
    assert first_line("\n one\x07 \ntwo") == "one"


def test_a_score_is_of_a_card_where_it_was_measured_and_of_an_architecture_where_it_is_predicted() -> None:
    case = CaseScore("a", 600.0, 1.0, "tensor")
    assert unit(Score(ScoreKind.PREDICTED, "h100", (case,))) == "predicted TFLOPS, h100"
    assert unit(Score(ScoreKind.MEASURED, "cuda", (case,), card="NVIDIA\x1b H100")) == "measured TFLOPS, NVIDIA  H100"


def test_a_score_with_neighbours_says_what_it_resolves_and_one_without_says_nothing() -> None:
    alone = Score(ScoreKind.PREDICTED, "h100", (CaseScore("8k", 103.0, 1.0, "tensor"),))
    known = Score(ScoreKind.PREDICTED, "h100", alone.cases, neighbours=((99.0,), (100.0,), (101.0,)))
    assert resolved(alone) == ""
    assert resolved(known) == "mean of 3 neighbours, 103 as compiled: resolves differences from 3.3% on"


def test_a_spread_that_is_not_known_is_empty() -> None:
    assert spread(CaseScore("a", 600.0, 1.0, "tensor")) == ""
    assert spread(CaseScore("a", 600.0, 1.0, "tensor", low_tflops=590.0, high_tflops=604.96)) == "590 to 605"


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        (Verdict.FASTER, "faster than"), (Verdict.SLOWER, "slower than"), (Verdict.EQUIVALENT, "as fast as"),
        (Verdict.UNDECIDED, "not told apart from"),
    ],
)  # fmt: skip
def test_a_comparison_says_what_it_has_shown_and_with_what_certainty(verdict: Verdict, words: str) -> None:
    figures = "+1.0% in 2 rounds, chance of error 0.001"
    assert compared(Comparison("p", 0.001, (0.00995, 0.00995), verdict)) == f"{words} the best so far: {figures}"
    assert compared(Comparison("p", 0.001, (), verdict)) == f"{words} the best so far"


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (999, "999"), (1000, "1.0k"), (999_949, "999.9k"), (999_950, "1.0M"), (4_500_000, "4.5M")],
)
def test_large_numbers_are_short(number: int, text: str) -> None:
    assert count(number) == text


def test_what_is_cut_says_how_much() -> None:
    assert cut("short", 10) == "short"
    assert cut("x" * 30, 10) == "xxxxxxxxxx… (20 more characters)"


def test_a_long_change_is_listed_by_the_names_of_its_moves_or_its_first_line() -> None:
    assert headline("see: the docs; and more") == "see: the docs; and more"
    assert in_a_list("stages: num_stages 1 -> 2") == "stages: num_stages 1 -> 2"
    assert in_a_list(f"skip: masked blocks; late-scale: {'scale folded in ' * 9}") == "skip + late-scale"
    assert in_a_list(perf := f"perf: load the next keys {'earlier ' * 20}") == perf.strip()
    assert in_a_list("Read keys twice\n" + "and more " * 20) == "Read keys twice"
