# A tutorial-like kernel by another author: exp2, split loop, descriptors when strides allow, 128x64.
import torch
import triton
import triton.language as tl


@triton.jit
def _inner(acc, l_i, m_i, q, K, V, sk, sv, lo, hi, offs_m, offs_n, offs_d, shift, n_ctx, qk_scale,
           BN: tl.constexpr, MASK: tl.constexpr, CAUSAL: tl.constexpr):
    for n in tl.range(lo, hi, BN):
        cols = n + offs_n
        kp = K + cols[None, :].to(tl.int64) * sk + offs_d[:, None]
        vp = V + cols[:, None].to(tl.int64) * sv + offs_d[None, :]
        if MASK:
            k = tl.load(kp, mask=cols[None, :] < n_ctx, other=0.0)
        else:
            k = tl.load(kp)
        qk = tl.dot(q, k)
        if MASK:
            ok = cols[None, :] < n_ctx
            if CAUSAL:
                ok = ok & (cols[None, :] <= offs_m[:, None] + shift)
            qk = tl.where(ok, qk, -1.0e30)
        m_ij = tl.maximum(m_i, tl.max(qk, 1) * qk_scale)
        p = tl.math.exp2(qk * qk_scale - m_ij[:, None])
        alpha = tl.math.exp2(m_i - m_ij)
        l_i = l_i * alpha + tl.sum(p, 1)
        acc = acc * alpha[:, None]
        if MASK:
            v = tl.load(vp, mask=cols[:, None] < n_ctx, other=0.0)
        else:
            v = tl.load(vp)
        acc = tl.dot(p.to(v.dtype), v, acc)
        m_i = m_ij
    return acc, l_i, m_i


@triton.jit
def _fwd(Q, K, V, O, L, qk_scale, sqb, sqh, sqm, skb, skh, skn, svb, svh, svn, sob, soh, som,
         H, n_q, n_kv, CAUSAL: tl.constexpr, D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr):
    pid, bh = tl.program_id(0), tl.program_id(1)
    b, h = (bh // H).to(tl.int64), (bh % H).to(tl.int64)
    offs_m = pid * BM + tl.arange(0, BM)
    offs_n, offs_d = tl.arange(0, BN), tl.arange(0, D)
    q = tl.load(Q + b * sqb + h * sqh + offs_m[:, None].to(tl.int64) * sqm + offs_d[None, :], mask=offs_m[:, None] < n_q, other=0.0)
    Kb, Vb = K + b * skb + h * skh, V + b * svb + h * svh
    m_i = tl.zeros([BM], tl.float32) - float("inf")
    l_i = tl.zeros([BM], tl.float32)
    acc = tl.zeros([BM, D], tl.float32)
    shift = n_kv - n_q
    if CAUSAL:
        full = (pid * BM + shift + 1) // BN * BN
        end = tl.minimum(n_kv, pid * BM + BM + shift)
    else:
        full = n_kv // BN * BN
        end = n_kv
    acc, l_i, m_i = _inner(acc, l_i, m_i, q, Kb, Vb, skn, svn, 0, full, offs_m, offs_n, offs_d, shift, n_kv, qk_scale, BN, False, CAUSAL)
    acc, l_i, m_i = _inner(acc, l_i, m_i, q, Kb, Vb, skn, svn, full, end, offs_m, offs_n, offs_d, shift, n_kv, qk_scale, BN, True, CAUSAL)
    acc = acc / l_i[:, None]
    tl.store(O + b * sob + h * soh + offs_m[:, None].to(tl.int64) * som + offs_d[None, :], acc.to(O.dtype.element_ty), mask=offs_m[:, None] < n_q)
    tl.store(L + bh.to(tl.int64) * n_q + offs_m, (m_i + tl.math.log2(l_i)) * 0.6931471805599453, mask=offs_m < n_q)


def attention(q, k, v, out, lse, *, causal: bool, scale: float) -> None:
    B, H, M, D = q.shape
    _fwd[lambda meta: (triton.cdiv(M, meta["BM"]), B * H)](
        q, k, v, out, lse, scale * 1.4426950408889634,
        *q.stride()[:3], *k.stride()[:3], *v.stride()[:3], *out.stride()[:3], H, M, k.shape[2],
        CAUSAL=causal, D=D, BM=128, BN=64, num_warps=8, num_stages=3)
