"""Evaluations that go on while their operator does: none is lost, doubled or beyond the budget."""

import json
import threading
from dataclasses import dataclass
from typing import Any

import pytest

from avo.agents.errors import CandidateTaken
from avo.agents.operator import BuiltOn
from avo.agents.tools import Toolbox, Workbench
from avo.agents.tools.arguments import READ_ONLY
from avo.evaluator.candidate import Candidate
from avo.lineage_db.records import Attempt
from tests.agents.world import WHY, World

LIMIT_S = 60.0
"""Ends a broken test only."""


@dataclass
class Slow(World):
    """A world whose evaluations end when their source's gate is opened; another worker has the one that is ``held``."""

    held: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.gates: dict[str, threading.Event] = {}
        self.begun = threading.Semaphore(0)
        self.lock = threading.Lock()

    def gate(self, *sources: str) -> None:
        self.gates |= {source: threading.Event() for source in sources}

    def evaluate(
        self,
        candidate: Candidate,
        *,
        change: str,
        parents: tuple[int, ...],
        hypothesis: str = "",
        built_on: BuiltOn = None,
    ) -> Attempt:
        self.begun.release()
        if gate := self.gates.get(candidate.source):
            assert gate.wait(LIMIT_S)
        if candidate.source == self.held:
            raise CandidateTaken
        edited = built_on() if callable(built_on) else built_on
        with self.lock:
            return super().evaluate(candidate, change=change, parents=parents, hypothesis=hypothesis, built_on=edited)


class Bench:
    def __init__(self, world: Slow, bench: Workbench | None = None, at_once: int = 2) -> None:
        self.world, self.box = world, Toolbox(world.brief(at_once=at_once), bench)

    def call(self, name: str, /, **arguments: Any) -> str:
        return self.box.call(name, json.dumps(arguments))

    def start(self, source: str, *, afresh: bool = False) -> str:
        if afresh:
            self.call("write_source", version=0)
        self.call("write_source", source=source)
        return self.call("evaluate", **WHY, wait=False)

    def hear(self, words: str) -> str:
        """Go on until a result has these words."""
        return next(said for said in (self.call("view_source") for _ in range(99_999)) if words in said)


def test_the_result_of_an_evaluation_comes_below_that_of_a_later_call_once() -> None:
    world = Slow()
    world.gate("tflops = 110.0", "tflops = 120.0")
    bench = Bench(world)
    assert bench.start("tflops = 110.0").startswith("evaluation 1 is under way")
    assert bench.start("tflops = 120.0", afresh=True).startswith("evaluation 2 is under way")
    assert "evaluation 2, under way [a number]" in bench.call("read_lineage")
    world.gates["tflops = 120.0"].set()
    assert bench.call("collect").startswith("evaluation 2: attempt 2: correct, 120 predicted TFLOPS")
    world.gates["tflops = 110.0"].set()
    said = bench.hear("evaluation")
    assert said.startswith("   1 tflops = 120.0\n\nevaluation 1: attempt 3: correct, 110")
    assert "evaluation" not in bench.call("view_source")
    assert bench.call("collect") == "no evaluation is under way"
    assert [each.attempt_id for each in bench.box.bench.attempts] == [2, 3]
    assert "collect" not in READ_ONLY


def test_no_more_are_under_way_than_there_are_evaluators() -> None:
    world = Slow()
    world.gate("tflops = 110.0", "tflops = 120.0")
    bench = Bench(world, at_once=1)
    bench.start("tflops = 110.0")
    assert world.begun.acquire(timeout=LIMIT_S)
    second = threading.Thread(target=bench.start, args=("tflops = 120.0",))
    second.start()
    assert not world.begun.acquire(timeout=0.05)
    world.gates["tflops = 110.0"].set()
    second.join(LIMIT_S)
    assert world.begun.acquire(timeout=LIMIT_S)
    world.gates["tflops = 120.0"].set()
    assert "evaluation 2: attempt 3" in bench.call("collect")


def test_without_evaluators_to_spare_an_evaluation_is_waited_for() -> None:
    bench = Bench(Slow(), at_once=0)
    assert bench.start("tflops = 110.0").startswith("attempt 2: correct")


def test_what_was_edited_is_known_though_it_was_under_way() -> None:
    world = Slow()
    world.gate("tflops = 110.0")
    bench = Bench(world)
    bench.start("tflops = 110.0")
    bench.start("tflops = 121.0")
    world.gates["tflops = 110.0"].set()
    said = bench.call("collect")
    said += bench.call("collect")
    assert "attempt 2 has 110 (+10.0%)" in said
    assert [(each.attempt_id, each.built_on) for each in bench.box.bench.attempts] == [(2, None), (3, 2)]
    assert (bench.box.bench.built_on, bench.box.bench.follows) == (3, None)
    bench.call("write_source", source="tflops = 130.0")
    assert "attempt 3 has 121" in bench.call("evaluate", **WHY)


def test_a_direction_says_that_its_base_is_edited_from_what_is_under_way() -> None:
    world = Slow()
    world.gate("tflops = 110.0")
    bench = Bench(world)
    bench.start("tflops = 110.0")
    test = {"name": "pages", "hypothesis": "prefetch page numbers", "edits": [{"old": "110.0", "new": "120.0"}]}
    bench.call("explore_directions", directions=[test])
    assert world.desk.explored[0].evidence[0].base == "the working source from evaluation 1"
    world.gates["tflops = 110.0"].set()


