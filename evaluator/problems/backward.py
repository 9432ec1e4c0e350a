"""Dense attention, backward: the problems ``mha_backward`` and ``gqa_backward``.

lse and out are inputs that a candidate takes as they are: P = exp(scale * q k^T - lse), dV = P^T dout,
dS = P * (dout v^T - rowsum(dout * out)), dQ = scale * dS k and dK = scale * dS^T q (FlashAttention-2, arXiv
2307.08691, algorithm 2). They may be of more keys than are given, as under ring attention (arXiv 2310.01889), where
each device has a part of the keys; so statistics that are computed again from the keys at hand are wrong.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import TYPE_CHECKING

from evaluator.plan import Role
from evaluator.problem import HELD_OUT, Baseline, Call, Case, Expected, Output, Rounded, TensorSpec
from evaluator.problems.dense import (
    attend,
    benchmark,
    laid_out,
    logits,
    longer,
    of_any_length,
    outputs,
    plant_key,
    published,
    qkv,
    query_shape,
    small,
    softmax_scale,
    stored,
    tiled,
    total_bytes,
)

if TYPE_CHECKING:
    from random import Random

    import torch

LENGTHS_K = (4, 8, 16)
"""Sequence lengths of the benchmark cases, in units of 1024 tokens, of which each case has 32, as in ``mha``."""

_FLOAT32, _FLOAT32_TINY = 2.0**-24, 2.0**-126
"""Relative error of an operation in float32, and its smallest normal number."""

GRADIENT = Rounded(factor=4.5)
"""Each of the factors P and dS is rounded once. Their errors are independent, and add up to what ``Sums`` says in the
mean square. Where the vectors that they weigh all point one way the sum is one normally distributed number, which
exceeds 4.5 times that in 7 of a million rows; in 128 dimensions it hardly exceeds it at all.
"""
OUTPUTS = (Output("dq", GRADIENT), Output("dk", GRADIENT, "keys"), Output("dv", GRADIENT, "keys"))


@dataclass(frozen=True, slots=True)
class BackwardCase(Case):
    """A case of a backward pass."""

    elsewhere: float = 0.0
    """By how much a query's lse may exceed that of the keys at hand, as keys elsewhere have a part in it and in out."""


@dataclass(frozen=True)
class AttentionBackward:
    """``def attention_backward(q, k, v, out, lse, dout, dq, dk, dv, *, causal: bool, scale: float) -> None``.

    q, out, dout and dq are [batch, heads, q_len, head_dim], k, v, dk and dv [batch, kv_heads, kv_len, head_dim], lse
    float32 [batch, heads, q_len]. Query i sees key j when not causal or ``j <= i + kv_len - q_len``. Head h uses KV
    head ``h // (heads / kv_heads)``, whose gradients are sums over its query heads.

    With P = exp(scale * q k^T - lse) where a key is seen, and 0 elsewhere: dv = P^T dout, dS = P * (dout v^T -
    rowsum(dout * out)), dq = scale * dS k, dk = scale * dS^T q. lse and out are taken as they are: they may be of more
    keys than k has. Sums may be made in any order, by atomic additions too.
    """

    name: str
    correctness_cases: tuple[BackwardCase, ...]
    suites: Mapping[str, tuple[BackwardCase, ...]]
    baselines: tuple[Baseline, ...] = ()
    entry: str = field(default="attention_backward", init=False)
    outputs: tuple[Output, ...] = field(default=OUTPUTS, init=False)

    def call(self, case: Case) -> Call:
        """Return the nine tensors and two scalars of ``case``."""
        scalars = (("causal", case.causal), ("scale", softmax_scale(case)))
        return Call(case.name, (*backward_inputs(case), *gradients(case)), scalars)

    def at_other_lengths(self, case: Case, chance: "Random") -> Case:
        """Return ``longer``."""
        return longer(case, chance)

    def at_length(self, case: Case, length: int, chance: "Random") -> Case:
        """Return ``of_any_length``."""
        return of_any_length(case, length, chance)

    def flops(self, case: Case) -> int:
        """Return 10 * batch * heads * q_len * kv_len * head_dim, halved when causal: five products to the two of the
        forward pass, as FlashAttention's benchmarks count (arXiv 2307.08691, section 4.1).
        """
        full = 10 * case.batch * case.heads * case.q_len * case.kv_len * case.head_dim
        return full // 2 if case.causal else full

    def least_bytes(self, case: Case) -> int:
        """Return the bytes of all nine tensors."""
        return total_bytes(self.call(case))

    def make_inputs(self, case: Case, seed: int) -> "dict[str, torch.Tensor]":
        """Return the flat storages of q, k, v, out, lse and dout."""
        if case.inputs == "tiled":
            return tiled_inputs(case, seed, _elsewhere(case), case.kv_len)
        return small_inputs(case, seed, _elsewhere(case), partial(logits, case))

    def reference(
        self, case: Case, inputs: "Mapping[str, torch.Tensor]", of: str, batch: int, head: int, rows: "torch.Tensor"
    ) -> Mapping[str, Expected]:
        """Return dq for rows of queries, dk and dv for rows of keys: see ``Problem.reference``."""
        import torch

        view = backward_views(case, inputs)
        if of == "queries":
            return of_queries(case, view, batch, head, rows, logits(case, view, batch, head, rows))
        queries = torch.arange(case.q_len)
        visible = queries >= rows[:, None] - (case.kv_len - case.q_len) if case.causal else None
        return of_keys(case, view, batch, head, rows, queries, visible)

    def plant(
        self, case: Case, inputs: "Mapping[str, torch.Tensor]", chance: "Random"
    ) -> Mapping[str, tuple[int, int, int]]:
        """See ``plant_gradient``."""
        return plant_gradient(case, inputs, chance)


