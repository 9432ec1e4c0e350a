"""``attn_implementation`` for the models of Hugging Face transformers, by the kernels of this package.

transformers says what each token sees by a mask. It is taken apart here: most masks, those of padding, caches, sliding
windows and packed batches, say no more than which tokens are sequences of their own, which the kernels know how to
take. It is done once for each forward pass, not for each layer.
"""

import functools
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.cache_utils import Cache, DynamicLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from ._attention import attention, packed_attention
from ._decode import MEMORY, from_growing_cache
from ._dispatch import NAMESPACE, decline


def register(name: str = NAMESPACE, *, on_unsupported: str | None = None) -> str:
    """Make ``attn_implementation=name`` known to transformers, and return ``name``.

    Batches with padding and packed ones run as packed sequences: see ``packed_attention``. Other masks, dropout,
    position biases, and masks while torch compiles, are computed by torch, with one warning, or raise: see
    ``on_unsupported`` of ``attention``. Layers that select blocks of keys, as those of MiniMax-M3, run by
    ``selected_attention`` where the package has it, without padding and cached keys.
    """
    AttentionInterface.register(name, functools.partial(attention_forward, on_unsupported=on_unsupported))
    AttentionMaskInterface.register(name, sequences_mask)
    return name


_SELECTED = "._selected_attention"
_SELECTING = find_spec(_SELECTED, __package__) is not None
"""Whether the package has kernels of selected attention."""
_NONE = 2**30
"""Stands for no block while blocks are put in order."""
_ROOM = 256
"""Tokens that a layer of ``GrowingCache`` has room for are a multiple of this, and of every page of the kernels."""


class GrowingCache(Cache):  # type: ignore[misc]
    """A cache for ``past_key_values`` that kernels of ``decode`` take as it is: it has room for more tokens behind the
    last one, and a new one is written there, where transformers' own dynamic cache is copied. It keeps all tokens, also
    in layers with a sliding window, and is for inference: there are no gradients.
    """

    def __init__(self) -> None:
        super().__init__(layer_class_to_replicate=_GrowingLayer)


