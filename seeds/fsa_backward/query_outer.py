"""Selected attention backward, written plainly, in two orders.

For dk and dv the queries that selected a block of keys are gathered into tiles, as in Flash Sparse Attention (arXiv
2508.18224). ``count_kernel``, ``place_kernel`` and ``list_kernel`` list them by a histogram, a scan and a scatter on
the device. A program of ``keys_kernel`` takes a share of a block's list: every query selects block 0, whose list would
keep one program busy for long. Shares are added up in float32 by atomic additions, in no certain order, and
``rounding_kernel`` rounds the sums.

For dq there is a program for each position and KV head, as in Native Sparse Attention, which loops over the blocks that
the position selected. The query heads of a group are the rows of its tiles.

Correct for any length, group, strides and number of blocks.
"""

import triton
import triton.language as tl


@triton.jit
def load_rows(
    Base, batch, head, row, there, stride_b, stride_h, stride_m, stride_d, HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr
):  # fmt: skip
    """Load rows [n, BLOCK_D], zero where they are not ``there``; head or row may be the same for all."""
    offs_d = tl.arange(0, BLOCK_D)
    at = batch * stride_b + head * stride_h + row.to(tl.int64) * stride_m
    places = Base + at[:, None] + offs_d[None, :] * stride_d
    return tl.load(places, mask=there[:, None] & (offs_d < HEAD_DIM)[None, :], other=0.0)


