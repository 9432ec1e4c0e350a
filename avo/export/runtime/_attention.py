"""``attention``: scaled dot product attention by the kernels of this package."""

import math
from typing import Any

import torch
from torch.nn.attention.bias import CausalBias, CausalVariant
from torch.nn.functional import scaled_dot_product_attention

from ._dispatch import NAMESPACE, as_judged, candidates, choose, decline, run


def attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    *,
    on_unsupported: str | None = None,
) -> torch.Tensor:
    """Return what ``torch.nn.functional.scaled_dot_product_attention`` returns for the same arguments.

    query is [batch, heads, q_len, head_dim], key and value [batch, kv_heads, kv_len, head_dim]; with ``enable_gqa``
    kv_heads may be a divisor of heads. ``is_causal`` lets query i see the keys up to i. Of masks, the kernels take
    ``torch.nn.attention.bias.causal_lower_right``: query i sees the keys up to i + kv_len - q_len.

    The kernels compute the forward pass only; for gradients torch computes the call again. A call that no kernel takes
    goes to ``scaled_dot_product_attention``, with one warning for each reason, or raises ``UnsupportedCall`` if
    ``on_unsupported`` is ``"raise"`` rather than ``"sdpa"``. The default is the environment's AVO_ON_UNSUPPORTED.
    """
    reason = _unsupported(query, key, value, attn_mask, dropout_p, is_causal, scale, enable_gqa)
    if reason:
        decline(reason, on_unsupported)
        return scaled_dot_product_attention(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
        )
    if is_causal and key.shape[2] > query.shape[2]:
        key, value = key[:, :, : query.shape[2]], value[:, :, : query.shape[2]]
    factor = 1.0 / math.sqrt(query.shape[3]) if scale is None else float(scale)
    out: torch.Tensor = _forward(query, key, value, is_causal or attn_mask is not None, factor)[0]
    return out


def _unsupported(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None,
    dropout_p: float,
    is_causal: bool,
    scale: float | None,
    enable_gqa: bool,
) -> str:
    """Return in a few words why no kernel takes a call; an empty string where one does."""
    if dropout_p > 0.0:
        return "dropout"
    if attn_mask is not None and (is_causal or not _is_lower_right(attn_mask)):
        return "this mask"
    if scale is not None and not scale > 0.0:
        return "a scale that is not positive"
    if not query.ndim == key.ndim == value.ndim == 4:
        return "tensors without 4 dimensions"
    if key.shape != value.shape or query.shape[0] != key.shape[0] or query.shape[3] != key.shape[3]:
        return "shapes that differ"
    if not query.dtype == key.dtype == value.dtype or not query.device == key.device == value.device:
        return "tensors of different types or devices"
    if query.numel() == 0 or key.numel() == 0:
        return "tensors without elements"
    heads, kv_heads = query.shape[1], key.shape[1]
    if heads % kv_heads or (heads != kv_heads and not enable_gqa):
        return f"{heads} query heads on {kv_heads} KV heads"
    if (is_causal or attn_mask is not None) and query.shape[2] > key.shape[2]:
        return "causal attention with more queries than keys"
    return candidates("attention", query, heads // kv_heads)[1]


def _is_lower_right(mask: torch.Tensor) -> bool:
    return isinstance(mask, CausalBias) and mask.variant == CausalVariant.LOWER_RIGHT


@torch.library.custom_op(f"{NAMESPACE}::attention", mutates_args=())
def _forward(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, causal: bool, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    out, lse = _empty(query, key, value, causal, scale)
    kernel = choose("attention", query, key, causal)
    q, k, v = (as_judged(tensor) for tensor in (query, key, value))
    run(kernel.attention, q, k, v, out, lse, causal=causal, scale=scale)
    return out, lse


@_forward.register_fake
def _empty(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, causal: bool, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.empty_like(query), torch.empty(query.shape[:3], dtype=torch.float32, device=query.device)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, torch.Tensor]) -> None:
    query, key, value, ctx.causal, ctx.scale = inputs
    ctx.save_for_backward(query, key, value)
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad: torch.Tensor | None, _: None) -> tuple[torch.Tensor | None, ...]:
    if grad is None:
        return None, None, None, None, None
    with torch.enable_grad():
        query, key, value = (tensor.detach().requires_grad_() for tensor in ctx.saved_tensors)
        out = by_torch(query, key, value, ctx.causal, ctx.scale)
        return *torch.autograd.grad(out, (query, key, value), grad), None, None


def by_torch(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, causal: bool, scale: float) -> torch.Tensor:
    """Return what the kernels return, computed by torch; causal is aligned to the lower right."""
    q_len, kv_len = query.shape[2], key.shape[2]
    mask = None
    if causal and q_len != kv_len:
        mask = torch.ones(q_len, kv_len, dtype=torch.bool, device=query.device).tril(kv_len - q_len)
    return scaled_dot_product_attention(
        query, key, value, mask, is_causal=causal and mask is None, scale=scale, enable_gqa=True
    )


_forward.register_autograd(_backward, setup_context=_remember)
