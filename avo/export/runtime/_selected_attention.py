"""``selected_attention``: the selected branch of native sparse attention by the kernels of this package."""

import math
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

from ._dispatch import NAMESPACE, as_judged, candidates, choose, decline, run

_ROWS = 1024
"""Number of queries that torch takes at once: for each query head it needs a mask of these by all keys."""


def selected_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    block_indices: torch.Tensor,
    *,
    block_size: int,
    scale: float | None = None,
    on_unsupported: str | None = None,
) -> torch.Tensor:
    """Return causal attention in which each query sees the keys of the blocks that it selects.

    query is [batch, heads, length, head_dim], key and value [batch, kv_heads, length, head_dim]; kv_heads may be a
    divisor of heads. block_indices is an integer tensor [batch, kv_heads, length, blocks]: numbers of blocks of
    ``block_size`` keys, ascending, padded with -1 at the end. Query t sees key u if u <= t and u // block_size is among
    the numbers of t. These must include the query's own block and no block behind it. The result has the shape and type
    of ``query``. ``scale`` is 1 / sqrt(head_dim) unless given.

    The kernels compute the forward pass only; for gradients torch computes the call again. A call that no kernel takes
    goes to ``scaled_dot_product_attention`` with a mask, with one warning for each reason, or raises
    ``UnsupportedCall`` if ``on_unsupported`` is ``"raise"`` rather than ``"sdpa"``. The default is the
    environment's AVO_ON_UNSUPPORTED.
    """
    _check(query, key, value, block_indices, block_size)
    factor = 1.0 / math.sqrt(query.shape[3]) if scale is None else float(scale)
    reason = _unsupported(query, key, value, block_indices, block_size, factor)
    if reason:
        decline(reason, on_unsupported)
        return by_torch(query, key, value, block_indices, block_size, factor)
    out: torch.Tensor = _forward(query, key, value, block_indices.to(torch.int32), block_size, factor)[0]
    return out


def _check(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, block_indices: torch.Tensor, block_size: int
) -> None:
    if not query.ndim == key.ndim == value.ndim == block_indices.ndim == 4:
        raise ValueError("query, key, value and block_indices should have 4 dimensions")
    batch, heads, length, head_dim = query.shape
    if key.shape != value.shape or (key.shape[0], key.shape[2], key.shape[3]) != (batch, length, head_dim):
        raise ValueError(f"shapes do not fit together: {query.shape}, {key.shape}, {value.shape}")
    if key.shape[1] == 0 or heads % key.shape[1]:
        raise ValueError(f"{heads} query heads cannot share {key.shape[1]} KV heads")
    if block_indices.shape[:3] != (batch, key.shape[1], length):
        raise ValueError(f"block_indices should be [batch, kv_heads, length, blocks], not {block_indices.shape}")
    if block_size < 1:
        raise ValueError(f"block_size should be positive, not {block_size}")


def _unsupported(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    block_indices: torch.Tensor,
    block_size: int,
    scale: float,
) -> str:
    """Return in a few words why no kernel takes a call; an empty string where one does."""
    if not scale > 0.0:
        return "a scale that is not positive"
    if not query.dtype == key.dtype == value.dtype:
        return "tensors of different types"
    if not query.device == key.device == value.device == block_indices.device:
        return "tensors on different devices"
    if query.numel() == 0 or block_indices.numel() == 0:
        return "tensors without elements"
    return candidates("selected_attention", query, query.shape[1] // key.shape[1], block_size)[1]


@torch.library.custom_op(f"{NAMESPACE}::selected_attention", mutates_args=())
def _forward(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    block_indices: torch.Tensor,
    block_size: int,
    scale: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    out, lse = _empty(query, key, value, block_indices, block_size, scale)
    kernel = choose("selected_attention", query, key, True, block_size)
    q, k, v = (as_judged(tensor) for tensor in (query, key, value))
    blocks = block_indices.contiguous()
    run(kernel.selected_attention, q, k, v, blocks, out, lse, block_size=block_size, scale=scale)
    return out, lse


@_forward.register_fake
def _empty(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    block_indices: torch.Tensor,
    block_size: int,
    scale: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.empty_like(query), torch.empty(query.shape[:3], dtype=torch.float32, device=query.device)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, torch.Tensor]) -> None:
    *tensors, ctx.block_size, ctx.scale = inputs
    ctx.save_for_backward(*tensors)
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad: torch.Tensor | None, _: None) -> tuple[torch.Tensor | None, ...]:
    if grad is None:
        return None, None, None, None, None, None
    *tensors, block_indices = ctx.saved_tensors
    with torch.enable_grad():
        query, key, value = (tensor.detach().requires_grad_() for tensor in tensors)
        out = by_torch(query, key, value, block_indices, ctx.block_size, ctx.scale)
        return *torch.autograd.grad(out, (query, key, value), grad), None, None, None


_forward.register_autograd(_backward, setup_context=_remember)


def by_torch(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    block_indices: torch.Tensor,
    block_size: int,
    scale: float,
) -> torch.Tensor:
    """Return what ``selected_attention`` returns, computed by torch alone."""
    heads, length = query.shape[1:3]
    keys = torch.arange(length, device=query.device)
    parts = []
    for start in range(0, length, _ROWS):
        rows, chosen = keys[start : start + _ROWS], block_indices[:, :, start : start + _ROWS]
        blocks = (length + block_size - 1) // block_size
        selected = torch.zeros(*chosen.shape[:3], blocks + 1, dtype=torch.bool, device=query.device)
        selected = selected.scatter(3, chosen.long() + 1, True)  # the first column takes what is -1
        visible = selected[..., 1:].repeat_interleave(block_size, 3)[..., :length] & (keys <= rows[:, None])
        mask = visible.repeat_interleave(heads // key.shape[1], 1)
        part = query[:, :, start : start + _ROWS]
        parts.append(scaled_dot_product_attention(part, key, value, mask, scale=scale, enable_gqa=True))
    return torch.cat(parts, 2)