@triton.jit
def store_rows(
    Base, values, batch, head, row, there, stride_b, stride_h, stride_m, stride_d,
    HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    offs_d = tl.arange(0, BLOCK_D)
    at = batch * stride_b + head * stride_h + row.to(tl.int64) * stride_m
    places = Base + at[:, None] + offs_d[None, :] * stride_d
    tl.store(places, values.to(Base.dtype.element_ty), mask=there[:, None] & (offs_d < HEAD_DIM)[None, :])


@triton.jit
def delta_kernel(
    Out, Dout, Delta, heads, length,
    stride_ob, stride_oh, stride_om, stride_od, stride_gb, stride_gh, stride_gm, stride_gd,
    HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr,
):  # fmt: skip
    """Store the row sums of dout * out."""
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    there = rows < length
    batch, head = (tl.program_id(1) // heads).to(tl.int64), (tl.program_id(1) % heads).to(tl.int64)
    out = load_rows(Out, batch, head, rows, there, stride_ob, stride_oh, stride_om, stride_od, HEAD_DIM, BLOCK_D)
    dout = load_rows(Dout, batch, head, rows, there, stride_gb, stride_gh, stride_gm, stride_gd, HEAD_DIM, BLOCK_D)
    delta = tl.sum(out.to(tl.float32) * dout.to(tl.float32), 1)
    tl.store(Delta + tl.program_id(1).to(tl.int64) * length + rows, delta, mask=there)


@triton.jit
def load_indices(Indices, length, blocks, TOKENS: tl.constexpr, SLOTS: tl.constexpr):
    """Return a tile of tokens of one KV head, [tokens, slots], and the blocks that they select."""
    token = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
    slot = tl.arange(0, SLOTS)
    at = Indices + tl.program_id(1).to(tl.int64) * length * blocks + token[:, None] * blocks + slot[None, :]
    block = tl.load(at, mask=(token < length)[:, None] & (slot < blocks)[None, :], other=-1)
    return token[:, None] + tl.zeros_like(block), block


@triton.jit
def count_kernel(Indices, Counts, length, blocks, n_blocks, TOKENS: tl.constexpr, SLOTS: tl.constexpr):
    _, block = load_indices(Indices, length, blocks, TOKENS, SLOTS)
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
def list_kernel(Indices, Cursors, Lists, length, blocks, n_blocks, TOKENS: tl.constexpr, SLOTS: tl.constexpr):
    token, block = load_indices(Indices, length, blocks, TOKENS, SLOTS)
    place = tl.atomic_add(Cursors + tl.program_id(1) * n_blocks + block, 1, mask=block >= 0)
    tl.store(Lists + tl.program_id(1).to(tl.int64) * length * blocks + place, token, mask=block >= 0)


@triton.jit
def keys_kernel(
    Q, K, V, Dout, Lse, Delta, Counts, Starts, Ends, Lists, SumK, SumV, scale,
    stride_qb, stride_qh, stride_qm, stride_qd, stride_kb, stride_kh, stride_kn, stride_kd,
    stride_vb, stride_vh, stride_vn, stride_vd, stride_gb, stride_gh, stride_gm, stride_gd,
    kv_heads, group, length, blocks, n_blocks, block_size,
    HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    SHARE: tl.constexpr, BLOCKS: tl.constexpr,
):  # fmt: skip
    """Add what one share of the list of one block makes of dk and dv. A row is one query head of one token."""
    program = tl.program_id(0)
    batch_head = tl.program_id(1).to(tl.int64)
    batch, kv_head = batch_head // kv_heads, batch_head % kv_heads

    offs_b = tl.arange(0, BLOCKS)
    ends = tl.load(Ends + batch_head * n_blocks + offs_b, mask=offs_b < n_blocks, other=2147483647)
    block = tl.sum((ends <= program).to(tl.int32))
    share = program - tl.max(tl.where(offs_b < block, ends, 0))
    there = block < n_blocks
    rows = tl.load(Counts + batch_head * n_blocks + block, mask=there, other=0) * group
    start = tl.load(Starts + batch_head * n_blocks + block, mask=there, other=0)

    offs_n, offs_d = tl.arange(0, BLOCK_N), tl.arange(0, BLOCK_D)
    keys = block * block_size + offs_n
    in_n = (offs_n < block_size) & (keys < length)
    k = load_rows(K, batch, kv_head, keys, in_n, stride_kb, stride_kh, stride_kn, stride_kd, HEAD_DIM, BLOCK_D)
    v = load_rows(V, batch, kv_head, keys, in_n, stride_vb, stride_vh, stride_vn, stride_vd, HEAD_DIM, BLOCK_D)

    dk = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    dv = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    for begin in range(share * SHARE, tl.minimum(rows, (share + 1) * SHARE), BLOCK_M):
        row = begin + tl.arange(0, BLOCK_M)
        in_m = row < rows
        token = tl.load(Lists + batch_head * length * blocks + start + row // group, mask=in_m, other=0)
        head = kv_head * group + row % group
        q = load_rows(Q, batch, head, token, in_m, stride_qb, stride_qh, stride_qm, stride_qd, HEAD_DIM, BLOCK_D)
        dout = load_rows(Dout, batch, head, token, in_m, stride_gb, stride_gh, stride_gm, stride_gd, HEAD_DIM, BLOCK_D)
        of_row = (batch * kv_heads * group + head) * length + token
        lse = tl.load(Lse + of_row, mask=in_m, other=0.0)
        delta = tl.load(Delta + of_row, mask=in_m, other=0.0)
        visible = in_n[:, None] & in_m[None, :] & (keys[:, None] <= token[None, :])
        p = tl.where(visible, tl.exp(tl.dot(k, tl.trans(q)) * scale - lse[None, :]), 0.0)
        dv = tl.dot(p.to(dout.dtype), dout, dv)
        ds = p * (tl.dot(v, tl.trans(dout)) - delta[None, :])
        dk = tl.dot(ds.to(q.dtype), q, dk)
    place = (batch_head * length + keys[:, None]) * HEAD_DIM + offs_d[None, :]
    inside = in_n[:, None] & (offs_d < HEAD_DIM)[None, :]
    tl.atomic_add(SumK + place, dk * scale, mask=inside, sem="relaxed")
    tl.atomic_add(SumV + place, dv, mask=inside, sem="relaxed")


@triton.jit
def rounding_kernel(
    Sum, Rounded, stride_b, stride_h, stride_n, stride_d, kv_heads, length,
    HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr,
):  # fmt: skip
    rows, offs_d = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_D)
    batch, head = (tl.program_id(1) // kv_heads).to(tl.int64), (tl.program_id(1) % kv_heads).to(tl.int64)
    place = (tl.program_id(1).to(tl.int64) * length + rows[:, None]) * HEAD_DIM + offs_d[None, :]
    total = tl.load(Sum + place, mask=(rows < length)[:, None] & (offs_d < HEAD_DIM)[None, :], other=0.0)
    store_rows(
        Rounded, total, batch, head, rows, rows < length, stride_b, stride_h, stride_n, stride_d, HEAD_DIM, BLOCK_D
    )


@triton.jit
def queries_kernel(
    Q, K, V, Indices, Dout, Lse, Delta, Dq, scale,
    stride_qb, stride_qh, stride_qm, stride_qd, stride_kb, stride_kh, stride_kn, stride_kd,
    stride_vb, stride_vh, stride_vn, stride_vd, stride_gb, stride_gh, stride_gm, stride_gd,
    stride_dqb, stride_dqh, stride_dqm, stride_dqd,
    kv_heads, group, length, blocks, block_size,
    HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_G: tl.constexpr, BLOCK_N: tl.constexpr, SLOTS: tl.constexpr,
):  # fmt: skip
    """Store dq of one position and all query heads of one KV head."""
    position = tl.program_id(0)
    batch_head = tl.program_id(1).to(tl.int64)
    batch, kv_head = batch_head // kv_heads, batch_head % kv_heads

    offs_g, offs_n = tl.arange(0, BLOCK_G), tl.arange(0, BLOCK_N)
    in_g = offs_g < group
    head = kv_head * group + offs_g
    q = load_rows(Q, batch, head, position, in_g, stride_qb, stride_qh, stride_qm, stride_qd, HEAD_DIM, BLOCK_D)
    dout = load_rows(Dout, batch, head, position, in_g, stride_gb, stride_gh, stride_gm, stride_gd, HEAD_DIM, BLOCK_D)
    of_row = (batch * kv_heads * group + head) * length + position
    lse = tl.load(Lse + of_row, mask=in_g, other=0.0)
    delta = tl.load(Delta + of_row, mask=in_g, other=0.0)
    dq = tl.zeros([BLOCK_G, BLOCK_D], tl.float32)

    indices = Indices + (batch_head * length + position) * blocks
    slots = tl.arange(0, SLOTS)
    chosen = tl.load(indices + slots, mask=slots < blocks, other=-1)
    for slot in range(tl.sum((chosen >= 0).to(tl.int32))):
        keys = tl.load(indices + slot) * block_size + offs_n
        visible = (offs_n < block_size) & (keys <= position)
        k = load_rows(K, batch, kv_head, keys, visible, stride_kb, stride_kh, stride_kn, stride_kd, HEAD_DIM, BLOCK_D)
        v = load_rows(V, batch, kv_head, keys, visible, stride_vb, stride_vh, stride_vn, stride_vd, HEAD_DIM, BLOCK_D)
        p = tl.where(visible[None, :], tl.exp(tl.dot(q, tl.trans(k)) * scale - lse[:, None]), 0.0)
        ds = p * (tl.dot(dout, tl.trans(v)) - delta[:, None])
        dq = tl.dot(ds.to(k.dtype), k, dq)
    store_rows(
        Dq, dq * scale, batch, head, position, in_g, stride_dqb, stride_dqh, stride_dqm, stride_dqd, HEAD_DIM, BLOCK_D
    )


def selected_attention_backward(
    q, k, v, block_indices, out, lse, dout, dq, dk, dv, *, block_size: int, scale: float
) -> None:
    batch, heads, length, head_dim = q.shape
    kv_heads, blocks = k.shape[1], block_indices.shape[3]
    group, pairs, n_blocks = heads // kv_heads, batch * kv_heads, triton.cdiv(length, block_size)
    block_m, share, listed, rounded = 64, 1024, 32, 64
    widths = {"HEAD_DIM": head_dim, "BLOCK_D": triton.next_power_of_2(head_dim)}
    block_g, block_n = (max(16, triton.next_power_of_2(size)) for size in (group, block_size))
    slots = triton.next_power_of_2(blocks)
    strides = (*q.stride(), *k.stride(), *v.stride(), *dout.stride())

    delta = lse.new_empty(lse.shape)
    delta_kernel[triton.cdiv(length, rounded), batch * heads](
        out, dout, delta, heads, length, *out.stride(), *dout.stride(), **widths, BLOCK_M=rounded
    )
    counts = block_indices.new_zeros(pairs * n_blocks)
    starts, cursors, ends = (block_indices.new_empty(pairs * n_blocks) for _ in "sce")
    lists = block_indices.new_empty(pairs * length * blocks)
    shares = {"SHARE": share, "BLOCKS": triton.next_power_of_2(n_blocks)}
    grid = (triton.cdiv(length, listed), pairs)
    count_kernel[grid](block_indices, counts, length, blocks, n_blocks, TOKENS=listed, SLOTS=slots)
    place_kernel[(pairs,)](counts, starts, cursors, ends, group, n_blocks, **shares)
    list_kernel[grid](block_indices, cursors, lists, length, blocks, n_blocks, TOKENS=listed, SLOTS=slots)
    sum_k, sum_v = (lse.new_zeros(pairs * length * head_dim) for _ in "kv")
    keys_kernel[n_blocks + length * blocks * group // share, pairs](
        q, k, v, dout, lse, delta, counts, starts, ends, lists, sum_k, sum_v, scale, *strides,
        kv_heads, group, length, blocks, n_blocks, block_size,
        **widths, BLOCK_M=block_m, BLOCK_N=block_n, **shares, num_warps=4, num_stages=1,
    )  # fmt: skip
    for total, gradient in ((sum_k, dk), (sum_v, dv)):
        rounding_kernel[triton.cdiv(length, rounded), pairs](
            total, gradient, *gradient.stride(), kv_heads, length, **widths, BLOCK_M=rounded
        )
    queries_kernel[length, pairs](
        q, k, v, block_indices, dout, lse, delta, dq, scale, *strides, *dq.stride(),
        kv_heads, group, length, blocks, block_size,
        **widths, BLOCK_G=block_g, BLOCK_N=block_n, SLOTS=slots, num_warps=4, num_stages=2,
    )  # fmt: skip
