"""Reductions and scans combine elements by any function, in any type, along any axis."""

from operator import gt, lt

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from hypothesis import given, settings
from hypothesis import strategies as st

from avo.evaluator.executor import IRError, UnsupportedOperation, load
from avo.evaluator.executor.operations import regions
from tests.corpus import sample

ORACLE = "torch, and scalar functions applied to one element at a time"


@triton.jit
def gap(a, b):
    p = tl.program_id(0)
    return a - b + p if a > b else b - a


@triton.jit(noinline=True)
def saturated(a, b):
    if a + b > 100:
        return a * 0 + 100
    return a + b


@triton.jit
def through_call(a, b):
    return saturated(a, b)


@triton.jit
def halved(a, b):
    total = a + b
    while total > 50:
        total = total // 2
    for i in range(2):
        total += i
    return total


@triton.jit
def branching(X, Out, N: tl.constexpr):
    i, j = tl.arange(0, 4), tl.arange(0, N)
    p = tl.program_id(0)
    x = tl.load(X + p * 4 * N + i[:, None] * N + j[None, :])
    out = Out + p * 12
    tl.store(out + i, tl.reduce(x, 1, gap))
    tl.store(out + 4 + i, tl.reduce(x, 1, through_call))
    tl.store(out + 8 + i, tl.reduce(x, 1, halved))


def pairwise(row, function):
    """Combine like the executor: halves of the row, now one first, now the other. These functions mind the order."""
    row = list(row)
    while len(row) > 1:
        half = len(row) // 2
        halves = (row[:half], row[half:]) if half.bit_length() % 2 else (row[half:], row[:half])
        row = [function(a, b) for a, b in zip(*halves, strict=True)]
    return row[0]


def python_halved(a, b):
    total = a + b
    while total > 50:
        total //= 2
    return total + 1


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 99), n=st.sampled_from([1, 2, 16]))
def test_combining_functions_may_branch_loop_and_call(executor, seed, n):
    torch.manual_seed(seed)
    x = torch.randint(0, 60, (3, 4, n), dtype=torch.int32)
    out = torch.empty(3, 3, 4, dtype=torch.int32)
    launch = executor.prepare(branching, x, out, grid=(3,), N=n)
    for name in ("scf.if", "scf.while", "tt.call"):
        assert name in launch.ttir
    assert launch.run().faults == ()
    assert launch.kernel.loops == ()
    for p, block in enumerate(x.tolist()):
        functions = [lambda a, b, p=p: a - b + p if a > b else b - a, lambda a, b: min(a + b, 100), python_halved]
        assert out[p].tolist() == [[pairwise(row, f) for row in block] for f in functions]


@triton.jit
def first_of(a, b):
    return a


@triton.jit
def last_of(a, b):
    return b


@triton.jit
def ends(X, Out):
    x = tl.load(X + tl.arange(0, 16))
    tl.store(Out, tl.reduce(x, 0, first_of))
    tl.store(Out + 1, tl.reduce(x, 0, last_of))


def test_what_relies_on_the_order_of_a_reduction_gets_neither_end(executor):
    out = torch.empty(2, dtype=torch.int32)
    executor.run(ends, torch.arange(16, dtype=torch.int32), out)
    assert {0, 15}.isdisjoint(out.tolist())


@triton.jit
def places_of_extremes(X, Out, N: tl.constexpr, LEFT: tl.constexpr):
    row, x = tl.program_id(0), tl.load(X + tl.program_id(0) * N + tl.arange(0, N))
    tl.store(Out + 2 * row, tl.argmax(x, 0, tie_break_left=LEFT))
    tl.store(Out + 2 * row + 1, tl.argmin(x, 0, tie_break_left=LEFT))


def by_lanes(row, better):
    """The place that a warp ends with whose lanes hold an element each (warpReduce of Triton's ReduceOpToLLVM.cpp)."""
    held = list(enumerate(row))
    while len(held) > 1:
        half = len(held) // 2
        held = [a if better(a[1], b[1]) else b for a, b in zip(held[:half], held[half:], strict=True)]
    return held[0][0]


@pytest.mark.parametrize("left", [False, True])
def test_argmax_and_argmin_of_nan_are_those_of_the_lanes_of_a_warp(executor, left):
    x = torch.stack([torch.randperm(16).float() for _ in range(64)])
    x[torch.rand(64, 16) < 0.3] = float("nan")
    out = torch.empty(64, 2, dtype=torch.int32)
    executor.run(places_of_extremes, x, out, grid=(64,), N=16, LEFT=left)
    assert out.tolist() == [[by_lanes(row, gt), by_lanes(row, lt)] for row in x.tolist()]


