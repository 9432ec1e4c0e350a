"""Handovers: the model's own words, or what the record says, never more than is read gladly."""

from avo.agents.handover import MOST_WORDS, abridged, handover, without_attempts
from avo.agents.tools import StepAttempt, Workbench


def bench(**fields: object) -> Workbench:
    tried = StepAttempt(7, "fewer barriers", "one barrier", "+5%", "correct, 580.0 predicted TFLOPS", 580.0)
    return Workbench("x", (0,), attempts=[tried], **fields)  # type: ignore[arg-type]


def test_the_words_of_the_model_come_before_the_record() -> None:
    assert handover(bench(handover=" Go on with barriers. "), "its time is up") == "Go on with barriers."


def test_the_record_says_how_the_step_ended_what_was_tried_and_what_was_said_last() -> None:
    said = handover(bench(), "its time is up", "The exponentials are next.")
    assert said.splitlines() == [
        "(From the record, not in the step's own words.) The step ended: its time is up.",
        "- attempt 7: correct, 580.0 predicted TFLOPS [one barrier] hypothesis: fewer barriers (expected +5%)",
        "Last said: The exponentials are next.",
    ]
    assert "It submitted nothing: all slower" in handover(bench(reason="all slower"), "")
    assert handover(Workbench("x", (0,)), "no submission in 200 replies") == ""


def test_a_long_handover_is_cut_after_a_line_or_a_sentence() -> None:
    line = "The loop has 283.7 clocks. It waits for exponentials."
    assert abridged("\n".join(["A heading", *[line] * 100])).splitlines() == ["A heading", *[line] * 66]
    kept = abridged(" ".join([line] * 100))
    assert MOST_WORDS - 10 < len(kept.split()) <= MOST_WORDS
    assert kept.endswith(("clocks. ...", "exponentials. ..."))
    assert abridged("short\n\nand whole") == "short\n\nand whole"


def test_a_handover_from_the_record_leaves_out_attempts_that_are_told_of_elsewhere() -> None:
    said = handover(bench(), "its time is up", "The exponentials are next.")
    assert "attempt 7" not in without_attempts(said, {7})
    assert without_attempts(said, {7}).endswith("its time is up.\nLast said: The exponentials are next.")
    assert without_attempts(said, {8}) == said
    assert without_attempts("In my words:\n- attempt 7: a wall", {7}).endswith("a wall")
