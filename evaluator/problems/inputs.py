"""Makers of attention inputs: distributions chosen so that a kernel that cuts a corner gives wrong numbers."""

import hashlib
import math
from collections.abc import Callable

import torch

from avo.evaluator.problem import Case

Tensors = dict[str, torch.Tensor]

LOGIT_STD = 30.0
"""Standard deviation of the logits in ``large``: they reach beyond +-120, far outside what float32 exp can take."""

_LOW = 128
"""Low keys of ``step``: as many as a tile has, or more. Where they come first, a maximum that stays there until it has
grown by 124 bits (86 nats) gives each key above an exponential of up to 2^124, and 16 of them have no sum in float32.
"""
_LARGE_EVERY = 16
_POOL_ROWS = 8192
"""Rows in the pool from which ``tiled`` draws."""


def make(case: Case, seed: int) -> Tensors:
    """Return q, k and v of ``case``, each [batch, heads, sequence, elements] in its dtype, from its named maker."""
    return MAKERS[case.inputs](case, seed)


def pool_storage(name: str, size: int, row: int, dtype: torch.dtype, seed: int) -> torch.Tensor:
    """Return a flat storage of ``size`` unit-normal elements.

    On the CPU, where random numbers are expensive, the elements are rows of a pool, drawn again for each place. Rows
    shared by two heads would let one head's results be copied for the other. One query in ``_LARGE_EVERY`` is longer,
    so that its logits reach beyond +-120 as in ``large``; a kernel that leaves out the running maximum only at
    benchmark shapes fails there.
    """
    generator, rows = seeded(name, seed), math.ceil(size / row)
    pooled = generator.device.type == "cpu" and rows > _POOL_ROWS
    pool = torch.randn(_POOL_ROWS if pooled else rows, row, generator=generator)
    if name == "q":
        pool[seed % _LARGE_EVERY :: _LARGE_EVERY] *= LOGIT_STD
    pool = pool.to(dtype)
    if pooled:
        pool = pool.index_select(0, torch.randint(_POOL_ROWS, (rows,), generator=generator))
    return pool.flatten()[:size]


def seeded(name: str, seed: int) -> torch.Generator:
    """Return the random generator for ``name``, on torch's default device."""
    mixed = hashlib.sha256(f"{name}:{seed}".encode()).digest()
    return torch.Generator(torch.get_default_device()).manual_seed(int.from_bytes(mixed[:8], "little") >> 1)


def _normal(case: Case, seed: int) -> Tensors:
    dtype = getattr(torch, case.dtype)
    generator = seeded("normal", seed)
    query = (case.batch, case.heads, case.q_len, case.head_dim)
    key = (case.batch, case.kv_heads, case.kv_len, case.head_dim)
    value = (*key[:3], case.head_dim_v or case.head_dim)
    return {
        name: torch.randn(shape, generator=generator).to(dtype)
        for name, shape in (("q", query), ("k", key), ("v", value))
    }


def _large(case: Case, seed: int) -> Tensors:
    """Logits of both signs beyond +-120: without a running maximum exp overflows."""
    made = _normal(case, seed)
    made["q"] = (made["q"].float() * LOGIT_STD).to(made["q"].dtype)
    return made


def _outliers(case: Case, seed: int) -> Tensors:
    """N(0, 1) + N(0, 100) * Bernoulli(0.001) in every tensor."""
    made = _normal(case, seed)
    generator = seeded("outliers", seed)
    for name, tensor in made.items():
        spikes = torch.randn(tensor.shape, generator=generator) * 10
        chosen = torch.rand(tensor.shape, generator=generator) < 0.001
        made[name] = (tensor.float() + spikes * chosen).to(tensor.dtype)
    return made


def _constant(case: Case, seed: int) -> Tensors:
    """All keys of a head equal: every visible key weighs the same, so one key too many or too few shows in lse."""
    made = _normal(case, seed)
    made["k"] = made["k"][:, :, :1].expand_as(made["k"]).contiguous()
    return made


def _negative(case: Case, seed: int) -> Tensors:
    """All logits near -100: exp underflows unless the maximum is subtracted, and a padded zero logit would win."""
    made = _normal(case, seed)
    direction = torch.ones(case.head_dim)
    offset = math.sqrt(100.0 / math.sqrt(case.head_dim))
    made["q"] = (made["q"].float() * 0.1 + offset * direction).to(made["q"].dtype)
    made["k"] = (made["k"].float() * 0.1 - offset * direction).to(made["k"].dtype)
    return made


