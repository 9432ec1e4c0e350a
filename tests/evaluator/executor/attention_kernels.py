"""Kernels and cases that are run both by the executor and, as a script, by Triton's own interpreter.

TRITON_INTERPRET=1 python attention_kernels.py OUT.pt
"""

import sys

import torch
import triton
import triton.language as tl


@triton.jit
def attention(
    Q, K, V, Out, Lse, scale, stride_h, stride_m, heads, group, q_len, kv_len,
    CAUSAL: tl.constexpr, D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Flash attention over [heads, length, D] tensors whose rows lie ``stride_m`` apart; stops at the diagonal."""
    start_m = tl.program_id(0) * BLOCK_M
    head = tl.program_id(1)
    m, n, d = start_m + tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_N), tl.arange(0, D)
    rows = m[:, None] * stride_m + d[None, :]
    q = tl.load(Q + head * stride_h + rows, mask=(m < q_len)[:, None], other=0.0)
    k_base = K + head // group * stride_h
    v_base = V + head // group * stride_h
    high = tl.full((BLOCK_M,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_M,), tl.float32)
    acc = tl.zeros((BLOCK_M, D), tl.float32)
    end = kv_len
    if CAUSAL:
        end = tl.minimum(kv_len, start_m + BLOCK_M + kv_len - q_len)
    for start in range(0, end, BLOCK_N):
        inside = start + n < kv_len
        k = tl.load(k_base + (start + n)[None, :] * stride_m + d[:, None], mask=inside[None, :], other=0.0)
        scores = tl.dot(q, k, input_precision="ieee") * (scale * 1.4426950408889634)
        visible = inside[None, :]
        if CAUSAL:
            visible = visible & (start + n[None, :] <= m[:, None] + kv_len - q_len)
        scores = tl.where(visible, scores, float("-inf"))
        higher = tl.maximum(high, tl.max(scores, 1))
        p = tl.exp2(scores - higher[:, None])
        rescale = tl.exp2(high - higher)
        total = total * rescale + tl.sum(p, 1)
        v = tl.load(v_base + (start + n)[:, None] * stride_m + d[None, :], mask=inside[:, None], other=0.0)
        acc = tl.dot(p.to(v.dtype), v, acc * rescale[:, None], input_precision="ieee")
        high = higher
    tl.store(Out + head * stride_h + rows, (acc / total[:, None]).to(Out.dtype.element_ty), mask=(m < q_len)[:, None])
    tl.store(Lse + head * q_len + m, high / 1.4426950408889634 + tl.log(total), mask=m < q_len)


@triton.jit
def softmax(X, Y, n, N: tl.constexpr):
    row = tl.program_id(0)
    j = tl.arange(0, N)
    x = tl.load(X + row * n + j, mask=j < n, other=float("-inf"))
    e = tl.exp(x - tl.max(x, 0))
    tl.store(Y + row * n + j, e / tl.sum(e, 0), mask=j < n)


@triton.jit
def mixture(X, Index, Out, n, N: tl.constexpr):
    p = tl.program_id(0)
    i = tl.arange(0, N)
    x = tl.load(X + i).to(tl.float32)
    k = tl.load(Index + i)
    total = tl.cumsum(x, 0)
    best, where = tl.max(x, 0, return_indices=True)
    count = 0
    while count < p + 2:
        total += tl.gather(x, (k + count) % N, 0)
        count += 1
    if p % 2 == 1:
        total = -total
    a, b = tl.split(tl.reshape(total, (N // 2, 2)))
    pair = tl.join(b, a)
    out = tl.reshape(tl.trans(pair), (N,)) + best + where + tl.sum(tl.histogram(k % 4, 4) * tl.arange(0, 4))
    tl.store(Out + p * N + i, out + tl.fma(x, x, 1.0) + k // 3 + k % 5 + (k >> 1), mask=i < n)


@triton.jit
def linear(a1, b1, a2, b2):
    return a1 * a2, b1 * a2 + b2


@triton.jit
def combined(X, Keys, Out, Places, M: tl.constexpr, N: tl.constexpr):
    i, j = tl.arange(0, M), tl.arange(0, N)
    at = i[:, None] * N + j[None, :]
    x, k = tl.load(X + at), tl.load(Keys + at)
    a, b = tl.associative_scan((x, x), 1, linear, reverse=True)
    tl.store(Out + at, tl.sort(x) + tl.flip(x, 1) * tl.cumsum(x, 1) + a - b)
    tl.store(Out + M * N + at, tl.dot(tl.dot(x, tl.trans(x), input_precision="ieee"), x, input_precision="ieee"))
    tl.store(Places + at, tl.cumsum(k, 1, reverse=True) + tl.sort(k, descending=True) + tl.max(k, 1, keep_dims=True))
    tl.store(Places + M * N + i, tl.xor_sum(k, 1) + tl.argmin(x, 1) - tl.argmax(k, 1) + tl.sum(k > 3, 1))


def cases():
    """Return (name, kernel, arguments, grid, constants); arguments are made anew by every call, always the same."""
    torch.manual_seed(0)
    made = []
    for dtype in (torch.float16, torch.float32):
        for causal in (False, True):
            heads, q_len, kv_len, d = 4, 33, 49, 32
            q, out = torch.randn(heads, 64, d).to(dtype), torch.zeros(heads, 64, d).to(dtype)
            k, v = torch.randn(2, 64, d).to(dtype), torch.randn(2, 64, d).to(dtype)
            lse = torch.zeros(heads, q_len)
            args = (q, k, v, out, lse, d**-0.5, 64 * d, d, heads, 2, q_len, kv_len)
            name = f"attention-{str(dtype).removeprefix('torch.')}-{'causal' if causal else 'full'}"
            constants = {"CAUSAL": causal, "D": d, "BLOCK_M": 16, "BLOCK_N": 16}
            made.append((name, attention, args, (3, heads), constants))
        x = torch.randn(5, 27).to(dtype)
        made.append((f"softmax-{x.dtype}", softmax, (x.float(), torch.zeros(5, 27), 27), (5,), {"N": 32}))
        i = torch.randint(0, 100, (32,), dtype=torch.int32)
        args = (torch.randn(32).to(dtype), i, torch.zeros(4, 32), 30)
        made.append((f"mixture-{x.dtype}", mixture, args, (4,), {"N": 32}))
    for rows, columns in ((16, 16), (8, 32)):
        x, k = torch.randn(rows, columns), torch.randint(-99, 99, (rows, columns), dtype=torch.int32)
        args = (x, k, torch.zeros(2, rows, columns), torch.zeros(rows + 1, columns, dtype=torch.int32))
        made.append((f"combined-{columns}", combined, args, (1,), {"M": rows, "N": columns}))
    return made


def tensors(args):
    return [arg for arg in args if isinstance(arg, torch.Tensor)]


if __name__ == "__main__":
    results = {}
    for name, kernel, args, grid, constants in cases():
        kernel[grid](*args, **constants)
        results[name] = tensors(args)
    torch.save(results, sys.argv[1])
