"""Memory: every hypothesis with its outcome, and what matters first."""

from datetime import UTC, datetime

from agents.memory import Lesson, lessons, matter_at_hand, ranked
from lineage_db.records import Memory
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
        "attempt 2: larger tiles reuse more [to tflops = 110.0] -> 100.0 -> 110.0 predicted TFLOPS (+10.0%), version 1",
        "attempt 3: shorter is faster [to nonsense] -> parse_error: not a kernel: nonsense",
        "attempt 5: one barrier less [to tflops = 105.6] -> 100.0 -> 105.6 predicted TFLOPS (+5.6%), unresolved: "
        "+5.6% in the mean over version 0, faster in 71% of draws, 90% are needed",
    ]
    assert [(lesson.step, lesson.attempt_id) for lesson in found] == [(2, None), (2, 2), (3, 3), (5, 5)]
    assert lessons([], [], []) == []


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
