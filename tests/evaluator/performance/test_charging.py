"""What never runs sets no price, and what runs is charged: kernels compiled for it."""

from dataclasses import replace

import pytest
import torch
import triton
import triton.language as tl

from avo.evaluator.performance.model import time_case
from avo.evaluator.targets import get_target
from avo.evaluator.work import LaunchWork
from tests.evaluator.performance.handmade import launched

pytestmark = pytest.mark.long

H100 = get_target("h100")
TILE, PASSES, PROGRAMS = 64, 64, 132


@triton.jit
def softmax(X, Y, n):
    at = tl.arange(0, 64)[:, None] * 64 + tl.arange(0, 64)[None, :]
    acc = tl.zeros([64, 64], tl.float32)
    for i in range(n):
        x = tl.load(X + at + i * 4096)
        s = tl.exp2(tl.dot(x, x))
        acc = tl.dot((s / tl.sum(s, 1)[:, None]).to(tl.bfloat16), x, acc)
    tl.store(Y + tl.program_id(0) * 4096 + at, acc.to(tl.bfloat16))


@triton.jit
def either(X, Y, n, mode, DECOY_FIRST: tl.constexpr):
    at = tl.arange(0, 64)[:, None] * 64 + tl.arange(0, 64)[None, :]
    acc = tl.zeros([64, 64], tl.float32)
    if (mode == 7) != DECOY_FIRST:
        for i in range(n):
            x = tl.load(X + at + i * 4096)
            if DECOY_FIRST:
                acc = tl.dot(tl.dot(x, x).to(tl.bfloat16), x, acc)
            else:
                s = tl.exp2(tl.dot(x, x))
                acc = tl.dot((s / tl.sum(s, 1)[:, None]).to(tl.bfloat16), x, acc)
    else:
        for i in range(n):
            x = tl.load(X + at + i * 4096)
            if DECOY_FIRST:
                s = tl.exp2(tl.dot(x, x))
                acc = tl.dot((s / tl.sum(s, 1)[:, None]).to(tl.bfloat16), x, acc)
            else:
                acc = tl.dot(tl.dot(x, x).to(tl.bfloat16), x, acc)
    tl.store(Y + tl.program_id(0) * 4096 + at, acc.to(tl.bfloat16))


@triton.jit
def within(X, Y, n, mode):
    """A branch that never runs is longer than the one that does, and a third one shorter."""
    at = tl.arange(0, 64)[:, None] * 64 + tl.arange(0, 64)[None, :]
    acc = tl.zeros([64, 64], tl.float32)
    for i in range(n):
        x = tl.load(X + at + i * 4096)
        s = tl.dot(x, x)
        if mode == 7:
            s = tl.exp2(s)
            s = s / tl.sum(s, 1)[:, None]
        elif mode != 8:
            for k in tl.static_range(32):
                s = tl.abs(s + (k + 0.5))
        acc = tl.dot(s.to(tl.bfloat16), x, acc)
    tl.store(Y + tl.program_id(0) * 4096 + at, acc.to(tl.bfloat16))


@triton.jit
def scalars_within(X, Y, n, mode, DECOY: tl.constexpr):
    """A branch that never runs holds blocks, one that always runs holds many scalars."""
    at = tl.arange(0, 64)[:, None] * 64 + tl.arange(0, 64)[None, :]
    acc = tl.zeros([64, 64], tl.float32)
    number = mode
    for i in range(n):
        x = tl.load(X + at + i * 4096)
        if DECOY:  # noqa: SIM102 - what is not compiled must not be
            if mode == 8:
                acc = acc * 2.0
        if mode + i >= 7:
            for k in tl.static_range(100):
                number = (number ^ (number >> 3)) * 5 + k
        acc = tl.dot(x, x, acc)
    tl.store(Y + tl.program_id(0) * 4096 + at, (acc + number).to(tl.bfloat16))


@triton.jit
def straight(X, Y, mode):
    """The same outside of loops."""
    at = tl.arange(0, 64)[:, None] * 64 + tl.arange(0, 64)[None, :]
    s = tl.load(X + at).to(tl.float32)
    if mode == 7:
        s = tl.exp2(s)
        s = s / tl.sum(s, 1)[:, None]
    elif mode != 8:
        for k in tl.static_range(32):
            s = tl.abs(s + (k + 0.5))
    tl.store(Y + tl.program_id(0) * 4096 + at, s.to(tl.bfloat16))


@triton.jit
def turning(X, Y, n):
    at = tl.arange(0, 64)[:, None] * 64 + tl.arange(0, 64)[None, :]
    x = tl.load(X + at).to(tl.float32)
    for _ in range(n):
        x = tl.trans(x) * 0.5 + x
    tl.store(Y + tl.program_id(0) * 4096 + at, x.to(tl.bfloat16))


