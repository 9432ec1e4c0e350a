"""Attention by torch alone, for calls and gradients that no kernel of this package takes."""

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise

import torch
from torch._guards import detect_fake_mode
from torch.nn.functional import scaled_dot_product_attention

from ._calls import Call

_ROWS = 1024
"""Number of queries that torch takes at once where it needs a row of scores for each of them and each head."""


def autocasts(tensor: torch.Tensor) -> bool:
    """Return whether ``torch.autocast`` is on for the device of ``tensor``."""
    kind = tensor.device.type
    return torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)


def attend(call: Call, mask: torch.Tensor | None = None, dropout_p: float = 0.0) -> torch.Tensor:
    """Return the attention of a call whose sequences are not packed. ``mask`` is one of
    ``scaled_dot_product_attention``, and takes the place of ``causal`` and ``window``.
    """
    if call.softcap:
        return _capped(call, mask, dropout_p)
    query, key, value, causal = call.query, call.key, call.value, call.causal
    if mask is None and causal and (call.window or call.sinks is not None or query.shape[2] != key.shape[2]):
        mask = visible(query.shape[2], key.shape[2], call.window, query.device)
    if call.sinks is not None:
        return _with_sinks(call, call.sinks, mask, dropout_p)
    return scaled_dot_product_attention(
        query, key, value, mask, dropout_p, causal and mask is None, scale=call.scale, enable_gqa=True
    )


def _with_sinks(call: Call, sinks: torch.Tensor, mask: torch.Tensor | None, dropout_p: float) -> torch.Tensor:
    """Take a sink as two keys more, of zeros, whose masks add up to its logit and whose values are zero."""
    query = call.query
    batch, heads, q_len, kv_len = *query.shape[:3], call.key.shape[2]
    key, value = (torch.nn.functional.pad(tensor, (0, 0, 0, 2)) for tensor in (call.key, call.value))
    if mask is None:
        mask = torch.ones(q_len, kv_len, dtype=torch.bool, device=query.device)
    if mask.dtype == torch.bool:
        mask = torch.zeros(mask.shape, dtype=query.dtype, device=query.device).masked_fill(~mask, -math.inf)
    columns, parts = _in_two(sinks, query.dtype)[None, :, None], []
    for start in range(0, q_len, _ROWS):
        part = query[:, :, start : start + _ROWS]
        rows = mask.expand(batch, heads, q_len, kv_len)[:, :, start : start + _ROWS]
        bias = torch.cat((rows.to(query.dtype), columns.expand(*rows.shape[:3], 2)), 3)
        parts.append(scaled_dot_product_attention(part, key, value, bias, dropout_p, scale=call.scale, enable_gqa=True))
    return torch.cat(parts, 2)


def _capped(call: Call, mask: torch.Tensor | None, dropout_p: float) -> torch.Tensor:
    """Compute each step by itself: torch's attention has no soft caps."""
    value, parts = _of_each_head(call, call.value), []
    with _as_given(call.query):
        for scores in _scores(call, mask):
            total = scores.logsumexp(3, keepdim=True)
            if call.sinks is not None:
                total = torch.logaddexp(total, call.sinks.to(total.dtype)[None, :, None, None])
            share = (scores - total.clamp(min=torch.finfo(total.dtype).min)).exp()  # 0 where a query sees no key
            parts.append((torch.nn.functional.dropout(share, dropout_p) @ value).to(call.query.dtype))
    return torch.cat(parts, 2)


def _scores(call: Call, mask: torch.Tensor | None) -> Iterator[torch.Tensor]:
    """Yield the scores of ``_ROWS`` queries after another, [batch, heads, rows, kv_len] in float32 or finer."""
    query, keys, q_len = call.query, _of_each_head(call, call.key).mT, call.query.shape[2]
    if mask is None and call.causal:
        mask = visible(q_len, keys.shape[3], call.window, query.device)
    for start in range(0, max(q_len, 1), _ROWS):
        scores = query[:, :, start : start + _ROWS].to(keys.dtype) @ keys * call.scale
        if call.softcap:
            scores = (scores / call.softcap).tanh() * call.softcap
        if mask is not None:
            rows = mask.expand(*query.shape[:3], keys.shape[3])[:, :, start : start + _ROWS]
            scores = scores.masked_fill(~rows, -math.inf) if rows.dtype == torch.bool else scores + rows
        yield scores


