# Probabilities in two bfloat16 terms, so that what the rounding of the first loses is multiplied as well.
import triton
import triton.language as tl


@triton.jit
def pv(p, v, acc):
    high = p.to(tl.bfloat16)
    low = (p - high.to(tl.float32)).to(tl.bfloat16)
    return tl.dot(low, v, tl.dot(high, v, acc))


@triton.jit
def precise(Q, K, V, O, L, scale, qs, ks, vs, os, H, M, N, CAUSAL: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr):
    i, h, b = tl.program_id(0), tl.program_id(1).to(tl.int64), tl.program_id(2).to(tl.int64)
    r = i * BM + tl.arange(0, BM)
    d = tl.arange(0, 128)
    q = tl.load(Q + b * qs[0] + h * qs[1] + r[:, None].to(tl.int64) * qs[2] + d * qs[3], mask=r[:, None] < M, other=0)
    m = tl.full([BM], float("-inf"), tl.float32)
    l = tl.zeros_like(m)
    acc = tl.zeros([BM, 128], tl.float32)
    for n in tl.range(0, N if not CAUSAL else tl.minimum(N, i * BM + BM + N - M), BN):
        j = n + tl.arange(0, BN)
        k = tl.load(K + b * ks[0] + h * ks[1] + j[None, :].to(tl.int64) * ks[2] + d[:, None] * ks[3], mask=j[None, :] < N, other=0)
        s = tl.dot(q, k, out_dtype=tl.float32) * scale
        hidden = (j >= N)[None, :]
        if CAUSAL:
            hidden |= j[None, :] > r[:, None] + N - M
        s = tl.where(hidden, float("-inf"), s)
        t = tl.maximum(m, tl.max(s, -1))
        p = tl.exp(s - t[:, None])
        f = tl.exp(m - t)
        l = l * f + p.sum(-1)
        v = tl.load(V + b * vs[0] + h * vs[1] + j[:, None].to(tl.int64) * vs[2] + d * vs[3], mask=j[:, None] < N, other=0)
        acc = pv(p, v, acc * f[:, None])
        m = t
    tl.store(O + b * os[0] + h * os[1] + r[:, None].to(tl.int64) * os[2] + d * os[3], (acc / l[:, None]).to(O.dtype.element_ty), mask=r[:, None] < M)
    tl.store(L + (b * H + h) * M + r, m + tl.log(l), mask=r < M)


def attention(q, k, v, out, lse, *, causal, scale):
    B, H, M, _ = q.shape
    precise[(triton.cdiv(M, 128), H, B)](q, k, v, out, lse, scale, q.stride(), k.stride(), v.stride(), out.stride(),
                                         H, M, k.size(2), CAUSAL=causal, BM=128, BN=64, num_warps=8, num_stages=2)
