"""Steps that were left with a transcript: continued by one worker at a time, and again after that one is gone."""

from typing import Any

import pytest

from avo.lineage_db.records import Run, Step, StepState
from avo.lineage_db.store import Store


class Office:
    """A run whose workers come and go."""

    def __init__(self, store: Store, make: Any) -> None:
        self.store = store
        self.now = make.now
        self.run: Run = make.run(store)

    def claim(self, worker: str) -> Step:
        return self.store.claims.claim(self.run.id, worker=worker, operator="agent", now=self.now)

    def leave(self, step: Step, *, written: bool = True) -> None:
        if written:
            self.store.journal.add_message(step.id, "message", {}, now=self.now)
        self.store.claims.fail(step.id, state=StepState.ABANDONED, reason="killed", now=self.now)

    def finish(self, step: Step) -> None:
        self.store.claims.fail(step.id, state=StepState.FAILED, reason="done", now=self.now)


@pytest.fixture
def office(store: Store, make: Any) -> Office:
    return Office(store, make)


def test_a_step_that_another_worker_continued_is_not_continued_by_its_own_too(office: Office) -> None:
    done, left = office.claim("w0"), office.claim("w1")
    office.finish(done)
    office.leave(left)
    assert office.claim("w0").redoes == left.number
    assert office.claim("w1").redoes is None


def test_workers_of_other_names_take_it_up_one_after_the_other(office: Office) -> None:
    before = office.claim("session-0")
    for session in range(1, 4):
        office.leave(before)
        after = office.claim(f"session-{session}")
        assert after.redoes == before.number
        before = after


def test_a_step_that_was_left_before_it_wrote_anything_is_no_end(office: Office) -> None:
    first = office.claim("w0")
    office.leave(first)
    second = office.claim("w0")
    office.leave(second, written=False)
    third = office.claim("w0")
    assert (second.redoes, third.redoes) == (first.number, second.number)


def test_what_ends_it_again_and_again_is_left_alone_in_the_end(office: Office) -> None:
    redone = []
    step = office.claim("w0")
    for _ in range(8):
        office.leave(step)
        step = office.claim("w0")
        redone.append(step.redoes)
    assert redone[:4] == [0, 1, 2, 3]
    assert None in redone
