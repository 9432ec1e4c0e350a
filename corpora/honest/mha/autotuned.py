# Autotuned over tiles, warps and stages, with configurations pruned by shape; grouped 1-D order of tiles.
import triton
import triton.language as tl

CONFIGS = [
    triton.Config({"BM": bm, "BN": bn, "GROUP": 4}, num_warps=w, num_stages=s)
    for bm, bn, w, s in [(128, 64, 8, 3), (128, 128, 8, 2), (64, 64, 4, 3)]
]


def prune(configs, nargs, **kwargs):
    kept = [c for c in configs if c.kwargs["BM"] <= max(64, nargs["M"])]
    return kept or configs[-1:]


@triton.autotune(configs=CONFIGS, key=["M", "N", "CAUSAL"], prune_configs_by={"early_config_prune": prune})
@triton.jit
def fwd(Q, K, V, O, L, c, qb, qh, qm, kb, kh, kn, vb, vh, vn, ob, oh, om, H, Z, M, N,
        CAUSAL: tl.constexpr, D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, GROUP: tl.constexpr):
    i, z = tl.swizzle2d(tl.program_id(0) // Z, tl.program_id(0) % Z, tl.cdiv(M, BM), Z, GROUP)
    b, h = (z // H).to(tl.int64), (z % H).to(tl.int64)
    r = i * BM + tl.arange(0, BM)
    d = tl.arange(0, D)
    q = tl.load(Q + b * qb + h * qh + r[:, None].to(tl.int64) * qm + d, mask=r[:, None] < M, other=0.0)
    m = tl.full([BM], float("-inf"), tl.float32)
    l = tl.full([BM], 0.0, tl.float32)
    acc = tl.zeros([BM, D], tl.float32)
    hi = N
    if CAUSAL:
        hi = min(N, (i + 1) * BM + N - M)
    for n in range(0, hi, BN):
        j = n + tl.arange(0, BN)
        k = tl.load(K + b * kb + h * kh + j[None, :].to(tl.int64) * kn + d[:, None], mask=j[None, :] < N, other=0.0)
        s = tl.dot(q, k)
        if CAUSAL:
            s = tl.where(j[None, :] - r[:, None] <= N - M, s, float("-inf"))
        s = tl.where(j[None, :] >= N, float("-inf"), s)
        t = tl.maximum(m, tl.max(s, 1))
        p = tl.exp2((s - t[:, None]) * c)
        f = tl.exp2((m - t) * c)
        l = f * l + tl.sum(p, 1)
        v = tl.load(V + b * vb + h * vh + j[:, None].to(tl.int64) * vn + d, mask=j[:, None] < N, other=0.0)
        acc = tl.dot(p.to(tl.bfloat16), v, acc * f[:, None])
        m = t
    tl.store(O + b * ob + h * oh + r[:, None].to(tl.int64) * om + d, (acc / l[:, None]).to(tl.bfloat16), mask=r[:, None] < M)
    tl.store(L + z.to(tl.int64) * M + r, m * (c / 1.4426950408889634) + tl.log(l), mask=r < M)


def attention(q, k, v, out, lse, *, causal, scale):
    B, H, M, D = q.shape
    strides = [s for t in (q, k, v, out) for s in t.stride()[:3]]
    grid = lambda meta: (triton.cdiv(M, meta["BM"]) * B * H,)
    fwd[grid](q, k, v, out, lse, scale * 1.4426950408889634, *strides, H, B * H, M, k.shape[2], CAUSAL=causal, D=D)
