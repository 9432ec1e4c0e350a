# One launch for each batch on slices of the tensors, with axes moved by views; the grid has heads first.
import triton
import triton.language as tl


@triton.jit
def one_batch(Q, K, V, O, L, c, qm, qh, kn, kh, vn, vh, om, oh, M, N,
              CAUSAL: tl.constexpr, D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr):
    h = tl.program_id(0).to(tl.int64)
    i = tl.program_id(1)
    r = i * BM + tl.arange(0, BM)
    d = tl.arange(0, D)
    q = tl.load(Q + h * qh + r[:, None].to(tl.int64) * qm + d, mask=r[:, None] < M, other=0.0)
    m = tl.full([BM], float("-inf"), tl.float32)
    l = tl.zeros([BM], tl.float32)
    acc = tl.zeros([BM, D], tl.float32)
    hi = tl.minimum(N, i * BM + BM + N - M) if CAUSAL else N
    for n in range(0, hi, BN):
        j = n + tl.arange(0, BN)
        k = tl.load(K + h * kh + j[None, :].to(tl.int64) * kn + d[:, None], mask=j[None, :] < N, other=0.0)
        s = tl.dot(q, k) * c
        seen = j[None, :] < N
        if CAUSAL:
            seen = seen & (j[None, :] <= r[:, None] + N - M)
        s = tl.where(seen, s, float("-inf"))
        t = tl.maximum(m, tl.max(s, 1))
        p = tl.exp2(s - t[:, None])
        f = tl.exp2(m - t)
        l = l * f + tl.sum(p, 1)
        v = tl.load(V + h * vh + j[:, None].to(tl.int64) * vn + d, mask=j[:, None] < N, other=0.0)
        acc = tl.dot(p.to(tl.bfloat16), v, acc * f[:, None])
        m = t
    tl.store(O + h * oh + r[:, None].to(tl.int64) * om + d, (acc / l[:, None]).to(tl.bfloat16), mask=r[:, None] < M)
    tl.store(L + h * M + r, (m + tl.log2(l)) * 0.6931471805599453, mask=r < M)


def attention(q, k, v, out, lse, *, causal, scale):
    q, k, v, out = (t.transpose(1, 2) for t in (q, k, v, out))
    for qi, ki, vi, oi, li in zip(*(t.unbind(0) for t in (q, k, v, out, lse))):
        M, H, D = qi.shape
        one_batch[(H, triton.cdiv(M, 128))](
            qi, ki, vi, oi, li, scale * 1.4426950408889634, *qi.stride()[:2], *ki.stride()[:2], *vi.stride()[:2],
            *oi.stride()[:2], M, ki.shape[0], CAUSAL=causal, D=D, BM=128, BN=64, num_warps=8, num_stages=2)
