"""``selected_attention``: the selected branch of native sparse attention by the kernels of this package."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch

from . import _by_torch
from ._calls import Call, Kind, kind_of
from ._dispatch import NAMESPACE, UnsupportedCall, autocast, candidates, decline, length_of, too_many
from ._operators import Outputs, differentiate, operator, outputs

_FEWEST = 3
"""Room for selected blocks that a query has at least."""
_ROWS = 1024
"""Number of queries that torch takes at once: for each query head it needs a mask of these by all keys."""


class SelectedCall(NamedTuple):
    """A call of selected attention."""

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    block_indices: torch.Tensor
    sinks: torch.Tensor | None
    starts: torch.Tensor | None
    """Where packed sequences begin; each has as many queries as keys."""
    block_size: int
    scale: float
    longest: int = 0
    """Keys of the longest packed sequence."""
    local: bool = False
    """Whether only kernels for any selection may run."""
    check: bool = False
    """Whether the operator looks at the selection."""

    def kind(self) -> Kind:
        """See ``Arguments``."""
        packed = self.starts is not None
        return kind_of("selected_attention", self, packed=packed, block_size=self.block_size, local=self.local)

    def keys(self) -> int:
        """See ``Arguments``."""
        return self.key.shape[2]

    def given(self) -> dict[str, Any]:
        """See ``Arguments``."""
        return {
            "q": self.query,
            "k": self.key,
            "v": self.value,
            "block_indices": self.block_indices.contiguous(),
            "sinks": self.sinks,
            "cu_seqlens_q": self.starts,
            "cu_seqlens_k": self.starts,
            "block_size": self.block_size,
            "scale": self.scale,
            "max_seqlen_q": self.longest,
            "max_seqlen_k": self.longest,
        }


def selected_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    block_indices: torch.Tensor,
    *,
    block_size: int,
    sinks: torch.Tensor | None = None,
    cu_seqlens: torch.Tensor | None = None,
    max_seqlen: int | None = None,
    scale: float | None = None,
    return_lse: bool = False,
    check_selection: bool = True,
    on_unsupported: str | None = None,
) -> torch.Tensor | Outputs:
    """Return causal attention in which each query sees the keys of the blocks that it selects.

    query is [batch, heads, length, head_dim], key [batch, kv_heads, length, head_dim] and value [batch, kv_heads,
    length, head_dim_v]; kv_heads may be a divisor of heads. block_indices is an integer tensor [batch, kv_heads,
    length, blocks]: numbers of blocks of ``block_size`` keys, ascending, padded with -1 at the end. Query t sees key u
    if u <= t and u // block_size is among the numbers of t, of which there is room for three or more. These must
    include the query's own block and no block behind it; for kernels that were judged on no other selections, also
    block 0 and the one before its own. All this is looked at, which waits for the GPU, unless ``check_selection`` is
    False or a CUDA graph is recorded: torch computes other selections, and in a compiled graph the call raises
    ``UnsupportedCall``. Where nothing is looked at, kernels for any selection go first.

    The result is [batch, heads, length, head_dim_v], in the type of ``query``. ``scale`` is 1 / sqrt(head_dim) unless
    given. With ``return_lse`` the result is (out, lse): lse is float32 [batch, heads, length], the natural logarithm
    of the sum of exponentials of the scaled scores that a query sees, and has no gradient.

    ``sinks`` [heads] are logits that take part in the softmax and have no value. With ``cu_seqlens``, int32
    [sequences + 1], several sequences are packed one after another, and the batch is 1: sequence s has the queries and
    keys from ``cu_seqlens[s]`` to ``cu_seqlens[s + 1] - 1``, its blocks are counted from its own first key, and
    ``max_seqlen`` is the longest.

    Under ``torch.autocast`` query, key and value are taken in its type. Gradients come from a backward kernel if the
    package has one for the call; otherwise torch computes the call again. A call that no kernel takes goes to
    ``scaled_dot_product_attention`` with a mask, with one warning for each reason, or raises ``UnsupportedCall`` if
    ``on_unsupported`` is ``"raise"`` rather than ``"sdpa"``. The default is the environment's AVO_ON_UNSUPPORTED.
    """
    _check(query, key, value, block_indices, block_size)
    if (cu_seqlens is None) != (max_seqlen is None) or (cu_seqlens is not None and query.shape[0] != 1):
        raise ValueError("cu_seqlens and max_seqlen go together, with a batch of 1")
    query, key, value = autocast(query, key, value)
    factor = 1.0 / math.sqrt(query.shape[3]) if scale is None else float(scale)
    call = SelectedCall(query, key, value, block_indices, sinks, cu_seqlens, block_size, factor, max_seqlen or 0)
    kind, keys, local = call.kind(), length_of(call), False
    later = check_selection and torch.compiler.is_compiling()
    reason = _unsupported(call) or too_many(query, cu_seqlens) or candidates(kind, keys)[1]
    if not reason:
        look, kind = check_selection and not later, kind._replace(local=True)
        reason, local = _selects(kind, keys, block_indices, cu_seqlens, look=look)
    if reason:
        decline(reason, on_unsupported)
        return (by_torch(call), lse_by_torch(call)) if return_lse else by_torch(call)
    sinks = None if sinks is None else sinks.float().contiguous()
    starts = None if cu_seqlens is None else cu_seqlens.to(torch.int32).contiguous()
    blocks = block_indices.to(torch.int32)
    found: Outputs = _forward(
        *call._replace(block_indices=blocks, sinks=sinks, starts=starts, local=local, check=later)
    )
    return found if return_lse else found[0]


def _check(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, block_indices: torch.Tensor, block_size: int
) -> None:
    if not query.ndim == key.ndim == value.ndim == block_indices.ndim == 4:
        raise ValueError("query, key, value and block_indices should have 4 dimensions")
    batch, heads, length, head_dim = query.shape
    if key.shape[:3] != value.shape[:3] or (key.shape[0], key.shape[2], key.shape[3]) != (batch, length, head_dim):
        raise ValueError(f"shapes do not fit together: {query.shape}, {key.shape}, {value.shape}")
    if key.shape[1] == 0 or heads % key.shape[1]:
        raise ValueError(f"{heads} query heads cannot share {key.shape[1]} KV heads")
    if block_indices.shape[:3] != (batch, key.shape[1], length):
        raise ValueError(f"block_indices should be [batch, kv_heads, length, blocks], not {block_indices.shape}")
    if block_size < 1:
        raise ValueError(f"block_size should be positive, not {block_size}")


def _unsupported(call: SelectedCall) -> str:
    """Return in a few words what no kernel takes; an empty string where one may take the call."""
    query, key, value, block_indices = call.query, call.key, call.value, call.block_indices
    if not call.scale > 0.0:
        return "a scale that is not positive"
    if not query.dtype == key.dtype == value.dtype:
        return "tensors of different types"
    others = key, value, block_indices, call.sinks, call.starts
    if not all(each is None or each.device == query.device for each in others):
        return "tensors on different devices"
    if query.numel() == 0 or block_indices.numel() == 0:
        return "tensors without elements"
    return ""


def _selects(
    kind: Kind, keys: int, block_indices: torch.Tensor, starts: torch.Tensor | None, *, look: bool
) -> tuple[str, bool]:
    """Return in a few words why no kernel takes a selection, an empty string where one does; and whether only kernels
    for any selection may run, which ``kind`` asks for.
    """
    taking, reason = candidates(kind, keys)
    if not look or (block_indices.is_cuda and torch.cuda.is_current_stream_capturing()):
        return "", bool(taking)
    unfit, local = _unfit(block_indices, starts, kind.block_size)
    return unfit or (reason if local else ""), local


def _unfit(block_indices: torch.Tensor, starts: torch.Tensor | None, block_size: int) -> tuple[str, bool]:
    """Return in a few words what all kernels rely on and some queries' selections are not, an empty string if all are;
    and whether some lack block 0 or the one before their own.
    """
    if block_indices.shape[3] < _FEWEST:
        return f"fewer than {_FEWEST} selected blocks a query", False
    places = torch.arange(block_indices.shape[2], device=block_indices.device)
    complete = torch.zeros_like(places, dtype=torch.bool) if starts is None else places >= starts[-1]  # no one's tokens
    own = (places if starts is None else places - _first_keys(places, starts)) // block_size
    first, last, itself = ((block_indices == each[:, None]).any(3) for each in (own * 0, (own - 1).clamp(min=0), own))
    if not bool((complete | itself).all()):
        return "queries without their own block", False
    before, after = block_indices[..., :-1], block_indices[..., 1:]
    ascending = ((after == -1) | ((before >= 0) & (after > before))).all(3)
    if not bool((complete | (ascending & (block_indices <= own[:, None]).all(3))).all()):
        return "selected blocks that are not ascending with -1 at the end, or are behind the query", False
    return "", not bool((complete | (first & last)).all())


def _first_keys(places: torch.Tensor, starts: torch.Tensor) -> torch.Tensor:
    """Return the first key of the sequence that each of some keys is of."""
    return starts[torch.searchsorted(starts, places, right=True) - 1]


def _checked(call: SelectedCall) -> Outputs:
    if call.check:
        kind = call.kind()._replace(local=True)
        if reason := _selects(kind, 0, call.block_indices, call.starts, look=True)[0]:
            raise UnsupportedCall(f"{NAMESPACE} has no kernel for {reason}")
    return outputs(call)


def _again(call: SelectedCall, dout: torch.Tensor, *_: None) -> Sequence[torch.Tensor]:
    """Return the gradients of a call by torch."""
    with torch.enable_grad():
        given = (call.query, call.key, call.value, call.sinks)
        leaves = [each.detach().requires_grad_() for each in given if each is not None]
        query, key, value, *sinks = leaves
        found = by_torch(call._replace(query=query, key=key, value=value, sinks=sinks[0] if sinks else None))
        return torch.autograd.grad(found, leaves, dout)


_forward = operator("selected_attention", SelectedCall, _checked)
differentiate(_forward, "selected_attention", SelectedCall, _again, keeps=lambda call: False)


def by_torch(call: SelectedCall) -> torch.Tensor:
    """Return what ``selected_attention`` returns, computed by torch alone."""
    return torch.cat([_by_torch.attend(part, mask) for part, mask in _parts(call)], 2)


def lse_by_torch(call: SelectedCall) -> torch.Tensor:
    """Return the logarithm of each query's sum of exponentials, float32 [batch, heads, length], without gradients."""
    return torch.cat([_by_torch.lse(part, mask) for part, mask in _parts(call)], 2)