def test_one_that_is_waited_for_may_be_edited_from_one_that_is_under_way() -> None:
    world = Slow()
    world.gate("tflops = 110.0")
    bench = Bench(world)
    bench.start("tflops = 110.0")
    threading.Timer(0.05, world.gates["tflops = 110.0"].set).start()
    bench.call("write_source", source="tflops = 121.0")
    said = bench.call("evaluate", **WHY)
    assert said.startswith("attempt 3: correct, 121 predicted TFLOPS; attempt 2 has 110 (+10.0%)")
    assert "evaluation 1: attempt 2" in said
    assert bench.box.bench.built_on == 3


def test_what_is_under_way_counts_against_the_budget() -> None:
    world = Slow(evaluations=2)
    world.gate("tflops = 120.0")
    bench = Bench(world)
    bench.start("tflops = 110.0")
    bench.start("tflops = 120.0")
    threading.Timer(0.05, world.gates["tflops = 120.0"].set).start()
    assert bench.start("tflops = 130.0").startswith("error: no evaluations are left")
    assert sorted(world.tried) == ["tflops = 110.0", "tflops = 120.0"]


def test_a_source_that_is_under_way_is_not_evaluated_again() -> None:
    world = Slow()
    world.gate("tflops = 110.0")
    bench = Bench(world)
    bench.start("tflops = 110.0")
    assert bench.start("tflops = 110.0") == "error: evaluation 1 is of this source: collect waits for it"
    world.gates["tflops = 110.0"].set()
    bench.call("collect")
    assert "(evaluated before" in bench.call("evaluate", **WHY)
    assert world.tried == ["tflops = 110.0"]


def test_a_submission_waits_and_is_asked_for_again() -> None:
    world = Slow()
    world.gate("tflops = 120.0")
    bench = Bench(world)
    first = bench.start("tflops = 110.0") + bench.call("collect")
    assert "attempt 2" in first
    bench.start("tflops = 120.0")
    threading.Timer(0.05, world.gates["tflops = 120.0"].set).start()
    submission = {"attempt": 2, "change": "a number", "seen": "faster"}
    said = bench.call("submit", **submission)
    assert said.startswith("error: not submitted: submit again")
    assert "evaluation 2: attempt 3: correct, 120" in said
    assert not bench.box.bench.done
    assert "attempt 3 is submitted" in bench.call("submit", **submission | {"attempt": 3})


def test_what_was_under_way_when_a_step_was_killed_is_begun_again_and_recorded_once() -> None:
    world = Slow()
    world.gate("tflops = 110.0", "tflops = 120.0")
    bench = Bench(world)
    bench.start("tflops = 110.0")
    bench.start("tflops = 120.0")
    kept = json.loads(json.dumps(bench.box.bench.to_json()))
    world.gates["tflops = 110.0"].set()
    for _ in range(6000):
        if len(world.desk.attempts) == 2:  # it is recorded, and nobody has read it
            break
        threading.Event().wait(0.01)
    assert len(world.desk.attempts) == 2
    again = Bench(world, Workbench.from_json(kept))
    world.gates["tflops = 120.0"].set()
    again.box.finish()
    assert sorted(each.attempt_id for each in again.box.bench.attempts) == [2, 3]
    assert sorted(world.tried) == ["tflops = 110.0", "tflops = 120.0"]
    assert again.box.bench.started == []


@pytest.mark.parametrize("first_ends", [True, False])
def test_what_is_edited_from_a_source_that_another_worker_has_keeps_its_link_to_the_attempt_before(
    first_ends: bool,
) -> None:
    """Of three, each edited from the one before, the second is taken; the first has ended by then, or ends later."""
    sources = first, second, third = [f"tflops = {each}.0" for each in (110, 120, 130)]
    world = Slow(held=second)
    world.gate(*sources)
    bench = Bench(world, at_once=3)
    for each in sources:
        bench.start(each)
    for each in (first, second) if first_ends else (second, first):
        world.gates[each].set()
        bench.hear(f"evaluation {sources.index(each) + 1}: ")
    world.gates[third].set()
    bench.call("collect")
    assert [(each.attempt_id, each.built_on) for each in bench.box.bench.attempts] == [(2, None), (3, 2)]


def test_what_follows_a_source_that_another_worker_has_goes_on_to_follow_what_that_followed() -> None:
    world = Slow(held="tflops = 120.0")
    world.gate("tflops = 110.0", "tflops = 120.0")
    bench = Bench(world)
    bench.start("tflops = 110.0")
    bench.start("tflops = 120.0")
    world.gates["tflops = 120.0"].set()
    bench.hear("evaluation 2: not made")
    assert (bench.box.bench.built_on, bench.box.bench.follows) == (None, 1)
    world.gates["tflops = 110.0"].set()
    bench.call("collect")
    assert (bench.box.bench.built_on, bench.box.bench.follows) == (2, None)


def test_a_candidate_that_another_worker_has_is_no_attempt() -> None:
    world = Slow()
    world.taken = True
    bench = Bench(world)
    said = bench.start("tflops = 110.0") + bench.call("collect")
    assert "evaluation 1: not made, another worker is evaluating this candidate" in said
    assert (bench.box.bench.attempts, bench.box.bench.started) == ([], [])
