"""Random numbers are Philox's, bit for bit (Salmon et al., Parallel random numbers: as easy as 1, 2, 3, SC 2011)."""

import math

import numpy as np
import pytest
import torch
import triton
import triton.language as tl

ORACLE = "numpy's Philox generator"

SIZE = 64
MULTIPLIERS = {32: (0xD2511F53, 0xCD9E8D57), 64: (0xD2E7470EE14C6C93, 0xCA5A826395121157)}
WEYL = {32: (0x9E3779B9, 0xBB67AE85), 64: (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)}


def philox(counter, key, bits, rounds):
    """One block of Philox-4x with Python's integers."""
    mask = 2**bits - 1
    c, k = list(counter), list(key)
    for _ in range(rounds):
        low, high = MULTIPLIERS[bits][0] * c[0], MULTIPLIERS[bits][1] * c[2]
        c = [high >> bits ^ c[1] ^ k[0], high & mask, low >> bits ^ c[3] ^ k[1], low & mask]
        k = [(k[i] + WEYL[bits][i]) & mask for i in (0, 1)]
    return c


def blocks(seed, offsets, rounds=10):
    """uint32 [4, offsets], as ``tl.randint4x`` numbers them."""
    key = seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF
    counters = [(offset & 0xFFFFFFFF, offset >> 32 & 0xFFFFFFFF, 0, 0) for offset in offsets]
    return np.array([philox(counter, key, 32, rounds) for counter in counters], dtype=np.uint32).T


def uniform(words):
    """Return uniform numbers as ``tl.rand`` makes them of uint32."""
    whole = words.view(np.int32)
    return np.where(whole < 0, ~whole, whole).astype(np.float32) * np.float32(4.6566127342e-10)


@triton.jit
def draw(Offset, Seed, Whole, Uniform, Normal, SIZE: tl.constexpr):
    i = tl.arange(0, SIZE)
    offset = tl.load(Offset + i)
    seed = tl.load(Seed)
    a, b, c, d = tl.randint4x(seed, offset)
    tl.store(Whole + i, a)
    tl.store(Whole + SIZE + i, b)
    tl.store(Whole + 2 * SIZE + i, c)
    tl.store(Whole + 3 * SIZE + i, d)
    tl.store(Whole + 4 * SIZE + i, tl.randint(seed, offset, 7))
    e, f, g, h = tl.rand4x(seed, offset)
    tl.store(Uniform + i, e)
    tl.store(Uniform + SIZE + i, f)
    tl.store(Uniform + 2 * SIZE + i, g)
    tl.store(Uniform + 3 * SIZE + i, h)
    tl.store(Uniform + 4 * SIZE + i, tl.rand(seed, offset))
    tl.store(Normal + i, tl.randn(seed, offset))


@pytest.mark.parametrize("seed", [0, 42, -1, 2**40 + 7])
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64], ids=str)
def test_random_numbers_are_those_of_philox(executor, dtype, seed):
    offsets = torch.arange(SIZE, dtype=dtype) * (1_000_003 if dtype == torch.int32 else 2**33 + 12_345)
    whole, fraction, normal = torch.zeros(5 * SIZE, dtype=torch.int32), torch.zeros(5 * SIZE), torch.zeros(SIZE)
    executor.run(draw, offsets, torch.tensor([seed]), whole, fraction, normal, SIZE=SIZE)
    expected = blocks(seed, offsets.tolist())
    assert np.array_equal(whole.view(5, SIZE)[:4].numpy().view(np.uint32), expected)
    assert np.array_equal(whole.view(5, SIZE)[4].numpy().view(np.uint32), blocks(seed, offsets.tolist(), 7)[0])
    assert np.array_equal(fraction.view(5, SIZE)[:4].numpy(), uniform(expected))
    assert np.array_equal(fraction.view(5, SIZE)[4].numpy(), uniform(expected[0]))
    radius, angle = np.maximum(uniform(expected[0]), 1e-7).astype(np.float64), uniform(expected[1]) * 2 * math.pi
    np.testing.assert_allclose(normal, np.sqrt(-2 * np.log(radius)) * np.cos(angle), rtol=1e-5, atol=2e-6)


@triton.jit
def draw_wide(Counter, Seed, Out, SIZE: tl.constexpr):
    i = tl.arange(0, SIZE)
    counter = tl.load(Counter + i)
    zero = counter * 0
    a, b, c, d = tl.philox(tl.load(Seed), counter, zero, zero + 3, zero)
    tl.store(Out + i, a)
    tl.store(Out + SIZE + i, b)
    tl.store(Out + 2 * SIZE + i, c)
    tl.store(Out + 3 * SIZE + i, d)


def test_wide_counters_run_the_64_bit_philox(executor):
    counters, out = torch.arange(SIZE) * (2**57 + 999), torch.zeros(4 * SIZE, dtype=torch.int64)
    executor.run(draw_wide, counters, torch.tensor([2**61 + 5]), out, SIZE=SIZE)
    expected = [philox((counter % 2**64, 0, 3, 0), (2**61 + 5, 0), 64, 10) for counter in counters.tolist()]
    assert [[value % 2**64 for value in row] for row in out.view(4, SIZE).T.tolist()] == expected