def _parts(call: SelectedCall) -> Iterator[tuple[Call, torch.Tensor]]:
    """Yield calls of ``_ROWS`` queries at a time, and which keys they see."""
    for start in range(0, call.query.shape[2], _ROWS):
        rows = call.query[:, :, start : start + _ROWS]
        yield Call(rows, call.key, call.value, call.sinks, scale=call.scale), _selected(call, start)


def _selected(call: SelectedCall, start: int) -> torch.Tensor:
    """Return which keys ``_ROWS`` queries from ``start`` on see, bool [batch, heads, rows, length]."""
    block_size, starts, (heads, length) = call.block_size, call.starts, call.query.shape[1:3]
    keys = torch.arange(length, device=call.query.device)
    first = torch.zeros_like(keys) if starts is None else _first_keys(keys, starts)
    rows, chosen = keys[start : start + _ROWS], call.block_indices[:, :, start : start + _ROWS]
    blocks = (length + block_size - 1) // block_size
    chosen = chosen.where(chosen < blocks, -1)  # a block behind all keys has none to see
    selected = torch.zeros(*chosen.shape[:3], blocks + 1, dtype=torch.bool, device=keys.device)
    selected = selected.scatter(3, chosen.long() + 1, True)  # the first column takes what is -1
    visible = (keys <= rows[:, None]) & (keys >= first[rows][:, None])
    visible = selected[..., (keys - first) // block_size + 1] & visible
    return visible.repeat_interleave(heads // chosen.shape[1], 1)
