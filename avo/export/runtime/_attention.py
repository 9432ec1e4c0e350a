"""``attention`` and ``packed_attention``: scaled dot product attention by the kernels of this package."""

import math
from typing import Any

import torch
from torch.nn.attention.bias import CausalBias, CausalVariant

from . import _by_torch
from ._dispatch import (
    NAMESPACE,
    SIDE_BY_SIDE,
    Call,
    as_judged,
    autocast,
    candidates,
    choose,
    decline,
    empty_gradients,
    empty_outputs,
    gradients_by,
    launch,
    length_of,
)

Result = torch.Tensor | tuple[torch.Tensor, torch.Tensor]


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
    window: int | None = None,
    sinks: torch.Tensor | None = None,
    return_lse: bool = False,
    on_unsupported: str | None = None,
) -> Result:
    """Return what ``torch.nn.functional.scaled_dot_product_attention`` returns for the same arguments.

    query is [batch, heads, q_len, head_dim], key [batch, kv_heads, kv_len, head_dim] and value [batch, kv_heads,
    kv_len, head_dim_v]; with ``enable_gqa`` kv_heads may be a divisor of heads. ``is_causal`` lets query i see the keys
    up to i. The only mask that the kernels take is ``torch.nn.attention.bias.causal_lower_right``: query i sees the
    keys up to i + kv_len - q_len. With ``window``, which needs one of these two, it sees the last ``window`` of them.
    ``sinks`` [heads] are logits that take part in the softmax and have no value. With ``return_lse`` the result is
    (out, lse): lse is float32 [batch, heads, q_len], the natural logarithm of the sum of exponentials of the scaled
    scores and sinks, and has no gradient.

    Under ``torch.autocast`` query, key and value are taken in its type. Gradients come from a backward kernel if the
    package has one for the call; otherwise torch computes the call again. A call that no kernel takes is computed by
    torch, with one warning for each reason, or raises ``UnsupportedCall`` if ``on_unsupported`` is ``"raise"`` rather
    than ``"sdpa"``. The default is the environment's AVO_ON_UNSUPPORTED.
    """
    lower_right = isinstance(attn_mask, CausalBias) and attn_mask.variant == CausalVariant.LOWER_RIGHT
    if is_causal and lower_right:
        raise ValueError("is_causal aligns to the upper left, causal_lower_right to the lower right: leave one out")
    query, key, value = autocast(query, key, value)
    causal = is_causal or lower_right
    if window is not None and (not causal or window < 1):
        raise ValueError("window should be 1 or more, with is_causal=True or causal_lower_right as attn_mask")
    if window is not None and not torch.compiler.is_compiling() and window >= max(query.shape[2], key.shape[2]):
        window = None
    mask = None if lower_right else attn_mask
    reason = _unsupported(query, key, value, mask, dropout_p, causal, scale, enable_gqa)
    factor = 1.0 / math.sqrt(query.shape[-1]) if scale is None else float(scale)
    if not reason:
        call = _call(query, key, value, causal, window or 0, sinks, packed=False)
        reason = candidates(call, length_of(key[:, :, : query.shape[2]] if is_causal else key))[1]
        # One query that sees all keys is the last of a causal mask: kernels of some settings were judged on that only.
        if reason and query.shape[2] == 1 and not candidates(call._replace(causal=True), length_of(key))[1]:
            causal, reason = True, ""
    if not reason:
        if is_causal and key.shape[2] > query.shape[2]:
            key, value = key[:, :, : query.shape[2]], value[:, :, : query.shape[2]]
        out, lse = _run(query, key, value, sinks, None, None, causal, factor, window or 0, (0, 0))
        return (out, lse) if return_lse else out
    decline(reason, on_unsupported)
    if window is None and sinks is None and not return_lse:
        return torch.nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
        )
    if return_lse and (dropout_p or mask is not None):
        raise ValueError("return_lse goes without dropout_p, and without masks other than causal_lower_right")
    if is_causal:
        rows = query.shape[2]
        key, value = key[:, :, :rows], value[:, :, :rows]
        if rows > key.shape[2]:  # all else that is causal is aligned to the lower right
            causal, mask = False, _by_torch.visible(rows, rows, window or 0, query.device)[:, : key.shape[2]]
    out = _by_torch.attend(query, key, value, causal, factor, window or 0, sinks, mask, dropout_p)
    return (out, _by_torch.lse(query, key, causal, factor, window or 0, sinks, mask)) if return_lse else out


