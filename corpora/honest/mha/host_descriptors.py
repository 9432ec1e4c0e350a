# Four-dimensional tensor descriptors made on the host; masks under a scalar condition; heaviest tiles first.
import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

INV_LN2: tl.constexpr = tl.constexpr(1.4426950408889634)
LN2: tl.constexpr = tl.constexpr(0.6931471805599453)


@triton.jit
def fa(qd, kd, vd, od, lse, qk_scale, H, Sq, Sk, CAUSAL: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, D: tl.constexpr):
    z = tl.program_id(2)
    h = tl.program_id(1)
    i = tl.num_programs(0) - 1 - tl.program_id(0)
    row0 = i * BM
    q = qd.load([z, h, row0, 0]).reshape(BM, D)
    m = tl.full((BM,), float("-inf"), tl.float32)
    l = tl.full((BM,), 0.0, tl.float32)
    o = tl.zeros((BM, D), dtype=tl.float32)
    rows = row0 + tl.arange(0, BM)
    limit = rows + (Sk - Sq) if CAUSAL else tl.full((BM,), 2147483647, tl.int32)
    hi = tl.minimum(Sk, row0 + BM + Sk - Sq) if CAUSAL else Sk
    for j in tl.range(0, tl.cdiv(hi, BN), num_stages=2):
        k = kd.load([z, h, j * BN, 0]).reshape(BN, D)
        s = tl.dot(q, tl.trans(k)) * qk_scale
        c = j * BN + tl.arange(0, BN)
        if (j + 1) * BN > Sk or (CAUSAL and (j + 1) * BN > row0 + Sk - Sq + 1):
            s = tl.where((c[None, :] <= limit[:, None]) & (c[None, :] < Sk), s, -float("inf"))
        mn = tl.maximum(m, tl.max(s, axis=1))
        a = tl.exp2(m - mn)
        p = tl.exp2(s - mn[:, None])
        l = tl.fma(l, a, tl.sum(p, axis=1))
        v = vd.load([z, h, j * BN, 0]).reshape(BN, D)
        o = tl.dot(p.to(tl.bfloat16), v, acc=o * a[:, None])
        m = mn
    od.store([z, h, row0, 0], (o * (1.0 / l)[:, None]).to(tl.bfloat16).reshape(1, 1, BM, D))
    tl.store(lse + (z * H + h).to(tl.int64) * Sq + rows, (m + tl.log2(l)) * LN2, mask=rows < Sq)


def attention(q, k, v, out, lse, *, causal: bool, scale: float) -> None:
    B, H, Sq, D = q.size()
    Sk = k.size(-2)
    BM, BN = 128, 64
    d = lambda t, rows: TensorDescriptor(t, list(t.shape), list(t.stride()), [1, 1, rows, D])
    fa[(triton.cdiv(Sq, BM), H, B)](d(q, BM), d(k, BN), d(v, BN), d(out, BM), lse, scale * INV_LN2.value, H, Sq, Sk,
                                    CAUSAL=causal, BM=BM, BN=BN, D=D, num_warps=8)
