# A while loop that moves pointers; keys from the last block to the first, so that the diagonal comes first.
import triton
import triton.language as tl


@triton.jit
def backwards(Q, K, V, O, L, c, qb, qh, qm, kb, kh, kn, vb, vh, vn, ob, oh, om, H, M, N,
              CAUSAL: tl.constexpr, D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr):
    i, bh = tl.program_id(0), tl.program_id(1)
    b, h = (bh // H).to(tl.int64), (bh % H).to(tl.int64)
    r = i * BM + tl.arange(0, BM)
    d = tl.arange(0, D)
    j = tl.arange(0, BN)
    q = tl.load(Q + b * qb + h * qh + r[:, None].to(tl.int64) * qm + d, mask=r[:, None] < M, other=0.0)
    hi = N
    if CAUSAL:
        hi = tl.minimum(N, i * BM + BM + N - M)
    n = (tl.cdiv(hi, BN) - 1) * BN
    kp = K + b * kb + h * kh + (n + j)[None, :].to(tl.int64) * kn + d[:, None]
    vp = V + b * vb + h * vh + (n + j)[:, None].to(tl.int64) * vn + d[None, :]
    m = tl.full([BM], float("-inf"), tl.float32)
    l = tl.zeros([BM], tl.float32)
    acc = tl.zeros([BM, D], tl.float32)
    while n >= 0:
        k = tl.load(kp, mask=(n + j < N)[None, :], other=0.0)
        s = tl.dot(q, k) * c
        seen = (n + j < N)[None, :]
        if CAUSAL:
            seen = seen & ((n + j)[None, :] <= r[:, None] + N - M)
        s = tl.where(seen, s, float("-inf"))
        t = tl.maximum(m, tl.max(s, 1))
        base = tl.where(t == float("-inf"), 0.0, t)
        p = tl.exp2(s - base[:, None])
        f = tl.exp2(m - base)
        l = l * f + tl.sum(p, 1)
        v = tl.load(vp, mask=(n + j < N)[:, None], other=0.0)
        acc = tl.dot(p.to(tl.bfloat16), v, acc * f[:, None])
        m = t
        kp -= BN * kn.to(tl.int64)
        vp -= BN * vn.to(tl.int64)
        n -= BN
    tl.store(O + b * ob + h * oh + r[:, None].to(tl.int64) * om + d, (acc / l[:, None]).to(tl.bfloat16), mask=r[:, None] < M)
    tl.store(L + bh.to(tl.int64) * M + r, (m + tl.log2(l)) * 0.6931471805599453, mask=r < M)


def attention(q, k, v, out, lse, *, causal, scale):
    B, H, M, D = q.shape
    backwards[(triton.cdiv(M, 128), B * H)](
        q, k, v, out, lse, scale * 1.4426950408889634, *q.stride()[:3], *k.stride()[:3], *v.stride()[:3],
        *out.stride()[:3], H, M, k.shape[2], CAUSAL=causal, D=D, BM=128, BN=64, num_warps=8)
