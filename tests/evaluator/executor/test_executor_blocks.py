"""Rearrangements, reductions, scans, gathers and histograms agree with torch."""

import torch
import triton
import triton.language as tl

ORACLE = "torch"


@triton.jit
def rearrange(X, Y, Joined, Turned, Summed, N: tl.constexpr):
    i = tl.arange(0, N)
    x = tl.load(X + i)
    y = tl.load(Y + i)
    pair = tl.join(x, y)
    a, b = tl.split(pair)
    tl.store(Joined + tl.arange(0, 2 * N), tl.reshape(pair, (2 * N,)))
    cube = tl.permute(tl.reshape(x, (2, 4, N // 8)), (2, 0, 1))
    tl.store(Turned + i, tl.reshape(cube, (N,)))
    wide = tl.broadcast_to(a[:, None], (N, 4)) + b[:, None] * tl.arange(0, 4)[None, :]
    tl.store(Summed + i, tl.sum(tl.trans(wide), 0))


def test_blocks_are_joined_split_reshaped_and_transposed(executor):
    x, y = torch.randn(32), torch.randn(32)
    joined, turned, summed = torch.empty(64), torch.empty(32), torch.empty(32)
    executor.run(rearrange, x, y, joined, turned, summed, N=32)
    assert torch.equal(joined, torch.stack([x, y], -1).flatten())
    assert torch.equal(turned, x.view(2, 4, 4).permute(2, 0, 1).flatten())
    torch.testing.assert_close(summed, 4 * x + 6 * y)


@triton.jit
def equal_elements(Out):
    """Blocks whose elements are all equal, which the executor keeps at size one."""
    ones = tl.full((4, 8), 1.0, tl.float32)
    i = tl.arange(0, 8)
    tl.store(Out + i, tl.sum(ones, 0) + i * 0)
    tl.store(Out + 8 + i, tl.reshape(tl.cumsum(tl.full((8,), 2.0, tl.float32), 0), (8,)))
    a, b = tl.split(tl.full((8, 2), 3.0, tl.float32))
    tl.store(Out + 16 + i, a + b + tl.max(ones, 0))
    tl.store(Out + 24 + i, tl.gather(tl.full((8,), 5.0, tl.float32), i, 0))
    tl.store(Out + 32, tl.sum(tl.reshape(ones, (32,))))
    tl.store(Out + 33, tl.max(tl.histogram(tl.full((8,), 1, tl.int32), 2)))


def test_blocks_of_equal_elements_count_all_of_them(executor):
    out = torch.empty(34)
    executor.run(equal_elements, out)
    assert out[:8].tolist() == [4.0] * 8
    assert out[8:16].tolist() == [2.0 * i for i in range(1, 9)]
    assert out[16:24].tolist() == [7.0] * 8
    assert out[24:32].tolist() == [5.0] * 8
    assert out[32:].tolist() == [32.0, 8.0]


@triton.jit
def add_or_max(a, b):
    return tl.where(a > 100, tl.maximum(a, b), a + b)


@triton.jit
def reduce_all(X, Keys, Rows, Index, N: tl.constexpr):
    i = tl.arange(0, 16)
    j = tl.arange(0, N)
    x = tl.load(X + i[:, None] * N + j[None, :])
    k = tl.load(Keys + i[:, None] * N + j[None, :])
    tl.store(Rows + i, tl.reduce(x, 1, add_or_max))
    tl.store(Rows + 16, tl.sum(x))
    tl.store(Index + i, tl.sum(k, 1))
    tl.store(Index + 16 + i, tl.xor_sum(k, 1))
    tl.store(Index + 32 + i, tl.reduce_or(k, 1))


def test_reductions_agree_with_torch_for_any_combining_function(executor):
    torch.manual_seed(0)
    x = torch.randn(16, 32)
    k = torch.randint(-(2**31), 2**31 - 1, (16, 32), dtype=torch.int32)
    rows, index = torch.empty(17), torch.empty(3, 16, dtype=torch.int32)
    executor.run(reduce_all, x, k, rows, index, N=32)
    torch.testing.assert_close(rows[:16], x.sum(1))
    torch.testing.assert_close(rows[16], x.sum())
    xor, either = k[:, 0], k[:, 0]
    for j in range(1, 32):
        xor, either = xor ^ k[:, j], either | k[:, j]
    assert torch.equal(index, torch.stack([k.sum(1).int(), xor, either]))


@triton.jit
def nan_max(X, Out):
    i = tl.arange(0, 4)
    j = tl.arange(0, 8)
    x = tl.load(X + i[:, None] * 8 + j[None, :])
    tl.store(Out + i, tl.max(x, 1))


def test_a_maximum_ignores_nan_unless_there_is_nothing_else(executor):
    x = torch.zeros(4, 8)
    x[0, 3] = x[1, :7] = x[2] = float("nan")
    x[1, 7] = -2.0
    out = torch.empty(4)
    executor.run(nan_max, x, out)
    assert out[[0, 1, 3]].tolist() == [0.0, -2.0, 0.0]
    assert out[2].isnan()


@triton.jit
def half_sum(X, Out):
    tl.store(Out, tl.sum(tl.load(X + tl.arange(0, 4))))


def test_sums_of_short_floats_round_at_every_step(executor):
    x = torch.tensor([2048.0, 0.0, 1.0, 1.0]).half()
    out = torch.empty(1, dtype=torch.float16)
    executor.run(half_sum, x, out)
    assert out.item() == 2048.0  # 2050 if summed in float32


@triton.jit
def first_order(a1, b1, a2, b2):
    return a1 * a2, b1 * a2 + b2


@triton.jit
def scans(X, Out, Reversed, A, B, N: tl.constexpr):
    i = tl.arange(0, 4)
    j = tl.arange(0, N)
    at = i[:, None] * N + j[None, :]
    x = tl.load(X + at)
    tl.store(Out + at, tl.cumsum(x, 1))
    tl.store(Reversed + at, tl.cumsum(x, 1, reverse=True))
    a, b = tl.associative_scan((x, x), 1, first_order)
    tl.store(A + at, a)
    tl.store(B + at, b)


def test_scans_run_forwards_and_backwards_with_several_operands(executor):
    torch.manual_seed(0)
    x = torch.randn(4, 16)
    out, back, a, b = (torch.empty(4, 16) for _ in range(4))
    executor.run(scans, x, out, back, a, b, N=16)
    torch.testing.assert_close(out, x.cumsum(1))
    torch.testing.assert_close(back, x.flip(1).cumsum(1).flip(1))
    torch.testing.assert_close(a, x.cumprod(1))
    state = torch.zeros(4)
    for j in range(16):
        state = state * x[:, j] + x[:, j] if j else x[:, 0]
        torch.testing.assert_close(b[:, j], state)


@triton.jit
def look_up(X, Keys, Out, Counts, Sorted):
    i = tl.arange(0, 16)
    x = tl.load(X + i)
    k = tl.load(Keys + i)
    tl.store(Out + i, tl.gather(x, k, 0))
    tl.store(Counts + tl.arange(0, 8), tl.histogram(k, 8, mask=i < 12))
    tl.store(Sorted + i, tl.sort(x))


def test_gather_histogram_and_sort(executor):
    torch.manual_seed(0)
    x = torch.randn(16)
    k = torch.randint(0, 16, (16,), dtype=torch.int32)
    out, counts, ordered = torch.empty(16), torch.empty(8, dtype=torch.int32), torch.empty(16)
    executor.run(look_up, x, k, out, counts, ordered)
    assert torch.equal(out, x[k])
    assert counts.tolist() == [(k[:12] == b).sum().item() for b in range(8)]
    assert torch.equal(ordered, x.sort().values)