@triton.jit
def chain(X, Y, n, ATOMIC: tl.constexpr):
    value = tl.load(X)
    for _ in range(n):
        value = (value ^ (value >> 3)) * 5 + 1
        if ATOMIC:
            tl.atomic_add(Y + 1024 + tl.program_id(0), value)
    tl.store(Y + tl.program_id(0), value)


@triton.jit(noinline=True)
def mixed(value, n):
    for _ in range(n):
        value = (value ^ (value >> 3)) * 5 + 1
    return value


@triton.jit
def called_twice(X, Y, n, zero):
    value = mixed(tl.load(X), zero)
    tl.store(Y + tl.program_id(0), mixed(value, n))


def tiles() -> dict[str, torch.Tensor | int | float]:
    return {
        "X": torch.empty(PASSES * TILE * TILE, dtype=torch.bfloat16),
        "Y": torch.empty(PROGRAMS * TILE * TILE, dtype=torch.bfloat16),
        "n": PASSES,
    }


def integers() -> dict[str, torch.Tensor | int | float]:
    return {"X": torch.zeros(1, dtype=torch.int32), "Y": torch.zeros(2048, dtype=torch.int32), "n": 65_536}


def seconds(work: LaunchWork) -> float:
    return time_case([work], 0, H100).seconds


@pytest.mark.parametrize("decoy_first", [True, False])
def test_a_loop_that_never_runs_does_not_set_the_price(decoy_first: bool) -> None:
    work = launched(either, tiles() | {"mode": 7}, (PROGRAMS, 1, 1), DECOY_FIRST=decoy_first)
    never, always = (1, 0) if not decoy_first else (0, 1)
    assert not work.loops[never].trips.any()
    assert work.loops[always].trips.all()
    (launch,) = time_case([work], 0, H100).launches
    exponentials = [sum(i.base == "MUFU" for i in passed.parts[0][0]) for passed in launch.passes if passed]
    assert exponentials[always] > 0 == exponentials[never]
    assert launch.hot is launch.passes[always]
    alone = launched(softmax, tiles(), (PROGRAMS, 1, 1))
    assert seconds(work) > 0.97 * seconds(alone)


def test_a_branch_that_never_runs_does_not_set_the_price_of_a_pass() -> None:
    work = launched(within, tiles() | {"mode": 7}, (PROGRAMS, 1, 1))
    played = [time_case([made], 0, H100).launches[0].hot for made in (work, replace(work, shares=()))]
    assert ["MUFU" in {i.base for i in hot.parts[0][0]} for hot in played] == [True, False]


def test_a_branch_that_never_runs_does_not_lower_the_price_of_scalars_in_one_that_does() -> None:
    alone, beside = (
        launched(scalars_within, tiles() | {"mode": 7}, (PROGRAMS, 1, 1), DECOY=decoy) for decoy in (False, True)
    )
    assert beside.loops[0].body.entered == 0
    assert seconds(beside) > 0.95 * seconds(alone)


def test_a_branch_that_never_runs_does_not_set_the_price_outside_loops() -> None:
    values = {name: value for name, value in tiles().items() if name != "n"}
    work = launched(straight, values | {"mode": 7}, (PROGRAMS, 1, 1))
    (launch,) = time_case([work], 0, H100).launches
    assert "MUFU" in {i.base for i in launch.kernel.outside.parts[0][0]}


def test_a_pass_takes_what_its_machine_code_asks_of_shared_memory() -> None:
    """Each transposition stores and loads a tile, at 128 bytes a clock at most."""
    work = launched(turning, tiles(), (PROGRAMS, 1, 1))
    (launch,) = time_case([work], 0, H100).launches
    assert launch.program_clocks[1].min() >= PASSES * 2 * TILE * TILE * 4 / 128


def clocks_of_a_pass(work: LaunchWork) -> float:
    (launch,) = time_case([work], 0, H100).launches
    return float(launch.program_clocks[1:].sum(0).mean()) / 65_536


def test_a_loop_of_dependent_integer_operations_takes_its_latency() -> None:
    """Three dependent operations take four clocks each at least. ptxas unrolls them four times, which is not seen."""
    assert 12 < clocks_of_a_pass(launched(chain, integers(), (PROGRAMS, 1, 1), ATOMIC=False)) < 4 * 18


def test_a_loop_of_dependent_atomic_operations_takes_their_latency() -> None:
    assert clocks_of_a_pass(launched(chain, integers(), (PROGRAMS, 1, 1), ATOMIC=True)) > 200


def test_a_loop_in_a_function_is_charged_at_each_call_of_it() -> None:
    values = integers() | {"zero": 0}
    assert 12 < clocks_of_a_pass(launched(called_twice, values, (PROGRAMS, 1, 1))) < 4 * 18