@triton.jit
def carried(a, b):
    return tl.where(a > 90, b, a + b)


@triton.jit
def branching_scan(a, b):
    return a if a > b else b


@triton.jit
def linear(a1, b1, a2, b2):
    return a1 * a2, b1 * a2 + b2


@triton.jit
def scan_all(X, F, Running, Back, Pairs, Sums, N: tl.constexpr):
    i, j = tl.arange(0, 2), tl.arange(0, N)
    at = i[:, None] * N + j[None, :]
    x, f = tl.load(X + at), tl.load(F + at)
    tl.store(Running + at, tl.associative_scan(x, 1, branching_scan))
    tl.store(Back + at, tl.associative_scan(x, 1, branching_scan, reverse=True))
    a, b = tl.associative_scan((f, f), 1, linear, reverse=True)
    tl.store(Pairs + at, a)
    tl.store(Pairs + 2 * N + at, b)
    tl.store(Sums + at, tl.cumsum(f.to(tl.float32), 1))
    tl.store(Sums + 2 * N + at, tl.cumprod(f.to(tl.float32), 1, reverse=True))
    tl.store(Sums + 4 * N + at, tl.cumsum(x > 0, 0).to(tl.float32))


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 99), n=st.sampled_from([1, 4, 32]))
def test_scans_agree_with_one_element_after_the_other(executor, seed, n):
    torch.manual_seed(seed)
    x, f = torch.randint(-50, 50, (2, n), dtype=torch.int32), torch.rand(2, n, dtype=torch.float64)
    running, back = torch.empty_like(x), torch.empty_like(x)
    pairs, sums = torch.empty(2, 2, n, dtype=torch.float64), torch.empty(3, 2, n)
    executor.run(scan_all, x, f, running, back, pairs, sums, N=n)
    assert torch.equal(running, x.cummax(1).values)
    assert torch.equal(back, x.flip(1).cummax(1).values.flip(1))
    a, b = f[:, -1], f[:, -1]
    for j in reversed(range(n)):
        if j < n - 1:
            a, b = a * f[:, j], b * f[:, j] + f[:, j]
        torch.testing.assert_close(pairs[:, :, j], torch.stack([a, b]))
    torch.testing.assert_close(sums[0], f.float().cumsum(1))
    torch.testing.assert_close(sums[1], f.float().flip(1).cumprod(1).flip(1))
    assert torch.equal(sums[2].int(), (x > 0).cumsum(0).int())


@triton.jit
def every_type(X, Sum, Max, Min, Where, N: tl.constexpr):
    i, j = tl.arange(0, 4), tl.arange(0, N)
    x = tl.load(X + i[:, None] * N + j[None, :])
    tl.store(Sum + i, tl.sum(x, 1))
    tl.store(Max + i, tl.max(x, 1))
    tl.store(Min + i, tl.min(x, 1))
    tl.store(Where + i, tl.argmax(x, 1))
    tl.store(Where + 4 + i, tl.argmin(x, 1))
    tl.store(Where + 8, tl.sum((x > 0).to(tl.int32)))
    tl.store(Where + 9 + i, tl.sum(x > 0, 1))
    tl.store(Where + 13 + i, tl.max(x > 0, 1).to(tl.int32))
    kept = tl.max(x, 1, keep_dims=True)
    tl.store(Where + 17, tl.sum((kept == x).to(tl.int32)))


SUMMED = {torch.int8: torch.int32, torch.int16: torch.int32, torch.uint8: torch.int32}