def plant_gradient(
    case: Case, inputs: "Mapping[str, torch.Tensor]", chance: "Random"
) -> Mapping[str, tuple[int, int, int]]:
    """Give one query a key of its own, as ``plant_key`` does, which has more than half of its attention."""
    import torch

    planted = plant_key(case, inputs, chance)
    (batch, head, row), key = planted["queries"], planted["keys"]
    view = backward_views(case, inputs)
    score = view["q"][batch, head, row].float() @ view["k"][key].float() * softmax_scale(case)
    view["lse"][batch, head, row] = score + 0.5
    generator = torch.Generator("cpu").manual_seed(chance.getrandbits(62))
    view["dout"][batch, head, row].copy_(torch.randn(case.head_dim, generator=generator, device="cpu"))
    return planted


def gradients(case: Case) -> tuple[TensorSpec, ...]:
    """Return dq, dk and dv of ``case``, in its layout."""
    key = (case.batch, case.kv_heads, case.kv_len, case.head_dim)
    return (
        laid_out("dq", query_shape(case), case, Role.OUTPUT),
        laid_out("dk", key, case, Role.OUTPUT),
        laid_out("dv", key, case, Role.OUTPUT),
    )


def backward_inputs(case: Case) -> tuple[TensorSpec, ...]:
    """Return q, k, v, out, lse and dout of ``case``, in its layout."""
    out, lse = (replace(spec, role=Role.INPUT) for spec in outputs(case))
    return (*qkv(case), out, lse, laid_out("dout", query_shape(case), case, Role.INPUT))


def backward_views(case: Case, inputs: "Mapping[str, torch.Tensor]") -> "dict[str, torch.Tensor]":
    """Return ``backward_inputs`` over their flat storages."""
    return {spec.name: inputs[spec.name].as_strided(spec.shape, spec.strides) for spec in backward_inputs(case)}


