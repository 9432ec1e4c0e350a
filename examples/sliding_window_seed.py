"""The kernel that a search for sliding-window attention starts from: correct, plain and slow.

Each program computes one tile of query rows and loops over the keys that these rows see. ``sliding_window`` is the
entry function that the problem asks for: it launches the kernel and writes into ``out`` and ``lse``.
"""

import triton
import triton.language as tl


@triton.jit
def sliding_window_kernel(
    Q,
    K,
    V,
    Out,
    Lse,
    scale,
    stride_qb,
    stride_qh,
    stride_qm,
    stride_kb,
    stride_kh,
    stride_kn,
    stride_vb,
    stride_vh,
    stride_vn,
    stride_ob,
    stride_oh,
    stride_om,
    heads,
    group,
    length,
    window,
    HEAD_DIM: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    start_m = tl.program_id(0) * BLOCK_M
    batch_head = tl.program_id(1).to(tl.int64)
    batch, head = batch_head // heads, batch_head % heads
    kv_head = head // group

    offs_m = start_m + tl.arange(0, BLOCK_M)
    offs_d = tl.arange(0, HEAD_DIM)
    in_m = (offs_m < length)[:, None]
    q_base = Q + batch * stride_qb + head * stride_qh
    k_base = K + batch * stride_kb + kv_head * stride_kh
    v_base = V + batch * stride_vb + kv_head * stride_vh
    o_base = Out + batch * stride_ob + head * stride_oh
    q = tl.load(q_base + offs_m[:, None].to(tl.int64) * stride_qm + offs_d[None, :], mask=in_m, other=0.0)

    row_max = tl.full([BLOCK_M], float("-inf"), tl.float32)
    row_sum = tl.zeros([BLOCK_M], tl.float32)
    acc = tl.zeros([BLOCK_M, HEAD_DIM], tl.float32)
    first = tl.maximum(start_m - window + 1, 0) // BLOCK_N * BLOCK_N
    for start_n in range(first, tl.minimum(start_m + BLOCK_M, length), BLOCK_N):
        offs_n = start_n + tl.arange(0, BLOCK_N)
        in_n = offs_n < length
        k = tl.load(k_base + offs_n[None, :].to(tl.int64) * stride_kn + offs_d[:, None], mask=in_n[None, :], other=0.0)
        distance = offs_m[:, None] - offs_n[None, :]
        # Not -inf: the last rows of a tile may see none of the first keys, and their maximum has to be a number.
        scores = tl.where((distance >= 0) & (distance < window), tl.dot(q, k) * scale, -1.0e30)
        new_max = tl.maximum(row_max, tl.max(scores, 1))
        p = tl.exp(scores - new_max[:, None])
        rescale = tl.exp(row_max - new_max)
        row_sum = row_sum * rescale + tl.sum(p, 1)
        v = tl.load(v_base + offs_n[:, None].to(tl.int64) * stride_vn + offs_d[None, :], mask=in_n[:, None], other=0.0)
        acc = tl.dot(p.to(v.dtype), v, acc * rescale[:, None])
        row_max = new_max

    out = (acc / row_sum[:, None]).to(Out.dtype.element_ty)
    tl.store(o_base + offs_m[:, None].to(tl.int64) * stride_om + offs_d[None, :], out, mask=in_m)
    tl.store(Lse + batch_head * length + offs_m, row_max + tl.log(row_sum), mask=offs_m < length)


def sliding_window(q, k, v, out, lse, *, window: int, scale: float) -> None:
    batch, heads, length, head_dim = q.shape
    block_m, block_n = 64, 64
    sliding_window_kernel[(triton.cdiv(length, block_m), batch * heads)](
        q,
        k,
        v,
        out,
        lse,
        scale,
        *q.stride()[:3],
        *k.stride()[:3],
        *v.stride()[:3],
        *out.stride()[:3],
        heads,
        heads // k.shape[1],
        length,
        window,
        HEAD_DIM=head_dim,
        BLOCK_M=block_m,
        BLOCK_N=block_n,
        num_warps=4,
        num_stages=1,
    )