@pytest.mark.parametrize(
    "dtype", sample(["int8", "uint8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64"], 3)
)
@settings(max_examples=3, deadline=None)
@given(seed=st.integers(0, 99))
def test_reductions_agree_with_torch_in_every_type(executor, dtype, seed):
    dtype = getattr(torch, dtype)
    torch.manual_seed(seed)
    n = 16
    if dtype.is_floating_point:
        x = torch.randn(4, n).to(dtype)
    else:
        bounds = torch.iinfo(dtype)
        x = torch.randint(max(bounds.min, -(2**40)), min(bounds.max, 2**40), (4, n), dtype=torch.int64).to(dtype)
    summed = SUMMED.get(dtype, dtype)
    total, most, least = torch.empty(4, dtype=summed), torch.empty(4, dtype=dtype), torch.empty(4, dtype=dtype)
    where = torch.empty(18, dtype=torch.int32)
    executor.run(every_type, x, total, most, least, where, N=n)
    if dtype.is_floating_point:
        sizes = x.double().abs().sum(1)
        assert ((total.double() - x.double().sum(1)).abs() <= 5 * torch.finfo(dtype).eps * sizes).all()
    else:
        assert torch.equal(total, x.sum(1, dtype=torch.int64).to(summed))
    assert torch.equal(most, x.amax(1))
    assert torch.equal(least, x.amin(1))
    assert torch.equal(where[:4], first_index(x == x.amax(1, True)))
    assert torch.equal(where[4:8], first_index(x == x.amin(1, True)))
    assert where[8] == (x > 0).sum()
    assert torch.equal(where[9:13], (x > 0).sum(1).int())
    assert torch.equal(where[13:17], (x > 0).any(1).int())
    assert where[17] == (x == x.amax(1, True)).sum()


def first_index(found):
    return found.int().argmax(1).int()


@triton.jit
def ties(X, Where, Values, N: tl.constexpr):
    x = tl.load(X + tl.arange(0, N))
    value, where = tl.max(x, 0, return_indices=True)
    tl.store(Where, where)
    tl.store(Values, value)
    value, where = tl.min(x, 0, return_indices=True)
    tl.store(Where + 1, where)
    tl.store(Values + 1, value)
    tl.store(Where + 2, tl.argmax(x, 0, tie_break_left=False))
    best = tl.max(x, 0)
    tl.store(Values + 2, best)
    tl.store(Values + 3, tl.min(x, 0))


NAN = float("nan")


@pytest.mark.parametrize("x", [[1, 3, 3, 2], [2, 1, 1, 3], [5, 5, 5, 5], [0.0, -0.0, 0.0, -0.0]])
def test_ties_go_to_the_left_where_the_kernel_says_so(executor, x):
    x = torch.tensor(x, dtype=torch.float32)
    where, values = torch.empty(3, dtype=torch.int32), torch.empty(4)
    executor.run(ties, x, where, values, N=4)
    assert where[0] == first_index((x == x.max())[None])
    assert where[1] == first_index((x == x.min())[None])
    assert x[where[2]] == x.max()
    assert values.tolist() == [x.max(), x.min(), x.max(), x.min()]


def test_plain_extremes_ignore_nan_and_those_with_indices_do_not_invent_numbers(executor):
    x = torch.tensor([1.0, NAN, 3.0, NAN])
    where, values = torch.empty(3, dtype=torch.int32), torch.empty(4)
    executor.run(ties, x, where, values, N=4)
    assert values[2:].tolist() == [3.0, 1.0]
    assert all(0 <= place < 4 for place in where.tolist())


@triton.jit
def signed_square(x, limit):
    return -(x * x) if x < 0 else tl.minimum(x * x, limit)


@triton.jit
def rotated(a0, a1, b0, b1):
    return a0 + b0, a1 + b1, a0 - b0, a1 - b1


@triton.jit
def crossed(a0, a1):
    return a1, a0


@triton.jit
def exchanged(X, Out, N: tl.constexpr):
    i = tl.arange(0, N)
    tl.store(Out + (i ^ 1), tl.map_elementwise(crossed, tl.load(X + i), pack=2)[0])


def test_a_mapped_function_that_exchanges_packed_elements_is_refused(executor):
    """The compiler decides which elements those are."""
    with pytest.raises(UnsupportedOperation, match="depend on which elements are packed together"):
        executor.run(exchanged, torch.randn(16), torch.empty(16), N=16)


@triton.jit
def searched(x):
    steps = 0
    while x > 1:
        x = x / 2
        steps += 1
    return steps, x


@triton.jit
def sign(x, p):
    if x < 0:
        return p - 1.0
    if x == 0:
        return 0.0
    return p


@triton.jit
def signs(X, Out, N: tl.constexpr):
    i = tl.program_id(0) * N + tl.arange(0, N)
    tl.store(Out + i, tl.map_elementwise(sign, tl.load(X + i), tl.program_id(0).to(tl.float32)))


