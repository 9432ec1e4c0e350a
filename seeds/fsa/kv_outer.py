"""Selected attention in the order of Flash Sparse Attention (arXiv 2508.18224): the queries that selected a block of
keys are gathered into tiles, so that small groups fill them too.

Positions are processed in lots, so that partial outputs fit in memory. For each lot,

1. ``count_kernel``, ``place_kernel`` and ``list_kernel`` list the entries (position, slot) that selected each block: a
   histogram, a scan and a scatter, on the device;
2. ``attend_kernel`` computes the attention of a share of a block's list to that block. For each entry it stores a
   normalised output and the log of its sum of exponentials;
3. ``reduce_kernel`` adds up the outputs of each position's entries, weighted by their sums.

Correct for any length, group, strides and number of blocks. The order within a list is random and changes no
result.
"""

import torch
import triton
import triton.language as tl

PARTIAL_BYTES = 2**28
"""Size of the partial outputs of a lot; larger where there would be more than ``MOST_LOTS`` lots."""
MOST_LOTS = 12
"""Most lots of a call; each takes five launches."""


@triton.jit
def load_indices(Indices, stride, tokens, blocks, TOKENS: tl.constexpr, SLOTS: tl.constexpr):
    """Return the entries of a tile of tokens of one KV head, and the blocks that they select."""
    token = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
    slot = tl.arange(0, SLOTS)
    entry = token[:, None] * blocks + slot[None, :]
    inside = (token < tokens)[:, None] & (slot < blocks)[None, :]
    return entry, tl.load(Indices + tl.program_id(1).to(tl.int64) * stride + entry, mask=inside, other=-1)


@triton.jit
def count_kernel(Indices, Counts, stride, tokens, blocks, n_blocks, TOKENS: tl.constexpr, SLOTS: tl.constexpr):
    _, block = load_indices(Indices, stride, tokens, blocks, TOKENS, SLOTS)
    tl.atomic_add(Counts + tl.program_id(1) * n_blocks + block, 1, mask=block >= 0)


@triton.jit
def place_kernel(Counts, Starts, Cursors, Ends, group, n_blocks, SHARE: tl.constexpr, BLOCKS: tl.constexpr):
    """Store where the list of each block of one KV head starts, and how many shares there are up to its end."""
    block = tl.arange(0, BLOCKS)
    there = block < n_blocks
    place = tl.program_id(0) * n_blocks + block
    count = tl.load(Counts + place, mask=there, other=0)
    start = tl.cumsum(count) - count
    tl.store(Starts + place, start, mask=there)
    tl.store(Cursors + place, start, mask=there)
    tl.store(Ends + place, tl.cumsum(tl.cdiv(count * group, SHARE)), mask=there)


@triton.jit
def list_kernel(
    Indices, Cursors, Lists, stride, tokens, blocks, n_blocks, entries, TOKENS: tl.constexpr, SLOTS: tl.constexpr
):
    entry, block = load_indices(Indices, stride, tokens, blocks, TOKENS, SLOTS)
    place = tl.atomic_add(Cursors + tl.program_id(1) * n_blocks + block, 1, mask=block >= 0)
    tl.store(Lists + tl.program_id(1).to(tl.int64) * entries + place, entry, mask=block >= 0)


