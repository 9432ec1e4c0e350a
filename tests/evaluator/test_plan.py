import contextlib
import copy
import json
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from avo.evaluator.capture.plan_reading import plan_from_json
from avo.evaluator.errors import InvalidPlan
from avo.evaluator.locations import split_locations, without_locations
from avo.evaluator.plan import (
    Buffer,
    Configuration,
    Descriptor,
    Fill,
    KernelIR,
    Launch,
    LaunchPlan,
    Level,
    PlanLimits,
    Pointer,
    Role,
    Scalar,
    canonical_ttir,
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
    (Configuration("k", "[64]", "BLOCK=16"),),
)


def test_json_round_trip() -> None:
    assert plan_from_json(json.loads(json.dumps(PLAN.to_json()))) == PLAN


def test_fills_go_with_the_launch_that_follows_them_and_the_last_ones_with_the_last() -> None:
    fill, launch = PLAN.steps
    dense = Fill(0, 0, (64,), (1,), 0.0)  # bf16
    assert PLAN.fills == ((4 * 32,),), "four runs of two floats, a sector each"
    assert replace(PLAN, steps=(launch, fill, launch, dense)).fills == ((), (128, 128))


@pytest.mark.parametrize(
    ("shape", "strides", "nbytes"),
    [
        ((1000,), (1,), 2016),
        ((1000,), (128,), 32_000),
        ((1000, 1), (128, 1), 32_000),
        ((1, 1000), (7, 1), 2016),
        ((10, 100), (100, 1), 2016),
        ((100, 10), (1, 100), 2016),
        ((5, 1000), (0, 1), 2016),
        ((), (), 32),
    ],
)
def test_a_fill_writes_whole_sectors_of_each_contiguous_run(
    shape: tuple[int, ...], strides: tuple[int, ...], nbytes: int
) -> None:
    assert Fill(0, 0, shape, strides, 0.0).nbytes(Buffer("x", "bfloat16", 10**6, Role.SCRATCH)) == nbytes


def test_locations_and_value_names_do_not_change_the_digest() -> None:
    moved = IR.replace("b.py", "c.py").replace(":1:1", ":7:2").replace("%0", "%loaded").replace("%X", "%Y")
    other = LaunchPlan(PLAN.case, PLAN.buffers, (KernelIR("k", moved, PLAN.kernels[0].options),), PLAN.steps)
    assert other.digest == PLAN.digest


@pytest.mark.parametrize(
    "kernel",
    [
        KernelIR("k", IR.replace("tt.load", "tt.store"), PLAN.kernels[0].options),
        KernelIR("k", IR, (("num_stages", 2), ("num_warps", 8))),
        KernelIR("k", IR, PLAN.kernels[0].options, Level.TTGIR),
    ],
)
def test_ir_its_level_and_options_change_the_digest(kernel: KernelIR) -> None:
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
        (("buffers",), [{"name": "k", "dtype": "bfloat16", "size": 9, "role": "input"}] * 2, "listed twice"),
        (("kernels", 0, "options"), {"num_warps": [4]}, "options"),
        (("kernels", 0, "options"), {"num_warps": 2**64}, "options"),
        (("kernels", 0, "options"), {"x" * 201: 4}, "options"),
        (("kernels", 0, "options"), {"arch": "x" * 201}, "options"),
        (("kernels", 0, "level"), "ptx", "level"),
        (("configurations", 0, "choice"), "x" * 2001, "choice"),
        (("configurations",), [{}] * 17, "configurations has 17 items, the limit is 16"),
        (("steps", 0, "fill", "buffer"), 9, "buffer"),
        (("steps", 0, "fill", "buffer"), 0, "input"),
        (("steps", 0, "fill", "offset"), 9, "reaches element"),
        (("steps", 0, "fill"), {"buffer": 1, "offset": 0, "shape": [2**40], "strides": [0], "value": 0}, "elements"),
        (("steps", 1, "launch", "kernel"), 1, "kernel"),
        (("steps", 1, "launch", "grid"), [1, 1], "grid"),
        (("steps", 1, "launch", "grid"), [2**20, 2**20, 1], "grid"),
        (("steps", 1, "launch", "args", 0), {"pointer": {"buffer": 0, "byte_offset": 1000}}, "byte_offset"),
        (("steps", 1, "launch", "args", 0), {"socket": {}}, "socket"),
        (("steps", 1, "launch", "args", 2, "descriptor", "padding"), "x", "padding"),
        (("steps", 1), {"exec": "rm"}, "fill or launch"),
        (("case",), 3, "case"),
        (("buffers", 0, "role"), "\ud800", "buffers"),
        (("buffers", 0, "\ud800"), 1, "buffers"),
        (("buffers", 0, "owner"), "me", "buffers.*keys"),
        (("steps", 1, "launch", "args", 1), {"scalar": {"value": 2**64}}, "value"),
        (("steps", 0, "fill", "value"), 2**1000, "value"),
        (("steps", 1, "launch", "args", 1), {"scalar": {"value": 1}, "pointer": {}}, "args"),
        (("kernels", 0, "options"), {"\ud800": []}, "options"),
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


