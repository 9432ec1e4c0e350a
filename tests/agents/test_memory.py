"""Memory: every hypothesis with its outcome, and what matters first."""

from dataclasses import replace
from datetime import UTC, datetime

from avo.agents.memory import Lesson, handed_over, lessons, matter_at_hand, ranked
from avo.lineage_db.entries import Memory
from tests.agents.world import UNRESOLVED, World

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def test_hypotheses_are_kept_with_their_outcomes_and_notes_next_to_them() -> None:
    world = World()
    world.accept("tflops = 110.0", (0,), "larger tiles reuse more")
    world.fail("nonsense", "shorter is faster")
    world.fail("tflops = 99.0")
    world.fail("tflops = 105.6", "one barrier less", UNRESOLVED)
    found = lessons([Memory(1, 1, 2, "ptxas spills at 255", NOW)], world.attempts, world.versions)
    assert [lesson.text for lesson in found] == [
        "ptxas spills at 255",
        "attempt 2: 100 -> 110 predicted TFLOPS (+10.0%) over version 0, version 1. Changed: to tflops = 110.0. "
        "Hypothesis: larger tiles reuse more.",
        "attempt 3: parse error: not a kernel: nonsense. Changed: to nonsense. Hypothesis: shorter is faster.",
        "attempt 5: 100 -> 106 predicted TFLOPS (+5.6%) over version 0, unresolved: +5.6% in the mean over version "
        "0, faster in 71% of draws, 90% are needed. Changed: to tflops = 105.6. Hypothesis: one barrier less.",
    ]
    assert [(lesson.step, lesson.attempt_id) for lesson in found] == [(2, None), (2, 2), (3, 3), (5, 5)]
    assert lessons([], [], []) == []


def test_what_a_version_changes_in_all_is_compared_with_its_parent_and_its_last_edit_with_what_was_edited() -> None:
    world = World()
    world.fail("tflops = 370.0", "roles", built_on=None)
    world.accept("tflops = 383.7", (0,), "the order of statements")
    words = {"built_on": 2, "whole_change": "roles, then the order of statements", "seen": "as expected"}
    world.attempts[2] = replace(world.attempts[2], **words)
    world.fail("tflops = 380.0", "another order", built_on=3)
    found = [lesson.text for lesson in lessons([], world.attempts, world.versions)]
    assert found[1:] == [
        "attempt 3: 100 -> 384 predicted TFLOPS (+283.7%) over version 0, version 1. "
        "Changed: roles, then the order of statements. Seen: as expected. The last edit alone: 370 -> 384 "
        "predicted TFLOPS (+3.7%) over attempt 2: to tflops = 383.7. Hypothesis: the order of statements.",
        "attempt 4: 384 -> 380 predicted TFLOPS (-1.0%) over version 1. Changed: to tflops = 380.0. "
        "Hypothesis: another order.",
    ]


def test_the_latest_handovers_come_with_what_became_of_their_steps() -> None:
    world = World()
    world.accept("tflops = 110.0", (0,))
    texts = ((1, "older"), (2, "first try"), (2, "tiles next"), (3, "nothing helped"))
    memories = [Memory(place, 1, step, text, NOW, handover=True) for place, (step, text) in enumerate(texts)]
    assert lessons(memories, [], []) == []
    assert [(each.of, each.text) for each in handed_over(memories, world.attempts, 2)] == [
        ("step 3, which made no version", "nothing helped"), ("step 2, which made version 1", "tiles next"),
    ]  # fmt: skip


def test_recent_relevant_and_large_come_first() -> None:
    old, new = Lesson(1, 1, "about tiles", 0.3), Lesson(60, 2, "about tiles", 0.3)
    assert ranked([old, new], "", 2) == [new, old]
    about = Lesson(1, 3, "spills of registers", 0.3)
    assert ranked([old, about], "registers spills critical", 1) == [about]
    large = Lesson(1, 4, "about tiles", 1.0)
    assert ranked([old, large], "", 2) == [large, old]
    assert ranked([], "tiles", 3) == []


def test_the_matter_at_hand_is_the_parent_what_holds_it_back_and_what_failed() -> None:
    world = World()
    world.accept("tflops = 110.0", (0,), "larger tiles")
    world.fail("nonsense")
    words = matter_at_hand(world.versions[-1], world.attempts)
    assert [part for part in ("larger tiles", "tensor", "not a kernel: nonsense") if part not in words] == []
