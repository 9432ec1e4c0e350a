"""``selected_attention``: the selected branch of native sparse attention by the kernels of this package."""

import math
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

from ._dispatch import NAMESPACE, Call, as_judged, candidates, choose, decline, empty_like, gradients_by, launch

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
    return_lse: bool = False,
    on_unsupported: str | None = None,
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    """Return causal attention in which each query sees the keys of the blocks that it selects.

    query is [batch, heads, length, head_dim], key and value [batch, kv_heads, length, head_dim]; kv_heads may be a
    divisor of heads. block_indices is an integer tensor [batch, kv_heads, length, blocks]: numbers of blocks of
    ``block_size`` keys, ascending, padded with -1 at the end. Query t sees key u if u <= t and u // block_size is among
    the numbers of t. These must include the query's own block and no block behind it. The result has the shape and type
    of ``query``. ``scale`` is 1 / sqrt(head_dim) unless given. With ``return_lse`` the result is (out, lse): lse is
    float32 [batch, heads, length], the natural logarithm of the sum of exponentials of the scaled scores that a query
    sees, and has no gradient.

    Gradients come from a backward kernel if the package has one for the call; otherwise torch computes the call again.
    A call that no kernel takes goes to ``scaled_dot_product_attention`` with a mask, with one warning for each reason,
    or raises ``UnsupportedCall`` if ``on_unsupported`` is ``"raise"`` rather than ``"sdpa"``. The default is the
    environment's AVO_ON_UNSUPPORTED.
    """
    _check(query, key, value, block_indices, block_size)
    factor = 1.0 / math.sqrt(query.shape[3]) if scale is None else float(scale)
    reason = _unsupported(query, key, value, block_indices, block_size, factor)
    if reason:
        decline(reason, on_unsupported)
        out = by_torch(query, key, value, block_indices, block_size, factor)
        return (out, lse_by_torch(query, key, block_indices, block_size, factor)) if return_lse else out
    out, lse = _forward(query, key, value, block_indices.to(torch.int32), block_size, factor)
    return (out, lse) if return_lse else out


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
    return candidates(_call(query, key, value, block_size))[1]


def _call(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, block_size: int) -> Call:
    dims, group = (query.shape[3], value.shape[3]), query.shape[1] // key.shape[1]
    return Call("selected_attention", query.device, query.dtype, dims, group, causal=True, block_size=block_size)


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
    given = {name: as_judged(each) for name, each in {"q": query, "k": key, "v": value}.items()}
    given |= {"block_indices": block_indices.contiguous(), "out": out, "lse": lse}
    kernel = choose(_call(query, key, value, block_size), query.shape[2], key.shape[2])
    launch(kernel, given, {"block_size": block_size, "scale": scale})
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
    return empty_like(query, value.shape[3]), query.new_empty(query.shape[:3], dtype=torch.float32)


@torch.library.custom_op(f"{NAMESPACE}::selected_attention_backward", mutates_args=())
def _gradients(
    dout: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    block_indices: torch.Tensor,
    out: torch.Tensor,
    lse: torch.Tensor,
    block_size: int,
    scale: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    made = _empty_gradients(dout, query, key, value, block_indices, out, lse, block_size, scale)
    tensors = {"q": query, "k": key, "v": value, "out": out, "dout": dout}
    given = {name: as_judged(each) for name, each in tensors.items()}
    given |= {"block_indices": block_indices.contiguous(), "lse": lse}
    given |= dict(zip(("dq", "dk", "dv"), made, strict=True))
    kernel = choose(_call(query, key, value, block_size), query.shape[2], key.shape[2], backward=True)
    launch(kernel, given, {"block_size": block_size, "scale": scale})
    dq, dk, dv = made
    return dq, dk, dv


@_gradients.register_fake
def _empty_gradients(
    dout: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    block_indices: torch.Tensor,
    out: torch.Tensor,
    lse: torch.Tensor,
    block_size: int,
    scale: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    dq, dk, dv = (empty_like(tensor, tensor.shape[3]) for tensor in (query, key, value))
    return dq, dk, dv


def _remember(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, torch.Tensor]) -> None:
    query, key, value, block_indices, ctx.block_size, ctx.scale = inputs
    ctx.by_kernel = bool(gradients_by(_call(query, key, value, ctx.block_size)))
    ctx.save_for_backward(
        query, key, value, block_indices, *(output if ctx.by_kernel else ())
    )  # torch computes all else again
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad: torch.Tensor | None, _: None) -> tuple[torch.Tensor | None, ...]:
    if grad is None:
        return None, None, None, None, None, None
    if ctx.by_kernel:
        return *_gradients(grad, *ctx.saved_tensors, ctx.block_size, ctx.scale), None, None, None
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
    parts = []
    for start in range(0, query.shape[2], _ROWS):
        mask = _selected(query, block_indices, block_size, start)
        part = query[:, :, start : start + _ROWS]
        parts.append(scaled_dot_product_attention(part, key, value, mask, scale=scale, enable_gqa=True))
    return torch.cat(parts, 2)


def lse_by_torch(
    query: torch.Tensor, key: torch.Tensor, block_indices: torch.Tensor, block_size: int, scale: float
) -> torch.Tensor:
    """Return the logarithm of each query's sum of exponentials, float32 [batch, heads, length], without gradients."""
    keys, parts = key.detach().float().repeat_interleave(query.shape[1] // key.shape[1], 1).transpose(2, 3), []
    for start in range(0, query.shape[2], _ROWS):
        scores = query.detach()[:, :, start : start + _ROWS].float() @ keys * scale
        parts.append(scores.masked_fill(~_selected(query, block_indices, block_size, start), -math.inf).logsumexp(3))
    return torch.cat(parts, 2)


def _selected(query: torch.Tensor, block_indices: torch.Tensor, block_size: int, start: int) -> torch.Tensor:
    """Return which keys ``_ROWS`` queries from ``start`` on see, bool [batch, heads, rows, length]."""
    heads, length = query.shape[1:3]
    keys = torch.arange(length, device=query.device)
    rows, chosen = keys[start : start + _ROWS], block_indices[:, :, start : start + _ROWS]
    blocks = (length + block_size - 1) // block_size
    selected = torch.zeros(*chosen.shape[:3], blocks + 1, dtype=torch.bool, device=query.device)
    selected = selected.scatter(3, chosen.long() + 1, True)  # the first column takes what is -1
    visible = selected[..., 1:].repeat_interleave(block_size, 3)[..., :length] & (keys <= rows[:, None])
    return visible.repeat_interleave(heads // chosen.shape[1], 1)
