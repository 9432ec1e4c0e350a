"""Gated linear attention of flash-linear-attention, forward: 2 sequences of 8192 tokens, 16 heads of 128.

avo tune bench/tuning/fla_gla.py

Needs fla-core 0.6 and einops.
"""

import torch
from fla.ops.gla import chunk_gla  # type: ignore[import-not-found]

q, k, v, gate = (torch.randn(2, 8192, 16, 128, dtype=torch.bfloat16, device="cuda") for _ in range(4))
chunk_gla(q, k, v, torch.nn.functional.logsigmoid(gate))
