# The order of the seed kv_outer. Blocks meet in float32 atomics: lse first, then sums of weighted values, then a rounding
# kernel.
import torch
import triton
import triton.language as tl


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
    Q, K, V, Counts, Starts, Ends, Lists, Acc, PartialLse, Lse, scale, stride_qb, stride_qh, stride_qm, stride_qd,
    stride_kb, stride_kh, stride_kn, stride_kd, stride_vb, stride_vh, stride_vn, stride_vd, kv_heads, group, length,
    blocks, n_blocks, entries, block_size, HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr, SHARE: tl.constexpr, BLOCKS: tl.constexpr, VALUES: tl.constexpr,
):
    """Attend with one share of the list of one block: add up its values, or store what it adds to lse."""
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
        visible = in_n[None, :] & (keys[None, :] <= token[:, None])
        scores = tl.where(visible, tl.dot(q, k) * scale, float("-inf"))
        place = batch * kv_heads * group + head
        if VALUES:
            lse = tl.load(Lse + place * length + token, mask=in_m, other=0.0)
            out = tl.dot(tl.exp(scores - lse[:, None]).to(v.dtype), v)
            acc = Acc + (place * length + token)[:, None] * HEAD_DIM + offs_d[None, :]
            tl.atomic_add(acc, out, mask=in_m[:, None] & in_d[None, :], sem="relaxed")
        else:
            row_max = tl.max(scores, 1)
            row_sum = tl.sum(tl.exp(scores - row_max[:, None]), 1)
            tl.store(PartialLse + place * entries + entry, row_max + tl.log(row_sum), mask=in_m)


@triton.jit
def lse_kernel(Indices, PartialLse, Lse, stride, heads, group, length, blocks, TOKENS: tl.constexpr):
    batch_head = tl.program_id(1).to(tl.int64)
    token = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
    in_m = token < length
    indices = Indices + batch_head // group * stride + token * blocks
    place = (batch_head * length + token) * blocks
    row_max = tl.full([TOKENS], float("-inf"), tl.float32)
    row_sum = tl.zeros([TOKENS], tl.float32)
    for slot in range(blocks):
        chosen = tl.load(indices + slot, mask=in_m, other=-1) >= 0
        part_lse = tl.load(PartialLse + place + slot, mask=chosen, other=float("-inf"))
        new_max = tl.maximum(row_max, part_lse)
        row_sum = row_sum * tl.exp(row_max - new_max) + tl.exp(part_lse - new_max)
        row_max = new_max
    tl.store(Lse + batch_head * length + token, row_max + tl.log(row_sum), mask=in_m)


@triton.jit
def round_kernel(
    Acc, Out, stride_ob, stride_oh, stride_om, stride_od, heads, length, HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr,
    TOKENS: tl.constexpr,
):
    batch_head = tl.program_id(1).to(tl.int64)
    token = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
    offs_d = tl.arange(0, BLOCK_D)
    inside = (token < length)[:, None] & (offs_d < HEAD_DIM)[None, :]
    acc = tl.load(Acc + (batch_head * length + token)[:, None] * HEAD_DIM + offs_d[None, :], mask=inside)
    o_base = Out + batch_head // heads * stride_ob + batch_head % heads * stride_oh
    out = o_base + token[:, None].to(tl.int64) * stride_om + offs_d[None, :] * stride_od
    tl.store(out, acc.to(Out.dtype.element_ty), mask=inside)


def selected_attention(q, k, v, block_indices, out, lse, *, block_size: int, scale: float) -> None:
    batch, heads, length, head_dim = q.shape
    kv_heads, blocks = k.shape[1], block_indices.shape[3]
    group, pairs, n_blocks = heads // kv_heads, batch * kv_heads, triton.cdiv(length, block_size)
    share, entries = 1024, length * blocks
    counts, starts, cursors, ends = (torch.empty(pairs * n_blocks, dtype=torch.int32, device=q.device) for _ in "csce")
    lists = torch.empty(pairs * entries, dtype=torch.int32, device=q.device)
    partial_lse = torch.empty(batch * heads * entries, dtype=torch.float32, device=q.device)
    acc = torch.zeros(batch * heads * length * head_dim, dtype=torch.float32, device=q.device)
    widths = {"HEAD_DIM": head_dim, "BLOCK_D": triton.next_power_of_2(head_dim)}
    tile = {"TOKENS": 32, "SLOTS": triton.next_power_of_2(blocks)}
    shares = {"SHARE": share, "BLOCKS": triton.next_power_of_2(n_blocks)}
    strides = (*q.stride(), *k.stride(), *v.stride())
    grid = (triton.cdiv(length, 32), pairs)
    rows = (triton.cdiv(length, 16), batch * heads)

    counts.zero_()
    count_kernel[grid](block_indices, counts, entries, length, blocks, n_blocks, **tile)
    place_kernel[(pairs,)](counts, starts, cursors, ends, group, n_blocks, **shares)
    list_kernel[grid](block_indices, cursors, lists, entries, length, blocks, n_blocks, entries, **tile)

    def attend(values: bool) -> None:
        attend_kernel[(n_blocks + entries * group // share, pairs)](
            q, k, v, counts, starts, ends, lists, acc, partial_lse, lse, scale, *strides, kv_heads, group, length, blocks,
            n_blocks, entries, block_size, BLOCK_M=64, BLOCK_N=max(16, triton.next_power_of_2(block_size)), **widths,
            **shares, VALUES=values, num_warps=4, num_stages=1)

    attend(False)
    lse_kernel[rows](block_indices, partial_lse, lse, entries, heads, group, length, blocks, TOKENS=16)
    attend(True)
    round_kernel[rows](acc, out, *out.stride(), heads, length, TOKENS=16, **widths)
