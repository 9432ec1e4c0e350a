"""Tuning one's own kernel without a GPU: a script for ``avo tune``.

    avo tune examples/tune_matmul.py --target h100 --target b200

The kernel is an ordinary autotuned matrix product, and the script calls it as any script would, at the sizes that
matter. ``avo tune`` runs it without executing the kernel, predicts every configuration and prints them ranked. One of
them does not fit an H100, which is said with the reason. docs/tune.md describes the command.
"""

import torch
import triton
import triton.language as tl


def configurations() -> list[triton.Config]:
    """Return the configurations to choose from."""
    tiles = [(64, 64, 32, 4), (64, 128, 64, 4), (128, 128, 64, 4), (128, 128, 64, 8), (128, 256, 64, 8)]
    found = [
        triton.Config({"BLOCK_M": m, "BLOCK_N": n, "BLOCK_K": k}, num_warps=warps, num_stages=3)
        for m, n, k, warps in tiles
    ]
    return [*found, triton.Config({"BLOCK_M": 128, "BLOCK_N": 256, "BLOCK_K": 128}, num_warps=8, num_stages=4)]


@triton.autotune(configurations(), key=["m", "n", "k"])
@triton.jit
def matmul_kernel(a, b, c, m, n, k, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr):
    i = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    j = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    inner = tl.arange(0, BLOCK_K)
    a += i[:, None] * k + inner[None, :]
    b += inner[:, None] * n + j[None, :]
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for _ in range(0, k, BLOCK_K):
        total = tl.dot(tl.load(a), tl.load(b), total)
        a += BLOCK_K
        b += BLOCK_K * n
    tl.store(c + i[:, None] * n + j[None, :], total.to(tl.bfloat16))


def matmul(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return ``a`` [m, k] times ``b`` [k, n]; the sizes are multiples of 256."""
    (m, k), n = a.shape, b.shape[1]
    c = torch.empty(m, n, dtype=a.dtype, device=a.device)
    matmul_kernel[lambda meta: (m // meta["BLOCK_M"], n // meta["BLOCK_N"])](a, b, c, m, n, k)
    return c


def main() -> None:
    """Call the kernel at the sizes to tune for."""
    for m, n, k in ((512, 4096, 4096), (8192, 8192, 8192)):
        a = torch.randn(m, k, dtype=torch.bfloat16, device="cuda")
        b = torch.randn(k, n, dtype=torch.bfloat16, device="cuda")
        matmul(a, b)


if __name__ == "__main__":
    main()