def small_inputs(
    case: Case,
    seed: int,
    elsewhere: float,
    scores: "Callable[[dict[str, torch.Tensor], int, int, torch.Tensor], torch.Tensor]",
) -> "dict[str, torch.Tensor]":
    """Return flat storages of ``backward_inputs`` from the input maker of ``case``.

    out and lse are those of the keys at hand, and of others as far as ``elsewhere`` says. ``scores`` takes q, k and v,
    a batch, a head and its rows, and returns what ``logits`` does.
    """
    import torch

    from evaluator.problems import inputs

    made = inputs.make(case, seed)
    dtype, generator, shape = made["q"].dtype, inputs.seeded("backward", seed), query_shape(case)
    out, lse = torch.empty(shape, dtype=torch.float64), torch.empty(shape[:3], dtype=torch.float64)
    rows, group = torch.arange(case.q_len), case.heads // case.kv_heads
    for batch in range(case.batch):
        for head in range(case.heads):
            v = made["v"][batch, head // group].double()
            out[batch, head], lse[batch, head], _ = attend(scores(made, batch, head, rows), v, dtype)
    more = elsewhere * torch.rand(shape[:3], generator=generator)
    part = (-more.double()).exp()[..., None]
    out = part * out + (1 - part) * torch.randn(shape, generator=generator)
    dout = torch.randn(shape, generator=generator)
    made |= {"out": out.to(dtype), "lse": (lse + more).float(), "dout": dout.to(dtype)}
    return stored(backward_inputs(case), made)


def tiled_inputs(case: Case, seed: int, elsewhere: float, keys: int) -> "dict[str, torch.Tensor]":
    """Return flat storages of ``backward_inputs`` at a benchmark shape, where attention takes a CPU too long: with
    unit-normal keys the exponentials of a query's scores have a mean of exp((scale |q|)^2 / 2), from which the lse of
    as many ``keys`` as a query may see is told; out is drawn.
    """
    import torch

    from evaluator.problems import inputs

    specs = {spec.name: spec for spec in backward_inputs(case)}
    drawn = [spec for name, spec in specs.items() if name != "lse"]
    made = {}
    for spec in drawn:
        name, size = f"{spec.name} of a backward pass", math.prod(spec.shape)
        made[spec.name] = inputs.pool_storage(name, size, spec.shape[-1], getattr(torch, case.dtype), seed)
    if any(spec.size != made[spec.name].numel() for spec in drawn):
        made = stored(drawn, {spec.name: made[spec.name].view(spec.shape) for spec in drawn})
    q = made["q"].as_strided(specs["q"].shape, specs["q"].strides)
    length = torch.linalg.vector_norm(q, dim=-1, dtype=torch.float32)
    more = elsewhere * torch.rand(length.shape, generator=inputs.seeded("lse", seed))
    lse = math.log(keys) + (softmax_scale(case) * length).square() / 2 + more
    return {**made, "lse": lse.flatten()}


def of_queries(
    case: Case,
    view: "Mapping[str, torch.Tensor]",
    batch: int,
    head: int,
    rows: "torch.Tensor",
    scores: "torch.Tensor",
) -> dict[str, Expected]:
    """Return dq of query ``rows`` [n] whose scores are ``scores`` [n, keys], -inf where hidden."""
    dout, out = (view[name][batch, head, rows].double() for name in ("dout", "out"))
    k, v = (view[name][batch, head // (case.heads // case.kv_heads)].double() for name in ("k", "v"))
    p = (scores - view["lse"][batch, head, rows, None].double()).exp_()
    ds = p * (dout @ v.T - (dout * out).sum(1, keepdim=True))
    slack = dout.norm(dim=1)[:, None] * (out.norm(dim=1)[:, None] + v.norm(dim=1))
    sums = Sums(view["q"].dtype, softmax_scale(case))
    sums.add(ds, k, p, slack)
    return {"dq": sums.expected()}


def of_keys(
    case: Case,
    view: "Mapping[str, torch.Tensor]",
    batch: int,
    head: int,
    rows: "torch.Tensor",
    queries: "torch.Tensor",
    visible: "torch.Tensor | None",
) -> dict[str, Expected]:
    """Return dk and dv of key ``rows`` [n], which ``queries`` [m] see where ``visible`` [n, m] says so; None: all."""
    import torch

    k, v = (view[name][batch, head, rows].double() for name in ("k", "v"))
    dk, dv = Sums(view["q"].dtype, softmax_scale(case)), Sums(view["q"].dtype, 1.0)
    group = case.heads // case.kv_heads
    for each in range(head * group, (head + 1) * group):
        q, dout, out = (view[name][batch, each, queries].double() for name in ("q", "dout", "out"))
        p = ((k @ q.T) * softmax_scale(case) - view["lse"][batch, each, queries].double()).exp_()
        if visible is not None:
            p = p.masked_fill(~visible, 0.0)
        ds = p * (v @ dout.T - (dout * out).sum(1))
        slack = dout.norm(dim=1) * (out.norm(dim=1) + v.norm(dim=1)[:, None])
        dk.add(ds, q, p, slack)
        dv.add(p, dout, p, torch.zeros(()))
    return {"dk": dk.expected(), "dv": dv.expected()}


class Sums:
    """Sums of vectors, each times a factor that is rounded to ``dtype``, and how exact they can be; all in float64."""

    def __init__(self, dtype: "torch.dtype", scale: float) -> None:
        import torch

        of = torch.finfo(dtype)
        self._eps, self._smallest, self._scale = of.eps, of.smallest_normal * of.eps, scale
        self._value: torch.Tensor | float = 0.0
        self._square: torch.Tensor | float = 0.0
        self._bound: torch.Tensor | float = 0.0
        self._elements = 1

    def add(self, factors: "torch.Tensor", vectors: "torch.Tensor", p: "torch.Tensor", size: "torch.Tensor") -> None:
        """Add ``vectors`` [m, elements] times ``factors`` [n, m], which are ``p`` times a difference of two products of
        vectors; ``size`` is the sum of the products of their norms.

        Rounding errors of factors are uniform within half a unit in the last place, a twelfth of its square in the mean
        square; those below the smallest number are lost. Sums of products in float32 are off by ``_FLOAT32`` for each.
        """
        lengths = vectors.norm(dim=1)
        self._elements = vectors.shape[1]
        lost = self._smallest / math.sqrt(12) + _FLOAT32_TINY
        self._value = self._value + factors @ vectors
        self._square = self._square + (factors**2 * (self._eps**2 / 12) + lost**2) @ lengths**2
        self._bound = self._bound + (p * size * (self._elements * _FLOAT32)) @ lengths

    def expected(self) -> Expected:
        """Return the sums times the scale."""
        import torch

        assert isinstance(self._value, torch.Tensor)
        smallest = (self._smallest + _FLOAT32_TINY) * math.sqrt(self._elements)
        attainable = self._scale * (torch.as_tensor(self._square).sqrt() + self._bound) + smallest
        return Expected(self._scale * self._value, attainable)


def _elsewhere(case: Case) -> float:
    assert isinstance(case, BackwardCase)
    return case.elsewhere


def _case(case: Case, elsewhere: float = 0.0) -> BackwardCase:
    return BackwardCase(**{each.name: getattr(case, each.name) for each in fields(Case)}, elsewhere=elsewhere)


def _tiled_case(name: str, batch: int, heads: int, kv_heads: int, length: int, causal: bool) -> BackwardCase:
    return _case(tiled(name, batch, heads, kv_heads, length, causal), 1.0)


def _paper(heads: int, kv_heads: int, suffix: str = "") -> tuple[BackwardCase, ...]:
    return tuple(
        _case(benchmark(length, causal, heads, kv_heads, suffix), 1.0)
        for causal in (True, False)
        for length in LENGTHS_K
    )


_TLX = (
    "facebookexperimental/triton, pull requests 3465 (full) and 3582 (causal; from microseconds): H100, batches of 4, "
    "48 heads (here 16)"
)
_FA4 = "Dao-AILab/flash-attention, pull request 2280: sm_100, card not named, 16 heads in batches of 4"

_MHA_PAPER = _paper(16, 16)
MHA_BACKWARD = AttentionBackward(
    name="mha_backward",
    correctness_cases=(
        _case(small("square-full", 2, 2, 192, 192, False, "normal")),
        _case(small("square-causal", 2, 2, 192, 192, True, "dominant"), 1.0),
        _case(small("odd-full", 1, 1, 193, 321, False, "dominant"), 1.0),
        _case(small("odd-causal", 3, 3, 77, 333, True, "dominant", "bshd"), 1.0),
        # As for mha: 1 and 126 are where a bound meets the edge of a tile, in either order of the loops.
        _case(small("edge-full", 1, 1, 130, 257, False, "edge"), 1.0),
        _case(small("edge-1-causal", 2, 2, 128, 129, True, "edge", scale=0.11), 1.0),
        _case(small("edge-126-causal", 2, 2, 128, 254, True, "edge"), 1.0),
        _case(small("short-causal", 1, 1, 5, 5, True, "normal")),
        _case(small("one-query", 2, 2, 1, 130, False, "outliers")),
        _case(small("padded-causal", 1, 1, 161, 161, True, "outliers", "padded")),
        _case(small("mixed-full", 2, 2, 65, 140, False, "normal", "mixed"), 1.0),
        _case(small("large-causal", 1, 1, 255, 255, True, "large"), 1.0),
        _case(small("constant-causal", 2, 2, 129, 257, True, "constant", scale=0.07), 1.0),
        _case(small("negative-full", 1, 1, 100, 300, False, "negative"), 1.0),
        _case(small("rising-full", 2, 2, 70, 321, False, "rising"), 1.0),
    ),
    suites={
        "quick": tuple(case for case in _MHA_PAPER if case.name.startswith("8k")),
        "paper": _MHA_PAPER,
        HELD_OUT: (
            _tiled_case("6k-causal", 3, 12, 12, 6144, True),
            _tiled_case("5k-full", 2, 24, 24, 5120, False),
            _tiled_case("ragged-causal", 2, 16, 16, 9224, True),
        ),
    },
    baselines=(
        published("FlashAttention-3", "h100", (526.7, 564.3), (444.0, 538.7), _TLX, lengths_k=(4, 8)),
        published("Triton with TLX", "h100", (517.7, 567.0), (468.4, 539.1), _TLX, lengths_k=(4, 8)),
        Baseline("FlashAttention-4, deterministic", "b200", {"8k-full": 1166.7, "8k-causal": 1097.2}, _FA4),
        Baseline("FlashAttention-4", "b200", {"8k-full": 1359.8, "8k-causal": 1208.6}, _FA4),
    ),
)

_GQA_PAPER = _paper(32, 8, "-8kv")
GQA_BACKWARD = AttentionBackward(
    name="gqa_backward",
    correctness_cases=(
        _case(small("group-8-causal", 8, 1, 130, 130, True, "dominant"), 1.0),
        _case(small("group-4-full", 8, 2, 70, 197, False, "dominant", "bshd"), 1.0),
        _case(small("group-2-causal", 6, 3, 77, 200, True, "dominant"), 1.0),
        _case(small("group-1-full", 3, 3, 65, 140, False, "normal", "mixed")),
        _case(small("group-3-causal", 6, 2, 128, 254, True, "edge"), 1.0),
        _case(small("group-8-padded", 16, 2, 68, 99, True, "edge", "padded"), 1.0),
        _case(small("edge-1-causal", 4, 2, 128, 129, True, "edge", scale=0.11), 1.0),
        _case(small("short-causal", 8, 2, 5, 5, True, "normal")),
        _case(small("one-query", 8, 2, 1, 130, False, "outliers"), 1.0),
        _case(small("large-causal", 4, 1, 155, 155, True, "large"), 1.0),
        _case(small("constant-causal", 4, 2, 69, 157, True, "constant", scale=0.07), 1.0),
        _case(small("negative-full", 4, 2, 70, 200, False, "negative"), 1.0),
    ),
    suites={
        "quick": tuple(case for case in _GQA_PAPER if case.name.startswith("8k")),
        "paper": _GQA_PAPER,
        HELD_OUT: (
            _tiled_case("6k-causal-2kv", 3, 12, 2, 6144, True),
            _tiled_case("5k-full-8kv", 2, 24, 8, 5120, False),
            _tiled_case("ragged-causal-1kv", 2, 8, 1, 9224, True),
        ),
    },
)
