"""A warp-specialised forward pass for claims of notes, for contiguous tensors whose lengths are multiples of the tiles.

One loop and descriptors of two axes, made in the kernel: so Triton's pass takes 128 rows on Hopper.
"""

import triton
import triton.language as tl

ROWS = 128
KEYS = 128
WARPS = 4
STAGES = 2
POLYNOMIAL = False
"""Whether half of the exponentials are computed by a polynomial, without conversions."""
RELATIVE = False
"""Whether causal masks are counted from the block's first key."""


@triton.jit
def polynomial(x):
    x = tl.maximum(x, -126.0)
    shifted = x + 12582912.0
    f = x - (shifted - 12582912.0)
    y = ((0.05500893 * f + 0.24221097) * f + 0.69328293) * f + 1.0
    return (y.to(tl.int32, bitcast=True) + (shifted.to(tl.int32, bitcast=True) << 23)).to(tl.float32, bitcast=True)


@triton.jit
def exponentials(x, POLYNOMIAL: tl.constexpr):
    if not POLYNOMIAL:
        return tl.exp2(x)
    rows: tl.constexpr = x.shape[0]
    columns: tl.constexpr = x.shape[1]
    first, second = tl.split(x.reshape(rows, columns // 2, 2))
    return tl.join(tl.exp2(first), polynomial(second)).reshape(rows, columns)


@triton.jit
def forward(
    Q, K, V, Out, Lse, scale, q_len, kv_len,
    CAUSAL: tl.constexpr, POLYNOMIAL: tl.constexpr, RELATIVE: tl.constexpr, D: tl.constexpr, M: tl.constexpr,
    N: tl.constexpr,
):  # fmt: skip
    block = tl.num_programs(0) - 1 - tl.program_id(0)
    head = tl.program_id(1).to(tl.int64)
    q_desc = tl.make_tensor_descriptor(Q + head * q_len * D, [q_len, D], [D, 1], [M, D])
    k_desc = tl.make_tensor_descriptor(K + head * kv_len * D, [kv_len, D], [D, 1], [N, D])
    v_desc = tl.make_tensor_descriptor(V + head * kv_len * D, [kv_len, D], [D, 1], [N, D])
    out_desc = tl.make_tensor_descriptor(Out + head * q_len * D, [q_len, D], [D, 1], [M, D])
    rows = block * M + tl.arange(0, M)
    q = q_desc.load([block * M, 0])
    row_max = tl.full([M], float("-inf"), tl.float32)
    row_sum = tl.zeros([M], tl.float32)
    acc = tl.zeros([M, D], tl.float32)
    scale *= 1.4426950408889634
    stop = kv_len
    if CAUSAL:
        stop = tl.minimum(kv_len, block * M + M + kv_len - q_len)
    for n in tl.range(0, stop, N, warp_specialize=True):
        scores = tl.dot(q, k_desc.load([n, 0]).T)
        if CAUSAL:
            if RELATIVE:
                visible = tl.arange(0, N)[None, :] <= (rows - n)[:, None] + (kv_len - q_len)
            else:
                visible = n + tl.arange(0, N)[None, :] <= rows[:, None] + (kv_len - q_len)
            scores = tl.where(visible, scores, float("-inf"))
        new_max = tl.maximum(row_max, tl.max(scores, 1) * scale)
        p = exponentials(scores * scale - new_max[:, None], POLYNOMIAL)
        rescale = tl.exp2(row_max - new_max)
        row_sum = row_sum * rescale + tl.sum(p, 1)
        acc = acc * rescale[:, None]
        acc = tl.dot(p.to(tl.bfloat16), v_desc.load([n, 0]), acc)
        row_max = new_max
    out_desc.store([block * M, 0], (acc / row_sum[:, None]).to(tl.bfloat16))
    tl.store(Lse + head * q_len + rows, (row_max + tl.log2(row_sum)) * 0.6931471805599453)


def attention(q, k, v, out, lse, *, causal, scale):
    batch, heads, q_len, head_dim = q.shape
    forward[triton.cdiv(q_len, ROWS), batch * heads](
        q, k, v, out, lse, scale, q_len, k.shape[2],
        CAUSAL=causal, POLYNOMIAL=POLYNOMIAL, RELATIVE=RELATIVE, D=head_dim, M=ROWS, N=KEYS, num_warps=WARPS,
        num_stages=STAGES,
    )  # fmt: skip
