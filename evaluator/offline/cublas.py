"""Stands in for the part of cuBLAS that Triton binds: its tutorials load it when they are imported."""

import torch

Tensor = torch.Tensor


class CublasLt:
    """Products by torch, with the signatures of ``triton._C.libtriton.nvidia.cublas.CublasLt``."""

    def __init__(self, workspace: Tensor) -> None:
        pass

    def matmul(self, a: Tensor, b: Tensor, c: Tensor) -> None:
        """Store the product of ``a`` [M, K] and the transpose of ``b`` [N, K] into ``c`` [M, N]."""
        self.gemm(a, b, c, c, 1.0, 0.0)

    def gemm(self, a: Tensor, b: Tensor, c: Tensor, d: Tensor, alpha: float, beta: float) -> None:
        """Store ``alpha`` times that product plus ``beta`` times ``c`` into ``d`` [M, N]."""
        result = alpha * (a.float() @ b.float().T)
        d.copy_(result + beta * c.float() if beta else result)
