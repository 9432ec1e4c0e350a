# Descriptors on the host whose blocks the hook of each configuration sets; a kernel of its own for the lse; both autotuned.
import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor


def set_blocks(nargs):
    for name, rows in (("q_desc", "BM"), ("k_desc", "BN"), ("v_desc", "BN"), ("o_desc", "BM")):
        nargs[name].block_shape = [1, 1, nargs[rows], nargs["D"]]


@triton.autotune(
    [triton.Config({"BM": bm, "BN": bn}, num_warps=w, num_stages=2, pre_hook=set_blocks)
     for bm, bn, w in ((64, 64, 4), (128, 64, 8))],
    key=["Sq", "Sk"])
@triton.jit
def attend(q_desc, k_desc, v_desc, o_desc, top, total, c, H, Sq, Sk,
           CAUSAL: tl.constexpr, D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr):
    i, z = tl.program_id(0), tl.program_id(1)
    b, h = z // H, z % H
    r = i * BM + tl.arange(0, BM)
    q = q_desc.load([b, h, i * BM, 0]).reshape(BM, D)
    m = tl.full([BM], -1e30, tl.float32)
    l = tl.zeros([BM], tl.float32)
    acc = tl.zeros([BM, D], tl.float32)
    hi = tl.minimum(Sk, (i + 1) * BM + Sk - Sq) if CAUSAL else Sk
    for n in range(0, hi, BN):
        j = n + tl.arange(0, BN)
        s = tl.dot(q, k_desc.load([b, h, n, 0]).reshape(BN, D).T) * c
        ok = (j < Sk)[None, :]
        if CAUSAL:
            ok &= j[None, :] <= r[:, None] + Sk - Sq
        s = tl.where(ok, s, float("-inf"))
        t = tl.maximum(m, tl.max(s, 1))
        p = tl.exp2(s - t[:, None])
        f = tl.exp2(m - t)
        l = l * f + tl.sum(p, 1)
        acc = tl.dot(p.to(tl.bfloat16), v_desc.load([b, h, n, 0]).reshape(BN, D), acc * f[:, None])
        m = t
    o_desc.store([b, h, i * BM, 0], (acc / l[:, None]).to(tl.bfloat16).reshape(1, 1, BM, D))
    tl.store(top + z * Sq + r, m, mask=r < Sq)
    tl.store(total + z * Sq + r, l, mask=r < Sq)


@triton.autotune([triton.Config({"BLOCK": 256}), triton.Config({"BLOCK": 1024})], key=["n"])
@triton.jit
def finish(top, total, lse, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    value = (tl.load(top + at, mask=at < n) + tl.log2(tl.load(total + at, mask=at < n, other=1.0))) * 0.6931471805599453
    tl.store(lse + at, value, mask=at < n)


def attention(q, k, v, out, lse, *, causal, scale):
    B, H, Sq, D = q.shape
    top, total = torch.empty_like(lse), torch.empty_like(lse)
    descs = [TensorDescriptor(t, list(t.shape), list(t.stride()), [1, 1, 16, D]) for t in (q, k, v, out)]
    attend[lambda meta: (triton.cdiv(Sq, meta["BM"]), B * H)](
        *descs, top, total, scale * 1.4426950408889634, H, Sq, k.shape[2], CAUSAL=causal, D=D)
    finish[lambda meta: (triton.cdiv(lse.numel(), meta["BLOCK"]),)](top, total, lse, lse.numel())
