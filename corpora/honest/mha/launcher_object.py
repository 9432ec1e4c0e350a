# Kernels as static methods; configurations in a table of dataclasses; the entry is an object that is called.
import functools
from dataclasses import asdict, dataclass

import triton
import triton.language as tl


@dataclass(frozen=True)
class Config:
    BM: int
    BN: int
    num_warps: int
    num_stages: int


class Kernels:
    LOG2_E = 1.4426950408889634

    @staticmethod
    @triton.jit
    def forward(Q, K, V, O, L, c, strides, sizes, CAUSAL: tl.constexpr, D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr):
        (qb, qh, qm), (kb, kh, kn), (vb, vh, vn), (ob, oh, om) = strides
        H, M, N = sizes
        i, bh = tl.program_id(0), tl.program_id(1)
        b, h = (bh // H).to(tl.int64), (bh % H).to(tl.int64)
        r = i * BM + tl.arange(0, BM)
        d = tl.arange(0, D)
        q = tl.load(Q + b * qb + h * qh + r[:, None].to(tl.int64) * qm + d, mask=r[:, None] < M, other=0.0)
        m = tl.full([BM], float("-inf"), tl.float32)
        l = tl.zeros([BM], tl.float32)
        acc = tl.zeros([BM, D], tl.float32)
        hi = tl.minimum(N, i * BM + BM + N - M) if CAUSAL else N
        for n in range(0, hi, BN):
            j = n + tl.arange(0, BN)
            k = tl.load(K + b * kb + h * kh + j[None, :].to(tl.int64) * kn + d[:, None], mask=j[None, :] < N, other=0.0)
            v = tl.load(V + b * vb + h * vh + j[:, None].to(tl.int64) * vn + d, mask=j[:, None] < N, other=0.0)
            s = tl.dot(q, k) * c
            seen = (j[None, :] <= r[:, None] + N - M) & (j[None, :] < N) if CAUSAL else j[None, :] < N
            s = tl.where(seen, s, float("-inf"))
            t = tl.maximum(m, tl.max(s, 1))
            p = tl.exp2(s - t[:, None])
            f = tl.exp2(m - t)
            l = l * f + tl.sum(p, 1)
            acc = tl.dot(p.to(tl.bfloat16), v, acc * f[:, None])
            m = t
        tl.store(O + b * ob + h * oh + r[:, None].to(tl.int64) * om + d, (acc / l[:, None]).to(tl.bfloat16), mask=r[:, None] < M)
        tl.store(L + bh.to(tl.int64) * M + r, (m + tl.log2(l)) * 0.6931471805599453, mask=r < M)


class Attention:
    TABLE = {
        (True, True): Config(128, 64, 8, 3),
        (True, False): Config(128, 128, 8, 2),
        (False, True): Config(64, 64, 4, 2),
        (False, False): Config(64, 64, 4, 3),
    }

    @functools.cache
    def config(self, long: bool, causal: bool) -> Config:
        return self.TABLE[long, causal]

    def __call__(self, q, k, v, out, lse, *, causal, scale):
        (B, H, M, D), N = q.shape, k.shape[-2]
        config = self.config(M > 512, causal)
        strides = tuple(tuple(t.stride()[:3]) for t in (q, k, v, out))
        Kernels.forward[triton.cdiv(M, config.BM), B * H](
            q, k, v, out, lse, scale * Kernels.LOG2_E, strides, (H, M, N), CAUSAL=causal, D=D, **asdict(config))


attention = Attention()
