"""Texts of the two forms of what the move ``far`` makes: kernels that add up partial outputs, and host code."""

TOGETHER = '''@triton.jit
def reduce_kernel(
    Q, K, V, Indices, Partial, Maxima, Sums, Out, Lse, scale,
{strides}    kv_heads, begin, first, end, early, length, entries,
    GROUP: tl.constexpr, MEMBERS: tl.constexpr, BLOCKS: tl.constexpr, SIZE: tl.constexpr, D: tl.constexpr,
    TOKENS: tl.constexpr, BLOCK_N: tl.constexpr,
):
    """Attend with what is near to a tile of tokens, and add the partial outputs of their lot, from ``first`` on.

    A row of a tile is one query head of one token.
    """
{near_head}    if tile * TOKENS >= early:
        places = pair * entries * GROUP + (token - first) * ((BLOCKS - 3) * GROUP) + member
        for slot in tl.range(0, BLOCKS - 3, num_stages=3):
            index = tl.load(indices + slot + 1, mask=in_m, other=-1)
            far = (index > 0) & (index < tile * TOKENS // SIZE - 1)
            place = places + slot * GROUP
            part_max = tl.load(Maxima + place, mask=far, other=float("-inf"))
            part_sum = tl.load(Sums + place, mask=far, other=0.0)
            part = tl.load(Partial + place[:, None] * D + offs_d[None, :], mask=far[:, None], other=0.0)
            new_max = tl.maximum(row_max, part_max)
            rescale = tl.exp2(row_max - new_max)
            weight = tl.exp2(part_max - new_max)
            row_sum = row_sum * rescale + part_sum * weight
            acc = acc * rescale[:, None] + part.to(tl.float32) * weight[:, None]
            row_max = new_max
{near_tail}'''
"""Near blocks are attended to where partial outputs are added up."""
APART = '''@triton.jit
def near_kernel(
    Q, K, V, Indices, Out, Lse, scale,
{strides}    kv_heads, begin, end, early, length,
    GROUP: tl.constexpr, MEMBERS: tl.constexpr, BLOCKS: tl.constexpr, SIZE: tl.constexpr, D: tl.constexpr,
    TOKENS: tl.constexpr, BLOCK_N: tl.constexpr,
):
    """Store what is near to a tile of tokens. A row of a tile is one query head of one token."""
{near_head}{near_tail}@triton.jit
def reduce_kernel(
    Indices, Partial, Maxima, Sums, Out, Lse,
    stride_ob, stride_oh, stride_om,
    kv_heads, first, tokens, length, entries,
    GROUP: tl.constexpr, BLOCKS: tl.constexpr, SIZE: tl.constexpr, D: tl.constexpr, BLOCK_M: tl.constexpr,
    SLOTS: tl.constexpr,
):
    """Add the partial outputs of a tile of rows to what is near, whose maxima are known before."""
    pair = tl.program_id(1).to(tl.int64)
    batch, kv_head = pair // kv_heads, pair % kv_heads
    row = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    in_m = row < tokens * GROUP
    within, member = row // GROUP, row % GROUP
    token = first + within
    own = token // SIZE
    offs_d = tl.arange(0, D)
    slots = tl.arange(0, SLOTS)
    indices = Indices + (pair * length + token) * BLOCKS + 1
    places = pair * entries * GROUP + within * ((BLOCKS - 3) * GROUP) + member
    index = tl.load(indices[:, None] + slots[None, :], mask=in_m[:, None] & (slots < BLOCKS - 3)[None, :], other=-1)
    far = (index > 0) & (index < own[:, None] - 1)
    maxima = tl.load(Maxima + places[:, None] + slots[None, :] * GROUP, mask=far, other=float("-inf"))
    sums = tl.load(Sums + places[:, None] + slots[None, :] * GROUP, mask=far, other=0.0)
    lse = Lse + (pair * GROUP + member) * length + token
    o_rows = member.to(tl.int64) * stride_oh + token.to(tl.int64) * stride_om
    outs = Out + batch * stride_ob + kv_head * GROUP * stride_oh + o_rows[:, None] + offs_d[None, :]
    near = tl.load(lse, mask=in_m, other=0.0) * LOG2_E
    row_max = tl.maximum(near, tl.max(maxima, 1))
    weight = tl.exp2(near - row_max)
    row_sum = weight + tl.sum(sums * tl.exp2(maxima - row_max[:, None]), 1)
    acc = tl.load(outs, mask=in_m[:, None], other=0.0).to(tl.float32) * weight[:, None]
    for slot in tl.static_range(BLOCKS - 3):
        index = tl.load(indices + slot, mask=in_m, other=-1)
        far = (index > 0) & (index < own - 1)
        place = places + slot * GROUP
        part = tl.load(Partial + place[:, None] * D + offs_d[None, :], mask=far[:, None], other=0.0)
        weight = tl.exp2(tl.load(Maxima + place, mask=far, other=float("-inf")) - row_max)
        acc += part.to(tl.float32) * weight[:, None]
    tl.store(outs, (acc * (1.0 / row_sum)[:, None]).to(Out.dtype.element_ty), mask=in_m[:, None])
    tl.store(lse, (row_max + tl.log2(row_sum)) * LN_2, mask=in_m)


'''
"""Near blocks have a kernel of their own; another adds partial outputs to its output."""
HOST = """def selected_attention(q, k, v, block_indices, out, lse, *, block_size: int, scale: float) -> None:
    batch, heads, length, head_dim = q.shape
    kv_heads, blocks = k.shape[1], block_indices.shape[3]
    group, pairs, n_blocks = heads // kv_heads, batch * kv_heads, triton.cdiv(length, block_size)
    members, listed = triton.next_power_of_2(group), 32
    tokens = max(1, min(block_size, NEAR_ROWS // members))
    # Whole tiles of tokens below which all blocks are near; at most as many blocks as there are bits.
    early = min(min(64, 3 + EARLY * (blocks - 3) // 2) * block_size, triton.cdiv(length, tokens) * tokens)
    far = max(0, length - early) if blocks > 3 else 0
    lots = max(1, triton.cdiv(batch * heads * far * (blocks - 3) * head_dim * q.element_size(), PARTIAL_BYTES))
    lot = max(1, triton.cdiv(triton.cdiv(far, lots), tokens)) * tokens
    entries = lot * (blocks - 3)
    jobs = n_blocks + entries * group // SHARE

    counts, starts, cursors = (torch.empty(pairs * lots * n_blocks, dtype=torch.int32, device=q.device) for _ in "csc")
    job_list = torch.empty(pairs * lots * jobs, dtype=torch.int32, device=q.device)
    totals = torch.empty(pairs * lots, dtype=torch.int32, device=q.device)
    lists = torch.empty(max(1, pairs * lots * entries), dtype=torch.int32, device=q.device)
    partial = torch.empty(max(1, pairs * entries * group * head_dim), dtype=q.dtype, device=q.device)
    maxima, sums = (torch.empty(max(1, pairs * entries * group), dtype=torch.float32, device=q.device) for _ in "ms")
    strides = (*q.stride()[:3], *k.stride()[:3], *v.stride()[:3])
    sizes = {"BLOCKS": blocks, "SIZE": block_size, "D": head_dim, "GROUP": group}
    near = {"MEMBERS": members, "TOKENS": tokens, "BLOCK_N": min(64, block_size)}
    tile = {"BLOCKS": blocks, "SIZE": block_size, "TOKENS": listed, "SLOTS": triton.next_power_of_2(blocks)}

"""
"""The beginning of the host function."""
LISTS = """    if far:
        grid = (triton.cdiv(far, listed), pairs)
        counts.zero_()
        count_kernel[grid](block_indices, counts, length, early, lot, lots, n_blocks, **tile)
        place_kernel[(pairs * lots,)](
            counts, starts, cursors, job_list, totals, n_blocks, jobs, triton.cdiv(lot * group, SHARE),
            GROUP=group, SHARE=SHARE, WIDTH=triton.next_power_of_2(n_blocks),
        )
        list_kernel[grid](block_indices, cursors, lists, length, early, lot, lots, n_blocks, entries, **tile)
"""
ATTEND = """            attend_kernel[(jobs, pairs)](
                q[:, :, first:], k, v, counts, starts, job_list, totals, lists, partial, maxima, sums, scale,
                *strides, kv_heads, number, lots, n_blocks, jobs, entries,
                BLOCK_M=min(ROWS, max(64, 8192 // block_size)), SHARE=SHARE, **sizes, num_warps=4, num_stages=3,
            )
"""
RUN_TOGETHER = """{lists}    for number in range(lots):
        first = early + number * lot
        if far:
{attend}        begin, end = first if number else 0, min(first + lot, length) if far else length
        reduce_kernel[(pairs, triton.cdiv(end - begin, tokens))](
            q, k, v, block_indices, partial, maxima, sums, out, lse, scale, *strides, *out.stride()[:3], kv_heads,
            begin, first, end, early, length, entries, **sizes, **near, num_warps=4, num_stages=1,
        )
"""
"""The launches of the first form."""
RUN_APART = """    near_kernel[(pairs, triton.cdiv(length, tokens))](
        q, k, v, block_indices, out, lse, scale, *strides, *out.stride()[:3], kv_heads, 0, length, early, length,
        **sizes, **near, num_warps=4, num_stages=1,
    )
{lists}        for number in range(lots):
            first = early + number * lot
{attend}            added = min(lot, length - first)
            reduce_kernel[(triton.cdiv(added * group, ADDED_ROWS), pairs)](
                block_indices, partial, maxima, sums, out, lse, *out.stride()[:3], kv_heads, first, added, length,
                entries, BLOCK_M=ADDED_ROWS, SLOTS=tile["SLOTS"], **sizes, num_warps=1,
            )
"""
"""The launches of the second."""
