# A kernel lists the blocks of keys that each tile of queries sees whole, and those that it sees in part; attention then
# goes along both lists in half blocks, and its keys jump where a block ends.
import torch
import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def list_blocks(Wholes, Whole, Parts, Part, q_len, kv_len, most, CAUSAL: tl.constexpr, BLOCK: tl.constexpr):
    tile = tl.program_id(0)
    shift = kv_len - q_len
    wholes = 0
    parts = 0
    for block in range(0, most):
        first = block * BLOCK
        whole = first + BLOCK <= kv_len
        seen = first < kv_len
        if CAUSAL:
            whole = whole & (first + BLOCK - 1 <= tile * BLOCK + shift)
            seen = seen & (first <= tile * BLOCK + BLOCK - 1 + shift)
        if whole:
            tl.store(Whole + tile * most + wholes, block)
            wholes += 1
        elif seen:
            tl.store(Part + tile * most + parts, block)
            parts += 1
    tl.store(Wholes + tile, wholes)
    tl.store(Parts + tile, parts)


@triton.jit
def go_along(
    List, count, q, K, V, acc, total, top, rows, dims, kv_len, scale, stride_kn, stride_kd, stride_vn, stride_vd,
    CAUSAL: tl.constexpr, MASKED: tl.constexpr, BLOCK: tl.constexpr, HALF: tl.constexpr,
):  # fmt: skip
    keys = tl.load(List, mask=count > 0, other=0) * BLOCK + tl.arange(0, HALF)
    for half in range(0, 2 * count):
        in_n = keys < kv_len
        k = tl.load(K + dims[:, None] * stride_kd + keys[None, :].to(tl.int64) * stride_kn, mask=in_n[None, :], other=0.0)
        scores = tl.dot(q, k) * (scale * LOG2E)
        if MASKED:
            visible = in_n[None, :]
            if CAUSAL:
                visible = visible & (keys[None, :] <= rows[:, None])
            scores = tl.where(visible, scores, float("-inf"))
        higher = tl.maximum(top, tl.max(scores, 1))
        subtracted = tl.where(higher == float("-inf"), 0.0, higher)
        p = tl.exp2(scores - subtracted[:, None])
        rescale = tl.exp2(top - subtracted)
        total = total * rescale + tl.sum(p, 1)
        v = tl.load(V + keys[:, None].to(tl.int64) * stride_vn + dims[None, :] * stride_vd, mask=in_n[:, None], other=0.0)
        acc = tl.dot(p.to(v.dtype), v, acc * rescale[:, None])
        top = higher
        at = half // 2
        gap = tl.load(List + at + 1, mask=at + 1 < count, other=0) - tl.load(List + at)
        keys += tl.where(half % 2 == 0, HALF, gap * BLOCK - HALF)
    return acc, total, top


@triton.jit
def attention_kernel(
    Q, K, V, Out, Lse, Wholes, Whole, Parts, Part,
    stride_qb, stride_qh, stride_qm, stride_qd, stride_kb, stride_kh, stride_kn, stride_kd,
    stride_vb, stride_vh, stride_vn, stride_vd, stride_ob, stride_oh, stride_om, stride_od,
    heads, group, q_len, kv_len, most, scale,
    CAUSAL: tl.constexpr, DIM: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    batch, head = (tl.program_id(1) // heads).to(tl.int64), (tl.program_id(1) % heads).to(tl.int64)
    K += batch * stride_kb + head // group * stride_kh
    V += batch * stride_vb + head // group * stride_vh
    offs_m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    dims = tl.arange(0, DIM)
    in_m = offs_m < q_len
    q = tl.load(
        Q + batch * stride_qb + head * stride_qh + offs_m[:, None].to(tl.int64) * stride_qm + dims[None, :] * stride_qd,
        mask=in_m[:, None], other=0.0,
    )  # fmt: skip
    tile = tl.program_id(0) * BLOCK_M // BLOCK
    rows = offs_m + kv_len - q_len
    acc = tl.zeros([BLOCK_M, DIM], tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    top = tl.full([BLOCK_M], float("-inf"), tl.float32)
    acc, total, top = go_along(
        Part + tile * most, tl.load(Parts + tile), q, K, V, acc, total, top, rows, dims, kv_len, scale,
        stride_kn, stride_kd, stride_vn, stride_vd, CAUSAL, True, BLOCK, BLOCK // 2,
    )  # fmt: skip
    acc, total, top = go_along(
        Whole + tile * most, tl.load(Wholes + tile), q, K, V, acc, total, top, rows, dims, kv_len, scale,
        stride_kn, stride_kd, stride_vn, stride_vd, CAUSAL, False, BLOCK, BLOCK // 2,
    )  # fmt: skip
    out = (acc / total[:, None]).to(Out.dtype.element_ty)
    at = batch * stride_ob + head * stride_oh + offs_m[:, None].to(tl.int64) * stride_om + dims[None, :] * stride_od
    tl.store(Out + at, out, mask=in_m[:, None])
    tl.store(Lse + tl.program_id(1).to(tl.int64) * q_len + offs_m, (top + tl.log2(total)) / LOG2E, mask=in_m)


def attention(q, k, v, out, lse, *, causal, scale):
    batch, heads, q_len, dim = q.shape
    kv_len, block = k.shape[2], 128
    tiles, most = triton.cdiv(q_len, block), triton.cdiv(kv_len, block)
    wholes, parts = (torch.empty(tiles, dtype=torch.int32, device=q.device) for _ in range(2))
    whole, part = (torch.empty((tiles, most), dtype=torch.int32, device=q.device) for _ in range(2))
    list_blocks[(tiles,)](wholes, whole, parts, part, q_len, kv_len, most, CAUSAL=causal, BLOCK=block)
    attention_kernel[(triton.cdiv(q_len, 64), batch * heads)](
        q, k, v, out, lse, wholes, whole, parts, part, *q.stride(), *k.stride(), *v.stride(), *out.stride(),
        heads, heads // k.shape[1], q_len, kv_len, most, scale,
        CAUSAL=causal, DIM=dim, BLOCK_M=64, BLOCK=block, num_warps=4, num_stages=2,
    )  # fmt: skip
