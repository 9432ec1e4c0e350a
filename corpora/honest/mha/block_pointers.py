# Block pointers with boundary checks, advanced along the keys.
import triton
import triton.language as tl


@triton.jit
def _attn(Q, K, V, Out, L, sm, sqz, sqh, sqm, sqd, skz, skh, skn, skd, svz, svh, svn, svd, soz, soh, som, sod, H, M, N,
          CAUSAL: tl.constexpr, D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    start = tl.program_id(0)
    hz = tl.program_id(1)
    z, h = (hz // H).to(tl.int64), (hz % H).to(tl.int64)
    Qp = tl.make_block_ptr(base=Q + z * sqz + h * sqh, shape=(M, D), strides=(sqm, sqd), offsets=(start * BLOCK_M, 0), block_shape=(BLOCK_M, D), order=(1, 0))
    Kp = tl.make_block_ptr(base=K + z * skz + h * skh, shape=(D, N), strides=(skd, skn), offsets=(0, 0), block_shape=(D, BLOCK_N), order=(0, 1))
    Vp = tl.make_block_ptr(base=V + z * svz + h * svh, shape=(N, D), strides=(svn, svd), offsets=(0, 0), block_shape=(BLOCK_N, D), order=(1, 0))
    Op = tl.make_block_ptr(base=Out + z * soz + h * soh, shape=(M, D), strides=(som, sod), offsets=(start * BLOCK_M, 0), block_shape=(BLOCK_M, D), order=(1, 0))
    Lp = tl.make_block_ptr(base=L + hz.to(tl.int64) * M, shape=(M,), strides=(1,), offsets=(start * BLOCK_M,), block_shape=(BLOCK_M,), order=(0,))
    q = tl.load(Qp, boundary_check=(0,), padding_option="zero")
    rows = start * BLOCK_M + tl.arange(0, BLOCK_M)
    m = tl.full([BLOCK_M], float("-inf"), tl.float32)
    l = tl.zeros([BLOCK_M], tl.float32)
    acc = tl.zeros([BLOCK_M, D], tl.float32)
    hi = tl.minimum(N, (start + 1) * BLOCK_M + N - M) if CAUSAL else N
    for n in range(0, hi, BLOCK_N):
        k = tl.load(Kp, boundary_check=(1,), padding_option="zero")
        cols = n + tl.arange(0, BLOCK_N)
        last = tl.minimum(rows + N - M, N - 1) if CAUSAL else N - 1 + rows * 0
        s = tl.where(cols[None, :] <= last[:, None], tl.dot(q, k) * sm, float("-inf"))
        new = tl.maximum(m, tl.max(s, 1))
        a = tl.exp(m - new)
        p = tl.exp(s - new[:, None])
        v = tl.load(Vp, boundary_check=(0,), padding_option="zero")
        acc = acc * a[:, None] + tl.dot(p.to(v.dtype), v)
        l = l * a + tl.sum(p, 1)
        m = new
        Kp = tl.advance(Kp, (0, BLOCK_N))
        Vp = tl.advance(Vp, (BLOCK_N, 0))
    tl.store(Op, (acc / l[:, None]).to(Out.type.element_ty), boundary_check=(0,))
    tl.store(Lp, m + tl.log(l), boundary_check=(0,))


def attention(q, k, v, out, lse, *, causal, scale):
    Z, H, M, D = q.shape
    _attn[(triton.cdiv(M, 128), Z * H, 1)](
        q, k, v, out, lse, scale, *q.stride(), *k.stride(), *v.stride(), *out.stride(), H, M, k.shape[2],
        CAUSAL=causal, D=D, BLOCK_M=128, BLOCK_N=64, num_warps=8, num_stages=3)