def packed_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cu_seqlens_q: torch.Tensor,
    cu_seqlens_k: torch.Tensor,
    *,
    max_seqlen_q: int,
    max_seqlen_k: int,
    is_causal: bool = False,
    scale: float | None = None,
    window: int | None = None,
    sinks: torch.Tensor | None = None,
    return_lse: bool = False,
    on_unsupported: str | None = None,
) -> Result:
    """Return attention within each of several sequences that are packed one after another.

    As for FlashAttention's ``flash_attn_varlen_func``, query is [tokens, heads, head_dim], key [keys, kv_heads,
    head_dim] and value [keys, kv_heads, head_dim_v]; kv_heads may be a divisor of heads. ``cu_seqlens_q`` and
    ``cu_seqlens_k`` are int32 [sequences + 1]: sequence s has the queries from ``cu_seqlens_q[s]`` to
    ``cu_seqlens_q[s + 1] - 1`` and the keys likewise, and at least as many keys as queries; ``max_seqlen_q`` and
    ``max_seqlen_k`` are the longest. ``is_causal`` is aligned to the lower right: the last query of a sequence sees its
    last key. lse is float32 [heads, tokens].

    Where no kernel for packed sequences takes the call, ``attention`` is called for each sequence.
    """
    if window is not None and (not is_causal or window < 1):
        raise ValueError("window should be 1 or more, with is_causal=True")
    if window is not None and window >= max_seqlen_k:
        window = None
    q, k, v = (tensor.transpose(0, 1)[None] for tensor in autocast(query, key, value))
    factor = 1.0 / math.sqrt(query.shape[-1]) if scale is None else float(scale)
    against = _unsupported(q, k, v, None, 0.0, False, scale, True)
    against = against or candidates(_call(q, k, v, is_causal, window or 0, sinks, packed=True), length_of(k))[1]
    if not against:
        starts = cu_seqlens_q.to(torch.int32).contiguous(), cu_seqlens_k.to(torch.int32).contiguous()
        longest = max_seqlen_q, max_seqlen_k
        out, lse = _run(q, k, v, sinks, *starts, is_causal, factor, window or 0, longest)
        return (out[0].transpose(0, 1), lse[0]) if return_lse else out[0].transpose(0, 1)
    outs, lses = [q.new_empty(1, q.shape[1], 0, v.shape[3])], [q.new_empty(1, q.shape[1], 0, dtype=torch.float32)]
    for rows, keys, values in _by_torch.each_sequence(q, k, v, cu_seqlens_q, cu_seqlens_k):
        within = window if window is not None and window < keys.shape[2] else 0
        reason = _unsupported(rows, keys, values, None, 0.0, is_causal, scale, True)
        call = _call(rows, keys, values, is_causal, within, sinks, packed=False)
        reason = reason or candidates(call, length_of(keys))[1]
        if reason:
            decline(against if reason == SIDE_BY_SIDE else reason, on_unsupported)
            out = _by_torch.attend(rows, keys, values, is_causal, factor, within, sinks)
            lse = _by_torch.lse(rows, keys, is_causal, factor, within, sinks) if return_lse else lses[0]
        else:
            out, lse = _run(rows, keys, values, sinks, None, None, is_causal, factor, within, (0, 0))
        outs.append(out)
        lses.append(lse)
    out = torch.cat(outs, 2)[0].transpose(0, 1)
    return (out, torch.cat(lses, 2)[0]) if return_lse else out


def _unsupported(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    dropout_p: float,
    causal: bool,
    scale: float | None,
    enable_gqa: bool,
) -> str:
    """Return in a few words what no kernel takes; an empty string where one may take the call."""
    if dropout_p > 0.0:
        return "dropout"
    if mask is not None:
        return "this mask"
    if scale is not None and not scale > 0.0:
        return "a scale that is not positive"
    if not query.ndim == key.ndim == value.ndim == 4:
        return "tensors without 4 dimensions"
    if key.shape[:3] != value.shape[:3] or query.shape[0] != key.shape[0] or query.shape[3] != key.shape[3]:
        return "shapes that differ"
    if not query.dtype == key.dtype == value.dtype or not query.device == key.device == value.device:
        return "tensors of different types or devices"
    if query.numel() == 0 or key.numel() == 0:
        return "tensors without elements"
    heads, kv_heads = query.shape[1], key.shape[1]
    if heads % kv_heads or (heads != kv_heads and not enable_gqa):
        return f"{heads} query heads on {kv_heads} KV heads"
    if causal and query.shape[2] > key.shape[2]:
        return "causal attention with more queries than keys"
    return ""


def _call(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    causal: bool,
    window: int,
    sinks: torch.Tensor | None,
    *,
    packed: bool,
) -> Call:
    group = query.shape[1] // key.shape[1]
    dims = query.shape[3], value.shape[3]
    return Call("attention", query.device, query.dtype, dims, group, causal, window, sinks is not None, packed)


def _run(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    sinks: torch.Tensor | None,
    starts_q: torch.Tensor | None,
    starts_k: torch.Tensor | None,
    causal: bool,
    scale: float,
    window: int,
    longest: tuple[int, int],
) -> tuple[torch.Tensor, torch.Tensor]:
    sinks = None if sinks is None else sinks.float().contiguous()
    found: tuple[torch.Tensor, torch.Tensor]
    found = _forward(query, key, value, sinks, starts_q, starts_k, causal, scale, window, *longest)
    return found


