"""Calls, assertions and prints; and what Triton's library builds out of blocks."""

import pytest
import torch
import triton
import triton.language as tl
from hypothesis import given, settings
from hypothesis import strategies as st

from avo.evaluator.executor import Allocation, Launch, UnsupportedOperation, load
from avo.evaluator.plan import Pointer, Scalar

ORACLE = "torch, and plain Python"


@triton.jit(noinline=True)
def looked_up(P, offset, scale):
    value = tl.load(P + offset)
    if value > 3:
        return value, scale * 2
    for i in range(offset):
        value += i
    return value + 1, scale


@triton.jit(noinline=True)
def stored(P, start):
    tl.store(P + tl.arange(0, 4), tl.arange(0, 4) + start)


@triton.jit(noinline=True)
def shifted(pair, amount):
    return pair[0] + amount, pair[1]


@triton.jit
def calls(X, Out, Rows):
    p = tl.program_id(0)
    value, scale = looked_up(X, p, 1.5)
    pair = shifted((value, p), 2.0)
    tl.store(Out + p, pair[0] * scale + pair[1])
    stored(Rows + 4 * p, p * 10)


def test_functions_take_pointers_and_tuples_and_return_early(executor):
    x = torch.tensor([5.0, 1.0, 9.0, 2.0])
    out, rows = torch.empty(4), torch.empty(4, 4, dtype=torch.int32)
    launch = executor.prepare(calls, x, out, rows, grid=(4,))
    assert launch.ttir.count("tt.func private") == 3
    assert launch.run().faults == ()
    looked = [(v, 3.0) if v > 3 else (v + sum(range(p)) + 1, 1.5) for p, v in enumerate(x.tolist())]
    assert out.tolist() == [(v + 2) * s + p for p, (v, s) in enumerate(looked)]
    assert torch.equal(rows, torch.arange(4).int() + 10 * torch.arange(4).int()[:, None])


@triton.jit
def asserting(X, n):
    p = tl.program_id(0)
    i = p * 8 + tl.arange(0, 8)
    x = tl.load(X + i)
    tl.device_assert(x > 0, 'x is "positive", (x)')
    tl.device_assert(n > p, "n")
    tl.device_assert(x < 0, "nobody looks", mask=i < 0)
    tl.device_print("x: a = b, tt.store (x) // {y}", x, n, hex=True)
    tl.device_print("no values")
    tl.store(X + i, x + 1)


def test_a_false_assertion_is_reported_with_its_message_and_place(executor):
    x = torch.ones(32)
    x[[13, 30]] = -1.0
    text = executor.lower(asserting, {"X": "*fp32", "n": "i32"}, {}, debug=True)
    assert "nobody looks" in text
    assert text.count("tt.print") == 2
    memory = [Allocation("X", x)]
    faults = load(text).run(Launch(memory, [Pointer(0, 0), Scalar(2)], (4, 1, 1))).faults
    assert [fault.kind for fault in faults] == ["assertion failed"] * 2
    for fragment in ("test_executor_functions.py:", "'x is \"positive\", (x)', element [5]", "(1, 0, 0) and 1 more"):
        assert fragment in faults[0].message
    assert "'n', program (2, 0, 0) and 1 more" in faults[1].message
    assert x[:8].tolist() == [2.0] * 8
    assert load(text).run(Launch([Allocation("X", torch.ones(32))], [Pointer(0, 0), Scalar(4)], (4, 1, 1))).faults == ()


def test_assertions_of_kernels_not_built_for_debugging_are_not_there(executor):
    assert "tt.assert" not in executor.lower(asserting, {"X": "*fp32", "n": "i32"}, {})


@triton.jit
def counted_up(X, n):
    tl.store(X, n + 1)


def test_the_overflow_checks_of_kernels_built_for_debugging_are_done(executor):
    kernel = load(executor.lower(counted_up, {"X": "*i32", "n": "i32"}, {}, debug=True))
    memory = [Allocation("X", torch.zeros(1, dtype=torch.int32))]
    assert kernel.run(Launch(memory, [Pointer(0, 0), Scalar(2**31 - 2)], (1, 1, 1))).faults == ()
    (fault,) = kernel.run(Launch(memory, [Pointer(0, 0), Scalar(2**31 - 1)], (1, 1, 1))).faults
    assert fault.kind == "assertion failed"
    assert "int32 overflow detected for operation add" in fault.message


