# Two query tiles share each block of keys; libdevice exponentials, a custom reduction, tiles joined for the store.
import triton
import triton.language as tl
from triton.language.extra import libdevice


@triton.jit
def _max(a, b):
    return tl.maximum(a, b)


@triton.jit(noinline=False)
def _step(s, m, l):
    new = tl.maximum(m, tl.reduce(s, 1, _max))
    p = libdevice.exp2(s - new[:, None])
    a = libdevice.exp2(m - new)
    return new, l * a + tl.sum(p, axis=1, dtype=tl.float32), a, p


@triton.jit
def two_tiles(Q, K, V, O, L, qscale, sq: tl.constexpr, sk: tl.constexpr, sv: tl.constexpr, so: tl.constexpr, H: tl.constexpr, M, N,
              CAUSAL: tl.constexpr, HALF: tl.constexpr, BN: tl.constexpr, D: tl.constexpr):
    bh = tl.program_id(1)
    b = (bh // H).to(tl.int64)
    h = (bh % H).to(tl.int64)
    base = tl.program_id(0) * (2 * HALF)
    d = tl.arange(0, D)
    ra = base + tl.arange(0, HALF)
    rb = base + HALF + tl.arange(0, HALF)
    q0 = tl.load(Q + b * sq[0] + h * sq[1] + ra[:, None].to(tl.int64) * sq[2] + d[None, :], mask=ra[:, None] < M, other=0.0)
    q1 = tl.load(Q + b * sq[0] + h * sq[1] + rb[:, None].to(tl.int64) * sq[2] + d[None, :], mask=rb[:, None] < M, other=0.0)
    m0 = tl.full([HALF], -float("inf"), tl.float32)
    m1 = m0
    l0 = tl.zeros([HALF], tl.float32)
    l1 = tl.zeros_like(l0)
    o0 = tl.zeros([HALF, D], tl.float32)
    o1 = tl.zeros([HALF, D], tl.float32)
    hi = N
    if CAUSAL:
        hi = tl.minimum(N, base + 2 * HALF + N - M)
    for n in tl.range(0, hi, BN, num_stages=2, disallow_acc_multi_buffer=True):
        c = n + tl.arange(0, BN)
        k = tl.load(K + b * sk[0] + h * sk[1] + c[None, :].to(tl.int64) * sk[2] + d[:, None], mask=c[None, :] < N, other=0.0)
        v = tl.load(V + b * sv[0] + h * sv[1] + c[:, None].to(tl.int64) * sv[2] + d[None, :], mask=c[:, None] < N, other=0.0)
        bias = tl.where(c < N, 0.0, -1e38)
        s0 = tl.dot(q0, k) * qscale + bias[None, :]
        s1 = tl.dot(q1, k) * qscale + bias[None, :]
        if CAUSAL:
            s0 = tl.where(c[None, :] > ra[:, None] + (N - M), -1e38, s0)
            s1 = tl.where(c[None, :] > rb[:, None] + (N - M), -1e38, s1)
        m0, l0, a0, p0 = _step(s0, m0, l0)
        m1, l1, a1, p1 = _step(s1, m1, l1)
        o0 = tl.dot(p0.to(k.dtype), v, o0 * a0[:, None])
        o1 = tl.dot(p1.to(k.dtype), v, o1 * a1[:, None])
    o = tl.join(o0 / l0[:, None], o1 / l1[:, None]).permute(2, 0, 1).reshape(2 * HALF, D)
    lse = tl.join(m0 + tl.log2(l0), m1 + tl.log2(l1)).trans(1, 0).reshape([2 * HALF])
    r = base + tl.arange(0, 2 * HALF)
    tl.store(O + b * so[0] + h * so[1] + r[:, None].to(tl.int64) * so[2] + d[None, :], o.to(tl.bfloat16), mask=r[:, None] < M)
    tl.store(L + bh.to(tl.int64) * M + r, lse * 0.693147180559945, mask=r < M)


def attention(q, k, v, out, lse, *, causal, scale):
    B, H, M, D = q.shape
    two_tiles[triton.cdiv(M, 128), B * H](q, k, v, out, lse, scale * 1.44269504089, q.stride(), k.stride(), v.stride(), out.stride(), H, M, k.shape[-2],
                                          CAUSAL=causal, HALF=64, BN=64, D=D, num_warps=4)
