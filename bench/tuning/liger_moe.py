"""Liger's fused mixture of experts, forward, at the sizes of Qwen3-30B-A3B: 128 experts, 8 for each of 8192 tokens.

avo tune bench/tuning/liger_moe.py

Needs liger-kernel 0.8.5.
"""

import torch
from liger_kernel.ops.fused_moe import LigerFusedMoEFunction

TOKENS, HIDDEN, INNER, EXPERTS, CHOSEN = 8192, 2048, 768, 128, 8

x = torch.randn(TOKENS, HIDDEN, dtype=torch.bfloat16, device="cuda")
gate_up = torch.randn(EXPERTS, 2 * INNER, HIDDEN, dtype=torch.bfloat16, device="cuda")
down = torch.randn(EXPERTS, HIDDEN, INNER, dtype=torch.bfloat16, device="cuda")
index = torch.rand(TOKENS, EXPERTS).argsort(dim=1)[:, :CHOSEN].int().cuda()
weights = torch.rand(TOKENS, CHOSEN, device="cuda")
LigerFusedMoEFunction.apply(x, gate_up, down, index, weights)
