"""Multi-head attention, forward: the problem ``mha`` with its reference, cases and published baselines.

A candidate may rely on head dim 128 and bfloat16, the paper's setting; not on lengths or strides.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from evaluator.plan import ITEM_BYTES, Role
from evaluator.problem import Baseline, Call, Case, TensorSpec

if TYPE_CHECKING:
    import torch

HEADS, HEAD_DIM, TOTAL_TOKENS = 16, 128, 32768
"""Benchmark protocol of the AVO paper (arXiv 2603.24517): tokens per batch are fixed, the batch follows from length."""

_PADDING = 24
"""Extra elements per row in the ``padded`` layout; not a multiple of 16, so that rows lose their alignment."""


_MIXED = {"q": "bshd", "k": "padded", "v": "contiguous", "out": "padded"}
"""Layouts in ``mixed``: no tensor's strides serve for another."""


def _benchmark(length_k: int, causal: bool) -> Case:
    length = length_k * 1024
    name = f"{length_k}k-{'causal' if causal else 'full'}"
    batch = TOTAL_TOKENS // length
    return Case(name, batch, HEADS, HEADS, length, length, HEAD_DIM, causal, inputs="tiled")


_PAPER = tuple(_benchmark(length, causal) for causal in (True, False) for length in (4, 8, 16, 32))


def _case(
    name: str, heads: int, q_len: int, kv_len: int, causal: bool, inputs: str, layout: str = "contiguous"
) -> Case:
    return Case(name, 2, heads, heads, q_len, kv_len, HEAD_DIM, causal, inputs=inputs, layout=layout)


_CORRECTNESS = (
    _case("square-full", 2, 256, 256, False, "normal"),
    _case("square-causal", 2, 256, 256, True, "dominant"),
    _case("odd-full", 1, 193, 321, False, "dominant"),
    _case("odd-causal", 3, 77, 333, True, "dominant", "bshd"),
    # kv_len - q_len decides where a bound meets the edge of a tile: 1 and 126 do so for tiles up to 128, in either loop
    # of a kernel that splits at the diagonal.
    _case("edge-full", 1, 130, 257, False, "edge"),
    _case("edge-1-causal", 2, 128, 129, True, "edge"),
    _case("edge-126-causal", 2, 128, 254, True, "edge"),
    _case("short-causal", 1, 5, 5, True, "normal"),
    _case("one-query", 2, 1, 130, False, "outliers"),
    _case("padded-causal", 1, 161, 161, True, "outliers", "padded"),
    _case("mixed-full", 2, 65, 140, False, "normal", "mixed"),
    _case("large-full", 1, 130, 200, False, "large", "bshd"),
    _case("large-causal", 1, 255, 255, True, "large"),
    _case("constant-causal", 2, 129, 257, True, "constant"),
    _case("negative-full", 1, 100, 300, False, "negative"),
    _case("rising-full", 2, 70, 321, False, "rising"),
    _case("long-causal", 1, 1024, 1024, True, "normal"),
)

_CASES_K = (4, 8, 16, 32)


def _published(name: str, target: str, full: tuple[float, ...], causal: tuple[float, ...], source: str) -> Baseline:
    tflops = {f"{k}k-full": value for k, value in zip(_CASES_K, full, strict=False)}
    tflops |= {f"{k}k-causal": value for k, value in zip(_CASES_K, causal, strict=False)}
    return Baseline(name, target, tflops, source)


_FA3 = "FlashAttention-3, arXiv 2407.08608, figure 5: H100 SXM5, head dim 128, 16k tokens"
_AVO = "AVO, arXiv 2603.24517: B200, CUDA 13.1"

_BASELINES = (
    _published("FlashAttention-2", "h100", (368, 370, 370), (319, 333, 335), _FA3),
    _published("Triton", "h100", (389, 392, 395), (353, 369, 378), _FA3),
    _published("cuDNN", "h100", (609, 600, 595), (518, 529, 539), _FA3),
    _published("FlashAttention-3", "h100", (638, 646, 648), (579, 602, 616), _FA3),
    _published("cuDNN 9.19", "b200", (1573, 1609, 1626, 1638), (1344, 1477, 1551, 1590), _AVO),
    _published("FlashAttention-4", "b200", (1578, 1614, 1637, 1651), (1259, 1412, 1502, 1550), _AVO),
    _published("AVO", "b200", (1573, 1615, 1664, 1668), (1392, 1482, 1582, 1637), _AVO),
)


