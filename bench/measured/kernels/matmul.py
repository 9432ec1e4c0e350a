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
    for step in range(tl.cdiv(K, BLOCK_K)):
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


@triton.jit
def _tile(pid, tiles_m, tiles_n, GROUP_M: tl.constexpr):
    """Return the row and column of a tile of C: GROUP_M rows of tiles at a time share columns of B."""
    width = GROUP_M * tiles_n
    group = pid // width
    first = group * GROUP_M
    rows = min(tiles_m - first, GROUP_M)
    return first + pid % rows, (pid % width) // rows


@triton.jit
def _offsets(tile, length, BLOCK: tl.constexpr):
    """Return the rows of A, or columns of B, of a tile; those past the end are row or column 0."""
    offsets = tile * BLOCK + tl.arange(0, BLOCK)
    offsets = tl.where(offsets < length, offsets, 0)
    return tl.max_contiguous(tl.multiple_of(offsets, BLOCK), BLOCK)


@triton.jit
def _store(C, acc, M, N, tile_m, tile_n, stride_cm, stride_cn, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    rm = (tile_m * BLOCK_M + tl.arange(0, BLOCK_M))[:, None]
    rn = (tile_n * BLOCK_N + tl.arange(0, BLOCK_N))[None, :]
    tl.store(C + stride_cm * rm + stride_cn * rn, acc.to(C.dtype.element_ty), mask=(rm < M) & (rn < N))


@triton.jit
def tiled(
    A, B, C, M, N, K, stride_am, stride_ak, stride_bk, stride_bn, stride_cm, stride_cn,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, GROUP_M: tl.constexpr,
):  # fmt: skip
    """C [M, N] = A [M, K] B [K, N], a program a tile: ``matmul_kernel`` of Triton's tutorial 09."""
    tile_m, tile_n = _tile(tl.program_id(0), tl.cdiv(M, BLOCK_M), tl.cdiv(N, BLOCK_N), GROUP_M)
    am = _offsets(tile_m, M, BLOCK_M)
    bn = _offsets(tile_n, N, BLOCK_N)
    rk = tl.arange(0, BLOCK_K)
    a_ptrs = A + (am[:, None] * stride_am + rk[None, :] * stride_ak)
    b_ptrs = B + (rk[:, None] * stride_bk + bn[None, :] * stride_bn)
    acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for k in range(tl.cdiv(K, BLOCK_K)):
        a = tl.load(a_ptrs, mask=rk[None, :] < K - k * BLOCK_K, other=0.0)
        b = tl.load(b_ptrs, mask=rk[:, None] < K - k * BLOCK_K, other=0.0)
        acc = tl.dot(a, b, acc)
        a_ptrs += BLOCK_K * stride_ak
        b_ptrs += BLOCK_K * stride_bk
    _store(C, acc, M, N, tile_m, tile_n, stride_cm, stride_cn, BLOCK_M, BLOCK_N)


@triton.jit
def persistent(
    A, B, C, M, N, K, stride_am, stride_ak, stride_bk, stride_bn, stride_cm, stride_cn,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, GROUP_M: tl.constexpr, SMS: tl.constexpr,
):  # fmt: skip
    """The same, a program an SM, in one loop over the steps of all of its tiles: ``matmul_kernel_persistent``."""
    start = tl.program_id(0)
    tiles_m = tl.cdiv(M, BLOCK_M)
    tiles_n = tl.cdiv(N, BLOCK_N)
    steps = tl.cdiv(K, BLOCK_K)
    tiles = tiles_m * tiles_n
    mine = tiles // SMS
    if start < tiles % SMS:
        mine += 1
    tile = start - SMS
    step = -1
    rk = tl.arange(0, BLOCK_K)
    tile_m = 0
    tile_n = 0
    am = tl.arange(0, BLOCK_M)
    bn = tl.arange(0, BLOCK_N)
    acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for _ in range(steps * mine):
        step = tl.where(step == steps - 1, 0, step + 1)
        if step == 0:
            tile += SMS
            tile_m, tile_n = _tile(tile, tiles_m, tiles_n, GROUP_M)
            am = _offsets(tile_m, M, BLOCK_M)
            bn = _offsets(tile_n, N, BLOCK_N)
        k = step * BLOCK_K + rk
        inside = K - step * BLOCK_K
        a = tl.load(A + (am[:, None] * stride_am + k[None, :] * stride_ak), mask=rk[None, :] < inside, other=0.0)
        b = tl.load(B + (k[:, None] * stride_bk + bn[None, :] * stride_bn), mask=rk[:, None] < inside, other=0.0)
        acc = tl.dot(a, b, acc)
        if step == steps - 1:
            _store(C, acc, M, N, tile_m, tile_n, stride_cm, stride_cn, BLOCK_M, BLOCK_N)
            acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)