def test_a_mapped_function_may_return_early(executor):
    x, out = torch.tensor([[-2.0, 0.0, 3.0, -0.5], [0.0, 1.0, 1.0, -1.0]]), torch.empty(2, 4)
    executor.run(signs, x, out, grid=(2,), N=4)
    assert out.tolist() == [[-1, 0, 0, -1], [0, 1, 1, 0]]


@triton.jit
def mapped(X, Y, Out, Steps, N: tl.constexpr):
    p = tl.program_id(0)
    i = p * N + tl.arange(0, N)
    x, y = tl.load(X + i), tl.load(Y + i)
    tl.store(Out + i, tl.map_elementwise(signed_square, x, p + 1.0))
    both, less = tl.map_elementwise(rotated, x, y, pack=2)
    tl.store(Out + 2 * N + i, both)
    tl.store(Out + 4 * N + i, less)
    steps, rest = tl.map_elementwise(searched, tl.reshape(x, (2, N // 2)))
    tl.store(Steps + i, tl.reshape(steps, (N,)))
    tl.store(Out + 6 * N + i, tl.reshape(rest, (N,)))


@pytest.mark.parametrize("at_once", [5, regions.ELEMENTS_AT_ONCE])
def test_functions_of_single_elements_are_mapped_over_blocks(executor, monkeypatch, at_once):
    monkeypatch.setattr(regions, "ELEMENTS_AT_ONCE", at_once)
    torch.manual_seed(0)
    n = 16
    x, y = 4 * torch.randn(2, n), torch.randn(2, n)
    out, steps = torch.empty(4, 2, n), torch.empty(2, n, dtype=torch.int32)
    executor.run(mapped, x, y, out, steps, grid=(2,), N=n)
    limit = torch.tensor([[1.0], [2.0]])
    assert torch.equal(out[0], torch.where(x < 0, -(x * x), torch.minimum(x * x, limit)))
    assert torch.equal(out[1:3], torch.stack([x + y, x - y]))
    expected = np.maximum(np.ceil(np.log2(np.maximum(x.numpy(), 1))), 0).astype(int)
    assert steps.tolist() == expected.tolist()
    torch.testing.assert_close(out[3], x / 2.0**steps)


def module(line, *region, name="tt.reduce"):
    arguments = "%x: tensor<8xf32>, %odd: tensor<6xf32>, %k: tensor<8xi32>, %p: !tt.ptr<f32>"
    text = f"    {line.format(name=name)} ({{\n    ^bb0(%a: f32, %b: f32):\n"
    return "\n".join(
        [f"module {{\n  tt.func public @k({arguments}) {{", text.rstrip(), *region, "    tt.return\n  }\n}"]
    )


ADD = ("      %s = arith.addf %a, %b : f32", "      tt.reduce.return %s : f32")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (module('%r = "tt.reduce"(%odd) <{{axis = 0 : i32}}>', *ADD, "    }) : (tensor<6xf32>) -> f32"), "axis 0 of"),
        (module('%r = "tt.reduce"(%x) <{{axis = 1 : i32}}>', *ADD, "    }) : (tensor<8xf32>) -> f32"), "axis 1 of"),
        (module('%r = "tt.reduce"(%x) <{{axis = 0 : i32}}>', *ADD, "    }) : (tensor<8xf32>) -> i32"), "gives i32"),
        (module('%r = "tt.reduce"(%k) <{{axis = 0 : i32}}>', *ADD, "    }) : (tensor<8xi32>) -> i32"), "other values"),
        (module('%r = "tt.reduce"(%x) <{{axis = 0 : i32, odd}}>', *ADD, "    }) : (tensor<8xf32>) -> f32"), "with odd"),
        (
            module(
                '%r = "tt.reduce"(%x) <{{axis = 0 : i32}}>',
                "      %s = tt.load %p : !tt.ptr<f32>",
                ADD[1],
                "    }) : (tensor<8xf32>) -> f32",
            ),
            "tt.load in tt.reduce",
        ),
        (
            module(
                '%r = "tt.map_elementwise"(%x) <{{pack = 3 : i32}}>',
                "      tt.map_elementwise.return %a : f32",
                "    }) : (tensor<8xf32>) -> tensor<8xf32>",
            ),
            "does not fit its operands",
        ),
    ],
)
def test_regions_that_make_no_sense_are_refused(text, message):
    with pytest.raises((IRError, UnsupportedOperation), match=message):
        load(text)
