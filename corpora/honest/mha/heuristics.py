# Heuristics choose masks, warps and tiles from the lengths; autotune on top of them; masks only where they are needed.
import triton
import triton.language as tl


@triton.autotune([triton.Config({}, num_stages=2), triton.Config({}, num_stages=3)], key=["n_q", "n_k"])
@triton.heuristics({
    "BM": lambda args: 128 if args["n_q"] >= 128 else max(16, triton.next_power_of_2(args["n_q"])),
    "BN": lambda args: 64 if args["n_k"] >= 64 else 32,
})
@triton.heuristics({
    "EVEN_M": lambda args: args["n_q"] % args["BM"] == 0,
    "EVEN_N": lambda args: args["n_k"] % args["BN"] == 0,
    "num_warps": lambda args: 8 if args["BM"] == 128 else 4,
})
@triton.jit
def flash(Q, K, V, Out, Lse, scale, sqz, sqh, sqm, skz, skh, skn, svz, svh, svn, soz, soh, som, H, n_q, n_k,
          IS_CAUSAL: tl.constexpr, D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, EVEN_M: tl.constexpr, EVEN_N: tl.constexpr):
    start_m = tl.program_id(0)
    off_hz = tl.program_id(1)
    off_z = (off_hz // H).to(tl.int64)
    off_h = (off_hz % H).to(tl.int64)
    offs_m = start_m * BM + tl.arange(0, BM)
    offs_n = tl.arange(0, BN)
    offs_d = tl.arange(0, D)
    q_ptrs = Q + off_z * sqz + off_h * sqh + (offs_m[:, None].to(tl.int64) * sqm + offs_d[None, :])
    k_ptrs = K + off_z * skz + off_h * skh + (offs_n[:, None].to(tl.int64) * skn + offs_d[None, :])
    v_ptrs = V + off_z * svz + off_h * svh + (offs_n[:, None].to(tl.int64) * svn + offs_d[None, :])
    if EVEN_M:
        q = tl.load(q_ptrs)
    else:
        q = tl.load(q_ptrs, mask=offs_m[:, None] < n_q, other=0.0)
    lse_i = tl.zeros([BM], dtype=tl.float32) - float("inf")
    m_i = tl.zeros([BM], dtype=tl.float32) - float("inf")
    acc_o = tl.zeros([BM, D], dtype=tl.float32)
    end_n = n_k if not IS_CAUSAL else tl.minimum((start_m + 1) * BM + n_k - n_q, n_k)
    for start_n in range(0, end_n, BN):
        start_n = tl.multiple_of(start_n, BN)
        if EVEN_N:
            k = tl.load(k_ptrs + start_n.to(tl.int64) * skn)
        else:
            k = tl.load(k_ptrs + start_n.to(tl.int64) * skn, mask=(start_n + offs_n)[:, None] < n_k, other=0.0)
        qk = tl.zeros([BM, BN], dtype=tl.float32)
        qk += tl.dot(q, tl.trans(k))
        if not EVEN_N:
            qk += tl.where((start_n + offs_n)[None, :] < n_k, 0, float("-inf"))
        if IS_CAUSAL:
            qk += tl.where(offs_m[:, None] + (n_k - n_q) >= (start_n + offs_n)[None, :], 0, float("-inf"))
        m_ij = tl.maximum(tl.max(qk, 1) * scale, lse_i)
        p = tl.exp(qk * scale - m_ij[:, None])
        l_ij = tl.sum(p, 1)
        acc_o = acc_o * tl.exp(m_i - m_ij)[:, None]
        if EVEN_N:
            v = tl.load(v_ptrs + start_n.to(tl.int64) * svn)
        else:
            v = tl.load(v_ptrs + start_n.to(tl.int64) * svn, mask=(start_n + offs_n)[:, None] < n_k, other=0.0)
        acc_o += tl.dot(p.to(v.dtype), v)
        m_i = m_ij
        lse_i = m_ij + tl.log(tl.exp(lse_i - m_ij) + l_ij)
    acc_o = acc_o * tl.exp(m_i - lse_i)[:, None]
    tl.store(Lse + off_hz.to(tl.int64) * n_q + offs_m, lse_i, mask=offs_m < n_q)
    out_ptrs = Out + off_z * soz + off_h * soh + (offs_m[:, None].to(tl.int64) * som + offs_d[None, :])
    if EVEN_M:
        tl.store(out_ptrs, acc_o.to(tl.bfloat16))
    else:
        tl.store(out_ptrs, acc_o.to(tl.bfloat16), mask=offs_m[:, None] < n_q)


def attention(q, k, v, out, lse, *, causal: bool, scale: float):
    batch, heads, n_q, d = q.shape
    flash[lambda META: (triton.cdiv(n_q, META["BM"]), batch * heads)](
        q, k, v, out, lse, scale,
        q.stride(0), q.stride(1), q.stride(2), k.stride(0), k.stride(1), k.stride(2),
        v.stride(0), v.stride(1), v.stride(2), out.stride(0), out.stride(1), out.stride(2),
        heads, n_q, k.shape[2], IS_CAUSAL=causal, D=d)
