"""fla-core: linear and softmax attention in all its forms, forward and backward, against plain recurrences in torch."""

# mypy: disable-error-code="import-not-found,misc,no-any-return"
# The packages are not installed where types are checked.

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F

from bench.packages.harness import Trial, gradients

Tensor = torch.Tensor
SIZES = ((1, 100, 2, 32, 64), (2, 65, 1, 64, 32))
"""Batch, tokens, heads, and width of keys and values."""


def recurrence(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: float,
    decay: Tensor | None = None,
    beta: Tensor | None = None,
    a: Tensor | None = None,
    b: Tensor | None = None,
) -> Tensor:
    """Return outputs [B, T, H, V] of S <- exp(decay) S + (a S) b + k v, o = scale q S; ``beta``: the delta rule.

    q, k, a, b and decay are [B, T, H, K] (decay may be [B, T, H]), v is [B, T, H, V], beta [B, T, H].
    """
    dtype = q.dtype
    q, k, v, decay, beta, a, b = (t if t is None else t.float() for t in (q, k, v, decay, beta, a, b))  # type: ignore
    state = q.new_zeros(*q.shape[:1], q.shape[2], q.shape[3], v.shape[3])
    out = []
    for t in range(q.shape[1]):
        new = v[:, t]
        previous = state
        if decay is not None:
            state = state * (decay[:, t].exp()[..., None, None] if decay.dim() == 3 else decay[:, t].exp()[..., None])
        if a is not None and b is not None:
            state = state + b[:, t][..., None] * (a[:, t][..., None] * previous).sum(-2)[..., None, :]
        if beta is not None:
            new = (new - (k[:, t][..., None] * state).sum(-2)) * beta[:, t][..., None]
        state = state + k[:, t][..., None] * new[..., None, :]
        out.append((q[:, t][..., None] * state).sum(-2) * scale)
    return torch.stack(out, 1).to(dtype)


def attention(q: Tensor, k: Tensor, v: Tensor, scale: float, gate: Tensor | None = None, window: int = 0) -> Tensor:
    """Return causal softmax attention of [B, T, H, D] with fewer key heads, optionally with forget gates [B, T, H]."""
    groups = q.shape[2] // k.shape[2]
    k, v = k.repeat_interleave(groups, 2), v.repeat_interleave(groups, 2)
    scores = torch.einsum("bihd,bjhd->bhij", q.float(), k.float()) * scale
    i = torch.arange(q.shape[1])
    if gate is not None:
        total = gate.float().cumsum(1).transpose(1, 2)
        scores = scores + total[..., :, None] - total[..., None, :]
    hidden = i[None, :] > i[:, None]
    if window:
        hidden = hidden | (i[:, None] - i[None, :] >= window)
    p = scores.masked_fill(hidden, -math.inf).softmax(-1)
    return torch.einsum("bhij,bjhd->bihd", p, v.float()).to(q.dtype)


def run(trial: Trial) -> None:
    """Call the operators of ``fla.ops`` and the functions of ``fla.modules``."""
    for dtype in (torch.float32, torch.bfloat16):
        for size in SIZES:
            _operators(trial, dtype, *size)
    _ragged(trial)
    _modules(trial)