@triton.jit
def attend_kernel(
    Q,
    K,
    V,
    Counts,
    Starts,
    Ends,
    Lists,
    Partial,
    PartialLse,
    scale,
    stride_qb,
    stride_qh,
    stride_qm,
    stride_qd,
    stride_kb,
    stride_kh,
    stride_kn,
    stride_kd,
    stride_vb,
    stride_vh,
    stride_vn,
    stride_vd,
    first,
    kv_heads,
    group,
    length,
    blocks,
    n_blocks,
    entries,
    block_size,
    HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    SHARE: tl.constexpr,
    BLOCKS: tl.constexpr,
):
    """Attend with one share of the list of one block. A row of a tile is one query head of one entry."""
    program = tl.program_id(0)
    batch_head = tl.program_id(1).to(tl.int64)
    batch = batch_head // kv_heads
    kv_head = batch_head % kv_heads

    offs_b = tl.arange(0, BLOCKS)
    ends = tl.load(Ends + batch_head * n_blocks + offs_b, mask=offs_b < n_blocks, other=2147483647)
    block = tl.sum((ends <= program).to(tl.int32))
    share = program - tl.max(tl.where(offs_b < block, ends, 0))
    there = block < n_blocks
    rows = tl.load(Counts + batch_head * n_blocks + block, mask=there, other=0) * group
    start = tl.load(Starts + batch_head * n_blocks + block, mask=there, other=0)

    offs_n = tl.arange(0, BLOCK_N)
    offs_d = tl.arange(0, BLOCK_D)
    in_d = offs_d < HEAD_DIM
    keys = block * block_size + offs_n
    in_n = (offs_n < block_size) & (keys < length)
    k_base = K + batch * stride_kb + kv_head * stride_kh
    v_base = V + batch * stride_vb + kv_head * stride_vh
    k = tl.load(
        k_base + keys[None, :].to(tl.int64) * stride_kn + offs_d[:, None] * stride_kd,
        mask=in_n[None, :] & in_d[:, None],
        other=0.0,
    )
    v = tl.load(
        v_base + keys[:, None].to(tl.int64) * stride_vn + offs_d[None, :] * stride_vd,
        mask=in_n[:, None] & in_d[None, :],
        other=0.0,
    )

    for begin in range(share * SHARE, tl.minimum(rows, (share + 1) * SHARE), BLOCK_M):
        row = begin + tl.arange(0, BLOCK_M)
        in_m = row < rows
        entry = tl.load(Lists + batch_head * entries + start + row // group, mask=in_m, other=0)
        head = kv_head * group + row % group
        token = entry // blocks
        q = tl.load(
            Q
            + batch * stride_qb
            + head[:, None] * stride_qh
            + token[:, None].to(tl.int64) * stride_qm
            + offs_d[None, :] * stride_qd,
            mask=in_m[:, None] & in_d[None, :],
            other=0.0,
        )
        visible = in_n[None, :] & (keys[None, :] <= first + token[:, None])
        scores = tl.where(visible, tl.dot(q, k) * scale, float("-inf"))
        row_max = tl.max(scores, 1)
        p = tl.exp(scores - row_max[:, None])
        row_sum = tl.sum(p, 1)
        out = tl.dot(p.to(v.dtype), v) / row_sum[:, None]
        place = (batch * kv_heads * group + head) * entries + entry
        tl.store(
            Partial + place[:, None] * HEAD_DIM + offs_d[None, :],
            out.to(Partial.dtype.element_ty),
            mask=in_m[:, None] & in_d[None, :],
        )
        tl.store(PartialLse + place, row_max + tl.log(row_sum), mask=in_m)


@triton.jit
def reduce_kernel(
    Indices,
    Partial,
    PartialLse,
    Out,
    Lse,
    stride,
    stride_ob,
    stride_oh,
    stride_om,
    stride_od,
    heads,
    group,
    length,
    tokens,
    blocks,
    entries,
    HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr,
    TOKENS: tl.constexpr,
):
    batch_head = tl.program_id(1).to(tl.int64)
    token = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
    in_m = token < tokens
    offs_d = tl.arange(0, BLOCK_D)
    in_d = offs_d < HEAD_DIM
    indices = Indices + batch_head // group * stride + token * blocks
    place = batch_head * entries + token * blocks

    row_max = tl.full([TOKENS], float("-inf"), tl.float32)
    row_sum = tl.zeros([TOKENS], tl.float32)
    acc = tl.zeros([TOKENS, BLOCK_D], tl.float32)
    for slot in range(blocks):
        chosen = tl.load(indices + slot, mask=in_m, other=-1) >= 0
        part_lse = tl.load(PartialLse + place + slot, mask=chosen, other=float("-inf"))
        part = tl.load(
            Partial + (place + slot)[:, None] * HEAD_DIM + offs_d[None, :],
            mask=chosen[:, None] & in_d[None, :],
            other=0.0,
        )
        new_max = tl.maximum(row_max, part_lse)
        rescale = tl.exp(row_max - new_max)
        weight = tl.exp(part_lse - new_max)
        row_sum = row_sum * rescale + weight
        acc = acc * rescale[:, None] + part.to(tl.float32) * weight[:, None]
        row_max = new_max

    out = acc / row_sum[:, None]
    o_base = Out + batch_head // heads * stride_ob + batch_head % heads * stride_oh
    tl.store(
        o_base + token[:, None].to(tl.int64) * stride_om + offs_d[None, :] * stride_od,
        out.to(Out.dtype.element_ty),
        mask=in_m[:, None] & in_d[None, :],
    )
    tl.store(Lse + batch_head * length + token, row_max + tl.log(row_sum), mask=in_m)


def selected_attention(q, k, v, block_indices, out, lse, *, block_size: int, scale: float) -> None:
    batch, heads, length, head_dim = q.shape
    kv_heads, blocks = k.shape[1], block_indices.shape[3]
    group, pairs, n_blocks = heads // kv_heads, batch * kv_heads, triton.cdiv(length, block_size)
    block_m, share, listed, reduced = 64, 1024, 32, 16
    lots = min(MOST_LOTS, triton.cdiv(q.numel() * blocks * q.element_size(), PARTIAL_BYTES))
    lot = triton.cdiv(triton.cdiv(length, lots), listed) * listed
    entries = lot * blocks

    counts, starts, cursors, ends = (torch.empty(pairs * n_blocks, dtype=torch.int32, device=q.device) for _ in "csce")
    lists = torch.empty(pairs * entries, dtype=torch.int32, device=q.device)
    partial = torch.empty(batch * heads * entries * head_dim, dtype=q.dtype, device=q.device)
    partial_lse = torch.empty(batch * heads * entries, dtype=torch.float32, device=q.device)
    widths = {"HEAD_DIM": head_dim, "BLOCK_D": triton.next_power_of_2(head_dim)}
    tile = {"TOKENS": listed, "SLOTS": triton.next_power_of_2(blocks)}
    shares = {"SHARE": share, "BLOCKS": triton.next_power_of_2(n_blocks)}
    stride = length * blocks

    for first in range(0, length, lot):
        tokens = min(lot, length - first)
        indices = block_indices[:, :, first:]
        grid = (triton.cdiv(tokens, listed), pairs)
        counts.zero_()
        count_kernel[grid](indices, counts, stride, tokens, blocks, n_blocks, **tile)
        place_kernel[(pairs,)](counts, starts, cursors, ends, group, n_blocks, **shares)
        list_kernel[grid](indices, cursors, lists, stride, tokens, blocks, n_blocks, entries, **tile)
        attend_kernel[(n_blocks + tokens * blocks * group // share, pairs)](
            q[:, :, first:],
            k,
            v,
            counts,
            starts,
            ends,
            lists,
            partial,
            partial_lse,
            scale,
            *q.stride(),
            *k.stride(),
            *v.stride(),
            first,
            kv_heads,
            group,
            length,
            blocks,
            n_blocks,
            entries,
            block_size,
            BLOCK_M=block_m,
            BLOCK_N=max(16, triton.next_power_of_2(block_size)),
            **widths,
            **shares,
            num_warps=4,
            num_stages=1,
        )
        reduce_kernel[(triton.cdiv(tokens, reduced), batch * heads)](
            indices,
            partial,
            partial_lse,
            out[:, :, first:],
            lse[:, :, first:],
            stride,
            *out.stride(),
            heads,
            group,
            length,
            tokens,
            blocks,
            entries,
            TOKENS=reduced,
            **widths,
        )
