"""The one sentence in which a decision is told."""

from dataclasses import replace

import pytest

from avo.evaluator.evaluation import Comparison, Status, Verdict
from avo.evaluator.resolution import Difference
from avo.lineage_db.decision import (
    Decision,
    Lead,
    Ruling,
    compared,
    ending,
    failed,
    final,
    incomparable,
    repeated,
    timed,
    unrivalled,
    unsubmitted,
)

LEADS = [
    (Lead(3, Difference(0.056, 0.97)), "would be accepted: +5.6% in the mean over version 3, faster in 97% of draws"),
    (Lead(3, Difference(0.056, None)), "would be accepted: +5.6% in the mean over version 3"),
    (
        Lead(3, Difference(0.056, 0.71)),
        "unresolved: +5.6% in the mean over version 3, faster in 71% of draws, 90% are needed",
    ),
    (
        Lead(3, Difference(0.056, 0.71), ("8k-causal", -0.031)),
        "unresolved: +5.6% in the mean over version 3, -3.1% on 8k-causal, faster in 71% of draws, 90% are needed",
    ),
    (
        Lead(3, Difference(0.056, 0.71, 0.0792)),
        "unresolved: +5.6% in the mean over version 3, resolved from +7.9%, faster in 71% of draws, 90% are needed",
    ),
    (
        Lead(3, Difference(0.056, 0.97, 0.031)),
        "would be accepted: +5.6% in the mean over version 3, resolved from +3.1%, faster in 97% of draws",
    ),
    (Lead(3, Difference(0.011, 1.0, 0.014)), "unresolved: +1.1% in the mean over version 3, resolved from +1.4%"),
    (
        Lead(3, Difference(0.004, 0.6, 0.012, 0.036)),
        "unresolved: +0.4% in the mean over version 3 with its neighbours and +3.6% alone, +1% is needed",
    ),
    (Lead(0, Difference(-0.02, 0.1), ("8k", -0.04)), "not accepted: -2.0% in the mean over version 0, +1% is needed"),
    (
        Lead(0, Difference(0.004, 1.0), ("8k", -0.04)),
        "not accepted: +0.4% in the mean over version 0, -4.0% on 8k, +1% is needed",
    ),
    (Lead(0, Difference(0.0098, 1.0)), "not accepted: +0.98% in the mean over version 0, +1% is needed"),
    (
        Lead(0, Difference(0.02, 0.8999)),
        "unresolved: +2.0% in the mean over version 0, faster in 89% of draws, 90% are needed",
    ),
    (Lead(0, Difference(0.01, 0.9)), "would be accepted: +1.0% in the mean over version 0, faster in 90% of draws"),
]


@pytest.mark.parametrize(("lead", "words"), LEADS)
def test_a_predicted_lead_is_told_with_what_is_needed_where_that_is_missing(lead: Lead, words: str) -> None:
    decision = lead.decide(0.01, 0.9)
    assert decision.told == words
    assert (decision.gain, decision.share) == (lead.found.gain, lead.found.share)
    assert decision.resolution == lead.found.resolution
    assert decision.refused is not words.startswith("would be accepted")


def test_every_other_refusal_has_a_sentence() -> None:
    faster = Comparison("p", 0.01, (0.02,), Verdict.FASTER)
    slower = Comparison("p", 0.01, (-0.02,), Verdict.SLOWER)
    refusals = {
        repeated("version 2"): "not accepted: lowers to the same launch plans as version 2",
        incomparable("target h100", "target b200"): (
            "not accepted: judged by another yardstick: target h100, and the versions target b200"
        ),
        timed(None, 3): "not accepted: was not compared with version 3, the best",
        timed(slower, 3): "not accepted: slower than the best so far: -2.0% in 1 rounds, chance of error 0.01",
        failed(Status.MISCOMPILED): (
            "not accepted: correct on the suite, but miscompiled by one of Triton's passes "
            "(avo evaluate --closely names it)"
        ),
        failed(Status.MISCOMPILED, "kernel k is compiled wrong: right in Triton IR, wrong after pass 41, p"): (
            "not accepted: correct on the suite, but kernel k is compiled wrong: right in Triton IR, "
            "wrong after pass 41, p"
        ),
        failed(Status.OUT_OF_BOUNDS): (
            "not accepted: correct on the suite, but out of bounds at other shapes or in a larger sample"
        ),
        unsubmitted(Lead(0, Difference(0.02, 1.0)).decide(0.01, 0.9)): (
            "not submitted: +2.0% in the mean over version 0, faster in 100% of draws"
        ),
    }
    assert {decision.told for decision in refusals} == set(refusals.values())
    assert all(decision.refused for decision in refusals)
    assert not timed(faster, 3).refused
    assert not unrivalled().refused


SMALL, GOOD = (Lead(0, Difference(gain, 1.0)).decide(0.01, 0.9) for gain in (0.001, 0.02))
UNCLEAR = Lead(1, Difference(0.02, 0.5)).decide(0.01, 0.9)
ACCEPTED = Decision(Ruling.ACCEPTED, "better")


@pytest.mark.parametrize(
    ("before", "now", "then"),
    [
        (None, SMALL, SMALL),
        (SMALL, failed(Status.RACE), failed(Status.RACE)),  # known to be wrong, it is of no more use
        (SMALL, ACCEPTED, ACCEPTED),
        (GOOD, SMALL, replace(SMALL, ruling=Ruling.OVERTAKEN)),
        (GOOD, UNCLEAR, UNCLEAR),  # against the version that has been added, and still of use
        (GOOD, failed(Status.RACE), failed(Status.RACE)),
        (GOOD, repeated("version 4"), repeated("version 4")),
        (GOOD, ACCEPTED, ACCEPTED),
        (GOOD, None, None),
        (unsubmitted(GOOD), SMALL, replace(SMALL, ruling=Ruling.OVERTAKEN)),
        (unsubmitted(GOOD), ACCEPTED, ACCEPTED),
        (UNCLEAR, SMALL, UNCLEAR),
    ],
)
def test_the_last_word_on_an_attempt(before: Decision | None, now: Decision | None, then: Decision | None) -> None:
    assert final(before, now) == then


def test_a_step_ends_with_the_reason_of_a_refusal() -> None:
    assert ending("tried", SMALL) == f"tried; {SMALL.told}"
    assert ending("", SMALL) == SMALL.told
    assert ending("tried", ACCEPTED) == ending("tried", None) == "tried"


def test_a_comparison_says_what_processes_differ_by() -> None:
    found = compared(Comparison("digest", 0.01, (0.01,) * 8, Verdict.FASTER, between=0.003))
    assert found.endswith("in 8 rounds, chance of error 0.01; processes differ by 0.30%")