@triton.jit
def library(X, Out, Places, n, N: tl.constexpr):
    i = tl.arange(0, N)
    x = tl.load(X + i)
    tl.store(Out + i, tl.flip(x, 0))
    tl.store(Out + N + i, tl.sort(x, descending=True))
    tl.store(Out + 2 * N + tl.arange(0, 4), tl.topk(x, 4))
    tl.store(Out + 3 * N + i, tl.softmax(x))
    tl.store(Out + 4 * N + tl.arange(0, 2 * N), tl.interleave(x, -x))
    tl.store(Out + 6 * N + i, tl.ravel(tl.trans(tl.reshape(x, (4, N // 4)))))
    tl.store(Out + 7 * N + i, tl.where(x > 0, x, 0.0) + tl.zeros_like(x) + tl.full((N,), 2, tl.float32))
    r, c = tl.swizzle2d(i // 4, i % 4, N // 4, 4, 2)
    tl.store(Places + i, r * 4 + c)
    tl.store(Places + N + i, tl.histogram(i * 3 - 5, N, mask=i < n))
    tl.store(Places + 2 * N, tl.cdiv(n, 3) + tl.num_programs(0))


@pytest.mark.long
@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 99), n=st.sampled_from([8, 32]), limit=st.integers(1, 32))
def test_the_librarys_functions_of_blocks_agree_with_torch(executor, seed, n, limit):
    torch.manual_seed(seed)
    x = torch.randn(n)
    out, places = torch.zeros(8, n), torch.empty(2 * n + 1, dtype=torch.int32)
    executor.run(library, x, out, places, limit, N=n)
    assert torch.equal(out[0], x.flip(0))
    assert torch.equal(out[1], x.sort(descending=True).values)
    assert torch.equal(out[2, :4], x.topk(4).values)
    torch.testing.assert_close(out[3], x.softmax(0))
    assert torch.equal(out[4:6].flatten(), torch.stack([x, -x], 1).flatten())
    assert torch.equal(out[6], x.view(4, -1).T.flatten())
    assert torch.equal(out[7], x.clamp(min=0) + 2)
    swizzled = [(p // 8 * 2 + p % 2) * 4 + p % 8 // 2 for p in range(n)]
    assert places[:n].tolist() == swizzled
    values = [3 * i - 5 for i in range(min(n, limit))]
    assert places[n : 2 * n].tolist() == [values.count(b) for b in range(n)]
    assert places[2 * n] == -(-limit // 3) + 1


@triton.jit
def beyond(X, Index, Out):
    i, j = tl.arange(0, 2), tl.arange(0, 8)
    x = tl.load(X + i[:, None] * 8 + j[None, :])
    k = tl.load(Index + i[:, None] * 8 + j[None, :])
    tl.store(Out + i[:, None] * 8 + j[None, :], tl.gather(x, k, 1))


def test_a_gather_beyond_its_axis_is_reported(executor):
    index = torch.arange(16, dtype=torch.int32).view(2, 8) % 8
    out = torch.empty(2, 8)
    assert executor.prepare(beyond, torch.randn(2, 8), index, out).run().faults == ()
    index[1, 3] = 8
    (fault,) = executor.prepare(beyond, torch.randn(2, 8), index, out).run().faults
    assert (fault.kind, fault.program) == ("index out of range", (0, 0, 0))
    assert "8 on an axis of 8" in fault.message


@triton.jit
def any_order(X, Out, N: tl.constexpr):
    i = tl.arange(0, N)
    x = tl.load(X + i)
    y = tl.reshape(x, (N // 4, 4), can_reorder=True)
    tl.store(Out, tl.sum(tl.exp(y)))
    tl.store(Out + 1, tl.max(tl.view(x, (1, N))))
    tl.store(Out + 2, tl.sum(tl.cat(x, x, can_reorder=True) * 2.0, 0))
    high, low = tl.reduce((y, y * 0.5), None, larger_and_less)
    tl.store(Out + 3, high + low)


@triton.jit
def larger_and_less(a, b, c, d):
    return tl.maximum(a, c), tl.minimum(b, d)


@triton.jit
def paired(X, Out, n, N: tl.constexpr):
    i = tl.arange(0, N)
    x = tl.load(X + i)
    places = tl.cat(Out + i, Out + N + i, can_reorder=True)
    inside = tl.cat(i < n, i > n, can_reorder=True)
    tl.store(places, tl.cat(x, -x, can_reorder=True) * 2, mask=inside)


@triton.jit
def stored_as_a_column(X, Out, n, N: tl.constexpr):
    """The compiler may load blocks of elements, and store those of a thread in a row."""
    y = tl.reshape(tl.load(X + 3 * tl.arange(0, N)), (N, 1), can_reorder=True)
    tl.store(Out + tl.arange(0, N)[:, None], y)


@triton.jit
def loaded_in_two_orders(X, Out, n, N: tl.constexpr):
    row, column = tl.arange(0, 4)[:, None], tl.arange(0, N // 4)[None, :]
    v, w = tl.load(X + row * (N // 4) + column), tl.load(X + row + column * 4)
    product = tl.reshape(v, (N,), can_reorder=True) * tl.reshape(w, (N,), can_reorder=True)
    tl.store(Out, tl.sum(product, 0))


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kernel", [paired, stored_as_a_column, loaded_in_two_orders])
def test_blocks_that_are_reordered_apart_do_not_belong_together_nor_keep_their_order(executor, kernel):
    """As compiled for an H100, the last two give other numbers than in the order of the blocks."""
    with pytest.raises(UnsupportedOperation, match=r"of elements in any order, after tt\.(cat|reshape)"):
        executor.run(kernel, torch.randn(64), torch.zeros(64), 5, N=16)


BLOCKS = "%x: tensor<8xf32>, %y: tensor<2x4xf32>, %z: tensor<16xf32>"
FREE = "    %a = tt.cat %x, %x : tensor<8xf32> -> tensor<16xf32>"
OTHER = """    %w = tt.join %y, %y : tensor<2x4xf32> -> tensor<2x4x2xf32>
    %b = tt.reshape %w allow_reorder : tensor<2x4x2xf32> -> tensor<16xf32>"""


@pytest.mark.parametrize("line", ["%s = arith.addf %a, %b : tensor<16xf32>", "%s = arith.mulf %z, %a : tensor<16xf32>"])
def test_blocks_of_different_orders_do_not_meet(line):
    text = f"module {{\n  tt.func public @k({BLOCKS}) {{\n{FREE}\n{OTHER}\n    {line}\n    tt.return\n  }}\n}}"
    with pytest.raises(UnsupportedOperation, match=r"arith\.\w+ of elements in any order, after tt.cat"):
        load(text)


@triton.jit
def order_shows(X, Out, N: tl.constexpr):
    i = tl.arange(0, N)
    y = tl.reshape(tl.load(X + i), (N // 4, 4), can_reorder=True)
    tl.store(Out + tl.arange(0, 4), tl.sum(y, 0))


@triton.jit
def order_shows_in_a_loop(X, Out, N: tl.constexpr):
    i = tl.arange(0, N)
    x = tl.load(X + i)
    y = tl.cat(x, x, can_reorder=True)
    for _ in range(3):
        y = y * 2
    tl.store(Out + tl.arange(0, 2 * N), y)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_an_order_that_the_compiler_may_choose_must_not_show(executor):
    x = torch.randn(16)
    out = torch.empty(19)
    launch = executor.prepare(any_order, x, out, N=16)
    assert "allow_reorder" in launch.ttir
    assert "tt.cat" in launch.ttir
    assert launch.run().faults == ()
    torch.testing.assert_close(out[0], x.exp().sum())
    assert out[1] == x.max()
    torch.testing.assert_close(out[2], 4 * x.sum())
    torch.testing.assert_close(out[3], x.max() + 0.5 * x.min())
    refused = {
        order_shows: "tt.reduce .* any order, after tt.reshape",
        order_shows_in_a_loop: "scf.for .* after tt.cat",
    }
    for kernel, name in refused.items():
        with pytest.raises(UnsupportedOperation, match=name) as caught:
            load(executor.lower(kernel, {"X": "*fp32", "Out": "*fp32"}, {"N": 16}))
        assert caught.value.location.startswith("test_executor_functions.py:")


@triton.jit
def nested(Out, n):
    p = tl.program_id(0)
    j = 0
    total = 0
    while j < n + p:
        if j % 3 == p % 3:
            k = 0
            while k < j:
                if k == 4:
                    total += 100
                k += 2
        elif p > 2:
            for m in range(j, 0, -2):
                total += m
        j += 1
    if p > 1:
        if total > 50:
            tl.store(Out + p, -total)
            return
        total += 1
    tl.store(Out + p, total)


def test_nested_control_flow_diverges_and_returns_early(executor):
    def plain(p, n):
        total = 0
        for j in range(n + p):
            if j % 3 == p % 3:
                total += 100 * (4 in range(0, j, 2))
            elif p > 2:
                total += sum(range(j, 0, -2))
        return -total if p > 1 and total > 50 else total + (p > 1)

    out = torch.empty(8, dtype=torch.int32)
    executor.run(nested, out, 4, grid=(8,))
    assert out.tolist() == [plain(p, 4) for p in range(8)]
