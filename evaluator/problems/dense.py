"""Dense attention: what problems like it have in common, and the arithmetic of every reference.

A candidate may rely on the head dims and the type of its problem's cases, head dim 128 and bfloat16 in the paper; not
on lengths or strides. ``avo.evaluator.problems.settings`` makes the same problems with others.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from avo.evaluator.plan import ITEM_BYTES, Role
from avo.evaluator.problem import (
    CROWDED,
    FAR,
    LAYOUTS,
    MOST_HEADS,
    Absolute,
    Baseline,
    Call,
    Case,
    Expected,
    Output,
    Problem,
    Rounded,
    TensorSpec,
)
from avo.evaluator.problems.visible import (
    DenseCase,
    capped,
    dense,
    make_rows,
    redrawn,
    seen,
)
from avo.evaluator.setting import HEAD_DIM

if TYPE_CHECKING:
    from random import Random

    import torch

_Dense = TypeVar("_Dense", bound=DenseCase)

TOTAL_TOKENS = 32768
"""Benchmark protocol of the AVO paper (arXiv 2603.24517): tokens are fixed, the batch follows from the length."""
LENGTHS_K = (4, 8, 16, 32)
"""Sequence lengths of the same protocol, in units of 1024 tokens."""

AVO_PAPER = "AVO, arXiv 2603.24517: B200, CUDA 13.1"
"""Source of the published figures."""

_PADDING = 24
"""Extra elements per row in the ``padded`` layout; not a multiple of 16, so that rows lose their alignment."""

_PART_OF = 2**32
"""Least elements of the larger tensor of ``fused`` and ``interleaved``, which has as many heads as that takes."""
_FAR = 2**28
"""Least distance of neighbours along the far axis of a layout in ``FAR``: 17 rows of a tile reach 2^32 elements."""
_ORDERS = dict(zip(FAR, ((0, 2, 1), (1, 0, 2), (2, 0, 1)), strict=True))
"""Axes of [batch, heads, rows] in each of these layouts, the outermost first."""

_MOST_ROWS = 2**18
"""Most rows of queries of all heads and sequences of a case that is drawn: as many as a benchmark case of one sequence
has at 16k tokens. With longer rows there are fewer.
"""
_WITHOUT_PADDING = ("contiguous", "bshd", "fused", "interleaved")
"""Layouts of cases with very many heads: padded rows take the judge too long there, of tiles that few rows fill."""
_LAUNCHES = 32
"""Most sequences of these cases: who launches a kernel for each of them may do so 64 times."""
_SLOW = 32
"""By how much fewer heads these cases have with head dims that are no powers of two: columns of tiles are masked then,
and the judge looks at each element of a tile, where it else looks at rows.
"""

OUTPUTS = (
    Output("out", Rounded()),
    # Exponentials, logarithm and sum are off by 2e-5 at most with logits up to 130: see tests/.../test_tolerance.py.
    Output("lse", Absolute(1e-3), hint="it is the natural log of the sum of exponentials"),
)
"""The outputs of forward attention."""

_MIXED = {
    "q": "bshd",
    "k": "padded",
    "v": "contiguous",
    "out": "padded",
    "dout": "contiguous",
    "dq": "padded",
    "dk": "contiguous",
    "dv": "bshd",
}
"""Strides of the ``mixed`` layout: no tensor's strides are right for the one that it is most likely taken for."""


def longer(case: Case, chance: "Random") -> Case:
    """Return ``case`` with up to 63 queries and 126 keys more, and possibly fewer batches."""
    more, keys = chance.randrange(1, 64), chance.randrange(64)
    q_len, kv_len = case.q_len + more, case.kv_len + more + keys
    return replace(case, batch=chance.randint(1, case.batch), q_len=q_len, kv_len=kv_len)


def of_any_length(case: Case, length: int, chance: "Random") -> Case:
    """Return ``structured``, with as many queries as keys, nearly so, a share of them, or at most 128; and with what
    ``redrawn`` draws.
    """
    drawn = structured(case, length, chance)
    fewer, share, few = chance.randrange(128), 2.0 ** -chance.uniform(0, 6), chance.randint(1, 128)
    q_len = chance.choice((length, length - fewer, *3 * (int(length * share),), *3 * (few,)))
    return redrawn(replace(drawn, q_len=min(max(q_len, 1), length)), chance)


