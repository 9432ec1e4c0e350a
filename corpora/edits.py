"""Honest kernels: those stored in ``honest/``, and edits of a seed or of one of them."""

from avo.seeds import seed_source
from tests.kernels import edited, stored, stored_in

# Programmatic dependent launch: both kernels start early and wait for what they read.
DEPENDENT_LAUNCH = edited(
    (
        "import triton.language as tl\n",
        "import triton.language as tl\nfrom triton.language.extra.cuda import gdc_launch_dependents, gdc_wait\n",
    ),
    ("    tile = tl.program_id(0)\n", "    gdc_wait()\n    tile = tl.program_id(0)\n"),
    (
        "    at = (bh.to(tl.int64) * SPLITS + split)",
        "    gdc_launch_dependents()\n    at = (bh.to(tl.int64) * SPLITS + split)",
    ),
    ("    row = tl.program_id(0)\n", "    row = tl.program_id(0)\n    gdc_wait()\n"),
    ("num_stages=2)", "num_stages=2, launch_pdl=True)"),
    ("num_warps=1)", "num_warps=1, launch_pdl=True)"),
    source=stored("honest/mha/split_kv"),
)
COOPERATIVE = edited(
    ("min(4 * sms, tiles)", "min(sms, tiles)"),
    ("num_stages=3)", "num_stages=3, launch_cooperative_grid=True)"),
    source=stored("honest/mha/persistent"),
)

LSE_STORE = '    tl.store(PartLse + at, tl.where(seen, row_max + tl.log(divisor), float("-inf")), mask=in_m)\n'
# All programs meet once they have attended to their parts, where there are several of a row, and combine the rows.
ONE_LAUNCH = edited(
    ("import triton\n", "import torch\nimport triton\n"),
    ("\nPROGRAMS = 264", "\nPROGRAMS = 132"),
    ("triton.cdiv(PROGRAMS, batch * kv_heads)", "PROGRAMS // (batch * kv_heads)"),
    (
        "Part, PartLse, scale,\n",
        "Part, PartLse, Met, Sinks, Out, Lse, scale, stride_ob, stride_oh, stride_om, stride_od,\n",
    ),
    ("    WINDOWED: tl.constexpr", "    SINKS: tl.constexpr, BLOCK_S: tl.constexpr, WINDOWED: tl.constexpr"),
    (
        LSE_STORE,
        LSE_STORE + "    tl.atomic_add(Met, 1)\n"
        "    while tl.atomic_add(Met, 0) < tl.where(splits > 1, tl.num_programs(0) * tl.num_programs(1), 0):\n"
        "        pass\n"
        "    for i in range(split, group * q_len, splits):\n"
        "        row = (batch * heads + kv_head * group + i // q_len) * q_len + i % q_len\n"
        "        combine_kernel(row, Part, PartLse, Sinks, Out, Lse, stride_ob, stride_oh, stride_om, stride_od,\n"
        "            heads, q_len, splits, SINKS, VALUE_DIM, BLOCK_V, BLOCK_S)\n",
    ),
    ("    Part, PartLse, Sinks, Out", "    row, Part, PartLse, Sinks, Out"),
    ("    row = tl.program_id(0).to(tl.int64)\n", ""),
    (
        "part, part_lse, scale, *q.stride()",
        "part, part_lse, torch.zeros(1, dtype=torch.int32, device=q.device), sinks[0] if sinks else lse, out, lse, "
        "scale, *out.stride(), *q.stride()",
    ),
    ("BLOCK_N=block_n,\n", "BLOCK_N=block_n, SINKS=len(sinks) > 0, BLOCK_S=triton.next_power_of_2(splits),\n"),
    source=seed_source("decode").split("    combine_kernel[")[0],
)

