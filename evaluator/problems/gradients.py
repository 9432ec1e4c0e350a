"""Gradients of attention: the tensors of a backward pass, how its inputs are made, and what is right.

With P = exp(scale * q k^T - lse): dV = P^T dout, dS = P * (dout v^T - rowsum(dout * out)), dQ = scale * dS k and
dK = scale * dS^T q (FlashAttention-2, arXiv 2307.08691, algorithm 2).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from avo.evaluator.plan import Role
from avo.evaluator.problem import Case, Expected, Output, Rounded, TensorSpec
from avo.evaluator.problems.dense import (
    attend,
    laid_out,
    outputs,
    plant_key,
    qkv,
    query_shape,
    softmax_scale,
    stored,
    value_dim,
    viewed,
)
from avo.evaluator.problems.visible import dense, further_inputs, make_rows, with_sink

if TYPE_CHECKING:
    from random import Random

    import torch

_FLOAT32, _FLOAT32_TINY = 2.0**-24, 2.0**-126
"""Relative error of an operation in float32, and its smallest normal number."""

GRADIENT = Rounded(factor=4.5)
"""Each of the factors P and dS is rounded once. Their errors are independent, and add up to what ``Sums`` says in the
mean square. Where the vectors that they weigh all point one way the sum is one normally distributed number, which
exceeds 4.5 times that in 7 of a million rows; in 128 dimensions it hardly exceeds it at all.
"""
OUTPUTS = (Output("dq", GRADIENT), Output("dk", GRADIENT, "keys"), Output("dv", GRADIENT, "keys"))
OF_SINKS = Output("dsinks", GRADIENT, "sinks", hint="it is a sum over all queries of all sequences")
"""The gradient of the sinks: its factors, a probability times a row sum, may be rounded once as those of the others."""


def plant_gradient(
    case: Case, inputs: "Mapping[str, torch.Tensor]", chance: "Random"
) -> Mapping[str, tuple[int, int, int]]:
    """Give one query a key of its own, as ``plant_key`` does, which has more than half of its attention. The sink of
    its head, if there is one, grows by 1, and so the sink's gradient by a factor of e.
    """
    import torch

    planted = dict(plant_key(case, inputs, chance))
    (batch, head, row), key = planted["queries"], planted["keys"]
    view = backward_views(case, inputs)
    score = view["q"][batch, head, row].float() @ view["k"][key].float() * softmax_scale(case)
    view["lse"][batch, head, row] = score + 0.5
    generator = torch.Generator("cpu").manual_seed(chance.getrandbits(62))
    view["dout"][batch, head, row].copy_(torch.randn(value_dim(case), generator=generator, device="cpu"))
    if dense(case).sinks:
        inputs["sinks"][head] += 1.0
        planted["sinks"] = (0, head, 0)
    return planted


def gradients(case: Case) -> tuple[TensorSpec, ...]:
    """Return dq, dk and dv of ``case``, in its layout, and dsinks where it has sinks."""
    keys, heads = (case.batch, case.kv_heads, case.kv_len), case.heads
    dsinks = TensorSpec("dsinks", "float32", (1, heads, 1), (heads, 1, 1), heads, Role.OUTPUT)
    return (
        laid_out("dq", query_shape(case), case, Role.OUTPUT),
        laid_out("dk", (*keys, case.head_dim), case, Role.OUTPUT),
        laid_out("dv", (*keys, value_dim(case)), case, Role.OUTPUT),
        *([dsinks] if dense(case).sinks else ()),
    )


def backward_inputs(case: Case) -> tuple[TensorSpec, ...]:
    """Return q, k, v, what ``case`` has besides, out, lse and dout, in its layout."""
    out, lse = (replace(spec, role=Role.INPUT) for spec in outputs(case))
    dout = laid_out("dout", (*query_shape(case)[:3], value_dim(case)), case, Role.INPUT)
    return (*qkv(case), *further_inputs(case), out, lse, dout)


def backward_views(case: Case, inputs: "Mapping[str, torch.Tensor]") -> "dict[str, torch.Tensor]":
    """Return ``backward_inputs`` over their flat storages."""
    return viewed(_rows(case), inputs)


def _rows(case: Case) -> tuple[TensorSpec, ...]:
    further = further_inputs(case)
    return tuple(spec for spec in backward_inputs(case) if spec not in further)


def small_inputs(
    case: Case,
    seed: int,
    elsewhere: float,
    scores: "Callable[[dict[str, torch.Tensor], int, int, torch.Tensor], torch.Tensor]",
    further: "Mapping[str, torch.Tensor]",
) -> "dict[str, torch.Tensor]":
    """Return flat storages of q, k, v, out, lse and dout from the input maker of ``case``.

    out and lse are those of the keys at hand and the sinks that ``further`` inputs may have, and of others as far as
    ``elsewhere`` says. ``scores`` takes q, k and v, a batch, a head and its rows, and returns what ``logits`` does.
    """
    import torch

    from avo.evaluator.problems import inputs

    made = make_rows(case, seed)
    dtype, generator = made["q"].dtype, inputs.seeded("backward", seed)
    shape = (*query_shape(case)[:3], value_dim(case))
    out, lse = torch.empty(shape, dtype=torch.float64), torch.empty(shape[:3], dtype=torch.float64)
    rows, group = torch.arange(case.q_len), case.heads // case.kv_heads
    for batch in range(case.batch):
        for head in range(case.heads):
            v = made["v"][batch, head // group].double()
            attended = with_sink(scores(made, batch, head, rows), v, further, head)
            out[batch, head], lse[batch, head], _ = attend(*attended, dtype)
    more = elsewhere * torch.rand(shape[:3], generator=generator)
    part = (-more.double()).exp()[..., None]
    out = part * out + (1 - part) * torch.randn(shape, generator=generator)
    dout = torch.randn(shape, generator=generator)
    made |= {"out": out.to(dtype), "lse": (lse + more).float(), "dout": dout.to(dtype)}
    return stored(_rows(case), made)


def tiled_inputs(
    case: Case, seed: int, elsewhere: float, keys: "torch.Tensor", sinks: "torch.Tensor | None" = None
) -> "dict[str, torch.Tensor]":
    """Return flat storages of q, k, v, out, lse and dout at a benchmark shape, where attention takes a CPU too long:
    with unit-normal keys the exponentials of a query's scores have a mean of exp((scale |q|)^2 / 2), from which the lse
    of as many ``keys`` [queries] as a query may see, and of its head's sink, is told; out is drawn.
    """
    import torch

    from avo.evaluator.problems import inputs

    specs = {spec.name: spec for spec in _rows(case)}
    drawn = [spec for name, spec in specs.items() if name != "lse"]
    made = {}
    for spec in drawn:
        name, size = f"{spec.name} of a backward pass", math.prod(spec.shape)
        made[spec.name] = inputs.pool_storage(name, size, spec.shape[-1], getattr(torch, case.dtype), seed)
    if any(spec.held.size != made[spec.name].numel() for spec in drawn):
        made = stored(drawn, {spec.name: made[spec.name].view(spec.shape) for spec in drawn})
    q = viewed([specs["q"]], made)["q"]
    length = torch.linalg.vector_norm(q, dim=-1, dtype=torch.float32)
    more = elsewhere * torch.rand(length.shape, generator=inputs.seeded("lse", seed))
    lse = keys.float().log() + (softmax_scale(case) * length).square() / 2
    if sinks is not None:
        lse = torch.logaddexp(lse, sinks[:, None])
    return {**made, "lse": (lse + more).flatten()}


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
    slack = value_dim(case) * dout.norm(dim=1)[:, None] * (out.norm(dim=1)[:, None] + v.norm(dim=1))
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
    visible: "torch.Tensor",
) -> dict[str, Expected]:
    """Return dk and dv of key ``rows`` [n], which ``queries`` [m] see where ``visible`` [n, m] says so."""
    import torch

    k, v = (view[name][batch, head, rows].double() for name in ("k", "v"))
    dk, dv = Sums(view["q"].dtype, softmax_scale(case)), Sums(view["q"].dtype, 1.0)
    group = case.heads // case.kv_heads
    for each in range(head * group, (head + 1) * group):
        q, dout, out = (view[name][batch, each, queries].double() for name in ("q", "dout", "out"))
        p = ((k @ q.T) * softmax_scale(case) - view["lse"][batch, each, queries].double()).exp_()
        p = p.masked_fill(~visible, 0.0)
        ds = p * (v @ dout.T - (dout * out).sum(1))
        slack = value_dim(case) * dout.norm(dim=1) * (out.norm(dim=1) + v.norm(dim=1)[:, None])
        dk.add(ds, q, p, slack)
        dv.add(p, dout, p, torch.zeros(()))
    return {"dk": dk.expected(), "dv": dv.expected()}


def of_sinks(case: Case, view: "Mapping[str, torch.Tensor]", sinks: "torch.Tensor", head: int) -> dict[str, Expected]:
    """Return dsinks of a query head: a sum over all queries of all sequences."""
    import torch

    dout, out = (view[name][:, head].double().flatten(0, 1) for name in ("dout", "out"))
    p = (sinks[head].double() - view["lse"][:, head].double().flatten()).exp()[None]
    slack = value_dim(case) * dout.norm(dim=1) * out.norm(dim=1)
    sums = Sums(view["q"].dtype, 1.0)
    sums.add(-p * (dout * out).sum(1), torch.ones(p.shape[1], 1, dtype=torch.float64), p, slack)
    found = sums.expected()
    return {"dsinks": replace(found, value=found.value[:, 0])}


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
        vectors; ``size`` is the sum of the products of their norms, times the number of their elements.

        Rounding errors of factors are uniform within half a unit in the last place, a twelfth of its square in the mean
        square; those below the smallest number are lost. Sums of products in float32 are off by ``_FLOAT32`` for each.
        """
        lengths = vectors.norm(dim=1)
        self._elements = vectors.shape[1]
        lost = self._smallest / math.sqrt(12) + _FLOAT32_TINY
        self._value = self._value + factors @ vectors
        self._square = self._square + (factors**2 * (self._eps**2 / 12) + lost**2) @ lengths**2
        self._bound = self._bound + (p * size * _FLOAT32) @ lengths

    def expected(self) -> Expected:
        """Return the sums times the scale."""
        import torch

        assert isinstance(self._value, torch.Tensor)
        smallest = (self._smallest + _FLOAT32_TINY) * math.sqrt(self._elements)
        attainable = self._scale * (torch.as_tensor(self._square).sqrt() + self._bound) + smallest
        return Expected(self._scale * self._value, attainable)