@dataclass(frozen=True)
class Attention:
    """Dense attention: ``def attention(q, k, v, out, lse, *, causal: bool, scale: float) -> None``.

    q and out are [batch, heads, q_len, head_dim], k and v [batch, kv_heads, kv_len, head_dim], lse float32
    [batch, heads, q_len]. Query i sees key j when not causal or ``j <= i + kv_len - q_len``.
    """

    name: str
    correctness_cases: tuple[Case, ...]
    suites: Mapping[str, tuple[Case, ...]]
    baselines: tuple[Baseline, ...]
    entry: str = field(default="attention", init=False)

    def call(self, case: Case) -> Call:
        """Return the five tensors and two scalars of ``case``."""
        query = (case.batch, case.heads, case.q_len, case.head_dim)
        key = (case.batch, case.kv_heads, case.kv_len, case.head_dim)
        rows = query[:3]
        tensors = (
            _spec("q", query, case, Role.INPUT),
            _spec("k", key, case, Role.INPUT),
            _spec("v", key, case, Role.INPUT),
            _spec("out", query, case, Role.OUTPUT),
            TensorSpec("lse", "float32", rows, (rows[1] * rows[2], rows[2], 1), math.prod(rows), Role.OUTPUT),
        )
        return Call(case.name, tensors, (("causal", case.causal), ("scale", softmax_scale(case))))

    def flops(self, case: Case) -> int:
        """Return 4 * batch * heads * q_len * kv_len * head_dim, halved when causal (the paper's convention)."""
        full = 4 * case.batch * case.heads * case.q_len * case.kv_len * case.head_dim
        return full // 2 if case.causal else full

    def least_bytes(self, case: Case) -> int:
        """Return the bytes of q, k, v, out and lse."""
        return sum(math.prod(spec.shape) * ITEM_BYTES[spec.dtype] for spec in self.call(case).tensors)

    def make_inputs(self, case: Case, seed: int) -> "dict[str, torch.Tensor]":
        """Return the flat storages of q, k and v."""
        import torch

        from evaluator.problems import inputs

        specs = [spec for spec in self.call(case).tensors if spec.role is Role.INPUT]
        if case.inputs == "tiled":
            dtype = getattr(torch, case.dtype)
            return {s.name: inputs.pool_storage(s.name, s.size, case.head_dim, dtype, seed) for s in specs}
        made = inputs.make(case, seed)
        storages = {}
        for spec in specs:
            # NaN between the rows: a kernel that reads padding gets wrong numbers.
            storages[spec.name] = torch.full((spec.size,), float("nan"), dtype=made[spec.name].dtype)
            storages[spec.name].as_strided(spec.shape, spec.strides).copy_(made[spec.name])
        return storages

    def reference(
        self, case: Case, inputs: "Mapping[str, torch.Tensor]", batch: int, head: int, rows: "torch.Tensor"
    ) -> "tuple[torch.Tensor, torch.Tensor, torch.Tensor]":
        """Return (out, lse, attainable) in float64: see ``Problem.reference``."""
        import torch

        specs = {spec.name: spec for spec in self.call(case).tensors}
        kv_head = head // (case.heads // case.kv_heads)
        view = {name: inputs[name].as_strided(specs[name].shape, specs[name].strides) for name in ("q", "k", "v")}
        q = view["q"][batch, head, rows].double()
        k, v = (view[name][batch, kv_head].double() for name in ("k", "v"))
        logits = (q @ k.T) * softmax_scale(case)
        if case.causal:
            last_visible = rows[:, None] + (case.kv_len - case.q_len)
            logits = logits.masked_fill(torch.arange(case.kv_len) > last_visible, -math.inf)
        lse = torch.logsumexp(logits, 1)
        weights = torch.exp(logits - lse[:, None])
        out = weights @ v
        # What rounding to the input type costs, measured on one order of summation: unnormalised probabilities are
        # rounded before the product, as a tensor core takes them, and the result once more.
        dtype = view["q"].dtype
        unnormalised = torch.exp(logits - logits.amax(1, keepdim=True))
        rounded = (unnormalised.to(dtype).double() @ v) / unnormalised.sum(1, keepdim=True)
        attainable = (rounded.to(dtype).double() - out).norm(dim=1)
        return out, lse, attainable


def softmax_scale(case: Case) -> float:
    """Return 1 / sqrt(head_dim)."""
    return 1.0 / math.sqrt(case.head_dim)


def _spec(name: str, shape: tuple[int, int, int, int], case: Case, role: Role) -> TensorSpec:
    batch, heads, length, dim = shape
    layout = _MIXED[name] if case.layout == "mixed" else case.layout
    if layout == "bshd":
        strides: tuple[int, ...] = (length * heads * dim, dim, heads * dim, 1)
        size = math.prod(shape)
    elif layout == "padded":
        row = dim + _PADDING
        strides = (heads * length * row, length * row, row, 1)
        size = batch * heads * length * row
    else:
        strides = (heads * length * dim, length * dim, dim, 1)
        size = math.prod(shape)
    return TensorSpec(name, case.dtype, shape, strides, size, role)


MHA = Attention(
    name="mha",
    correctness_cases=_CORRECTNESS,
    suites={"quick": tuple(case for case in _PAPER if case.name.startswith("8k")), "paper": _PAPER},
    baselines=_BASELINES,
)
