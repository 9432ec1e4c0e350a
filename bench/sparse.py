"""A kernel with one program per token, as sparse attention has them: each attends to key blocks of its own choice."""

import torch
import triton
import triton.language as tl


@triton.jit
def _sparse_attention(
    Q, K, V, Chosen, Out, scale, tokens, HEADS: tl.constexpr, GROUP: tl.constexpr,
    CHOICES: tl.constexpr, BLOCK: tl.constexpr, D: tl.constexpr,
):  # fmt: skip
    token, head = tl.program_id(0), tl.program_id(1)
    g, n, d = tl.arange(0, GROUP), tl.arange(0, BLOCK), tl.arange(0, D)
    rows = (token * HEADS + head) * GROUP * D + g[:, None] * D + d[None, :]
    q = tl.load(Q + rows)
    high = tl.full((GROUP,), float("-inf"), tl.float32)
    total = tl.zeros((GROUP,), tl.float32)
    acc = tl.zeros((GROUP, D), tl.float32)
    for i in range(CHOICES):
        block = tl.load(Chosen + (token * HEADS + head) * CHOICES + i)
        if block >= 0:
            key = block * BLOCK + n
            visible = key <= token
            k = tl.load(K + (key * HEADS + head)[None, :] * D + d[:, None], mask=visible[None, :], other=0.0)
            v = tl.load(V + (key * HEADS + head)[:, None] * D + d[None, :], mask=visible[:, None], other=0.0)
            scores = tl.where(visible[None, :], tl.dot(q, k) * (scale * 1.4426950408889634), float("-inf"))
            higher = tl.maximum(high, tl.max(scores, 1))
            p = tl.exp2(scores - higher[:, None])
            rescale = tl.exp2(high - higher)
            total = total * rescale + tl.sum(p, 1)
            acc = tl.dot(p.to(v.dtype), v, acc * rescale[:, None])
            high = higher
    tl.store(Out + rows, (acc / total[:, None]).to(Out.dtype.element_ty))


def sparse_attention(tokens: int) -> torch.Tensor:
    """Return the output for made-up fp16 inputs, D=128; every token has its own block and those before it."""
    heads, group, choices, block = 2, 16, 8, 64
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(tokens, heads, group, 128, generator=generator).half()
    k, v = torch.randn(2, tokens, heads, 128, generator=generator).half()
    own = torch.arange(tokens) // block
    chosen = own[:, None, None] - torch.arange(choices)[None, None, :].expand(tokens, heads, choices)
    out = torch.empty_like(q)
    _sparse_attention[(tokens, heads)](
        q, k, v, chosen.clamp(min=-1).to(torch.int32).contiguous(), out, 128**-0.5, tokens,
        HEADS=heads, GROUP=group, CHOICES=choices, BLOCK=block, D=128,
    )  # fmt: skip
    return out