BACKWARD = seed_source("mha_backward").split("@triton.jit\ndef queries_kernel")[0]
# One walk over the scores: a program for each tile of keys sums up dk and dv, and adds its part of dq to a float32
# buffer by atomic additions, in no certain order. A last kernel rounds that.
BACKWARD_ATOMICS = (
    edited(
        ("Delta, Dk, Dv, scale,\n", "Delta, Sum, Dk, Dv, scale,\n"),
        (
            "offs_n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)\n",
            "offs_n, offs_d = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N), tl.arange(0, BLOCK_D)\n",
        ),
        (
            "ds = p * (tl.dot(v, tl.trans(dout)) - delta[None, :])",
            "ds = (p * (tl.dot(v, tl.trans(dout)) - delta[None, :])).to(q.dtype)",
        ),
        (
            "            dk = tl.dot(ds.to(q.dtype), q, dk)\n",
            """\
            dk = tl.dot(ds, q, dk)
            part = tl.dot(tl.trans(ds), k)
            place = Sum + (at + offs_m[:, None]) * HEAD_DIM + offs_d[None, :]
            tl.atomic_add(place, part, mask=(offs_m < q_len)[:, None] & (offs_d < HEAD_DIM)[None, :], sem="relaxed")
""",
        ),
        source=BACKWARD,
    )
    + """@triton.jit
def rounding_kernel(
    Sum, Dq, scale, stride_dqb, stride_dqh, stride_dqm, stride_dqd, heads, q_len,
    HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr,
):  # fmt: skip
    rows, offs_d = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_D)
    batch, head = (tl.program_id(1) // heads).to(tl.int64), (tl.program_id(1) % heads).to(tl.int64)
    place = Sum + (tl.program_id(1).to(tl.int64) * q_len + rows[:, None]) * HEAD_DIM + offs_d[None, :]
    dq = tl.load(place, mask=(rows < q_len)[:, None] & (offs_d < HEAD_DIM)[None, :], other=0.0)
    store_rows(
        Dq, dq * scale, batch, head, rows, q_len, stride_dqb, stride_dqh, stride_dqm, stride_dqd, HEAD_DIM, BLOCK_D
    )


def attention_backward(q, k, v, out, lse, dout, dq, dk, dv, *, causal: bool, scale: float) -> None:
    batch, heads, q_len, head_dim = q.shape
    kv_heads, kv_len = k.shape[1], k.shape[2]
    block_m, block_n = 64, 64
    dims = {"HEAD_DIM": head_dim, "BLOCK_D": triton.next_power_of_2(head_dim)}
    query_tiles, key_tiles = triton.cdiv(q_len, block_m), triton.cdiv(kv_len, block_n)
    delta, sums = lse.new_empty(lse.shape), lse.new_zeros(q.shape)
    delta_kernel[query_tiles, batch * heads](
        out, dout, delta, heads, q_len, *out.stride(), *dout.stride(), **dims, BLOCK_M=block_m, num_warps=4
    )
    keys_kernel[key_tiles, batch * kv_heads](
        q, k, v, dout, lse, delta, sums, dk, dv, scale,
        *q.stride(), *k.stride(), *v.stride(), *dout.stride(), *dk.stride(), *dv.stride(),
        heads, kv_heads, q_len, kv_len,
        CAUSAL=causal, **dims, BLOCK_M=block_m, BLOCK_N=block_n, num_warps=8, num_stages=1,
    )  # fmt: skip
    rounding_kernel[query_tiles, batch * heads](
        sums, dq, scale, *dq.stride(), heads, q_len, **dims, BLOCK_M=block_m, num_warps=4
    )
"""
)

KV_OUTER = seed_source("fsa", "kv_outer").split("@triton.jit\ndef reduce_kernel")[0]
SHARE_OF_A_BLOCK = KV_OUTER[KV_OUTER.index("        row_max = tl.max(scores, 1)\n") :]
# Blocks meet in float32 atomics: lse first, then sums of weighted values, then a rounding kernel.
FSA_ATOMICS = edited(
    ("    Partial,\n    PartialLse,\n", "    Acc,\n    PartialLse,\n    Lse,\n"),
    ("    first,\n", ""),
    ("    BLOCKS: tl.constexpr,\n):\n", "    BLOCKS: tl.constexpr,\n    VALUES: tl.constexpr,\n):\n"),
    ("first + token[:, None]", "token[:, None]"),
    (
        SHARE_OF_A_BLOCK,
        """\
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
            q, k, v, counts, starts, ends, lists, acc, partial_lse, lse, scale, *strides, kv_heads, group, length,
            blocks, n_blocks, entries, block_size, BLOCK_M=64, BLOCK_N=max(16, triton.next_power_of_2(block_size)),
            **widths, **shares, VALUES=values, num_warps=4, num_stages=1)

    attend(False)
    lse_kernel[rows](block_indices, partial_lse, lse, entries, heads, group, length, blocks, TOKENS=16)
    attend(True)
    round_kernel[rows](acc, out, *out.stride(), heads, length, TOKENS=16, **widths)
""",
    ),
    source=KV_OUTER,
)

EDITS = {
    "mha": {"dependent_launch": DEPENDENT_LAUNCH, "cooperative": COOPERATIVE},
    "mha_backward": {"atomics": BACKWARD_ATOMICS},
    "decode": {"one_launch": ONE_LAUNCH},
    "fsa": {"atomics": FSA_ATOMICS},
}
HONEST = {problem: stored_in(f"honest/{problem}") | edits for problem, edits in EDITS.items()}
"""Sources by problem and name."""
