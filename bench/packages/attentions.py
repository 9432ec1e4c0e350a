"""Packages with attention kernels, forward and backward, against attention in float32."""

# mypy: disable-error-code="import-not-found,misc,no-any-return"
# The packages are not installed where types are checked.

import math
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F

from bench.packages.harness import Trial, gradients

Tensor = torch.Tensor


def exact(q: Tensor, k: Tensor, v: Tensor, causal: bool = False, scale: float | None = None) -> Tensor:
    """Return softmax attention of [..., heads, tokens, D] with fewer key heads."""
    groups = q.shape[-3] // k.shape[-3]
    k, v = k.repeat_interleave(groups, -3), v.repeat_interleave(groups, -3)
    scores = q.float() @ k.float().transpose(-1, -2) * (q.shape[-1] ** -0.5 if scale is None else scale)
    if causal:
        scores = scores.masked_fill(torch.ones(scores.shape[-2:]).triu(1).bool(), -math.inf)
    return (scores.softmax(-1) @ v.float()).to(q.dtype)


def _qkv(heads: int, keys: int, tokens: int, dim: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    shapes = ((2, heads, tokens, dim), (2, keys, tokens, dim), (2, keys, tokens, dim))
    q, k, v = (torch.randn(shape).to(dtype) for shape in shapes)
    return q, k, v


def sage(trial: Trial) -> None:
    """Int8 attention: as close as eight bits are."""
    from sageattention import sageattn, sageattn_varlen

    for dtype in (torch.float16, torch.bfloat16):
        for heads, keys, tokens, dim in ((2, 2, 200, 64), (4, 2, 130, 128), (2, 2, 100, 96)):
            for causal in (False, True):
                q, k, v = _qkv(heads, keys, tokens, dim, dtype)
                trial.case(
                    f"sageattn {str(dtype)[6:]} {heads}x{keys}x{tokens}x{dim} {causal}",
                    lambda q=q, k=k, v=v, causal=causal: sageattn(q, k, v, is_causal=causal),
                    lambda q=q, k=k, v=v, causal=causal: exact(q, k, v, causal),
                    rtol=0.1,
                    atol=0.08,
                )
    ends = torch.tensor([0, 40, 170, 200], dtype=torch.int32)
    q, k, v = (torch.randn(200, 2, 64).half() for _ in range(3))
    for causal in (False, True):
        parts = []
        for start, end in pairwise(ends.tolist()):
            a, b, c = (t[start:end].transpose(0, 1) for t in (q, k, v))
            parts.append(exact(a, b, c, causal).transpose(0, 1))
        trial.case(
            f"sageattn_varlen {causal}",
            lambda causal=causal: sageattn_varlen(q, k, v, ends, ends, 130, 130, is_causal=causal),
            lambda parts=parts: torch.cat(parts),
            rtol=0.1,
            atol=0.08,
        )


def entmax(scores: Tensor, alpha: float) -> Tensor:
    """Return entmax along the last dimension by bisection: Peters and others, Sparse Sequence-to-Sequence Models."""
    x = scores.double() * (alpha - 1)
    low, high = x.amax(-1, keepdim=True) - 1, x.amax(-1, keepdim=True)
    for _ in range(60):
        middle = (low + high) / 2
        more = ((x - middle).clamp(min=0) ** (1 / (alpha - 1))).sum(-1, keepdim=True) >= 1
        low, high = torch.where(more, middle, low), torch.where(more, high, middle)
    p = (x - low).clamp(min=0) ** (1 / (alpha - 1))
    return p / p.sum(-1, keepdim=True)


def splash(trial: Trial) -> None:
    """Entmax and attention with it."""
    import adasplash

    for alpha in (1.5, 2.0):
        x = torch.randn(9, 300)
        trial.case(
            f"triton_entmax_v1 {alpha}",
            lambda x=x, alpha=alpha: adasplash.triton_entmax_v1(x, alpha),
            lambda x=x, alpha=alpha: entmax(x, alpha).float(),
            atol=1e-3,
            rtol=1e-2,
        )
        trial.case(
            f"triton_entmax_v2 {alpha}",
            lambda x=x, alpha=alpha: adasplash.triton_entmax_v2(x, alpha),
            lambda x=x, alpha=alpha: entmax(x, alpha).float(),
            atol=1e-3,
            rtol=1e-2,
        )
    for causal in (False, True):
        for name in ("adasplash_v1", "adasplash_no_block_mask"):
            q, k, v = _qkv(2, 2, 128, 64, torch.float32)
            scores = q @ k.transpose(-1, -2) / 8
            hidden = torch.ones(128, 128).triu(1).bool() & causal
            expected = entmax(scores.masked_fill(hidden, -1e4), 1.5).float() @ v
            trial.case(
                f"{name} {causal}",
                lambda name=name, q=q, k=k, v=v, c=causal: getattr(adasplash, name)(q, k, v, 1.5, is_causal=c),
                lambda expected=expected: expected,
                atol=2e-2,
                rtol=2e-2,
            )
    q, k, v = _qkv(2, 2, 128, 64, torch.bfloat16)
    scores = (q.float() @ k.float().transpose(-1, -2) / 8).masked_fill(torch.ones(128, 128).triu(1).bool(), -1e4)
    trial.case(
        "adasplash_v2",
        lambda: adasplash.adasplash_v2(q, k, v),
        lambda: (entmax(scores, 1.5).float() @ v.float()).bfloat16(),
        atol=4e-2,
        rtol=4e-2,
    )


def flash(trial: Trial) -> None:
    """flash-attention-triton, which is causal."""
    from flash_attention_triton import flash_attention_v2

    for tokens, dim in ((128, 64), (200, 64), (65, 128)):
        inputs = _qkv(2, 2, tokens, dim, torch.float16)
        trial.case(
            f"flash_attention_v2 {tokens}x{dim}",
            lambda inputs=inputs: gradients(flash_attention_v2, inputs),
            lambda inputs=inputs: gradients(lambda q, k, v: exact(q, k, v, causal=True), inputs),
            rtol=3e-2,
            atol=3e-2,
        )


def jvp(trial: Trial) -> None:
    """jvp-flash-attention, without tangents."""
    from jvp_flash_attention.jvp_attention import attention

    for causal in (False, True):
        for tokens, dim in ((128, 64), (256, 32)):
            inputs = _qkv(2, 2, tokens, dim, torch.float16)
            trial.case(
                f"attention {tokens}x{dim} {causal}",
                lambda inputs=inputs, causal=causal: gradients(
                    lambda q, k, v: attention(q, k, v, causal=causal), inputs
                ),
                lambda inputs=inputs, causal=causal: gradients(lambda q, k, v: exact(q, k, v, causal), inputs),
                rtol=3e-2,
                atol=3e-2,
            )


def cce(trial: Trial) -> None:
    """cut-cross-entropy: classifier and loss in one."""
    from cut_cross_entropy import linear_cross_entropy

    for dtype in (torch.float16, torch.bfloat16):
        for tokens, classes, dim in ((100, 300, 64), (33, 1000, 128)):
            e, c = torch.randn(tokens, dim).to(dtype), (torch.randn(classes, dim) / 4).to(dtype)
            targets = torch.randint(0, classes, (tokens,))
            targets[1] = -100
            for options in ({}, {"softcap": 10.0}, {"reduction": "sum"}, {"shift": True}):
                trial.case(
                    f"linear_cross_entropy {str(dtype)[6:]} {tokens}x{classes}x{dim} {options}",
                    lambda e=e, c=c, t=targets, o=options: gradients(
                        lambda e, c: linear_cross_entropy(e, c, t, filter_eps=None, **o), (e, c)
                    ),
                    lambda e=e, c=c, t=targets, o=options: gradients(
                        lambda e, c: _linear_cross_entropy(e, c, t, **o), (e, c)
                    ),
                    rtol=5e-2,
                    atol=2e-2,
                )


def _linear_cross_entropy(
    e: Tensor, c: Tensor, targets: Tensor, softcap: float = 0.0, reduction: str = "mean", shift: bool = False
) -> Tensor:
    if shift:
        e, targets = e[:-1], targets[1:]
    logits = e.float() @ c.float().T
    if softcap:
        logits = softcap * torch.tanh(logits / softcap)
    return F.cross_entropy(logits, targets, reduction=reduction)


def interaction(trial: Trial) -> None:
    """late-interaction-kernels: MaxSim."""
    import late_interaction_kernels as late

    def maxsim(q: Tensor, d: Tensor, mask: Tensor | None = None) -> Tensor:
        scores = torch.einsum("aid,bjd->abij", q.float(), d.float())
        if mask is not None:
            scores = scores.masked_fill(~mask[None, :, None], -math.inf)
        return scores.amax(-1).sum(-1)

    for dtype in (torch.float16, torch.bfloat16):
        for queries, documents, long, wide, dim in ((3, 5, 12, 70, 128), (2, 4, 32, 33, 64)):
            q = F.normalize(torch.randn(queries, long, dim), dim=-1).to(dtype)
            d = F.normalize(torch.randn(documents, wide, dim), dim=-1).to(dtype)
            mask = torch.arange(wide)[None] < torch.randint(1, wide, (documents, 1))
            title = f"{str(dtype)[6:]} {queries}x{documents}x{long}x{wide}x{dim}"
            for backward in ("unified", "lowmem"):
                trial.case(
                    f"maxsim {backward} {title}",
                    lambda q=q, d=d, b=backward: gradients(lambda q, d: late.maxsim(q, d, backward=b), (q, d)),
                    lambda q=q, d=d: gradients(maxsim, (q, d)),
                    rtol=3e-2,
                    atol=3e-2,
                )
            trial.case(
                f"maxsim masked {title}",
                lambda q=q, d=d, m=mask: late.maxsim(q, d, d_mask=m),
                lambda q=q, d=d, m=mask: maxsim(q, d, m),
                rtol=2e-2,
                atol=2e-2,
            )
            trial.case(
                f"maxsim_pairs {title}",
                lambda q=q, d=d: late.maxsim_pairs(q, d[: len(q)]),
                lambda q=q, d=d: maxsim(q, d[: len(q)]).diagonal(),
                rtol=2e-2,
                atol=2e-2,
            )
            trial.case(
                f"retrieve {title}",
                lambda q=q, d=d: late.retrieve(q, d, 2, normalize=False)[0],
                lambda q=q, d=d: maxsim(q, d).topk(2).values,
                rtol=2e-2,
                atol=2e-2,
            )


def contrastive(trial: Trial) -> None:
    """siglip-kernel: every variant of the loss that the target has."""
    import siglip_kernel

    def reference(a: Tensor, b: Tensor, t: Tensor, bias: Tensor) -> Tensor:
        logits = a.float() @ b.float().T * t.float().exp() + bias.float()
        signs = 2 * torch.eye(len(a)) - 1
        return -F.logsigmoid(signs * logits).sum() / len(a)

    names = (
        "chunked_siglip_loss",
        "fully_fused_siglip_loss",
        "fused_chunked_bf16_siglip_loss",
        "fused_chunked_bf16_pipelined_siglip_loss",
        "fused_chunked_epilogue_siglip_loss",
        "fused_siglip_v2_loss",
        "hopper_fused_siglip_loss",
    )
    for size, dim in ((128, 64), (96, 128)):
        inputs: tuple[Any, ...] = (
            *(F.normalize(torch.randn(size, dim), dim=-1).bfloat16() for _ in range(2)),
            torch.tensor(2.3),
            torch.tensor(-5.0),
        )
        for name in names:
            trial.case(
                f"{name} {size}x{dim}",
                lambda name=name, inputs=inputs: gradients(getattr(siglip_kernel, name), inputs),
                lambda inputs=inputs: gradients(reference, inputs),
                rtol=5e-2,
                atol=5e-3,
            )