def _operators(trial: Trial, dtype: torch.dtype, batch: int, tokens: int, heads: int, keys: int, values: int) -> None:
    import fla.ops as fla

    title = f"{str(dtype)[6:]} {batch}x{tokens}x{heads}x{keys}x{values}"
    q, k = (torch.randn(batch, tokens, heads, keys) for _ in range(2))
    v = torch.randn(batch, tokens, heads, values).to(dtype)
    unit = F.normalize(k, dim=-1).to(dtype)
    q, k = q.to(dtype), (k / 4).to(dtype)
    scalar = F.logsigmoid(torch.randn(batch, tokens, heads)) / 4
    vector = (F.logsigmoid(torch.randn(batch, tokens, heads, keys)) / 4).to(dtype)
    beta = torch.rand(batch, tokens, heads).sigmoid().to(dtype)
    scale = keys**-0.5
    rough = dtype is torch.bfloat16

    def pair(names: tuple[str, ...], got: Any, expected: Callable[..., Tensor], *inputs: Tensor) -> None:
        for name in names:
            trial.case(
                f"{name} {title}",
                lambda name=name: gradients(lambda *args: _first(got(getattr(fla, name), *args)), inputs),
                lambda: gradients(expected, inputs),
                rtol=6e-2 if rough else 2e-2,
                atol=1e-1 if rough else 2e-2,
            )

    pair(
        ("chunk_linear_attn", "fused_chunk_linear_attn", "fused_recurrent_linear_attn"),
        lambda f, q, k, v: f(q, k, v, scale=scale, normalize=False),
        lambda q, k, v: recurrence(q, k, v, scale),
        *(q, k, v),
    )
    rates = (1 - torch.exp2(-5 - torch.arange(heads).float())).log().expand(batch, tokens, heads)
    pair(
        ("chunk_retention", "fused_chunk_retention", "fused_recurrent_retention", "parallel_retention"),
        lambda f, q, k, v: f(q, k, v),
        lambda q, k, v: recurrence(q, k, v, scale, rates),
        *(q, k, v),
    )
    pair(
        ("chunk_simple_gla", "fused_chunk_simple_gla", "fused_recurrent_simple_gla", "parallel_simple_gla"),
        lambda f, q, k, v, g: f(q, k, v, g),
        lambda q, k, v, g: recurrence(q, k, v, scale, g),
        *(q, k, v, scalar),
    )
    pair(
        ("chunk_gla",),
        lambda f, q, k, v, g: f(q, k, v, g),
        lambda q, k, v, g: recurrence(q, k, v, scale, g),
        *(q, k, v, vector),
    )
    pair(
        ("fused_recurrent_gla",),
        lambda f, q, k, v, g: f(q, k, v, gk=g),
        lambda q, k, v, g: recurrence(q, k, v, scale, g),
        *(q, k, v, vector),
    )
    pair(
        ("chunk_delta_rule", "fused_recurrent_delta_rule"),
        lambda f, q, k, v, beta: f(q, k, v, beta),
        lambda q, k, v, beta: recurrence(q, k, v, scale, None, beta),
        *(q, unit, v, beta),
    )
    pair(
        ("chunk_gated_delta_rule",),
        lambda f, q, k, v, g, beta: f(q, k, v, g, beta),
        lambda q, k, v, g, beta: recurrence(q, k, v, scale, g, beta),
        *(q, unit, v, scalar, beta),
    )
    pair(
        ("chunk_kda",),
        lambda f, q, k, v, g, beta: f(q, k, v, g, beta),
        lambda q, k, v, g, beta: recurrence(q, k, v, scale, g, beta),
        *(q, unit, v, vector.float(), beta),
    )
    pair(
        ("chunk_dplr_delta_rule",),
        lambda f, q, k, v, a, b, g: f(q, k, v, a, b, g),
        lambda q, k, v, a, b, g: recurrence(q, k, v, scale, g, None, a, b),
        *(q, k, v, -unit, (unit.float() * 0.5).to(dtype), vector),
    )
    pair(
        ("parallel_attn",),
        lambda f, q, k, v: f(q, k, v),
        lambda q, k, v: attention(q, k, v, scale),
        *(q, q.roll(1, 1), v),
    )
    pair(
        ("parallel_attn",),
        lambda f, q, k, v: f(q, k, v, window_size=20),
        lambda q, k, v: attention(q, k, v, scale, window=20),
        *(q, q.roll(1, 1), v),
    )
    pair(
        ("parallel_forgetting_attn",),
        lambda f, q, k, v, g: f(q, k, v, g),
        lambda q, k, v, g: attention(q, k, v, scale, g),
        *(q, q.roll(1, 1), v, scalar),
    )
    _forward_only(trial, title, dtype, q, k, unit, v, scalar, vector, beta, scale)


def _forward_only(
    trial: Trial,
    title: str,
    dtype: torch.dtype,
    q: Tensor,
    k: Tensor,
    unit: Tensor,
    v: Tensor,
    scalar: Tensor,
    vector: Tensor,
    beta: Tensor,
    scale: float,
) -> None:
    import fla.ops as fla

    tolerance = {"rtol": 3e-2, "atol": 5e-2} if dtype is torch.bfloat16 else {"rtol": 1e-2, "atol": 1e-2}

    def case(name: str, got: Callable[[], Any], expected: Callable[[], Tensor]) -> None:
        trial.case(f"{name} {title}", lambda: _first(got()), expected, **tolerance)

    case(
        "fused_recurrent_gated_delta_rule",
        lambda: fla.fused_recurrent_gated_delta_rule(q, unit, v, g=scalar, beta=beta),
        lambda: recurrence(q, unit, v, scale, scalar, beta),
    )
    case(
        "fused_recurrent_kda",
        lambda: fla.fused_recurrent_kda(q, unit, v, vector.float(), beta),
        lambda: recurrence(q, unit, v, scale, vector, beta),
    )
    case(
        "fused_recurrent_dplr_delta_rule",
        lambda: fla.fused_recurrent_dplr_delta_rule(q, k, v, -unit, unit / 2, vector),
        lambda: recurrence(q, k, v, scale, vector, None, -unit, unit / 2),
    )
    for name in ("chunk_rwkv7", "fused_recurrent_rwkv7"):
        case(
            name,
            lambda name=name: getattr(fla, name)(q, vector, k, v, -unit, unit / 2, scale=scale),
            lambda: recurrence(q, k, v, scale, vector, None, -unit, unit / 2),
        )
    rows = v[:, :, 0]
    gates = F.logsigmoid(torch.randn(rows.shape)).to(dtype)
    case("fused_recurrent_hgrn", lambda: fla.fused_recurrent_hgrn(rows, gates), lambda: _hgrn(rows, gates))


def _hgrn(x: Tensor, g: Tensor) -> Tensor:
    state, out = torch.zeros_like(x[:, 0]).float(), []
    for t in range(x.shape[1]):
        state = state * g[:, t].float().exp() + x[:, t].float()
        out.append(state)
    return torch.stack(out, 1).to(x.dtype)