def _of_each_head(call: Call, tensor: torch.Tensor) -> torch.Tensor:
    """Return keys or values of each query head, [batch, heads, kv_len, elements], in float32 or finer."""
    exact = tensor.to(torch.promote_types(tensor.dtype, torch.float32))
    return exact.repeat_interleave(call.query.shape[1] // tensor.shape[1], 1)


def _as_given(tensor: torch.Tensor) -> AbstractContextManager[None]:
    """Leave types as they are, where ``torch.autocast`` is on."""
    return torch.autocast(tensor.device.type, enabled=False) if autocasts(tensor) else nullcontext()


def _in_two(sinks: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return logits [heads, 2] of ``dtype`` whose exponentials add up to those of ``sinks``, which a single one is too
    coarse for: in bfloat16 it would be off by 2% where sinks are 8.
    """
    exact = sinks.to(torch.promote_types(sinks.dtype, torch.float32)).clamp(min=-1e30)
    detached = exact.detach()
    most = (detached - torch.finfo(dtype).eps * detached.abs().clamp(min=1.0)).to(dtype)
    rest = exact + torch.log(-torch.expm1(most.to(exact.dtype) - exact))
    return torch.stack((most, rest.to(dtype)), 1)


def visible(q_len: int, kv_len: int, window: int, device: torch.device) -> torch.Tensor:
    """Return which keys queries see, bool [q_len, kv_len], with the last one aligned to the last key."""
    mask = torch.ones(q_len, kv_len, dtype=torch.bool, device=device).tril(kv_len - q_len)
    return mask.triu(kv_len - q_len - window + 1) if window else mask


def lse(call: Call, mask: torch.Tensor | None = None) -> torch.Tensor:
    """Return the logarithm of each query's sum of exponentials, float32 [batch, heads, q_len], without gradients.

    ``mask`` is bool [..., q_len, kv_len]; all else is as in ``attend``.
    """
    with torch.no_grad(), _as_given(call.query):
        found = torch.cat([scores.logsumexp(3).float() for scores in _scores(call, mask)], 2)
        return found if call.sinks is None else torch.logaddexp(found, call.sinks.float()[None, :, None])


def of_sinks(dout: torch.Tensor, out: torch.Tensor, lse: torch.Tensor, sinks: torch.Tensor) -> torch.Tensor:
    """Return the gradients of sinks, [1, heads, 1]. A sink is a key whose value is zero, so of its dS = P * (dout v^T -
    rowsum(dout * out)) the second term is left, over all queries of its head.
    """
    share = (sinks[None, :, None] - lse).exp()
    return -(share * (dout.float() * out.float()).sum(3)).sum((0, 2))[None, :, None]


def packed(call: Call) -> torch.Tensor:
    """Return the attention of a call, within each of several sequences where they are packed."""
    query, key, starts_q, starts_k = call.query, call.key, call.starts_q, call.starts_k
    if starts_q is None or starts_k is None:
        return attend(call)
    if detect_fake_mode((starts_q,)) is None:
        return torch.cat([attend(part) for part in each_sequence(call)], 2)
    # Being traced, where sequences begin is not known: a mask of all tokens says so.
    rows, keys = (torch.arange(each.shape[2], device=query.device) for each in (query, key))
    sequence = torch.searchsorted(starts_q, rows, right=True) - 1
    end = starts_k[sequence + 1] - (starts_q[sequence + 1] - 1 - rows if call.causal else 0)
    mask = (keys >= starts_k[sequence][:, None]) & (keys < end[:, None])
    if call.window:
        mask = mask & (keys >= end[:, None] - call.window)
    return attend(call, mask)


def each_sequence(call: Call) -> list[Call]:
    """Return a call for each packed sequence that has any queries; the call itself where none are packed."""
    if call.starts_q is None or call.starts_k is None:
        return [call]
    alone = call._replace(starts_q=None, starts_k=None, most_q=0, most_k=0)
    bounds = zip(pairwise(call.starts_q.tolist()), pairwise(call.starts_k.tolist()), strict=True)
    return [
        alone._replace(query=call.query[:, :, a:b], key=call.key[:, :, c:d], value=call.value[:, :, c:d])
        for (a, b), (c, d) in bounds
        if b > a
    ]
