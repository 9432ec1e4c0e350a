"""Matrix products as torch's inductor and Triton's tutorials do them."""

import triton
import triton.language as tl


@triton.jit
def grouped(
    A, B, C,
    M: tl.constexpr, N: tl.constexpr, K: tl.constexpr,
    STRIDE_AM: tl.constexpr, STRIDE_AK: tl.constexpr, STRIDE_BK: tl.constexpr, STRIDE_BN: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, GROUP_M: tl.constexpr,
):  # fmt: skip
    """C [M, N] = A [M, K] B [K, N] with all sizes known to the compiler: inductor's template ``triton_mm``.

    GROUP_M rows of tiles at a time share columns of B. Rows past the end wrap around, so loads need a mask along K
    only, and none if BLOCK_K divides K.
    """
    pid = tl.program_id(0)
    tiles_m: tl.constexpr = (M + BLOCK_M - 1) // BLOCK_M
    tiles_n: tl.constexpr = (N + BLOCK_N - 1) // BLOCK_N
    width: tl.constexpr = GROUP_M * tiles_n
    group = pid // width
    rows = min(tiles_m - group * GROUP_M, GROUP_M)
    pid_m = group * GROUP_M + pid % rows
    pid_n = (pid % width) // rows
    tl.assume(pid_m >= 0)
    tl.assume(pid_n >= 0)
    rm = pid_m * BLOCK_M + tl.arange(0, BLOCK_M)
    rn = pid_n * BLOCK_N + tl.arange(0, BLOCK_N)
    am = rm % M
    if ((STRIDE_AM == 1 and STRIDE_AK == M) or (STRIDE_AM == K and STRIDE_AK == 1)) and M >= BLOCK_M:
        am = tl.max_contiguous(tl.multiple_of(am, BLOCK_M), BLOCK_M)
    bn = rn % N
    if ((STRIDE_BK == 1 and STRIDE_BN == K) or (STRIDE_BK == N and STRIDE_BN == 1)) and N >= BLOCK_N:
        bn = tl.max_contiguous(tl.multiple_of(bn, BLOCK_N), BLOCK_N)
    rk = tl.arange(0, BLOCK_K)
    acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for step in range(0, tl.cdiv(K, BLOCK_K)):
        ak = rk[None, :] + step * BLOCK_K
        bk = rk[:, None] + step * BLOCK_K
        if K % BLOCK_K == 0:
            a = tl.load(A + (am[:, None] * STRIDE_AM + ak * STRIDE_AK))
            b = tl.load(B + (bk * STRIDE_BK + bn[None, :] * STRIDE_BN))
        else:
            a = tl.load(A + (am[:, None] * STRIDE_AM + ak * STRIDE_AK), mask=ak < K, other=0.0)
            b = tl.load(B + (bk * STRIDE_BK + bn[None, :] * STRIDE_BN), mask=bk < K, other=0.0)
        acc += tl.dot(a, b, out_dtype=tl.float32)
    rm = (pid_m * BLOCK_M + tl.arange(0, BLOCK_M))[:, None]
    rn = (pid_n * BLOCK_N + tl.arange(0, BLOCK_N))[None, :]
    tl.store(C + (rn + N * rm), acc, (rm < M) & (rn < N))
