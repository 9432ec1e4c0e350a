# The head dimension in two halves: two products make the scores, two accumulators the output.
import triton
import triton.language as tl

_LOG2E = 1.4426950408889634


@triton.jit
def load_rows(base, stride, rows, cols, n):
    return tl.load(base + rows.to(tl.int64)[:, None] * stride + cols[None, :], mask=(rows < n)[:, None], other=0.0)


@triton.jit
def store_rows(base, stride, rows, cols, n, x):
    tl.store(base + rows.to(tl.int64)[:, None] * stride + cols[None, :], x.to(base.dtype.element_ty), mask=(rows < n)[:, None])


@triton.jit
def halves(Q, K, V, O, L, c, qb, qh, qm, kb, kh, kn, vb, vh, vn, ob, oh, om, H, M, N,
           CAUSAL: tl.constexpr, D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr):
    i, bh = tl.program_id(0), tl.program_id(1)
    b, h = (bh // H).to(tl.int64), (bh % H).to(tl.int64)
    Q += b * qb + h * qh
    K += b * kb + h * kh
    V += b * vb + h * vh
    O += b * ob + h * oh
    r = i * BM + tl.arange(0, BM)
    d0 = tl.arange(0, D // 2)
    d1 = D // 2 + d0
    q0 = load_rows(Q, qm, r, d0, M)
    q1 = load_rows(Q, qm, r, d1, M)
    m = tl.full([BM], float("-inf"), tl.float32)
    l = tl.zeros([BM], tl.float32)
    o0 = tl.zeros([BM, D // 2], tl.float32)
    o1 = tl.zeros([BM, D // 2], tl.float32)
    hi = tl.minimum(N, i * BM + BM + N - M) if CAUSAL else N
    for n in range(0, hi, BN):
        j = n + tl.arange(0, BN)
        s = tl.dot(q0, load_rows(K, kn, j, d0, N).T)
        s = tl.dot(q1, load_rows(K, kn, j, d1, N).T, s) * c
        limit = N - 1
        if CAUSAL:
            s = tl.where(j[None, :] > tl.minimum(limit, r + (N - M))[:, None], float("-inf"), s)
        else:
            s = tl.where(j[None, :] > limit, float("-inf"), s)
        t = tl.maximum(m, tl.max(s, 1))
        p = tl.exp2(s - t[:, None])
        f = tl.exp2(m - t)
        l = l * f + tl.sum(p, 1)
        p = p.to(tl.bfloat16)
        o0 = tl.dot(p, load_rows(V, vn, j, d0, N), o0 * f[:, None])
        o1 = tl.dot(p, load_rows(V, vn, j, d1, N), o1 * f[:, None])
        m = t
    inverse = 1.0 / l
    store_rows(O, om, r, d0, M, o0 * inverse[:, None])
    store_rows(O, om, r, d1, M, o1 * inverse[:, None])
    tl.store(L + bh.to(tl.int64) * M + r, (m + tl.log2(l)) / 1.4426950408889634, mask=r < M)


def attention(q, k, v, out, lse, *, causal, scale):
    B, H, M, D = q.shape
    halves[(triton.cdiv(M, 128), B * H)](
        q, k, v, out, lse, scale * _LOG2E, *q.stride()[:3], *k.stride()[:3], *v.stride()[:3],
        *out.stride()[:3], H, M, k.shape[2], CAUSAL=causal, D=D, BM=128, BN=64, num_warps=8, num_stages=2)