@pytest.mark.parametrize(
    ("dtype", "value", "holds"),
    [
        ("int8", 127, True), ("int8", 128, False), ("int32", float("nan"), False), ("int64", float("inf"), False),
        ("uint8", -255, True), ("uint8", -256, False), ("uint8", -1.0, False), ("uint64", 2**64 - 1, True),
        ("int64", 2**63, False), ("float16", 65504, True), ("float16", 1e5, False), ("float16", float("-inf"), True),
        ("float32", 1e300, False), ("float64", 1e300, True), ("float8_e4m3fn", float("inf"), False),
        ("float8_e5m2", float("inf"), True), ("bool", 7, True),
    ],
)  # fmt: skip
def test_a_fill_is_refused_where_torch_would_refuse_its_value(dtype: str, value: int | float, holds: bool) -> None:
    data = json.loads(json.dumps(PLAN.to_json()))
    data["buffers"][1]["dtype"] = dtype
    data["steps"][0]["fill"]["value"] = value
    with contextlib.nullcontext() if holds else pytest.raises(InvalidPlan, match="is not a value of"):
        plan_from_json(data)
    with contextlib.nullcontext() if holds else pytest.raises(RuntimeError, match="cannot be converted"):
        torch.zeros(4, dtype=getattr(torch, dtype)).fill_(value)


def places(data: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of everything inside ``data``."""
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [path] * bool(path) + [place for key, value in items for place in places(value, (*path, key))]


NUMBERS = st.sampled_from([-1, 0, 1, 4, 17, 2**16, 2**31, 2**40, 2**63, 2**64, -(2**63), 1.5, 1e300, True, False])
FLOATS = st.sampled_from([float("nan"), float("inf")])
ODD = NUMBERS | FLOATS | st.lists(NUMBERS, max_size=9) | st.text(max_size=3) | st.none() | JSON


@pytest.mark.long
@settings(max_examples=300, deadline=None)
@given(st.data())
def test_what_is_accepted_can_be_carried_out(data: st.DataObject) -> None:
    plan = json.loads(json.dumps(PLAN.to_json()))
    for _ in range(data.draw(st.integers(1, 3))):
        *path, last = data.draw(st.sampled_from(places(plan)))
        where = plan
        for key in path:
            where = where[key]
        where[last] = data.draw(ODD)
    try:
        accepted = plan_from_json(plan)
    except InvalidPlan:
        return
    assert len(accepted.digest) == 64
    again = plan_from_json(json.loads(json.dumps(accepted.to_json())))
    assert repr(again) == repr(accepted)
    for step in accepted.steps:
        if isinstance(step, Fill):
            buffer = accepted.buffers[step.buffer]
            assert math.prod(step.shape) <= buffer.size
            memory = torch.empty(min(buffer.size, 2**20), dtype=getattr(torch, buffer.dtype))
            memory.as_strided(step.shape, step.strides, step.offset).fill_(step.value)


def test_white_space_costs_no_more_than_its_length() -> None:
    assert without_locations("a" + " " * 300_000 + "b") == "a" + " " * 300_000 + "b"
