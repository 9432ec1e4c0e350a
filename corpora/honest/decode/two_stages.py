# Splits of one length, then a program for each row that goes over those that its sequence has; what a split stores is the
# body of a loop of no pass or one.
import torch
import triton
import triton.language as tl


@triton.jit
def split_kernel(
    Q, K, V, Table, Lengths, Part, PartLse, scale, group, q_len, splits, most,
    stride_qb, stride_qh, stride_qm, stride_kp, stride_kh, stride_kn, stride_vp, stride_vh, stride_vn,
    ROWS: tl.constexpr, SPLIT: tl.constexpr, PAGE: tl.constexpr, BLOCK_N: tl.constexpr, DIM: tl.constexpr,
):  # fmt: skip
    batch, kv_head, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    rows, dims = tl.arange(0, ROWS), tl.arange(0, DIM)
    here = rows < group * q_len
    head, token = kv_head * group + rows // q_len, rows % q_len
    at = batch.to(tl.int64) * stride_qb + head.to(tl.int64) * stride_qh + token.to(tl.int64) * stride_qm
    q = tl.load(Q + at[:, None] + dims[None, :], mask=here[:, None], other=0.0)
    length = tl.load(Lengths + batch)
    stop = tl.minimum(length, split * SPLIT + SPLIT)
    passes = tl.cdiv(tl.maximum(stop - split * SPLIT, 0), BLOCK_N)
    acc = tl.zeros([ROWS, DIM], tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    top = tl.full([ROWS], float("-inf"), tl.float32)
    for i in range(0, passes):
        keys = split * SPLIT + i * BLOCK_N + tl.arange(0, BLOCK_N)
        in_n = keys < stop
        page = tl.load(Table + batch * most + keys // PAGE, mask=in_n, other=0).to(tl.int64)
        k_at = page * stride_kp + kv_head.to(tl.int64) * stride_kh + (keys % PAGE).to(tl.int64) * stride_kn
        v_at = page * stride_vp + kv_head.to(tl.int64) * stride_vh + (keys % PAGE).to(tl.int64) * stride_vn
        k = tl.load(K + k_at[None, :] + dims[:, None], mask=in_n[None, :], other=0.0)
        visible = in_n[None, :] & (keys[None, :] <= (length - q_len + token)[:, None])
        scores = tl.where(visible, tl.dot(q, k) * scale, float("-inf"))
        higher = tl.maximum(top, tl.max(scores, 1))
        subtracted = tl.where(higher == float("-inf"), 0.0, higher)
        p, rescale = tl.exp(scores - subtracted[:, None]), tl.exp(top - subtracted)
        total = total * rescale + tl.sum(p, 1)
        v = tl.load(V + v_at[:, None] + dims[None, :], mask=in_n[:, None], other=0.0)
        acc = acc * rescale[:, None] + tl.dot(p.to(v.dtype), v)
        top = higher
    for _ in range(0, tl.minimum(passes, 1)):
        saw = tl.where(total == 0.0, 1.0, total)  # early queries see none of a late split
        row = (batch * tl.num_programs(1) + kv_head).to(tl.int64) * group * q_len + rows
        tl.store(Part + (row * splits + split)[:, None] * DIM + dims[None, :], acc / saw[:, None], mask=here[:, None])
        tl.store(PartLse + row * splits + split, top + tl.log(saw), mask=here)


@triton.jit
def join_kernel(Lengths, Part, PartLse, Out, Lse, q_len, splits, stride_ob, stride_oh, stride_om,
                SPLIT: tl.constexpr, DIM: tl.constexpr):  # fmt: skip
    batch, row = tl.program_id(0), tl.program_id(1)
    dims = tl.arange(0, DIM)
    place = (batch.to(tl.int64) * tl.num_programs(1) + row) * splits
    acc = tl.zeros([DIM], tl.float32)
    total = 0.0
    top = -float("inf")
    for split in range(0, tl.cdiv(tl.load(Lengths + batch), SPLIT)):
        lse = tl.load(PartLse + place + split)
        higher = tl.maximum(top, lse)
        rescale, weight = tl.exp(top - higher), tl.exp(lse - higher)
        acc = acc * rescale + weight * tl.load(Part + (place + split) * DIM + dims)
        total = total * rescale + weight
        top = higher
    at = batch.to(tl.int64) * stride_ob + (row // q_len).to(tl.int64) * stride_oh + (row % q_len).to(tl.int64) * stride_om
    tl.store(Out + at + dims, (acc / total).to(Out.dtype.element_ty))
    tl.store(Lse + batch * tl.num_programs(1) + row, top + tl.log(total))


def decode(q, k, v, block_table, lengths, out, lse, *, scale):
    batch, heads, q_len, dim = q.shape
    kv_heads, page = k.shape[1], k.shape[2]
    split = 256 if batch * kv_heads <= 16 else 512
    splits = triton.cdiv(block_table.shape[1] * page, split)
    group = heads // kv_heads
    part = torch.empty((batch, heads * q_len, splits, dim), dtype=torch.float32, device=q.device)
    part_lse = torch.empty((batch, heads * q_len, splits), dtype=torch.float32, device=q.device)
    split_kernel[(batch, kv_heads, splits)](
        q, k, v, block_table, lengths, part, part_lse, scale, group, q_len, splits, block_table.stride(0),
        *q.stride()[:3], *k.stride()[:3], *v.stride()[:3],
        ROWS=max(16, triton.next_power_of_2(group * q_len)), SPLIT=split, PAGE=page, BLOCK_N=64, DIM=dim,
        num_warps=4, num_stages=2,
    )  # fmt: skip
    join_kernel[(batch, heads * q_len)](
        lengths, part, part_lse, out, lse, q_len, splits, *out.stride()[:3], SPLIT=split, DIM=dim, num_warps=4,
    )  # fmt: skip