@torch.library.custom_op(f"{NAMESPACE}::attention", mutates_args=())
def _forward(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    sinks: torch.Tensor | None,
    starts_q: torch.Tensor | None,
    starts_k: torch.Tensor | None,
    causal: bool,
    scale: float,
    window: int,
    most_q: int,
    most_k: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    out, lse = empty_outputs(query, value)
    call = _call(query, key, value, causal, window, sinks, packed=starts_q is not None)
    tensors = {"q": query, "k": key, "v": value}
    given = {name: as_judged(tensor) for name, tensor in tensors.items()}
    given |= _others(sinks, starts_q, starts_k) | {"out": out, "lse": lse}
    lengths = query.shape[2], key.shape[2]
    launch(choose(call, *lengths), given, _scalars(causal, scale, window, most_q, most_k, key))
    return out, lse


@_forward.register_fake
def _(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: Any) -> tuple[torch.Tensor, torch.Tensor]:
    return empty_outputs(query, value)


@torch.library.custom_op(f"{NAMESPACE}::attention_backward", mutates_args=())
def _gradients(
    dout: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    out: torch.Tensor,
    lse: torch.Tensor,
    sinks: torch.Tensor | None,
    starts_q: torch.Tensor | None,
    starts_k: torch.Tensor | None,
    causal: bool,
    scale: float,
    window: int,
    most_q: int,
    most_k: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    made = empty_gradients(query, key, value, sinks)
    call = _call(query, key, value, causal, window, sinks, packed=starts_q is not None)
    kernel = choose(call, query.shape[2], key.shape[2], backward=True)
    tensors = {"q": query, "k": key, "v": value, "out": out, "dout": dout}
    given = {name: as_judged(tensor) for name, tensor in tensors.items()}
    given |= _others(sinks, starts_q, starts_k) | {"lse": lse}
    given |= dict(zip(("dq", "dk", "dv", "dsinks"), made, strict=True))
    launch(kernel, given, _scalars(causal, scale, window, most_q, most_k, key))
    dq, dk, dv, dsinks = made
    if sinks is not None and "dsinks" not in kernel.tensors:
        dsinks.copy_(_by_torch.of_sinks(dout, out, lse, sinks))
    return dq, dk, dv, dsinks


@_gradients.register_fake
def _(
    dout: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    out: torch.Tensor,
    lse: torch.Tensor,
    sinks: torch.Tensor | None,
    *_: Any,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    return empty_gradients(query, key, value, sinks)


def _others(
    sinks: torch.Tensor | None, starts_q: torch.Tensor | None, starts_k: torch.Tensor | None
) -> dict[str, torch.Tensor]:
    named = {"sinks": sinks, "cu_seqlens_q": starts_q, "cu_seqlens_k": starts_k}
    return {name: tensor for name, tensor in named.items() if tensor is not None}


def _scalars(causal: bool, scale: float, window: int, most_q: int, most_k: int, key: torch.Tensor) -> dict[str, Any]:
    # Where there is no window, one of all keys is none.
    window = window or key.shape[2]
    return {"causal": causal, "scale": scale, "window": window, "max_seqlen_q": most_q, "max_seqlen_k": most_k}


def _remember(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, torch.Tensor]) -> None:
    query, key, value, sinks, starts_q, starts_k, *ctx.settings = inputs
    causal, _, window, *_ = ctx.settings
    call = _call(query, key, value, causal, window, sinks, packed=starts_q is not None)
    ctx.by_kernel = bool(gradients_by(call, length_of(key)))
    kept = output if ctx.by_kernel or sinks is not None else (None, None)  # all else is computed again
    ctx.save_for_backward(query, key, value, sinks, starts_q, starts_k, *kept)
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, dout: torch.Tensor | None, _: None) -> tuple[torch.Tensor | None, ...]:
    if dout is None:
        return (None,) * 11
    *inputs, out, lse = ctx.saved_tensors
    query, key, value, sinks, starts_q, starts_k = inputs
    if ctx.by_kernel:
        *gradients, dsinks = _gradients(dout, query, key, value, out, lse, sinks, starts_q, starts_k, *ctx.settings)
    else:
        gradients = _by_torch_again(dout, *inputs, *ctx.settings[:3])
        dsinks = None if sinks is None else _by_torch.of_sinks(dout, out, lse, sinks)
    return *gradients, None if sinks is None else dsinks.flatten(), *(None,) * 7


def _by_torch_again(
    dout: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    sinks: torch.Tensor | None,
    starts_q: torch.Tensor | None,
    starts_k: torch.Tensor | None,
    causal: bool,
    scale: float,
    window: int,
) -> list[torch.Tensor]:
    with torch.enable_grad():
        q, k, v = (tensor.detach().requires_grad_() for tensor in (query, key, value))
        if starts_q is None or starts_k is None:
            out = _by_torch.attend(q, k, v, causal, scale, window, sinks)
        else:
            out = _by_torch.packed(q, k, v, starts_q, starts_k, causal, scale, window, sinks)
        return list(torch.autograd.grad(out, (q, k, v), dout))


_forward.register_autograd(_backward, setup_context=_remember)
