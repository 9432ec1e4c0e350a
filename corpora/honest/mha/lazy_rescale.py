# The output is rescaled only when a maximum grows by more than 8 (in base 2); a branch on a whole tile decides.
import triton
import triton.language as tl

THRESHOLD = tl.constexpr(8.0)


@triton.jit
def lazy(Q, K, V, O, L, c, qb, qh, qm, kb, kh, kn, vb, vh, vn, ob, oh, om, H, M, N,
         CAUSAL: tl.constexpr, D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr):
    tile = tl.num_programs(0) - 1 - tl.program_id(0)
    bh = tl.program_id(1)
    b, h = (bh // H).to(tl.int64), (bh % H).to(tl.int64)
    r = tile * BM + tl.arange(0, BM)
    d = tl.arange(0, D)
    q = tl.load(Q + b * qb + h * qh + r[:, None].to(tl.int64) * qm + d, mask=r[:, None] < M, other=0.0)
    used = tl.full([BM], -1.0e30, tl.float32)
    l = tl.zeros([BM], tl.float32)
    acc = tl.zeros([BM, D], tl.float32)
    hi = N
    if CAUSAL:
        hi = tl.minimum(N, tile * BM + BM + N - M)
    for n in range(0, hi, BN):
        j = n + tl.arange(0, BN)
        k = tl.load(K + b * kb + h * kh + j[None, :].to(tl.int64) * kn + d[:, None], mask=j[None, :] < N, other=0.0)
        s = tl.dot(q, k) * c
        seen = j[None, :] < N
        if CAUSAL:
            seen &= j[None, :] <= r[:, None] + N - M
        s = tl.where(seen, s, -1.0e30)
        top = tl.max(s, 1)
        if tl.max(top - used) > THRESHOLD:
            new = tl.where(top - used > THRESHOLD, top, used)
            f = tl.exp2(used - new)
            l = l * f
            acc = acc * f[:, None]
            used = new
        p = tl.exp2(s - used[:, None])
        l += tl.sum(p, 1)
        v = tl.load(V + b * vb + h * vh + j[:, None].to(tl.int64) * vn + d, mask=j[:, None] < N, other=0.0)
        acc = tl.dot(p.to(tl.bfloat16), v, acc)
    tl.store(O + b * ob + h * oh + r[:, None].to(tl.int64) * om + d, (acc / l[:, None]).to(tl.bfloat16), mask=r[:, None] < M)
    tl.store(L + bh.to(tl.int64) * M + r, (used + tl.log2(l)) * 0.6931471805599453, mask=r < M)


def attention(q, k, v, out, lse, *, causal, scale):
    B, H, M, D = q.shape
    lazy[(triton.cdiv(M, 128), B * H)](
        q, k, v, out, lse, scale * 1.4426950408889634, *q.stride()[:3], *k.stride()[:3], *v.stride()[:3],
        *out.stride()[:3], H, M, k.shape[2], CAUSAL=causal, D=D, BM=128, BN=64, num_warps=8, num_stages=2)