class _GrowingLayer(DynamicLayer):  # type: ignore[misc]
    keys: torch.Tensor
    values: torch.Tensor
    _memory: tuple[torch.Tensor, ...] = ()
    """Keys or values [batch, kv_heads, room, head_dim]: those cached, and finite numbers in the room left."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Put tokens behind the last one; return all keys and all values."""
        if torch.is_grad_enabled() and (key_states.requires_grad or value_states.requires_grad):
            raise ValueError("GrowingCache is for inference: call the model under torch.no_grad()")
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        new, before = (key_states, value_states), self.get_seq_length()
        end = before + key_states.shape[2]
        if not before or end > self._memory[0].shape[2]:
            room, old = -(-(end + end // 4) // _ROOM) * _ROOM, self._memory
            with torch.inference_mode(False):  # so that it can be written in either mode
                self._memory = tuple(
                    torch.zeros(*each.shape[:2], room, each.shape[3], dtype=each.dtype, device=each.device)
                    for each in new
                )
            if before:
                self._write(tuple(each[:, :, :before] for each in old), 0)
        self._write(new, before)
        return self.keys, self.values

    def _write(self, new: tuple[torch.Tensor, ...], place: int) -> None:
        for own, each in zip(self._memory, new, strict=True):
            own[:, :, place : place + each.shape[2]] = each
        self._show(place + new[0].shape[2])

    def _show(self, tokens: int) -> None:
        self.keys, self.values = (own[:, :, :tokens] for own in self._memory)
        for shown, own in zip((self.keys, self.values), self._memory, strict=True):
            setattr(shown, MEMORY, own)

    def _change(self, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
        """Change the batch by ``change``, the room with it."""
        if tokens := self.get_seq_length():
            with torch.inference_mode(False):
                self._memory = tuple(change(own).contiguous() for own in self._memory)
            self._show(tokens)

    def reset(self) -> None:
        """See ``DynamicLayer``."""
        super().reset()
        self._memory = ()

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        """See ``DynamicLayer``."""
        self._change(lambda own: own.index_select(0, beam_idx.to(own.device)))

    def batch_repeat_interleave(self, repeats: int) -> None:
        """See ``DynamicLayer``."""
        self._change(lambda own: own.repeat_interleave(repeats, dim=0))

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """See ``DynamicLayer``."""
        self._change(lambda own: own[indices, ...])


@dataclass(frozen=True)
class Sequences:
    """Which tokens of a batch are sequences of their own."""

    mask: torch.Tensor
    """The mask that says so, bool [batch, 1, q_len, kv_len]."""
    queries: torch.Tensor | None
    """int64 [tokens]: numbers of the queries in [batch * q_len], sequence by sequence; None: all of them, in order."""
    keys: torch.Tensor | None
    """int64 [keys]: those of their keys in [batch * kv_len]."""
    starts_q: torch.Tensor
    """int32 [sequences + 1]"""
    starts_k: torch.Tensor
    longest: tuple[int, int]
    """Most queries and keys of a sequence."""
    causal: bool


def sequences_mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int = 0,
    kv_offset: int = 0,
    attention_mask: torch.Tensor | None = None,
    local_size: int | None = None,
    **options: Any,
) -> "torch.Tensor | Sequences | None":
    """Return the mask of transformers' own ``sdpa``, as ``Sequences`` where it is no more than that."""
    mask: torch.Tensor | None = sdpa_mask(
        batch_size=batch_size, q_length=q_length, kv_length=kv_length, q_offset=q_offset, kv_offset=kv_offset,
        attention_mask=attention_mask, local_size=local_size, **options,
    )  # fmt: skip
    if mask is None or mask.dtype != torch.bool or mask.shape[1] != 1 or torch.compiler.is_compiling():
        return mask
    rows = mask[:, 0].any(2)
    if attention_mask is not None:  # what is padding needs no result
        real = attention_mask[:, int(q_offset) : int(q_offset) + q_length].bool()
        rows = rows & real if real.shape == rows.shape else rows
    return sequences_of(mask, rows, local_size or 0) or mask


def sequences_of(mask: torch.Tensor, rows: torch.Tensor, window: int) -> Sequences | None:
    """Take a mask apart, bool [batch, 1, q_len, kv_len], where ``rows`` [batch, q_len] count; None where it is another.

    ``window`` is the number of keys that queries see at most, 0 for all.
    """
    batches, _, q_len, kv_len = mask.shape
    seen = mask[:, 0]
    first = seen.to(torch.uint8).argmax(2)
    end = first + seen.sum(2)
    keys = torch.arange(kv_len, device=mask.device)
    if not ((seen == ((keys >= first[..., None]) & (keys < end[..., None]))) | ~rows[..., None]).all():
        return None  # some query sees keys with others between them that it does not see
    queries = rows.flatten().nonzero().flatten()
    batch = queries // q_len
    first, end = (each.flatten()[queries] + batch * kv_len for each in (first, end))
    if queries.numel() == 0:
        return None
    before, after = slice(None, -1), slice(1, None)
    together = (batch[after] == batch[before]) & (queries[after] == queries[before] + 1)
    same = together & (first[after] == first[before]) & (end[after] == end[before])
    next_first = torch.maximum(first[before], end[after] - window) if window else first[before]
    step = together & (end[after] == end[before] + 1) & (first[after] == next_first)
    causal = not bool(same.any())
    new = torch.ones_like(queries, dtype=torch.bool)
    new[after] = ~(step if causal else same)
    begin = new.nonzero().flatten()
    last = torch.cat((begin[1:], begin.new_tensor([queries.numel()]))) - 1
    lengths = last - begin + 1, end[last] - first[begin]
    if bool((lengths[0] > lengths[1]).any()):
        return None
    starts = [torch.nn.functional.pad(each.cumsum(0), (1, 0)) for each in lengths]
    of_key = torch.arange(int(starts[1][-1]), device=mask.device)
    sequence = torch.searchsorted(starts[1], of_key, right=True) - 1
    of_key = of_key - starts[1][sequence] + first[begin][sequence]
    longest = int(lengths[0].max()), int(lengths[1].max())
    tokens_q, tokens_k = _unless_all(queries, batches * q_len), _unless_all(of_key, batches * kv_len)
    starts_q, starts_k = (each.to(torch.int32) for each in starts)
    return Sequences(mask, tokens_q, tokens_k, starts_q, starts_k, longest, causal)


def _unless_all(chosen: torch.Tensor, count: int) -> torch.Tensor | None:
    whole = chosen.numel() == count and bool((chosen == torch.arange(count, device=chosen.device)).all())
    return None if whole else chosen


def attention_forward(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: "torch.Tensor | Sequences | None",
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    *,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    on_unsupported: str | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Return the output of one layer, [batch, q_len, heads, head_dim], and no weights.

    ``s_aux`` are attention sinks [heads].
    """
    cap = softcap or 0.0
    if options.get("block_indices") is not None:
        return _of_blocks(module, query, key, value, attention_mask, dropout, scaling, on_unsupported, options), None
    biased = options.get("position_bias") is not None
    if isinstance(attention_mask, Sequences):
        if not biased and not dropout:
            window = sliding_window if attention_mask.causal else None
            more = {"scale": scaling, "window": window, "sinks": s_aux, "on_unsupported": on_unsupported}
            return _of_sequences(query, key, value, attention_mask, softcap=cap, **more), None
        attention_mask = attention_mask.mask
    if biased:
        decline("position biases", on_unsupported)
        found = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout, scaling, is_causal=is_causal, **options
        )
        return found[0], None
    if attention_mask is None and query.shape[2] == 1 and not dropout:
        decoded = from_growing_cache(query, key, value, s_aux, scaling, cap)
        if decoded is not None:
            return decoded.transpose(1, 2).contiguous(), None
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    plain = attention_mask is None and causal and query.shape[2] > 1
    out = attention(
        query, key, value, attention_mask, dropout, is_causal=plain, scale=scaling,
        enable_gqa=query.shape[1] != key.shape[1], window=sliding_window if plain else None,
        softcap=cap, sinks=s_aux, on_unsupported=on_unsupported,
    )  # fmt: skip
    assert isinstance(out, torch.Tensor)
    return out.transpose(1, 2).contiguous(), None


def _of_blocks(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: "torch.Tensor | Sequences | None",
    dropout: float,
    scale: float | None,
    on_unsupported: str | None,
    options: Mapping[str, Any],
) -> torch.Tensor:
    """Return the output of a layer of MiniMax-M3, [batch, q_len, heads, head_dim], whose queries select blocks."""
    indexer: Any = module.indexer
    blocks: torch.Tensor = options["block_indices"]
    reason = "dropout" if dropout else ""
    if mask is not None or query.shape[2] != key.shape[2]:
        reason = "selected blocks with padding, packed sequences or a cache"
    elif not _SELECTING:
        reason = "selected blocks"
    if not reason:
        selected_attention = importlib.import_module(_SELECTED, __package__).selected_attention
        order = blocks.masked_fill(blocks < 0, _NONE).sort(3).values
        order = torch.nn.functional.pad(
            order.masked_fill(order == _NONE, -1), (0, max(3 - order.shape[3], 0)), value=-1
        )
        out: torch.Tensor = selected_attention(
            query, key, value, order, block_size=indexer.block_size, scale=scale, on_unsupported=on_unsupported
        )
        return out.transpose(1, 2).contiguous()
    decline(reason, on_unsupported)
    positions = options.get("position_ids")
    if positions is None:
        positions = torch.arange(key.shape[2] - query.shape[2], key.shape[2], device=query.device)[None]
    visible = indexer.build_block_mask(
        blocks, mask.mask if isinstance(mask, Sequences) else mask, key.shape[2], query.dtype, query.device,
        positions.expand(query.shape[0], -1),
    )  # fmt: skip
    found: torch.Tensor = sdpa_attention_forward(module, query, key, value, visible, dropout, scale)[0]
    return found


def _of_sequences(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, of: Sequences, **more: Any
) -> torch.Tensor:
    batch, heads, q_len, _ = query.shape

    def rows(tensor: torch.Tensor, chosen: torch.Tensor | None) -> torch.Tensor:
        flat = tensor.transpose(1, 2).flatten(0, 1)
        return flat if chosen is None else flat[chosen]

    found = packed_attention(
        rows(query, of.queries), rows(key, of.keys), rows(value, of.keys), of.starts_q, of.starts_k,
        max_seqlen_q=of.longest[0], max_seqlen_k=of.longest[1], is_causal=of.causal, **more,
    )  # fmt: skip
    assert isinstance(found, torch.Tensor)
    if of.queries is not None:
        found = found.new_zeros(batch * q_len, *found.shape[1:]).index_copy(0, of.queries, found)
    return found.reshape(batch, q_len, heads, value.shape[3])
