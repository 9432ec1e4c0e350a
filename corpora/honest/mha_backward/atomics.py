"""Flash attention backward with one walk over the scores: a program for each tile of keys sums up dk and dv, and adds
its part of dq to a float32 buffer by atomic additions, in no certain order. A last kernel rounds that.
"""

import triton
import triton.language as tl


@triton.jit
def load_rows(
    Base, batch, head, rows, length, stride_b, stride_h, stride_m, stride_d, HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Load rows of one head, [rows, BLOCK_D], zero beyond the end."""
    offs_d = tl.arange(0, BLOCK_D)
    at = Base + batch * stride_b + head * stride_h + rows[:, None].to(tl.int64) * stride_m + offs_d[None, :] * stride_d
    return tl.load(at, mask=(rows < length)[:, None] & (offs_d < HEAD_DIM)[None, :], other=0.0)


@triton.jit
def store_rows(
    Base, values, batch, head, rows, length, stride_b, stride_h, stride_m, stride_d,
    HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    offs_d = tl.arange(0, BLOCK_D)
    at = Base + batch * stride_b + head * stride_h + rows[:, None].to(tl.int64) * stride_m + offs_d[None, :] * stride_d
    tl.store(at, values.to(Base.dtype.element_ty), mask=(rows < length)[:, None] & (offs_d < HEAD_DIM)[None, :])


@triton.jit
def delta_kernel(
    Out, Dout, Delta, heads, q_len,
    stride_ob, stride_oh, stride_om, stride_od, stride_gb, stride_gh, stride_gm, stride_gd,
    HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr,
):  # fmt: skip
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    batch, head = (tl.program_id(1) // heads).to(tl.int64), (tl.program_id(1) % heads).to(tl.int64)
    out = load_rows(Out, batch, head, rows, q_len, stride_ob, stride_oh, stride_om, stride_od, HEAD_DIM, BLOCK_D)
    dout = load_rows(Dout, batch, head, rows, q_len, stride_gb, stride_gh, stride_gm, stride_gd, HEAD_DIM, BLOCK_D)
    delta = tl.sum(out.to(tl.float32) * dout.to(tl.float32), 1)
    tl.store(Delta + tl.program_id(1).to(tl.int64) * q_len + rows, delta, mask=rows < q_len)


@triton.jit
def keys_kernel(
    Q, K, V, Dout, Lse, Delta, Sum, Dk, Dv, scale,
    stride_qb, stride_qh, stride_qm, stride_qd, stride_kb, stride_kh, stride_kn, stride_kd,
    stride_vb, stride_vh, stride_vn, stride_vd, stride_gb, stride_gh, stride_gm, stride_gd,
    stride_dkb, stride_dkh, stride_dkn, stride_dkd, stride_dvb, stride_dvh, stride_dvn, stride_dvd,
    heads, kv_heads, q_len, kv_len,
    CAUSAL: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    offs_n, offs_d = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N), tl.arange(0, BLOCK_D)
    batch, kv_head = (tl.program_id(1) // kv_heads).to(tl.int64), (tl.program_id(1) % kv_heads).to(tl.int64)
    k = load_rows(K, batch, kv_head, offs_n, kv_len, stride_kb, stride_kh, stride_kn, stride_kd, HEAD_DIM, BLOCK_D)
    v = load_rows(V, batch, kv_head, offs_n, kv_len, stride_vb, stride_vh, stride_vn, stride_vd, HEAD_DIM, BLOCK_D)
    dk = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    dv = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    first = 0
    if CAUSAL:
        # The first query that sees the first key of this tile.
        first = tl.maximum(tl.program_id(0) * BLOCK_N - (kv_len - q_len), 0) // BLOCK_M * BLOCK_M
    group = heads // kv_heads
    for member in range(group):
        head = kv_head * group + member
        at = (batch * heads + head) * q_len
        for start_m in range(first, q_len, BLOCK_M):
            offs_m = start_m + tl.arange(0, BLOCK_M)
            q = load_rows(Q, batch, head, offs_m, q_len, stride_qb, stride_qh, stride_qm, stride_qd, HEAD_DIM, BLOCK_D)
            lse = tl.load(Lse + at + offs_m, mask=offs_m < q_len, other=0.0)
            visible = (offs_m < q_len)[None, :] & (offs_n < kv_len)[:, None]
            if CAUSAL:
                visible = visible & (offs_n[:, None] <= offs_m[None, :] + (kv_len - q_len))
            p = tl.where(visible, tl.exp(tl.dot(k, tl.trans(q)) * scale - lse[None, :]), 0.0)
            dout = load_rows(
                Dout, batch, head, offs_m, q_len, stride_gb, stride_gh, stride_gm, stride_gd, HEAD_DIM, BLOCK_D
            )
            dv = tl.dot(p.to(dout.dtype), dout, dv)
            delta = tl.load(Delta + at + offs_m, mask=offs_m < q_len, other=0.0)
            ds = (p * (tl.dot(v, tl.trans(dout)) - delta[None, :])).to(q.dtype)
            dk = tl.dot(ds, q, dk)
            part = tl.dot(tl.trans(ds), k)
            place = Sum + (at + offs_m[:, None]) * HEAD_DIM + offs_d[None, :]
            tl.atomic_add(place, part, mask=(offs_m < q_len)[:, None] & (offs_d < HEAD_DIM)[None, :], sem="relaxed")
    store_rows(
        Dk, dk * scale, batch, kv_head, offs_n, kv_len, stride_dkb, stride_dkh, stride_dkn, stride_dkd, HEAD_DIM,
        BLOCK_D,
    )
    store_rows(
        Dv, dv, batch, kv_head, offs_n, kv_len, stride_dvb, stride_dvh, stride_dvn, stride_dvd, HEAD_DIM, BLOCK_D
    )


@triton.jit
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
