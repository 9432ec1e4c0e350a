"""Block-scaled fp8 products of torchao, at two of DeepSeek V3's sizes and 4096 tokens.

avo tune bench/tuning/torchao_fp8.py

Needs torchao 0.18.
"""

import torch
from torchao.prototype.blockwise_fp8_training.kernels import (  # type: ignore[import-not-found]
    triton_fp8_gemm_1x128_128x128,
)

for m, n, k in ((4096, 7168, 2048), (4096, 2112, 7168)):
    a = torch.randn(m, k, device="cuda").to(torch.float8_e4m3fn)
    b = torch.randn(n, k, device="cuda").to(torch.float8_e4m3fn).t()
    a_scales = torch.rand(k // 128, m, device="cuda").t()
    b_scales = torch.rand(n // 128, k // 128, device="cuda").t()
    triton_fp8_gemm_1x128_128x128(a, b, a_scales, b_scales, out_dtype=torch.bfloat16)
