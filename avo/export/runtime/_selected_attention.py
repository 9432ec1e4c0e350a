"""``selected_attention``: the selected branch of native sparse attention by the kernels of this package."""

import math
from collections.abc import Iterator
from typing import Any

import torch

from . import _by_torch
from ._dispatch import (
    NAMESPACE,
    Call,
    UnsupportedCall,
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

_FEWEST = 3
"""Room for selected blocks that a query has at least."""
_ROWS = 1024
"""Number of queries that torch takes at once: for each query head it needs a mask of these by all keys."""


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
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
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
    given = query, key, value, block_indices
    reason = _unsupported(*given, sinks, cu_seqlens, block_size, factor)
    later = check_selection and torch.compiler.is_compiling()
    local = False
    if not reason:
        call = _call(query, key, value, sinks, cu_seqlens, block_size, local=True)
        reason, local = _selects(call, length_of(key), block_indices, cu_seqlens, look=check_selection and not later)
    if reason:
        decline(reason, on_unsupported)
        out = by_torch(*given, sinks, cu_seqlens, block_size, factor)
        if not return_lse:
            return out
        return out, lse_by_torch(query, key, block_indices, sinks, cu_seqlens, block_size, factor)
    sinks = None if sinks is None else sinks.float().contiguous()
    starts = None if cu_seqlens is None else cu_seqlens.to(torch.int32).contiguous()
    found: tuple[torch.Tensor, torch.Tensor]
    found = _forward(
        query, key, value, block_indices.to(torch.int32), sinks, starts, block_size, factor, max_seqlen or 0, local,
        later,
    )  # fmt: skip
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


def _unsupported(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    block_indices: torch.Tensor,
    sinks: torch.Tensor | None,
    starts: torch.Tensor | None,
    block_size: int,
    scale: float,
) -> str:
    """Return in a few words why no kernel takes a call; an empty string where one does."""
    if not scale > 0.0:
        return "a scale that is not positive"
    if not query.dtype == key.dtype == value.dtype:
        return "tensors of different types"
    others = [each for each in (sinks, starts) if each is not None]
    if not all(each.device == query.device for each in (key, value, block_indices, *others)):
        return "tensors on different devices"
    if query.numel() == 0 or block_indices.numel() == 0:
        return "tensors without elements"
    return candidates(_call(query, key, value, sinks, starts, block_size, local=False), length_of(key))[1]


def _selects(
    call: Call, keys: int, block_indices: torch.Tensor, starts: torch.Tensor | None, *, look: bool
) -> tuple[str, bool]:
    """Return in a few words why no kernel takes a selection, an empty string where one does; and whether only kernels
    for any selection may run, which ``call`` asks for.
    """
    taking, reason = candidates(call, keys)
    if not look or (block_indices.is_cuda and torch.cuda.is_current_stream_capturing()):
        return "", bool(taking)
    unfit, local = _unfit(block_indices, starts, call.block_size)
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


def _call(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    sinks: torch.Tensor | None,
    starts: torch.Tensor | None,
    block_size: int,
    *,
    local: bool,
) -> Call:
    dims, group, has = (query.shape[3], value.shape[3]), query.shape[1] // key.shape[1], sinks is not None
    packed = starts is not None
    return Call("selected_attention", query.device, query.dtype, dims, group, True, 0, has, packed, block_size, local)


@torch.library.custom_op(f"{NAMESPACE}::selected_attention", mutates_args=())
def _forward(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    block_indices: torch.Tensor,
    sinks: torch.Tensor | None,
    starts: torch.Tensor | None,
    block_size: int,
    scale: float,
    longest: int,
    local: bool,
    check: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    if check:
        any_selection = _call(query, key, value, sinks, starts, block_size, local=True)
        if reason := _selects(any_selection, 0, block_indices, starts, look=True)[0]:
            raise UnsupportedCall(f"{NAMESPACE} has no kernel for {reason}")
    out, lse = empty_outputs(query, value)
    given = {name: as_judged(each) for name, each in {"q": query, "k": key, "v": value}.items()}
    given |= _others(block_indices, sinks, starts) | {"out": out, "lse": lse}
    call = _call(query, key, value, sinks, starts, block_size, local=local)
    kernel = choose(call, query.shape[2], key.shape[2])
    launch(kernel, given, _scalars(block_size, scale, longest))
    return out, lse


@_forward.register_fake
def _(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: Any) -> tuple[torch.Tensor, torch.Tensor]:
    return empty_outputs(query, value)


@torch.library.custom_op(f"{NAMESPACE}::selected_attention_backward", mutates_args=())
def _gradients(
    dout: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    block_indices: torch.Tensor,
    sinks: torch.Tensor | None,
    starts: torch.Tensor | None,
    out: torch.Tensor,
    lse: torch.Tensor,
    block_size: int,
    scale: float,
    longest: int,
    local: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    made = empty_gradients(query, key, value, sinks)
    tensors = {"q": query, "k": key, "v": value, "out": out, "dout": dout}
    given = {name: as_judged(each) for name, each in tensors.items()}
    given |= _others(block_indices, sinks, starts) | {"lse": lse}
    given |= dict(zip(("dq", "dk", "dv", "dsinks"), made, strict=True))
    call = _call(query, key, value, sinks, starts, block_size, local=local)
    kernel = choose(call, query.shape[2], key.shape[2], backward=True)
    launch(kernel, given, _scalars(block_size, scale, longest))
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
    block_indices: torch.Tensor,
    sinks: torch.Tensor | None,
    *_: Any,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    return empty_gradients(query, key, value, sinks)


def _others(
    block_indices: torch.Tensor, sinks: torch.Tensor | None, starts: torch.Tensor | None
) -> dict[str, torch.Tensor]:
    # Each sequence has as many queries as keys.
    named = {"sinks": sinks, "cu_seqlens_q": starts, "cu_seqlens_k": starts}
    return {"block_indices": block_indices.contiguous(), **{n: each for n, each in named.items() if each is not None}}


def _scalars(block_size: int, scale: float, longest: int) -> dict[str, Any]:
    return {"block_size": block_size, "scale": scale, "max_seqlen_q": longest, "max_seqlen_k": longest}


def _remember(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, torch.Tensor]) -> None:
    query, key, value, block_indices, sinks, starts, *ctx.settings, _ = inputs
    block_size, _, _, local = ctx.settings
    call = _call(query, key, value, sinks, starts, block_size, local=local)
    ctx.by_kernel = bool(gradients_by(call, length_of(key)))
    kept = output if ctx.by_kernel else (None, None)  # torch computes all else again
    ctx.save_for_backward(query, key, value, block_indices, sinks, starts, *kept)
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad: torch.Tensor | None, _: None) -> tuple[torch.Tensor | None, ...]:
    if grad is None:
        return (None,) * 11
    query, key, value, block_indices, sinks, starts, out, lse = ctx.saved_tensors
    if ctx.by_kernel:
        given = query, key, value, block_indices, sinks, starts, out, lse
        dq, dk, dv, dsinks = _gradients(grad, *given, *ctx.settings)
        return dq, dk, dv, None, None if sinks is None else dsinks.flatten(), *(None,) * 6
    with torch.enable_grad():
        leaves = [each.detach().requires_grad_() for each in (query, key, value, sinks) if each is not None]
        again = leaves[3] if sinks is not None else None
        block_size, scale, *_ = ctx.settings
        out = by_torch(leaves[0], leaves[1], leaves[2], block_indices, again, starts, block_size, scale)
        dq, dk, dv, *rest = torch.autograd.grad(out, leaves, grad)
    return dq, dk, dv, None, rest[0] if rest else None, *(None,) * 6


_forward.register_autograd(_backward, setup_context=_remember)


def by_torch(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    block_indices: torch.Tensor,
    sinks: torch.Tensor | None,
    starts: torch.Tensor | None,
    block_size: int,
    scale: float,
) -> torch.Tensor:
    """Return what ``selected_attention`` returns, computed by torch alone."""
    parts = _parts(query, block_indices, starts, block_size)
    outs = [_by_torch.attend(part, key, value, False, scale, sinks=sinks, mask=mask) for part, mask in parts]
    return torch.cat(outs, 2)


def lse_by_torch(
    query: torch.Tensor,
    key: torch.Tensor,
    block_indices: torch.Tensor,
    sinks: torch.Tensor | None,
    starts: torch.Tensor | None,
    block_size: int,
    scale: float,
) -> torch.Tensor:
    """Return the logarithm of each query's sum of exponentials, float32 [batch, heads, length], without gradients."""
    parts = _parts(query, block_indices, starts, block_size)
    return torch.cat([_by_torch.lse(part, key, False, scale, 0, sinks, mask) for part, mask in parts], 2)


def _parts(
    query: torch.Tensor, block_indices: torch.Tensor, starts: torch.Tensor | None, block_size: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield ``_ROWS`` queries at a time, and which keys they see."""
    for start in range(0, query.shape[2], _ROWS):
        yield query[:, :, start : start + _ROWS], _selected(query, block_indices, starts, block_size, start)


def _selected(
    query: torch.Tensor, block_indices: torch.Tensor, starts: torch.Tensor | None, block_size: int, start: int
) -> torch.Tensor:
    """Return which keys ``_ROWS`` queries from ``start`` on see, bool [batch, heads, rows, length]."""
    heads, length = query.shape[1:3]
    keys = torch.arange(length, device=query.device)
    first = torch.zeros_like(keys) if starts is None else _first_keys(keys, starts)
    rows, chosen = keys[start : start + _ROWS], block_indices[:, :, start : start + _ROWS]
    blocks = (length + block_size - 1) // block_size
    chosen = chosen.where(chosen < blocks, -1)  # a block behind all keys has none to see
    selected = torch.zeros(*chosen.shape[:3], blocks + 1, dtype=torch.bool, device=query.device)
    selected = selected.scatter(3, chosen.long() + 1, True)  # the first column takes what is -1
    visible = (keys <= rows[:, None]) & (keys >= first[rows][:, None])
    visible = selected[..., (keys - first) // block_size + 1] & visible
    return visible.repeat_interleave(heads // chosen.shape[1], 1)