def _ragged(trial: Trial) -> None:
    """Sequences of different lengths in one batch."""
    import fla.ops as fla

    ends = torch.tensor([0, 15, 80, 129], dtype=torch.int32)
    q, k, v = torch.randn(1, 129, 2, 32), torch.randn(1, 129, 2, 32) / 4, torch.randn(1, 129, 2, 32)
    unit, beta = F.normalize(k, dim=-1), torch.rand(1, 129, 2)
    scalar = F.logsigmoid(torch.randn(1, 129, 2)) / 4
    scale = 32**-0.5

    def apart(function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        return torch.cat([function(*(t[:, a:b] for t in inputs)) for a, b in pairwise(ends)], 1)

    cases: tuple[tuple[str, Any, Any, tuple[Tensor, ...]], ...] = (
        ("chunk_simple_gla", lambda f, *t: f(*t), lambda q, k, v, g: recurrence(q, k, v, scale, g), (q, k, v, scalar)),
        (
            "fused_recurrent_simple_gla",
            lambda f, *t: f(*t),
            lambda q, k, v, g: recurrence(q, k, v, scale, g),
            (q, k, v, scalar),
        ),
        (
            "chunk_gated_delta_rule",
            lambda f, *t: f(*t),
            lambda q, k, v, g, b: recurrence(q, k, v, scale, g, b),
            (q, unit, v, scalar, beta),
        ),
        (
            "chunk_delta_rule",
            lambda f, *t: f(*t),
            lambda q, k, v, b: recurrence(q, k, v, scale, None, b),
            (q, unit, v, beta),
        ),
        ("parallel_attn", lambda f, *t: f(*t), lambda q, k, v: attention(q, k, v, scale), (q, k, v)),
    )
    for name, got, expected, inputs in cases:
        trial.case(
            f"{name} ragged",
            lambda name=name, got=got, inputs=inputs: gradients(
                lambda *args: _first(got(lambda *t: getattr(fla, name)(*t, cu_seqlens=ends), *args)), inputs
            ),
            lambda expected=expected, inputs=inputs: gradients(lambda *args: apart(expected, *args), inputs),
            rtol=2e-2,
            atol=2e-2,
        )


def _modules(trial: Trial) -> None:
    from fla.modules.activations import logsigmoid, sigmoid, sqrelu, swiglu, swish
    from fla.modules.l2norm import l2norm
    from fla.modules.layernorm import layer_norm, rms_norm
    from fla.modules.rotary import rotary_embedding
    from fla.ops.utils import chunk_global_cumsum, chunk_local_cumsum, mean_pooling, softmax

    x, w, b = torch.randn(3, 37, 64), torch.rand(64) + 0.5, torch.randn(64)

    def pair(name: str, got: Any, expected: Any, *inputs: Tensor) -> None:
        trial.case(name, lambda: gradients(got, inputs), lambda: gradients(expected, inputs), rtol=1e-3, atol=1e-3)

    pair("layer_norm", layer_norm, lambda x, w, b: F.layer_norm(x, (64,), w, b), x, w, b)
    pair("rms_norm", rms_norm, lambda x, w, b: F.rms_norm(x, (64,), w, 1e-5) + b, x, w, b)
    pair("l2norm", l2norm, lambda x: x * torch.rsqrt((x * x).sum(-1, keepdim=True) + 1e-6), x)
    pair("swish", swish, F.silu, x)
    pair("sigmoid", sigmoid, torch.sigmoid, x)
    pair("logsigmoid", logsigmoid, F.logsigmoid, x)
    pair("sqrelu", sqrelu, lambda x: F.relu(x) ** 2, x)
    pair("swiglu", swiglu, lambda x, y: F.silu(x) * y, x, x.roll(1, 0))
    trial.case("softmax", lambda: softmax(x), lambda: F.softmax(x, -1))
    heads = torch.randn(2, 100, 4)
    trial.case(
        "chunk_local_cumsum",
        lambda: chunk_local_cumsum(heads, 32),
        lambda: torch.cat([part.cumsum(1) for part in heads.split(32, 1)], 1),
    )
    trial.case("chunk_global_cumsum", lambda: chunk_global_cumsum(heads), lambda: heads.cumsum(1))
    long = torch.randn(2, 96, 4, 32)
    trial.case("mean_pooling", lambda: mean_pooling(long, 32), lambda: long.view(2, 3, 32, 4, 32).mean(2))
    angles = torch.outer(torch.arange(96.0), 10000 ** (-torch.arange(0, 32, 2) / 32))
    first, second = long.chunk(2, -1)
    cos, sin = angles.cos()[:, None], angles.sin()[:, None]
    trial.case(
        "rotary_embedding",
        lambda: rotary_embedding(long, angles.cos(), angles.sin()),
        lambda: torch.cat((first * cos - second * sin, first * sin + second * cos), -1),
    )


def _first(result: Any) -> Tensor:
    tensor: Tensor = result[0] if isinstance(result, tuple) else result
    return tensor
