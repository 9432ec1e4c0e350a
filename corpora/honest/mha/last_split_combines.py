# One launch: splits of the keys leave partial results, and the last of them to arrive combines all.
import torch
import triton
import triton.language as tl


@triton.jit
def one_launch(Q, K, V, Out, Lse, Part, PartLse, Count, scale, sqb, sqh, sqm, skb, skh, skn, svb, svh, svn, sob, soh, som,
               H, Sq, Sk, CAUSAL: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, SPLITS: tl.constexpr):
    split = tl.program_id(0)
    i = tl.program_id(1)
    bh = tl.program_id(2)
    b, h = (bh // H).to(tl.int64), (bh % H).to(tl.int64)
    rows = i * BM + tl.arange(0, BM)
    d = tl.arange(0, 128)
    q = tl.load(Q + b * sqb + h * sqh + rows[:, None].to(tl.int64) * sqm + d[None, :], mask=rows[:, None] < Sq, other=0.0)
    per = tl.cdiv(tl.cdiv(Sk, BN), SPLITS) * BN
    lo = split * per
    hi = tl.minimum(Sk, lo + per)
    if CAUSAL:
        hi = tl.minimum(hi, (i + 1) * BM + Sk - Sq)
    m = tl.full([BM], float("-inf"), tl.float32)
    l = tl.zeros([BM], tl.float32)
    acc = tl.zeros([BM, 128], tl.float32)
    for n in tl.range(lo, hi, BN):
        c = n + tl.arange(0, BN)
        k = tl.load(K + b * skb + h * skh + c[None, :].to(tl.int64) * skn + d[:, None], mask=c[None, :] < Sk, other=0.0)
        s = tl.dot(q, k) * (scale * 1.4426950408889634)
        ok = c[None, :] < Sk
        if CAUSAL:
            ok &= rows[:, None] + Sk - Sq >= c[None, :]
        s = tl.where(ok, s, float("-inf"))
        mn = tl.maximum(m, tl.max(s, 1))
        base = tl.where(mn == float("-inf"), 0.0, mn)
        p = tl.exp2(s - base[:, None])
        f = tl.exp2(m - base)
        l = l * f + tl.sum(p, 1)
        v = tl.load(V + b * svb + h * svh + c[:, None].to(tl.int64) * svn + d[None, :], mask=c[:, None] < Sk, other=0.0)
        acc = tl.dot(p.to(tl.bfloat16), v, acc * f[:, None])
        m = mn
    some = l > 0.0
    part = tl.where(some[:, None], acc / tl.where(some, l, 1.0)[:, None], 0.0)
    plse = tl.where(some, m + tl.log2(tl.where(some, l, 1.0)), float("-inf"))
    at = (bh.to(tl.int64) * SPLITS + split) * Sq + rows
    tl.store(Part + at[:, None] * 128 + d[None, :], part, mask=rows[:, None] < Sq)
    tl.store(PartLse + at, plse, mask=rows < Sq)
    tl.debug_barrier()
    done = tl.atomic_add(Count + bh * tl.num_programs(1) + i, 1, sem="acq_rel", scope="gpu")
    if done == SPLITS - 1:
        top = tl.full([BM], float("-inf"), tl.float32)
        for s_ in range(SPLITS):
            top = tl.maximum(top, tl.load(PartLse + (bh.to(tl.int64) * SPLITS + s_) * Sq + rows, mask=rows < Sq, other=0.0, volatile=True))
        total = tl.zeros([BM], tl.float32)
        o = tl.zeros([BM, 128], tl.float32)
        for s_ in range(SPLITS):
            src = (bh.to(tl.int64) * SPLITS + s_) * Sq + rows
            w = tl.exp2(tl.load(PartLse + src, mask=rows < Sq, other=0.0, volatile=True) - top)
            total += w
            o += w[:, None] * tl.load(Part + src[:, None] * 128 + d[None, :], mask=rows[:, None] < Sq, other=0.0, volatile=True)
        tl.store(Out + b * sob + h * soh + rows[:, None].to(tl.int64) * som + d[None, :], (o / total[:, None]).to(tl.bfloat16), mask=rows[:, None] < Sq)
        tl.store(Lse + bh.to(tl.int64) * Sq + rows, (top + tl.log2(total)) * 0.6931471805599453, mask=rows < Sq)


def attention(q, k, v, out, lse, *, causal, scale):
    B, H, Sq, D = q.shape
    Sk = k.shape[2]
    splits, BM = 2, 64
    tiles = triton.cdiv(Sq, BM)
    part = q.new_empty((B, H, splits, Sq, D), dtype=torch.float32)
    plse = torch.empty((B, H, splits, Sq), dtype=torch.float32, device="cuda")
    count = torch.zeros((B * H * tiles,), dtype=torch.int32, device=q.device)
    one_launch[(splits, tiles, B * H)](q, k, v, out, lse, part, plse, count, scale, *q.stride()[:3], *k.stride()[:3], *v.stride()[:3], *out.stride()[:3],
                                       H, Sq, Sk, CAUSAL=causal, BM=BM, BN=64, SPLITS=splits, num_warps=4, num_stages=2)
