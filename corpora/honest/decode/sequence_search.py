# The tiles of queries of all sequences lie along one axis of the grid; each program finds its sequence by bisection.
import torch
import triton
import triton.language as tl


@triton.jit
def fill_starts(Starts, q_len, batch, MOST: tl.constexpr):
    i = tl.arange(0, MOST)
    tl.store(Starts + i, i * q_len, mask=i <= batch)


@triton.jit
def first_tile(Starts, sequence, TILE: tl.constexpr):
    # There is room for a tile that is not full in each sequence before this one.
    return tl.load(Starts + sequence) // TILE + sequence


@triton.jit
def attention_kernel(
    Q, K, V, Table, Lengths, Starts, Out, Lse, scale, batch, heads, most,
    stride_qb, stride_qh, stride_qm, stride_qd, stride_kp, stride_kh, stride_kn, stride_kd,
    stride_vp, stride_vh, stride_vn, stride_vd, stride_ob, stride_oh, stride_om, stride_od,
    GROUP: tl.constexpr, TILE: tl.constexpr, ROWS: tl.constexpr,
    PAGE: tl.constexpr, BLOCK_N: tl.constexpr, DIM: tl.constexpr,
):  # fmt: skip
    tile, kv_head = tl.program_id(0), tl.program_id(1)
    sequence, beyond = 0, batch
    while beyond - sequence > 1:
        middle = (sequence + beyond) // 2
        if first_tile(Starts, middle, TILE) <= tile:
            sequence = middle
        else:
            beyond = middle
    queries = tl.load(Starts + sequence + 1) - tl.load(Starts + sequence)
    first = (tile - first_tile(Starts, sequence, TILE)) * TILE
    if first >= queries:
        return
    rows = tl.arange(0, ROWS)
    token, head = first + rows // GROUP, kv_head * GROUP + rows % GROUP
    here = (rows < TILE * GROUP) & (token < queries)
    dims = tl.arange(0, DIM)
    at = sequence.to(tl.int64) * stride_qb + head.to(tl.int64) * stride_qh + token.to(tl.int64) * stride_qm
    q = tl.load(Q + at[:, None] + dims[None, :] * stride_qd, mask=here[:, None], other=0.0)
    length = tl.load(Lengths + sequence)
    last = length - queries + token
    stop = tl.minimum(length, length - queries + first + TILE)
    acc = tl.zeros([ROWS, DIM], tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    top = tl.full([ROWS], float("-inf"), tl.float32)
    for start in range(0, stop, BLOCK_N):
        keys = start + tl.arange(0, BLOCK_N)
        in_n = keys < stop
        page = tl.load(Table + sequence * most + keys // PAGE, mask=in_n, other=0).to(tl.int64)
        k_at = page * stride_kp + kv_head.to(tl.int64) * stride_kh + (keys % PAGE).to(tl.int64) * stride_kn
        v_at = page * stride_vp + kv_head.to(tl.int64) * stride_vh + (keys % PAGE).to(tl.int64) * stride_vn
        k = tl.load(K + k_at[None, :] + dims[:, None] * stride_kd, mask=in_n[None, :], other=0.0)
        v = tl.load(V + v_at[:, None] + dims[None, :] * stride_vd, mask=in_n[:, None], other=0.0)
        visible = in_n[None, :] & (keys[None, :] <= last[:, None])
        scores = tl.where(visible, tl.dot(q, k) * scale, float("-inf"))
        higher = tl.maximum(top, tl.max(scores, 1))
        p, rescale = tl.exp(scores - higher[:, None]), tl.exp(top - higher)
        total = total * rescale + tl.sum(p, 1)
        acc = acc * rescale[:, None] + tl.dot(p.to(v.dtype), v)
        top = higher
    out = (acc / total[:, None]).to(Out.dtype.element_ty)
    at = sequence.to(tl.int64) * stride_ob + head.to(tl.int64) * stride_oh + token.to(tl.int64) * stride_om
    tl.store(Out + at[:, None] + dims[None, :] * stride_od, out, mask=here[:, None])
    tl.store(Lse + (sequence * heads + head) * queries + token, top + tl.log(total), mask=here)


def decode(q, k, v, block_table, lengths, out, lse, *, scale):
    batch, heads, q_len, dim = q.shape
    group = heads // k.shape[1]
    rows = max(16, triton.next_power_of_2(group))
    tile = rows // group
    starts = torch.empty(batch + 1, dtype=torch.int32, device=q.device)
    fill_starts[(1,)](starts, q_len, batch, MOST=triton.next_power_of_2(batch + 1))
    attention_kernel[(batch * q_len // tile + batch, k.shape[1])](
        q, k, v, block_table, lengths, starts, out, lse, scale, batch, heads, block_table.stride(0),
        *q.stride(), *k.stride(), *v.stride(), *out.stride(),
        GROUP=group, TILE=tile, ROWS=rows, PAGE=k.shape[2], BLOCK_N=32, DIM=dim,
    )  # fmt: skip