def structured(case: Case, length: int, chance: "Random", most_heads: int = MOST_HEADS) -> Case:
    """Return ``case`` with ``length`` queries and keys; layout, scale, heads and batch are drawn by ``chance``.

    Each KV head has one query head where it has in ``case``, else 2 to 8. There are few heads and sequences, or as many
    as ``case`` has, but no more than ``_MOST_ROWS`` allows. Up to ``CROWDED`` keys there are nearly
    ``most_heads``, in one sequence or in up to ``_LAUNCHES``, and KV heads may have one query head; not where sequences
    are packed.
    """
    grouped = case.heads > case.kv_heads
    group = chance.randint(2, 8) if grouped else 1
    few = chance.choice(((1, 1), (1, 2), (2, 1), (3, 1), (1, 3)))
    batch, kv_heads = chance.choice((few, (max(case.batch, 2), case.kv_heads)))
    layouts: tuple[str, ...] = LAYOUTS
    if length <= CROWDED and not dense(case).sequences:
        if any(dim & (dim - 1) for dim in (case.head_dim, value_dim(case))):
            most_heads //= _SLOW
        group = chance.choice((1, group))
        every = int(most_heads * chance.uniform(0.92, 1.0)) // group
        batch, layouts = chance.choice((1, chance.randint(2, _LAUNCHES))), _WITHOUT_PADDING
        kv_heads = every // batch
    else:
        most = _MOST_ROWS * HEAD_DIM // max(case.head_dim, HEAD_DIM)
        kv_heads = min(kv_heads, max(most // (length * group), 1))
        batch = min(batch, max(most // (length * group * kv_heads), 1))
    scale = chance.choice((0.0, chance.uniform(0.5, 1.5) / math.sqrt(case.head_dim)))
    return replace(
        case,
        batch=batch,
        heads=kv_heads * group,
        kv_heads=kv_heads,
        q_len=length,
        kv_len=length,
        layout=chance.choice(layouts),
        scale=scale,
    )


def tiled(name: str, batch: int, heads: int, kv_heads: int, length: int, causal: bool) -> DenseCase:
    """Return a benchmark case."""
    return DenseCase(name, batch, heads, kv_heads, length, length, HEAD_DIM, causal, inputs="tiled")


def small(
    name: str,
    heads: int,
    kv_heads: int,
    q_len: int,
    kv_len: int,
    causal: bool,
    inputs: str,
    layout: str = "contiguous",
    scale: float = 0.0,
) -> DenseCase:
    """Return a correctness case of two sequences."""
    return DenseCase(
        name, 2, heads, kv_heads, q_len, kv_len, HEAD_DIM, causal, inputs=inputs, layout=layout, scale=scale
    )


def far(case: _Dense) -> "tuple[_Dense, ...]":
    """Return a small case in each of the layouts in ``FAR``."""
    return tuple(replace(case, name=layout, layout=layout) for layout in FAR)


def benchmark(length_k: int, causal: bool, heads: int, kv_heads: int, suffix: str = "") -> DenseCase:
    """Return the case of ``length_k`` * 1024 tokens in the AVO paper's protocol, named e.g. ``8k-causal``."""
    length = length_k * 1024
    name = f"{length_k}k-{'causal' if causal else 'full'}{suffix}"
    return tiled(name, TOTAL_TOKENS // length, heads, kv_heads, length, causal)


def published(
    name: str,
    target: str,
    full: tuple[float, ...],
    causal: tuple[float, ...],
    source: str,
    suffix: str = "",
    lengths_k: tuple[int, ...] = LENGTHS_K,
) -> Baseline:
    """Return published TFLOPS, one at each of ``lengths_k``, by the names that ``benchmark`` gives.

    Raises ``ValueError`` if there are not as many figures as lengths.
    """
    tflops = {f"{k}k-full{suffix}": value for k, value in zip(lengths_k, full, strict=True)}
    tflops |= {f"{k}k-causal{suffix}": value for k, value in zip(lengths_k, causal, strict=True)}
    return Baseline(name, target, tflops, source)


def softmax_scale(case: Case) -> float:
    """Return the scale of ``case``: 1 / sqrt(head_dim) unless the case sets one."""
    return case.scale or 1.0 / math.sqrt(case.head_dim)


def shares(problem: Problem) -> bool:
    """Return whether query heads share KV heads."""
    case = problem.suites["quick"][0]
    return case.heads > case.kv_heads


def value_dim(case: Case) -> int:
    """Return the elements of a value."""
    return case.head_dim_v or case.head_dim


def qkv(case: Case) -> tuple[TensorSpec, ...]:
    """Return q, k and v of ``case`` in its layout."""
    rows = (case.batch, case.kv_heads, case.kv_len)
    return (
        laid_out("q", query_shape(case), case, Role.INPUT),
        laid_out("k", (*rows, case.head_dim), case, Role.INPUT),
        laid_out("v", (*rows, value_dim(case)), case, Role.INPUT),
    )


def outputs(case: Case) -> tuple[TensorSpec, ...]:
    """Return out of ``case``, in its layout, and lse."""
    rows = query_shape(case)[:3]
    return (
        laid_out("out", (*rows, value_dim(case)), case, Role.OUTPUT),
        TensorSpec("lse", "float32", rows, (rows[1] * rows[2], rows[2], 1), math.prod(rows), Role.OUTPUT),
    )


def total_bytes(call: Call) -> int:
    """Return the bytes of all elements of all tensors of a call."""
    return sum(math.prod(spec.shape) * ITEM_BYTES[spec.dtype] for spec in call.tensors)


def make_qkv(case: Case, seed: int) -> "dict[str, torch.Tensor]":
    """Return the flat storages of q, k and v from the input maker of ``case``, NaN between the rows."""
    import torch

    from avo.evaluator.problems import inputs

    specs = tuple(spec.held for spec in qkv(case))
    if case.inputs == "tiled":
        dtype = getattr(torch, case.dtype)
        flat = {s.name: inputs.pool_storage(s.name, math.prod(s.shape), s.shape[-1], dtype, seed) for s in specs}
        if all(s.size == flat[s.name].numel() for s in specs):
            return flat
        made = {s.name: flat[s.name].view(s.shape) for s in specs}
    else:
        made = make_rows(case, seed)
    return stored(specs, made)


def stored(specs: Iterable[TensorSpec], made: "Mapping[str, torch.Tensor]") -> "dict[str, torch.Tensor]":
    """Return flat storages of the tensors ``made``, NaN between the rows: who reads padding gets wrong numbers."""
    import torch

    storages = {}
    for spec in (spec.held for spec in specs):
        storages[spec.name] = torch.full((spec.size,), float("nan"), dtype=made[spec.name].dtype)
        storages[spec.name].as_strided(spec.shape, spec.strides).copy_(made[spec.name])
    return storages


def views(case: Case, inputs: "Mapping[str, torch.Tensor]") -> "dict[str, torch.Tensor]":
    """Return q, k and v, each [batch, heads, sequence, elements], over their flat storages."""
    return viewed(qkv(case), inputs)


def viewed(specs: Iterable[TensorSpec], inputs: "Mapping[str, torch.Tensor]") -> "dict[str, torch.Tensor]":
    """Return tensors over their flat storages."""
    return {spec.name: inputs[spec.name].as_strided(spec.shape, spec.held.strides) for spec in specs}


def logits(
    case: Case,
    view: "Mapping[str, torch.Tensor]",
    batch: int,
    head: int,
    rows: "torch.Tensor",
    *,
    apart: bool = True,
) -> "torch.Tensor":
    """Return the scaled and capped scores of query ``rows`` [n], float64 [n, keys], -inf where hidden; ``view``: see
    ``views``, ``apart``: see ``seen``.
    """
    import torch

    q, k = view["q"][batch, head, rows].double(), view["k"][batch, head // (case.heads // case.kv_heads)].double()
    (first, end), keys = seen(case, rows, apart=apart), torch.arange(case.kv_len)
    scores = capped((q @ k.T) * softmax_scale(case), case)
    return scores.masked_fill((keys < first[:, None]) | (keys >= end[:, None]), -math.inf)


def plant_key(case: Case, inputs: "Mapping[str, torch.Tensor]", chance: "Random") -> Mapping[str, tuple[int, int, int]]:
    """Give one query a key of its own, aligned with it, so that its output is nearly that key's value; see
    ``Problem.plant``. Return the places of both.
    """
    import torch

    batch, head, row = at = chance.randrange(case.batch), chance.randrange(case.heads), chance.randrange(case.q_len)
    first, end = (int(each) for each in seen(case, torch.tensor([row])))
    # Half of the time the nearest key: problems that mask more than causal ones do still see it.
    place = chance.choice((end - 1, chance.randrange(first, end)))
    key_at = (batch, head // (case.heads // case.kv_heads), place)
    generator = torch.Generator("cpu").manual_seed(chance.getrandbits(62))
    key, value = (torch.randn(dim, generator=generator, device="cpu") for dim in (case.head_dim, value_dim(case)))
    # As in avo.evaluator.problems.inputs: its logit is about 25, in a crowd of a standard deviation of 2.
    query = key * 25.0 / math.sqrt(case.head_dim)
    view = views(case, inputs)
    for name, new, where in (("q", query, at), ("k", key, key_at), ("v", value, key_at)):
        view[name][where].copy_(new)
    return {"queries": at, "keys": key_at}


def expected(out: "torch.Tensor", lse: "torch.Tensor", attainable: "torch.Tensor") -> dict[str, Expected]:
    """Return what ``attend`` returns as a problem's ``reference`` does."""
    return {"out": Expected(out, attainable), "lse": Expected(lse)}


def attend(
    logits: "torch.Tensor", v: "torch.Tensor", dtype: "torch.dtype"
) -> "tuple[torch.Tensor, torch.Tensor, torch.Tensor]":
    """Return (out, lse, attainable) of rows: out [rows, elements] and lse [rows]; attainable as in ``Expected``.

    ``logits`` is [rows, keys] in float64, scaled, -inf where hidden; ``v`` is [keys, elements] in float64; ``dtype`` is
    the inputs' type.
    """

    largest = logits.amax(1, keepdim=True)
    unnormalised = (logits - largest).exp_()
    total = unnormalised.sum(1, keepdim=True)
    out = unnormalised @ v / total
    # What rounding to the input type costs, measured on one order of summation: unnormalised probabilities are rounded
    # before the product, as a tensor core takes them, and the result once more.
    rounded = unnormalised.to(dtype).double() @ v / total
    attainable = (rounded.to(dtype).double() - out).norm(dim=1)
    return out, (largest + total.log())[:, 0], attainable


def query_shape(case: Case) -> tuple[int, int, int, int]:
    """Return the shape of q and all that has as many rows."""
    return case.batch, case.heads, case.q_len, case.head_dim


def laid_out(name: str, shape: tuple[int, int, int, int], case: Case, role: Role) -> TensorSpec:
    """Return a tensor of ``shape`` in the layout of ``case``."""
    batch, heads, length, dim = shape
    layout = _MIXED[name] if case.layout == "mixed" else case.layout
    if layout == "bshd":
        strides: tuple[int, ...] = (length * heads * dim, dim, heads * dim, 1)
        size = math.prod(shape)
    elif layout == "padded":
        row = dim + _PADDING
        strides = (heads * length * row, length * row, row, 1)
        size = batch * heads * length * row
    elif layout not in LAYOUTS[:4]:
        strides = _sparse(layout, shape)
        size = 1 + sum((extent - 1) * stride for extent, stride in zip(shape, strides, strict=True))
        return TensorSpec(name, case.dtype, shape, strides, size, role, sparse=True)
    else:
        strides = (heads * length * dim, length * dim, dim, 1)
        size = math.prod(shape)
    return TensorSpec(name, case.dtype, shape, strides, size, role)


def _sparse(layout: str, shape: tuple[int, int, int, int]) -> tuple[int, ...]:
    """Return the strides of a tensor in a layout that is held without the memory between its rows."""
    batch, heads, length, dim = shape
    # Rows are less than 2^31 elements apart, so that their distance is an argument of 32 bits.
    row = 3 * dim * max(heads, -(-_PART_OF // (3 * dim * batch * max(length, 3))))
    if layout == "fused":
        return (length * row, dim, row, 1)
    if layout == "interleaved":
        return (row, 3 * dim, batch * row, 1)
    outer, middle, inner = _ORDERS[layout]
    # Multiples of 32 bytes, as descriptors take them; as a 32-bit argument where there are four neighbours or more.
    reaching = -(-(2**32) // max(shape[outer] - 1, 1))
    strides = {outer: max(-(-reaching // 16) * 16, _FAR), middle: shape[inner] * dim, inner: dim}
    return (strides[0], strides[1], strides[2], 1)
