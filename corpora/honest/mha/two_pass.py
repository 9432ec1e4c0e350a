# Softmax in two passes: one kernel finds lse, the next recomputes the scores and needs no running maximum.
import torch, triton
import triton.language as tl


@triton.jit
def _scores(q, Kp, n, rows, cols, Sk, shift, scale, skn, CAUSAL: tl.constexpr, D: tl.constexpr):
    d = tl.arange(0, D)
    k = tl.load(Kp + cols.to(tl.int64)[None, :] * skn + d[:, None], mask=(cols < Sk)[None, :], other=0.)
    s = tl.dot(q, k) * scale
    ok = (cols < Sk)[None, :] & ((cols[None, :] <= rows[:, None] + shift) | (not CAUSAL))
    return s, ok


@triton.jit
def logsumexp_kernel(Q, K, LSE, sqb, sqh, sqm, skb, skh, skn, scale, H, Sq, Sk, CAUSAL: tl.constexpr, D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr):
    i, bh = tl.program_id(0), tl.program_id(1)
    b, h = bh // H, bh % H
    rows = i * BM + tl.arange(0, BM)
    d = tl.arange(0, D)
    q = tl.load(Q + b.to(tl.int64) * sqb + h.to(tl.int64) * sqh + rows.to(tl.int64)[:, None] * sqm + d, mask=rows[:, None] < Sq, other=0.)
    Kp = K + b.to(tl.int64) * skb + h.to(tl.int64) * skh
    m = tl.full([BM], -float('inf'), tl.float32)
    l = tl.zeros([BM], tl.float32)
    hi = tl.minimum(Sk, i * BM + BM + Sk - Sq) if CAUSAL else Sk
    for n in range(0, hi, BN):
        s, ok = _scores(q, Kp, n, rows, n + tl.arange(0, BN), Sk, Sk - Sq, scale, skn, CAUSAL, D)
        s = tl.where(ok, s, -float('inf'))
        new = tl.maximum(m, tl.max(s, 1))
        l = l * tl.exp(m - new) + tl.sum(tl.exp(s - new[:, None]), 1)
        m = new
    tl.store(LSE + bh.to(tl.int64) * Sq + rows, m + tl.log(l), mask=rows < Sq)


@triton.jit
def output_kernel(Q, K, V, O, LSE, sqb, sqh, sqm, skb, skh, skn, svb, svh, svn, sob, soh, som, scale, H, Sq, Sk,
                  CAUSAL: tl.constexpr, D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr):
    i, bh = tl.program_id(0), tl.program_id(1)
    b, h = (bh // H).to(tl.int64), (bh % H).to(tl.int64)
    rows = i * BM + tl.arange(0, BM)
    d = tl.arange(0, D)
    q = tl.load(Q + b * sqb + h * sqh + rows.to(tl.int64)[:, None] * sqm + d, mask=rows[:, None] < Sq, other=0.)
    lse = tl.load(LSE + bh.to(tl.int64) * Sq + rows, mask=rows < Sq, other=0.)
    Kp, Vp = K + b * skb + h * skh, V + b * svb + h * svh
    acc = tl.zeros([BM, D], tl.float32)
    hi = tl.minimum(Sk, i * BM + BM + Sk - Sq) if CAUSAL else Sk
    for n in range(0, hi, BN):
        cols = n + tl.arange(0, BN)
        s, ok = _scores(q, Kp, n, rows, cols, Sk, Sk - Sq, scale, skn, CAUSAL, D)
        p = tl.where(ok, tl.exp(s - lse[:, None]), 0.)
        v = tl.load(Vp + cols.to(tl.int64)[:, None] * svn + d[None, :], mask=(cols < Sk)[:, None], other=0.)
        acc = tl.dot(p.to(tl.bfloat16), v, acc)
    tl.store(O + b * sob + h * soh + rows.to(tl.int64)[:, None] * som + d, acc.to(tl.bfloat16), mask=rows[:, None] < Sq)


def attention(q, k, v, out, lse, *, causal, scale):
    B, H, Sq, D = q.shape
    Sk = k.shape[2]
    BM = 128 if Sq >= 128 else max(16, triton.next_power_of_2(Sq))
    grid = (triton.cdiv(Sq, BM), B * H)
    cfg = dict(CAUSAL=causal, D=D, BM=BM, BN=64, num_warps=4 if BM < 128 else 8, num_stages=3)
    logsumexp_kernel[grid](q, k, lse, *q.stride()[:-1], *k.stride()[:-1], scale, H, Sq, Sk, **cfg)
    output_kernel[grid](q, k, v, out, lse, *q.stride()[:-1], *k.stride()[:-1], *v.stride()[:-1], *out.stride()[:-1], scale, H, Sq, Sk, **cfg)
