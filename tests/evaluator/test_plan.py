import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluator.errors import InvalidPlan
from evaluator.executor.locations import split_locations
from evaluator.plan import (
    Buffer,
    Descriptor,
    Fill,
    KernelIR,
    Launch,
    LaunchPlan,
    PlanLimits,
    Pointer,
    Role,
    Scalar,
    canonical_ttir,
    plan_from_json,
    without_locations,
)

IR = """#loc = loc("/a/b.py":1:1)
module {
  tt.func public @k(%X: !tt.ptr<f32> loc("X"(#loc))) {
    %0 = tt.load %X : !tt.ptr<f32> loc(#loc)
    tt.return loc(callsite(#loc at #loc))
  } loc(#loc)
} loc(#loc)
"""
PLAN = LaunchPlan(
    "case",
    (Buffer("q", "bfloat16", 64, Role.INPUT), Buffer("scratch0", "float32", 16, Role.SCRATCH)),
    (KernelIR("k", IR, (("num_stages", 2), ("num_warps", 4))),),
    (
        Fill(1, 0, (4, 2), (4, 1), 0.0),
        Launch(0, (3, 2, 1), (Pointer(0, 16), Scalar(1.5), Descriptor(0, 0, (8, 8), (8, 1), (4, 4), "zero"))),
    ),
)


def test_json_round_trip() -> None:
    assert plan_from_json(json.loads(json.dumps(PLAN.to_json()))) == PLAN


def test_locations_and_value_names_do_not_change_the_digest() -> None:
    moved = IR.replace("b.py", "c.py").replace(":1:1", ":7:2").replace("%0", "%loaded").replace("%X", "%Y")
    other = LaunchPlan(PLAN.case, PLAN.buffers, (KernelIR("k", moved, PLAN.kernels[0].options),), PLAN.steps)
    assert other.digest == PLAN.digest


@pytest.mark.parametrize(
    "kernel",
    [
        KernelIR("k", IR.replace("tt.load", "tt.store"), PLAN.kernels[0].options),
        KernelIR("k", IR, (("num_stages", 2), ("num_warps", 8))),
    ],
)
def test_ir_and_options_change_the_digest(kernel: KernelIR) -> None:
    assert LaunchPlan(PLAN.case, PLAN.buffers, (kernel,), PLAN.steps).digest != PLAN.digest


@pytest.mark.parametrize("name", ["loc", "alloc", "a.loc", "a$loc", "a-loc"])
def test_a_call_is_no_location(name: str) -> None:
    call = f"%a = tt.call @{name}(%b, %c) : (i32, i32) -> i32"
    assert without_locations(f"{call} loc(#loc3)") == call
    assert split_locations(f"{call} loc(#loc3)") == (call, "#loc3")


def test_canonical_text_has_no_locations() -> None:
    assert "loc" not in canonical_ttir(IR)


def test_what_looks_like_a_location_inside_a_string_stays() -> None:
    text = '%0 = tt.call "loc(\\"a\\")" loc("f.py":1:2) {asm = "%tid loc(#loc)"} loc(#loc3)\n#loc3 = loc("x"(#loc))\n'
    assert without_locations(text) == '%0 = tt.call "loc(\\"a\\")" {asm = "%tid loc(#loc)"}\n\n'


def test_what_looks_like_a_value_inside_a_string_stays() -> None:
    assert canonical_ttir('%x = tt.call {asm = "mov %tid.x"}') == '%0 = tt.call {asm = "mov %tid.x"}'


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("buffers", 0, "dtype"), "float7", "dtype"),
        (("buffers", 0, "size"), -1, "size"),
        (("buffers", 0, "size"), True, "size"),
        (("buffers", 0, "role"), "boss", "role"),
        (("buffers", 1, "size"), 2**38, "scratch"),
        (("kernels", 0, "options"), {"num_warps": [4]}, "options"),
        (("steps", 0, "fill", "buffer"), 9, "buffer"),
        (("steps", 0, "fill", "buffer"), 0, "input"),
        (("steps", 0, "fill", "offset"), 9, "reaches element"),
        (("steps", 1, "launch", "kernel"), 1, "kernel"),
        (("steps", 1, "launch", "grid"), [1, 1], "grid"),
        (("steps", 1, "launch", "grid"), [2**20, 2**20, 1], "grid"),
        (("steps", 1, "launch", "args", 0), {"pointer": {"buffer": 0, "byte_offset": 1000}}, "byte_offset"),
        (("steps", 1, "launch", "args", 0), {"socket": {}}, "socket"),
        (("steps", 1, "launch", "args", 2, "descriptor", "padding"), "x", "padding"),
        (("steps", 1), {"exec": "rm"}, "fill or launch"),
        (("case",), 3, "case"),
    ],
)
def test_a_broken_plan_is_refused_by_the_name_of_the_field(path: tuple[Any, ...], value: Any, message: str) -> None:
    data = copy.deepcopy(PLAN.to_json())
    data = json.loads(json.dumps(data))
    where = data
    for key in path[:-1]:
        where = where[key]
    where[path[-1]] = value
    with pytest.raises(InvalidPlan, match=message):
        plan_from_json(data)


def test_more_launches_than_the_limit_are_refused() -> None:
    data = PLAN.to_json()
    data["steps"] *= 3
    with pytest.raises(InvalidPlan, match="steps has 6 items, the limit is 4"):
        plan_from_json(data, PlanLimits(launches=2, fills=2))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["case", "steps", "x"]), inner),
)


@given(JSON)
def test_hostile_data_never_raises_anything_else(data: object) -> None:
    with pytest.raises(InvalidPlan):
        plan_from_json(data)


@given(st.sampled_from(["buffers", "kernels", "steps"]), JSON)
def test_hostile_parts_never_raise_anything_else(part: str, data: object) -> None:
    plan = PLAN.to_json()
    plan[part] = [data]
    with pytest.raises(InvalidPlan):
        plan_from_json(plan)
