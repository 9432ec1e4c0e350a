# Two blocks of keys per pass, unrolled at compile time; hints that hold; scale folded into the queries in float32.
import triton
import triton.language as tl


@triton.jit
def unrolled(Q, K, V, O, L, c, qb, qh, qm, kb, kh, kn, vb, vh, vn, ob, oh, om, H, M, N,
             CAUSAL: tl.constexpr, D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, UNROLL: tl.constexpr):
    tl.static_assert(BM % 16 == 0 and BN % 16 == 0)
    tl.assume(M > 0)
    tl.assume(N >= M if CAUSAL else N > 0)
    tl.assume(kn >= D)
    tl.device_assert(H > 0, "no heads")
    i, bh = tl.program_id(0), tl.program_id(1)
    b, h = (bh // H).to(tl.int64), (bh % H).to(tl.int64)
    r = i * BM + tl.arange(0, BM)
    d = tl.max_contiguous(tl.arange(0, D), D)
    q = tl.load(Q + b * qb + h * qh + r[:, None].to(tl.int64) * qm + d, mask=r[:, None] < M, other=0.0)
    m = tl.full([BM], float("-inf"), tl.float32)
    l = tl.zeros([BM], tl.float32)
    acc = tl.zeros([BM, D], tl.float32)
    hi = tl.minimum(N, i * BM + BM + N - M) if CAUSAL else N
    for n in range(0, hi, BN * UNROLL):
        n = tl.multiple_of(n, BN)
        for u in tl.static_range(UNROLL):
            j = tl.max_contiguous(tl.multiple_of(n + u * BN + tl.arange(0, BN), BN), BN)
            k = tl.load(K + b * kb + h * kh + j[None, :].to(tl.int64) * kn + d[:, None], mask=j[None, :] < N, other=0.0)
            s = tl.dot(q, k) * c
            seen = j[None, :] < N
            if CAUSAL:
                seen = seen & (j[None, :] <= r[:, None] + N - M)
            s = tl.where(seen, s, float("-inf"))
            t = tl.maximum(m, tl.max(s, 1))
            p = tl.exp2(s - t[:, None])
            f = tl.exp2(m - t)
            l = l * f + tl.sum(p, 1)
            v = tl.load(V + b * vb + h * vh + j[:, None].to(tl.int64) * vn + d, mask=j[:, None] < N, other=0.0)
            acc = tl.dot(p.to(tl.bfloat16), v, acc * f[:, None])
            m = t
    tl.store(O + b * ob + h * oh + r[:, None].to(tl.int64) * om + d, (acc / l[:, None]).to(tl.bfloat16), mask=r[:, None] < M)
    tl.store(L + bh.to(tl.int64) * M + r, (m + tl.log2(l)) * 0.6931471805599453, mask=r < M)


def attention(q, k, v, out, lse, *, causal, scale):
    B, H, M, D = q.shape
    unrolled[(triton.cdiv(M, 128), B * H)](
        q, k, v, out, lse, scale * 1.4426950408889634, *q.stride()[:3], *k.stride()[:3], *v.stride()[:3],
        *out.stride()[:3], H, M, k.shape[2], CAUSAL=causal, D=D, BM=128, BN=32, UNROLL=2, num_warps=8, num_stages=2)
