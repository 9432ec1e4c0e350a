"""Texts of what the move ``far`` makes: the kernel that adds up partial outputs, and host code."""

REDUCE = '''@triton.jit
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
RUN = """{lists}    for number in range(lots):
        first = early + number * lot
        if far:
{attend}        begin, end = first if number else 0, min(first + lot, length) if far else length
        reduce_kernel[(pairs, triton.cdiv(end - begin, tokens))](
            q, k, v, block_indices, partial, maxima, sums, out, lse, scale, *strides, *out.stride()[:3], kv_heads,
            begin, first, end, early, length, entries, **sizes, **near, num_warps=4, num_stages=1,
        )
"""
"""The launches."""
