"""Near-duplicates: a candidate that resembles an earlier attempt more than what it was edited from is told so."""

import json
from typing import Any

import pytest

from avo.agents.tools import Toolbox
from avo.agents.tools.resemblance import NEAR, resembled, tree_of
from avo.agents.tools.workbench import Workbench
from avo.seeds import seed_source
from tests.agents.world import UNRESOLVED, WHY, World

KERNEL = '''tflops = 100.0
"""A kernel."""
BLOCK = 64

def kernel(K, V, out, BLOCK_N: tl.constexpr, STAGES: tl.constexpr = 2):
    """Of the hot loop."""
    LOG2E = 1.44
    offsets = tl.arange(0, BLOCK_N)
    rows = tl.program_id(0) * BLOCK_N + offsets
    batch, head = tl.program_id(1) // 16, tl.program_id(1) % 16
    mask = (rows < 4096) & (batch < 8) & (head < 16)
    scale = tl.where(mask, 0.125, 0.0).to(tl.float32)
    total = tl.zeros([BLOCK_N], tl.float32)
    for start in range(0, 4096, BLOCK_N):
        keys = tl.load(K + start + offsets)
        values = tl.load(V + start + offsets)
        scores = tl.exp2(keys * LOG2E * scale)
        total += scores * values
    tl.store(out + offsets, total)
'''
RENAMED = (
    KERNEL.replace("keys", "k")
    .replace("values", "v")
    .replace("total", "acc")
    .replace("        scores", "\n        scores")
)
RENAMED = RENAMED.replace('"""Of the hot loop."""', "# the same")
SWAPPED = KERNEL.replace(
    "keys = tl.load(K + start + offsets)\n        values = tl.load(V + start + offsets)",
    "values = tl.load(V + start + offsets)\n        keys = tl.load(K + start + offsets)",
)
ROUNDED = KERNEL.replace(
    "tl.exp2(keys * LOG2E * scale)", "tl.exp2((keys * LOG2E * scale).to(tl.bfloat16).to(tl.float32))"
)
HINTED = KERNEL.replace("tl.store(out", "tl.debug_barrier()\n    tl.store(out")


def test_names_of_local_variables_comments_and_layout_make_no_other_tree_and_an_order_does() -> None:
    one, same, other, hinted = map(tree_of, (KERNEL, RENAMED, SWAPPED, HINTED))
    assert one is not None
    assert same is not None
    assert other is not None
    assert hinted is not None
    assert RENAMED != KERNEL
    assert (one.whole, one.similarity(same)) == (same.whole, 1.0)
    assert one.whole != other.whole
    assert 1.0 > one.similarity(other) > 0.5
    assert 1.0 > one.similarity(hinted) > NEAR
    assert one.similarity(hinted) == hinted.similarity(one)
    for old, new in (("BLOCK_N", "TILE_N"), ("LOG2E", "C")):
        constant = tree_of(KERNEL.replace(old, new))
        assert constant is not None
        assert constant.whole != one.whole, "names of constants stay"
    often, seldom = tree_of("f(x)\n" * 8), tree_of("f(x)\n" * 4)
    assert often is not None
    assert seldom is not None
    assert often.similarity(seldom) < 0.6


@pytest.mark.parametrize(
    ("old", "new"),
    [("BLOCK = 64", "BLOCK = 128"), ("STAGES: tl.constexpr = 2", "STAGES: tl.constexpr = 3"), ("4096", "99")],
)
def test_parameter_variants_have_one_skeleton(old: str, new: str) -> None:
    one, varied, other = tree_of(KERNEL), tree_of(KERNEL.replace(old, new)), tree_of(HINTED)
    assert one is not None
    assert varied is not None
    assert other is not None
    assert one.skeleton == varied.skeleton != other.skeleton
    assert one.whole != varied.whole


def test_what_does_not_parse_has_no_tree_and_seeds_do_not_resemble_each_other() -> None:
    assert tree_of("def") is None
    assert tree_of(f"x = {'(' * 400}1{')' * 400}") is None
    assert tree_of("") is not None
    plain, tuned = (tree_of(seed_source("mha", name)) for name in ("plain", "tuned"))
    assert plain is not None
    assert tuned is not None
    assert plain.similarity(tuned) < 0.5


def told(world: World, source: str, **bench: Any) -> str:
    made = Workbench(**{"source": source, "parents": (1,), **bench})
    return resembled(world.brief(), made, source, made.parents, made.built_on)


@pytest.fixture
def world() -> World:
    """A run whose version 1 (attempt 2) is the kernel; attempt 3 made it round."""
    world = World()
    world.accept(KERNEL, (0,))
    world.fail(ROUNDED.replace("100.0", "103.0"), decision=UNRESOLVED)
    return world


def test_an_attempt_made_once_more_in_other_words_is_told_with_what_it_scored(world: World) -> None:
    again = ROUNDED.replace("keys", "k").replace("100.0", "103.0")
    assert told(world, again).startswith(
        "this has the same syntax tree as attempt 3: correct, 103 predicted TFLOPS; unresolved: +5.6% in the mean"
    )
    more = again.replace("tl.store(out", "tl.debug_barrier()\n    tl.store(out")
    said = told(world, more)
    assert said.startswith("this resembles, with 9")
    assert "% of the syntax tree in common, attempt 3: correct, 103" in said
    renamed = RENAMED.replace("100.0", "100.00")
    assert told(world, renamed).startswith("this has the same syntax tree as attempt 2: correct, 100 predicted TFLOPS")


def test_an_edit_of_its_own_and_parameter_variants_are_not_told(world: World) -> None:
    world.fail(KERNEL.replace("    tl.store(out", "    tl.device_assert(scale)\n    tl.store(out"))
    one, other = tree_of(HINTED), tree_of(world.desk.attempts[4].source)
    assert one is not None
    assert other is not None
    assert one.similarity(other) > NEAR
    assert told(world, HINTED) == "", "nearest to what it was edited from"
    assert told(world, ROUNDED.replace("100.0", "103.0").replace("64", "128")) == "", "numbers alone differ"
    assert told(world, KERNEL.replace("64", "128")) == ""
    assert told(world, "not a kernel (") == ""
    assert told(world, KERNEL) == "", "the very source is on record"
    built_on = ROUNDED.replace("100.0", "103.0").replace("tl.store(out", "tl.debug_barrier()\n    tl.store(out")
    assert told(world, built_on, built_on=3) == ""


def test_a_check_and_an_evaluation_say_what_the_source_resembles_and_refuse_nothing(world: World) -> None:
    box = Toolbox(world.brief())
    again = ROUNDED.replace("keys", "k").replace("100.0", "103.0")
    box.call("write_source", json.dumps({"source": again}))
    assert "this has the same syntax tree as attempt 3: correct, 103" in box.call("check", "{}")
    said = box.call("evaluate", json.dumps(WHY))
    assert said.splitlines()[1].startswith("this has the same syntax tree as attempt 3: correct, 103")
    assert said.startswith("attempt 4: correct, 103")
    box.call("write_source", '{"version": 1}')
    box.call("write_source", json.dumps({"source": HINTED}))
    assert "syntax tree" not in box.call("evaluate", json.dumps(WHY))
