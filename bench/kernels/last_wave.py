"""The seed ``tuned`` for claims of notes, whose last wave of tiles is split over the keys in full attention.

SLOTS is the number of programs that run at a time on an H100. Tiles that would begin a wave of their own are attended
to by PARTS programs each, and a second kernel combines what these found.
"""

import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

LOG2_E: tl.constexpr = tl.constexpr(1.4426950408889634)
LN_2: tl.constexpr = tl.constexpr(0.6931471805599453)
SLOTS = 132
PARTS = 16
SPLIT = True
"""Whether the last wave is split."""


@triton.jit
def walk(
    q,
    k_desc,
    v_desc,
    batch,
    kv_head,
    acc,
    row_sum,
    row_max,
    scale,
    start,
    stop,
    offs_m,
    shift,
    kv_len,
    MASKED: tl.constexpr,
    CAUSAL: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """Attend to the keys from ``start`` to ``stop``; the running maximum and the scale are in base 2."""
    for start_n in range(start, stop, BLOCK_N):
        k = k_desc.load([batch, kv_head, start_n, 0]).reshape(BLOCK_N, HEAD_DIM)
        scores = tl.dot(q, k.T)
        if MASKED:
            offs_n = start_n + tl.arange(0, BLOCK_N)
            visible = offs_n[None, :] < kv_len
            if CAUSAL:
                visible = visible & (offs_n[None, :] <= offs_m[:, None] + shift)
            scores = tl.where(visible, scores, float("-inf"))
        new_max = tl.maximum(row_max, tl.max(scores, 1) * scale)
        p = tl.exp2(scores * scale - new_max[:, None])
        rescale = tl.exp2(row_max - new_max)
        row_sum = row_sum * rescale + tl.sum(p, 1)
        acc = acc * rescale[:, None]
        v = v_desc.load([batch, kv_head, start_n, 0]).reshape(BLOCK_N, HEAD_DIM)
        acc = tl.dot(p.to(v.dtype), v, acc)
        row_max = new_max
    return acc, row_sum, row_max


@triton.jit
def attention_kernel(
    q_desc,
    k_desc,
    v_desc,
    o_desc,
    Lse,
    Partial,
    PartialLse,
    scale,
    heads,
    group,
    q_len,
    kv_len,
    whole,
    CAUSAL: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    PARTS: tl.constexpr,
):
    # Programs before ``whole`` have a tile each; then PARTS programs share one.
    program = tl.program_id(0)
    late = tl.maximum(program - whole, 0)
    tile = tl.minimum(program, whole) + late // PARTS
    tiles = tl.cdiv(q_len, BLOCK_M)
    batch_head = tile // tiles
    start_m = tile % tiles * BLOCK_M
    batch, head = batch_head // heads, batch_head % heads
    kv_head = head // group
    offs_m = start_m + tl.arange(0, BLOCK_M)
    shift = kv_len - q_len
    q = q_desc.load([batch, head, start_m, 0]).reshape(BLOCK_M, HEAD_DIM)

    row_max = tl.full([BLOCK_M], float("-inf"), tl.float32)
    row_sum = tl.zeros([BLOCK_M], tl.float32)
    acc = tl.zeros([BLOCK_M, HEAD_DIM], tl.float32)
    if CAUSAL:
        unmasked = tl.minimum(kv_len, start_m + shift + 1) // BLOCK_N * BLOCK_N
        stop = tl.minimum(kv_len, start_m + BLOCK_M + shift)
    else:
        unmasked = kv_len // BLOCK_N * BLOCK_N
        stop = kv_len
    start = 0
    if PARTS > 1 and program >= whole:
        share = tl.cdiv(tl.cdiv(kv_len, PARTS), BLOCK_N) * BLOCK_N
        start = tl.minimum(late % PARTS * share, kv_len)
        stop = tl.minimum(start + share, kv_len)
        unmasked = tl.maximum(start, tl.minimum(unmasked, stop))
    acc, row_sum, row_max = walk(
        q, k_desc, v_desc, batch, kv_head, acc, row_sum, row_max, scale, start, unmasked, offs_m, shift, kv_len,
        False, CAUSAL, HEAD_DIM, BLOCK_N,
    )  # fmt: skip
    acc, row_sum, row_max = walk(
        q, k_desc, v_desc, batch, kv_head, acc, row_sum, row_max, scale, unmasked, stop, offs_m, shift, kv_len,
        True, CAUSAL, HEAD_DIM, BLOCK_N,
    )  # fmt: skip

    lse = (row_max + tl.log2(row_sum)) * LN_2
    if PARTS > 1 and program >= whole:
        some = row_sum > 0  # a part may be empty
        rows = late.to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
        part = tl.where(some[:, None], acc / tl.where(some, row_sum, 1.0)[:, None], 0.0)
        tl.store(Partial + rows[:, None] * HEAD_DIM + tl.arange(0, HEAD_DIM)[None, :], part)
        tl.store(PartialLse + rows, tl.where(some, lse, float("-inf")))
    else:
        out = (acc / row_sum[:, None]).to(o_desc.dtype)
        o_desc.store([batch, head, start_m, 0], out.reshape(1, 1, BLOCK_M, HEAD_DIM))
        tl.store(Lse + batch_head.to(tl.int64) * q_len + offs_m, lse, mask=offs_m < q_len)


@triton.jit
def combine_kernel(
    Partial,
    PartialLse,
    Out,
    Lse,
    stride_ob,
    stride_oh,
    stride_om,
    heads,
    q_len,
    whole,
    HEAD_DIM: tl.constexpr,
    BLOCK_M: tl.constexpr,
    ROWS: tl.constexpr,
    PARTS: tl.constexpr,
):
    """Combine the parts of ROWS rows of one tile."""
    late = tl.program_id(0) // (BLOCK_M // ROWS)
    rows = tl.program_id(0) % (BLOCK_M // ROWS) * ROWS + tl.arange(0, ROWS)
    offs_d = tl.arange(0, HEAD_DIM)
    row_max = tl.full([ROWS], float("-inf"), tl.float32)
    row_sum = tl.zeros([ROWS], tl.float32)
    acc = tl.zeros([ROWS, HEAD_DIM], tl.float32)
    for part in tl.static_range(PARTS):
        place = (late * PARTS + part).to(tl.int64) * BLOCK_M + rows
        lse = tl.load(PartialLse + place)
        new_max = tl.maximum(row_max, lse)
        rescale, weight = tl.exp(row_max - new_max), tl.exp(lse - new_max)
        row_sum = row_sum * rescale + weight
        acc = acc * rescale[:, None] + weight[:, None] * tl.load(Partial + place[:, None] * HEAD_DIM + offs_d[None, :])
        row_max = new_max
    tile = whole + late
    tiles = tl.cdiv(q_len, BLOCK_M)
    batch_head = (tile // tiles).to(tl.int64)
    row = tile % tiles * BLOCK_M + rows
    out = Out + batch_head // heads * stride_ob + batch_head % heads * stride_oh + row[:, None] * stride_om
    there = row < q_len
    tl.store(out + offs_d[None, :], (acc / row_sum[:, None]).to(Out.dtype.element_ty), mask=there[:, None])
    tl.store(Lse + batch_head * q_len + row, row_max + tl.log(row_sum), mask=there)


def attention(q, k, v, out, lse, *, causal: bool, scale: float) -> None:
    batch, heads, q_len, head_dim = q.shape
    kv_heads, kv_len = k.shape[1], k.shape[2]
    block_m, block_n = 128, 64
    q_desc, k_desc, v_desc, o_desc = (
        TensorDescriptor(tensor, list(tensor.shape), list(tensor.stride()), [1, 1, rows, head_dim])
        for tensor, rows in ((q, block_m), (k, block_n), (v, block_n), (out, block_m))
    )
    tiles = triton.cdiv(q_len, block_m) * batch * heads
    late = tiles % SLOTS if SPLIT and not causal else 0
    late = late if late * PARTS <= SLOTS else 0
    whole = tiles - late
    partial = torch.empty((max(late, 1) * PARTS * block_m, head_dim), dtype=torch.float32, device=q.device)
    partial_lse = torch.empty((max(late, 1) * PARTS * block_m,), dtype=torch.float32, device=q.device)
    attention_kernel[(whole + late * PARTS,)](
        q_desc,
        k_desc,
        v_desc,
        o_desc,
        lse,
        partial,
        partial_lse,
        scale * LOG2_E.value,
        heads,
        heads // kv_heads,
        q_len,
        kv_len,
        whole,
        CAUSAL=causal,
        HEAD_DIM=head_dim,
        BLOCK_M=block_m,
        BLOCK_N=block_n,
        PARTS=PARTS if late else 1,
        num_warps=8,
        num_stages=3,
    )
    if late:
        combine_kernel[(late * 8,)](
            partial,
            partial_lse,
            out,
            lse,
            *out.stride()[:3],
            heads,
            q_len,
            whole,
            HEAD_DIM=head_dim,
            BLOCK_M=block_m,
            ROWS=block_m // 8,
            PARTS=PARTS,
            num_warps=4,
        )
