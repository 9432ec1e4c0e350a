"""Grouped-query attention, forward: the problem ``gqa`` with its cases and published baselines."""

from evaluator.problem import HELD_OUT, Baseline, Case
from evaluator.problems.dense import HEAD_DIM, LENGTHS_K, Attention, benchmark, published, tiled

HEADS, KV_HEADS = 32, (4, 8)
"""Of the benchmark protocol of the AVO paper (arXiv 2603.24517): Qwen3-30B-A3B has 4 KV heads, Qwen3-8B has 8."""


def _benchmark(length_k: int, causal: bool, kv_heads: int) -> Case:
    return benchmark(length_k, causal, HEADS, kv_heads, f"-{kv_heads}kv")


_PAPER = tuple(
    _benchmark(length, causal, kv_heads) for kv_heads in KV_HEADS for causal in (True, False) for length in LENGTHS_K
)
_QUICK = (_benchmark(8, True, 4), _benchmark(8, False, 8))
_HELD_OUT = (
    tiled("6k-causal-2kv", 3, 12, 2, 6144, True),
    tiled("5k-full-8kv", 2, 24, 8, 5120, False),
    tiled("ragged-causal-1kv", 2, 8, 1, 12232, True),
)
"""Shapes that no operator is shown: other lengths, batches and groups, one length that divides no tile."""


def _case(
    name: str,
    heads: int,
    kv_heads: int,
    q_len: int,
    kv_len: int,
    causal: bool,
    inputs: str,
    layout: str = "contiguous",
    scale: float = 0.0,
) -> Case:
    return Case(name, 2, heads, kv_heads, q_len, kv_len, HEAD_DIM, causal, inputs=inputs, layout=layout, scale=scale)


# ``dominant`` and ``edge`` give each query the value of one key of its own KV head, and values that carry their batch
# and KV head: any other mapping of heads shows. Groups of 1, 2, 3, 4 and 8.
_CORRECTNESS = (
    _case("group-8-causal", 8, 1, 192, 192, True, "dominant"),
    _case("group-4-full", 8, 2, 130, 257, False, "dominant", "bshd"),
    _case("group-2-causal", 6, 3, 77, 333, True, "dominant"),
    _case("group-1-full", 3, 3, 65, 140, False, "dominant", "mixed"),
    _case("group-3-causal", 6, 2, 128, 254, True, "edge"),
    _case("group-8-padded", 16, 2, 100, 161, True, "edge", "padded"),
    _case("edge-1-causal", 4, 2, 128, 129, True, "edge", scale=0.11),
    _case("short-causal", 8, 2, 5, 5, True, "normal"),
    _case("one-query", 8, 2, 1, 130, False, "outliers"),
    _case("large-causal", 4, 1, 255, 255, True, "large"),
    _case("constant-causal", 4, 2, 129, 257, True, "constant", scale=0.07),
    _case("negative-full", 4, 2, 100, 300, False, "negative"),
    _case("rising-full", 4, 2, 70, 321, False, "rising"),
    _case("long-causal", 4, 2, 700, 700, True, "normal"),
)

_AVO = "AVO, arXiv 2603.24517: B200, CUDA 13.1"
_BY_KV_HEADS = (
    published("AVO", "b200", (1646, 1677, 1663, 1528), (1467, 1511, 1618, 1625), _AVO, "-4kv"),
    published("AVO", "b200", (1633, 1673, 1679, 1526), (1464, 1506, 1603, 1647), _AVO, "-8kv"),
)
_BASELINES = (
    Baseline("AVO", "b200", {case: value for part in _BY_KV_HEADS for case, value in part.tflops.items()}, _AVO),
)

GQA = Attention(
    name="gqa",
    correctness_cases=_CORRECTNESS,
    suites={"quick": _QUICK, "paper": _PAPER, HELD_OUT: _HELD_OUT},
    baselines=_BASELINES,
)
