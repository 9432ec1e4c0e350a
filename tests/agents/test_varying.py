"""Variants are made from what their base was made from, whatever the working source has become since."""

import json
from dataclasses import replace
from typing import Any

from avo.agents.tools import Workbench
from avo.lineage_db.records import Attempt
from tests.agents.test_evaluating import Bench as Waiting
from tests.agents.test_evaluating import Slow
from tests.agents.test_tools import Bench
from tests.agents.world import WHY, World


def edit(old: str, new: str) -> list[dict[str, Any]]:
    return [{"name": "other", "edits": [{"old": old, "new": new}]}]


def made(bench: Bench | Waiting) -> Attempt:
    """Take the variant, evaluate it and return the attempt."""
    bench.call("write_source", variant="other")
    bench.call("evaluate", **WHY)
    return bench.world.desk.attempts[bench.box.bench.attempts[-1].attempt_id]


def two_versions() -> World:
    world = World()
    world.accept("tflops = 110.0", (0,))
    world.fail("tflops = 90.0")
    return world


def test_a_variant_of_another_version_has_that_version_as_its_parent() -> None:
    bench = Bench(two_versions())
    assert bench.box.bench.parents == (1,)
    bench.call("try_variants", version=0, variants=edit("100.0", "120.0"))
    assert {each.parents for each in bench.world.looked} == {(0,)}
    assert "parents are [0]" in bench.call("write_source", variant="other")
    attempt = made(bench)
    assert (attempt.source, attempt.parents, attempt.built_on) == ("tflops = 120.0", (0,), None)


def test_a_variant_of_an_attempt_is_built_on_it() -> None:
    bench = Bench(two_versions())
    bench.call("explore_directions", attempt=3, directions=[{**edit("90.0", "121.0")[0], "hypothesis": "x" * 20}])
    attempt = made(bench)
    assert (attempt.source, attempt.parents, attempt.built_on) == ("tflops = 121.0", (0,), 3)


def test_a_variant_of_the_working_source_is_built_on_the_attempt_that_this_became() -> None:
    bench = Bench(two_versions())
    bench.call("write_source", source="tflops = 112.0")
    bench.call("try_variants", variants=edit("112.0", "122.0"))
    bench.call("evaluate", **WHY)
    number = bench.box.bench.built_on
    bench.call("write_source", version=0)
    attempt = made(bench)
    assert (attempt.source, attempt.parents, attempt.built_on) == ("tflops = 122.0", (1,), number)


def test_a_variant_of_a_source_under_evaluation_is_built_on_what_that_comes_to() -> None:
    world = Slow()
    world.gate("tflops = 110.0")
    bench = Waiting(world)
    bench.call("write_source", source="tflops = 110.0")
    bench.call("try_variants", variants=edit("110.0", "123.0"))
    bench.start("tflops = 110.0")
    bench.call("write_source", version=0)
    world.gates["tflops = 110.0"].set()
    bench.call("collect")
    assert made(bench).built_on == 2


def test_variants_on_record_without_what_they_were_made_from_keep_the_parents() -> None:
    bench = Bench(two_versions())
    bench.call("try_variants", version=0, variants=edit("100.0", "120.0"))
    state = json.loads(json.dumps(bench.box.bench.to_json()))
    for name in ("parents", "built_on", "follows"):
        del state["varied"][name]
    old = Workbench.from_json(state)
    old.take("other", "tflops = 120.0")
    assert old.parents == (1,)
    assert old.varied == replace(bench.box.bench.varied, parents=())  # type: ignore[type-var]
