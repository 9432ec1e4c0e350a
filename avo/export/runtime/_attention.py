"""``attention`` and ``packed_attention``: scaled dot product attention by the kernels of this package."""

import math
from collections.abc import Sequence

import torch
from torch.nn.attention.bias import CausalBias, CausalVariant

from . import _by_torch
from ._calls import Call
from ._dispatch import SIDE_BY_SIDE, autocast, check_softcap, decline, refusal
from ._operators import Outputs, differentiate, operator, outputs

Result = torch.Tensor | Outputs


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
    softcap: float = 0.0,
    sinks: torch.Tensor | None = None,
    return_lse: bool = False,
    on_unsupported: str | None = None,
) -> Result:
    """Return what ``torch.nn.functional.scaled_dot_product_attention`` returns for the same arguments.

    query is [batch, heads, q_len, head_dim], key [batch, kv_heads, kv_len, head_dim] and value [batch, kv_heads,
    kv_len, head_dim_v]; with ``enable_gqa`` kv_heads may be a divisor of heads. ``is_causal`` lets query i see the keys
    up to i. The only mask that the kernels take is ``torch.nn.attention.bias.causal_lower_right``: query i sees the
    keys up to i + kv_len - q_len. With ``window``, which needs one of these two, it sees the last ``window`` of them.
    With ``softcap`` above 0 a scaled score s becomes softcap * tanh(s / softcap), as for FlashAttention and in Gemma 2.
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
    check_softcap(softcap)
    query, key, value = autocast(query, key, value)
    causal = is_causal or lower_right
    if window is not None and (not causal or window < 1):
        raise ValueError("window should be 1 or more, with is_causal=True or causal_lower_right as attn_mask")
    if window is not None and not torch.compiler.is_compiling() and window >= max(query.shape[2], key.shape[2]):
        window = None
    mask = None if lower_right else attn_mask
    call = Call(
        query, key, value, sinks, causal=causal, scale=_factor(scale, query), window=window or 0, softcap=float(softcap)
    )
    reason = _unsupported(call, mask, dropout_p, enable_gqa)
    if not reason:
        call = _upper_left(call) if is_causal else call
        reason = refusal(call)
        # One query that sees all keys is the last of a causal mask: kernels of some settings were judged on that only.
        if reason and query.shape[2] == 1 and not refusal(call._replace(causal=True)):
            call, reason = call._replace(causal=True), ""
    if not reason:
        out, lse = _run(call)
        return (out, lse) if return_lse else out
    decline(reason, on_unsupported)
    if window is None and not softcap and sinks is None and not return_lse:
        return torch.nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
        )
    if return_lse and (dropout_p or mask is not None):
        raise ValueError("return_lse goes without dropout_p, and without masks other than causal_lower_right")
    if is_causal:
        call, rows = _upper_left(call), query.shape[2]
        if rows > call.keys():  # all else that is causal is aligned to the lower right
            mask = _by_torch.visible(rows, rows, call.window, query.device)[:, : call.keys()]
    out = _by_torch.attend(call, mask, dropout_p)
    return (out, _by_torch.lse(call, mask)) if return_lse else out


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
    softcap: float = 0.0,
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
    check_softcap(softcap)
    if window is not None and window >= max_seqlen_k:
        window = None
    q, k, v = (tensor.transpose(0, 1)[None] for tensor in autocast(query, key, value))
    settings = is_causal, _factor(scale, query), window or 0, float(softcap), max_seqlen_q, max_seqlen_k
    call = Call(q, k, v, sinks, cu_seqlens_q, cu_seqlens_k, *settings)
    against = _unsupported(call) or refusal(call)
    if not against:
        starts_q, starts_k = (each.to(torch.int32).contiguous() for each in (cu_seqlens_q, cu_seqlens_k))
        out, lse = _run(call._replace(starts_q=starts_q, starts_k=starts_k))
        return (out[0].transpose(0, 1), lse[0]) if return_lse else out[0].transpose(0, 1)
    outs, lses = [q.new_empty(1, q.shape[1], 0, v.shape[3])], [q.new_empty(1, q.shape[1], 0, dtype=torch.float32)]
    for part in _by_torch.each_sequence(call):
        part = part._replace(window=part.window if part.window < part.keys() else 0)
        reason = _unsupported(part) or refusal(part)
        if reason:
            decline(against if reason == SIDE_BY_SIDE else reason, on_unsupported)
            out, lse = _by_torch.attend(part), _by_torch.lse(part) if return_lse else lses[0]
        else:
            out, lse = _run(part)
        outs.append(out)
        lses.append(lse)
    out = torch.cat(outs, 2)[0].transpose(0, 1)
    return (out, torch.cat(lses, 2)[0]) if return_lse else out


def _factor(scale: float | None, query: torch.Tensor) -> float:
    return 1.0 / math.sqrt(query.shape[-1]) if scale is None else float(scale)


def _upper_left(call: Call) -> Call:
    """Return the call without the keys that no query sees where query i sees the keys up to i."""
    rows = call.query.shape[2]
    return call._replace(key=call.key[:, :, :rows], value=call.value[:, :, :rows]) if call.keys() > rows else call


def _unsupported(call: Call, mask: torch.Tensor | None = None, dropout_p: float = 0.0, enable_gqa: bool = True) -> str:
    """Return in a few words what no kernel takes; an empty string where one may take the call."""
    query, key, value = call.query, call.key, call.value
    if dropout_p > 0.0:
        return "dropout"
    if mask is not None:
        return "this mask"
    if not call.scale > 0.0:
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
    if call.causal and call.starts_q is None and query.shape[2] > key.shape[2]:
        return "causal attention with more queries than keys"
    return ""


def _run(call: Call) -> Outputs:
    found: Outputs = _forward(*(call if call.sinks is None else call._replace(sinks=call.sinks.float().contiguous())))
    return found


def _again(call: Call, dout: torch.Tensor, out: torch.Tensor, lse: torch.Tensor) -> Sequence[torch.Tensor]:
    """Return the gradients of a call by torch; out and lse are needed where it has sinks."""
    with torch.enable_grad():
        q, k, v = (tensor.detach().requires_grad_() for tensor in (call.query, call.key, call.value))
        found = torch.autograd.grad(_by_torch.packed(call._replace(query=q, key=k, value=v)), (q, k, v), dout)
    return found if call.sinks is None else (*found, _by_torch.of_sinks(dout, out, lse, call.sinks))


_forward = operator("attention", Call, outputs)
differentiate(_forward, "attention", Call, _again, keeps=lambda call: call.sinks is not None)
