"""``decode``: attention of a few queries a sequence over a paged cache, by the kernels of this package."""

import math
from typing import Any, NamedTuple

import torch

from . import _by_torch
from ._calls import Call, Kind, kind_of
from ._dispatch import KERNELS, candidates, check_softcap, decline, refusal
from ._operators import Outputs, operator, outputs

MOST_QUERIES = 8
"""Queries of a sequence that kernels were judged on."""
MEMORY = "_memory_of_a_growing_cache"
"""The attribute in which keys and values of a ``GrowingCache`` have the memory whose first tokens they are."""


class PagedCall(NamedTuple):
    """A call of ``decode``."""

    query: torch.Tensor
    key: torch.Tensor
    """Pages, as ``value``."""
    value: torch.Tensor
    block_table: torch.Tensor
    lengths: torch.Tensor
    sinks: torch.Tensor | None
    scale: float
    window: int = 0
    """Number of keys that a query sees at most; 0: all."""
    softcap: float = 0.0
    """See ``Call``."""

    def kind(self) -> Kind:
        """See ``Arguments``."""
        return kind_of("decode", self, window=self.window, softcap=self.softcap, block_size=self.key.shape[2])

    def keys(self) -> int:
        """Return the number of keys that there are pages for."""
        return self.block_table.shape[1] * self.key.shape[2]

    def given(self) -> dict[str, Any]:
        """See ``Arguments``."""
        return {
            "q": self.query,
            "k": self.key,
            "v": self.value,
            "block_table": self.block_table,
            "lengths": self.lengths,
            "sinks": self.sinks,
            "scale": self.scale,
            "window": self.window or self.keys(),
            "softcap": self.softcap,
        }