def _rising(case: Case, seed: int) -> Tensors:
    """Logits rise along the keys from about -120 to 120 in even heads and fall in odd ones: a maximum that does not
    follow overflows, whichever way a kernel walks.
    """
    made = _normal(case, seed)
    signs = 1 - 2 * (torch.arange(case.kv_heads) % 2)
    slope = torch.linspace(-1, 1, case.kv_len)[:, None] * signs[:, None, None]
    offset = math.sqrt(120.0 / math.sqrt(case.head_dim))
    made["q"] = (made["q"].float() * 0.1 + offset).to(made["q"].dtype)
    made["k"] = (made["k"].float() * 0.1 + offset * slope).to(made["k"].dtype)
    return made


def _step(case: Case, seed: int) -> Tensors:
    """Logits are near 0 in low keys and 80 to 88 in the others, another height for each query: a running maximum that
    lags by so much makes sums of exponentials that float32 does not hold. Low are the first ``_LOW`` keys, the last
    ones, or every other half of as many, in turn from head to head.
    """
    made, key = _normal(case, seed), torch.arange(case.kv_len)
    kinds = torch.stack((key >= _LOW, key < case.kv_len - _LOW, key // (_LOW // 2) % 2 == 1))
    drawn = torch.rand(case.batch, case.heads, case.q_len, 1, generator=seeded("step", seed))
    height = (80.0 + 8.0 * drawn) / (case.head_dim * (case.scale or case.head_dim**-0.5))
    made["q"] = (made["q"].float() * 0.1 + height).to(made["q"].dtype)
    high = kinds[torch.arange(case.kv_heads) % 3, :, None]
    made["k"] = (made["k"].float() * 0.03 + high).to(made["k"].dtype)
    return made


def _dominant(case: Case, seed: int) -> Tensors:
    """Each query is aligned with one visible key, anywhere, and gets that key's value: a skipped tile shows."""
    generator = seeded("dominant", seed)
    drawn = torch.rand(case.batch, case.heads, case.q_len, generator=generator)
    first = _first_seen(case)
    return _aligned(case, seed, first + (drawn * (_first_hidden(case) - first)).long())


def _edge(case: Case, seed: int) -> Tensors:
    """In even heads each query is aligned with its last visible key, in odd heads with its first hidden one, if any.

    So a bound that is off by one shows, whichever way, where it falls on the edge of a tile. With a window, queries
    take turns: the last visible key, the one behind, the first visible one, and the one before.
    """
    if getattr(case, "window", None):
        hidden, first, row = _first_hidden(case), _first_seen(case), torch.arange(case.q_len)
        turn = row + torch.arange(case.heads)[:, None] + 2 * torch.arange(case.batch)[:, None, None]
        kinds = torch.stack((hidden - 1, hidden, first, first - 1))
        return _aligned(case, seed, kinds[turn % 4, row].clamp(0, case.kv_len - 1))
    odd = torch.arange(case.heads) % 2
    chosen = _first_hidden(case) - 1 + odd[:, None]
    return _aligned(case, seed, chosen.clamp(max=case.kv_len - 1).expand(case.batch, -1, -1))


def _first_hidden(case: Case) -> torch.Tensor:
    """Return, for each query, the number of keys that it sees."""
    rows = torch.arange(case.q_len)
    return rows + (case.kv_len - case.q_len) + 1 if case.causal else torch.full_like(rows, case.kv_len)


def _first_seen(case: Case) -> torch.Tensor:
    """Return, for each query, the first key that it sees: 0 where the case has no window."""
    hidden = _first_hidden(case)
    window = getattr(case, "window", None)
    return (hidden - window).clamp(min=0) if window else torch.zeros_like(hidden)


def _aligned(case: Case, seed: int, chosen: torch.Tensor) -> Tensors:
    """Return inputs whose queries point along the ``chosen`` keys ([batch, heads, q_len]) and outweigh all others.

    Values carry their batch and head: a wrong head mapping shows.
    """
    made = _normal(case, seed)
    keys = made["k"].float().repeat_interleave(case.heads // case.kv_heads, dim=1)
    aligned = keys.gather(2, chosen[..., None].expand(-1, -1, -1, case.head_dim))
    made["q"] = (aligned * (25.0 / math.sqrt(case.head_dim))).to(made["q"].dtype)
    code = torch.arange(case.batch * case.kv_heads).view(case.batch, case.kv_heads, 1, 1)
    made["v"] = (made["v"].float() + code % 5).to(made["v"].dtype)
    return made


MAKERS: dict[str, Callable[[Case, int], Tensors]] = {
    "normal": _normal,
    "large": _large,
    "outliers": _outliers,
    "constant": _constant,
    "negative": _negative,
    "rising": _rising,
    "step": _step,
    "dominant": _dominant,
    "edge": _edge,
}
"""Input makers by name. ``tiled`` (see ``pool_storage``) is for benchmark shapes and makes storages directly."""