@triton.jit
def _persistent_loop(
    a_desc, b_desc, c_desc, M, N, K,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, GROUP_M: tl.constexpr, SMS: tl.constexpr,
):  # fmt: skip
    start = tl.program_id(0)
    tiles_m = tl.cdiv(M, BLOCK_M)
    tiles_n = tl.cdiv(N, BLOCK_N)
    steps = tl.cdiv(K, BLOCK_K)
    tiles = tiles_m * tiles_n
    mine = tiles // SMS
    if start < tiles % SMS:
        mine += 1
    tile = start - SMS
    step = -1
    row = 0
    column = 0
    acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for _ in range(steps * mine):
        step = tl.where(step == steps - 1, 0, step + 1)
        if step == 0:
            tile += SMS
            tile_m, tile_n = _tile(tile, tiles_m, tiles_n, GROUP_M)
            row = tile_m * BLOCK_M
            column = tile_n * BLOCK_N
        a = a_desc.load([row, step * BLOCK_K])
        b = b_desc.load([column, step * BLOCK_K])
        acc = tl.dot(a, b.T, acc)
        if step == steps - 1:
            c_desc.store([row, column], acc.to(c_desc.dtype))
            acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)


@triton.jit
def persistent_tma(
    a_desc, b_desc, c_desc, M, N, K,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, GROUP_M: tl.constexpr, SMS: tl.constexpr,
):  # fmt: skip
    """The same on descriptors made by the host, with B given as [N, K]: ``matmul_kernel_tma_persistent``."""
    _persistent_loop(a_desc, b_desc, c_desc, M, N, K, BLOCK_M, BLOCK_N, BLOCK_K, GROUP_M, SMS)


@triton.jit
def persistent_descriptors(
    A, B, C, M, N, K,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, GROUP_M: tl.constexpr, SMS: tl.constexpr,
):  # fmt: skip
    """The same on descriptors that each program makes: ``matmul_kernel_descriptor_persistent``."""
    a_desc = tl.make_tensor_descriptor(A, [M, K], [K, 1], [BLOCK_M, BLOCK_K])
    b_desc = tl.make_tensor_descriptor(B, [N, K], [K, 1], [BLOCK_N, BLOCK_K])
    c_desc = tl.make_tensor_descriptor(C, [M, N], [N, 1], [BLOCK_M, BLOCK_N])
    _persistent_loop(a_desc, b_desc, c_desc, M, N, K, BLOCK_M, BLOCK_N, BLOCK_K, GROUP_M, SMS)


@triton.jit
def block_scaled(
    A, B, C, a_scales, b_scales, M, N, K, group_n, group_k,
    stride_am, stride_ak, stride_bk, stride_bn, stride_cm, stride_cn, stride_asm, stride_ask, stride_bsk, stride_bsn,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, GROUP_M: tl.constexpr,
):  # fmt: skip
    """C [M, N] = A [M, K] B [K, N] in fp8 with scales: vLLM's ``w8a8_block_fp8_matmul``.

    Scales are of each row of A and ``group_k`` columns [M, K / group_k], and of blocks of B [K / group_k, N / group_n].
    """
    tile_m, tile_n = _tile(tl.program_id(0), tl.cdiv(M, BLOCK_M), tl.cdiv(N, BLOCK_N), GROUP_M)
    am = (tile_m * BLOCK_M + tl.arange(0, BLOCK_M)) % M
    bn = (tile_n * BLOCK_N + tl.arange(0, BLOCK_N)) % N
    rk = tl.arange(0, BLOCK_K)
    a_ptrs = A + (am[:, None] * stride_am + rk[None, :] * stride_ak)
    b_ptrs = B + (rk[:, None] * stride_bk + bn[None, :] * stride_bn)
    a_scale_ptrs = a_scales + am * stride_asm
    b_scale_ptrs = b_scales + (bn // group_n) * stride_bsn
    acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for k in range(tl.cdiv(K, BLOCK_K)):
        a = tl.load(a_ptrs, mask=rk[None, :] < K - k * BLOCK_K, other=0.0)
        b = tl.load(b_ptrs, mask=rk[:, None] < K - k * BLOCK_K, other=0.0)
        group = k * BLOCK_K // group_k
        a_scale = tl.load(a_scale_ptrs + group * stride_ask)
        b_scale = tl.load(b_scale_ptrs + group * stride_bsk)
        acc += tl.dot(a, b) * a_scale[:, None] * b_scale[None, :]
        a_ptrs += BLOCK_K * stride_ak
        b_ptrs += BLOCK_K * stride_bk
    _store(C, acc, M, N, tile_m, tile_n, stride_cm, stride_cn, BLOCK_M, BLOCK_N)