def decode(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    block_table: torch.Tensor,
    lengths: torch.Tensor,
    *,
    max_seqlen_k: int | None = None,
    scale: float | None = None,
    window: int | None = None,
    softcap: float = 0.0,
    sinks: torch.Tensor | None = None,
    return_lse: bool = False,
    on_unsupported: str | None = None,
) -> torch.Tensor | Outputs:
    """Return causal attention of the last tokens of each sequence to a cache of pages. There are no gradients.

    query is [batch, heads, q_len, head_dim]; key and value are pages, [pages, kv_heads, page_size, head_dim] and
    [pages, kv_heads, page_size, head_dim_v]; kv_heads may be a divisor of heads. ``block_table`` is an integer tensor
    [batch, most]: the pages of each sequence in order, then -1. ``lengths`` [batch] are the keys of each sequence, its
    q_len last tokens among them: query i sees the keys up to i + length - q_len, with ``window`` the last ``window`` of
    these. ``max_seqlen_k`` says that no length is greater; without it the width of ``block_table`` counts as the number
    of keys, and where that is more than kernels were judged on, torch computes the call. ``sinks`` [heads] are logits
    that take part in the softmax and have no value. With ``return_lse`` the result is (out, lse); lse is float32
    [batch, heads, q_len]. ``softcap`` and ``on_unsupported``: see ``attention``.
    """
    _check(query, key, value, block_table, lengths)
    if window is not None and window < 1:
        raise ValueError(f"window should be 1 or more, not {window}")
    check_softcap(softcap)
    if max_seqlen_k is not None:
        room = block_table.shape[1] * key.shape[2]
        if not 1 <= max_seqlen_k <= room:
            raise ValueError(f"max_seqlen_k should be from 1 to {room}, the keys in block_table, not {max_seqlen_k}")
        block_table = block_table[:, : -(-max_seqlen_k // key.shape[2])]
    factor = 1.0 / math.sqrt(query.shape[3]) if scale is None else float(scale)
    sinks = None if sinks is None else sinks.float().contiguous()
    table, sizes = (each.to(torch.int32).contiguous() for each in (block_table, lengths))
    call = PagedCall(query, key, value, table, sizes, sinks, factor, window or 0, float(softcap))
    reason = _unsupported(call) or refusal(call)
    if reason:
        decline(reason, on_unsupported)
        out, lse = by_torch(call, with_lse=return_lse)
    else:
        out, lse = _forward(*call)
    return (out, lse) if return_lse else out


def from_growing_cache(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, sinks: torch.Tensor | None, scale: float | None,
    softcap: float = 0.0,
) -> torch.Tensor | None:  # fmt: skip
    """Return attention of one query a sequence to all keys of a ``GrowingCache``; None where no kernel takes it.

    query is [batch, heads, 1, head_dim]. Nothing is copied: the kernel gets pages that lie in the cache's memory.
    """
    if torch.compiler.is_compiling():
        return None
    sizes = [size for kernel in KERNELS if kernel.function == "decode" for size in kernel.block_sizes]
    asked = query.requires_grad or (sinks is not None and sinks.requires_grad)
    if not sizes or (asked and torch.is_grad_enabled()):
        return None
    size = min(sizes)
    (k, apart), (v, _) = _pages(key, size), _pages(value, size)
    if k is None or v is None:
        return None
    batch = key.shape[0]
    factor = 1.0 / math.sqrt(query.shape[3]) if scale is None else float(scale)
    sinks, keys = None if sinks is None else sinks.float().contiguous(), key.shape[2]
    table = torch.arange(-(-keys // size), dtype=torch.int32, device=query.device)[None]
    if batch > 1:
        first = torch.arange(0, batch * apart, apart, dtype=torch.int32, device=query.device)
        table = table + first[:, None]
    lengths = torch.full((batch,), keys, dtype=torch.int32, device=query.device)
    call = PagedCall(query, k, v, table, lengths, sinks, factor, softcap=softcap)
    if _unsupported(call) or candidates(call.kind(), keys)[1]:
        return None
    out: torch.Tensor = _forward(*call)[0]
    return out


def _pages(part: torch.Tensor, size: int) -> tuple[torch.Tensor | None, int]:
    """Return the memory of a ``GrowingCache`` that has ``part``, as pages of ``size`` rows, and how many pages one
    sequence is from the next; None where ``part`` is of no such cache.
    """
    memory: torch.Tensor | None = getattr(part, MEMORY, None)
    if memory is None:
        return None, 0
    batch, kv_heads, room, dim = memory.shape
    apart = kv_heads * room // size
    pages = memory.as_strided(
        ((batch - 1) * apart + room // size, kv_heads, size, dim), (size * dim, room * dim, dim, 1)
    )
    return pages, apart


def _check(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, block_table: torch.Tensor, lengths: torch.Tensor
) -> None:
    if not query.ndim == key.ndim == value.ndim == 4:
        raise ValueError("query, key and value should have 4 dimensions")
    if key.shape[:3] != value.shape[:3] or query.shape[3] != key.shape[3]:
        raise ValueError(f"shapes do not fit together: {query.shape}, {key.shape}, {value.shape}")
    if key.shape[1] == 0 or query.shape[1] % key.shape[1]:
        raise ValueError(f"{query.shape[1]} query heads cannot share {key.shape[1]} KV heads")
    if block_table.ndim != 2 or not query.shape[0] == block_table.shape[0] == lengths.shape[0]:
        raise ValueError("block_table should be [batch, most], and lengths [batch]")


def _unsupported(call: PagedCall) -> str:
    query, key, value = call.query, call.key, call.value
    if not call.scale > 0.0:
        return "a scale that is not positive"
    if not query.dtype == key.dtype == value.dtype:
        return "tensors of different types"
    if not query.device == key.device == value.device == call.block_table.device == call.lengths.device:
        return "tensors on different devices"
    if query.numel() == 0 or key.numel() == 0 or call.block_table.numel() == 0:
        return "tensors without elements"
    return f"{query.shape[2]} queries a sequence" if query.shape[2] > MOST_QUERIES else ""


_forward = operator("decode", PagedCall, outputs)


def by_torch(call: PagedCall, *, with_lse: bool) -> Outputs:
    """Return out and lse, computed by torch alone from a copy of the pages; lse is empty unless asked for."""
    query, q_len, lengths = call.query, call.query.shape[2], call.lengths
    pages = call.block_table.long().clamp(min=0)
    at = torch.arange(call.keys(), device=query.device)
    end = torch.arange(q_len, device=query.device) + lengths[:, None] - q_len + 1
    seen = at < end[..., None]
    if call.window:
        seen &= at >= end[..., None] - call.window
    inside = (at < lengths[:, None])[:, None, :, None]  # what else a page holds may be no number
    k, v = (each[pages].transpose(1, 2).flatten(2, 3).masked_fill(~inside, 0.0) for each in (call.key, call.value))
    dense, mask = Call(query, k, v, call.sinks, scale=call.scale, softcap=call.softcap), seen[:, None]
    lse = _by_torch.lse(dense, mask) if with_lse else query.new_empty(0, dtype=torch.float32)
    return _by_torch.attend(dense, mask), lse
