"""Grouped-query attention, forward: the problem ``gqa`` with its cases and published baselines."""

from dataclasses import replace

from avo.evaluator.problem import HELD_OUT, Baseline, Case
from avo.evaluator.problems.attention import Attention
from avo.evaluator.problems.dense import AVO_PAPER, LENGTHS_K, benchmark, far, published, small, tiled
from avo.evaluator.problems.gqa.figures import FIGURES

HEADS, KV_HEADS = 32, (4, 8)
"""Head configurations of the AVO paper's benchmark protocol (arXiv 2603.24517): Qwen3-30B-A3B has 4 KV heads, Qwen3-8B
has 8.
"""


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
"""Held-out shapes, which no operator is shown: other lengths, batches and groups, and one length that no tile divides.
"""


# ``dominant`` and ``edge`` give each query the value of one key of its own KV head, and values that carry their batch
# and KV head: any other mapping of heads shows. Groups of 1, 2, 3, 4 and 8.
_CORRECTNESS = (
    small("group-8-causal", 8, 1, 192, 192, True, "dominant"),
    small("group-4-full", 8, 2, 130, 257, False, "dominant", "bshd"),
    small("group-2-causal", 6, 3, 77, 333, True, "dominant"),
    small("group-1-full", 3, 3, 65, 140, False, "dominant", "mixed"),
    small("group-3-causal", 6, 2, 128, 254, True, "edge"),
    small("group-8-padded", 16, 2, 100, 161, True, "edge", "padded"),
    small("edge-1-causal", 4, 2, 128, 129, True, "edge", scale=0.11),
    small("short-causal", 8, 2, 5, 5, True, "normal"),
    small("one-query", 8, 2, 1, 130, False, "outliers"),
    small("large-causal", 4, 1, 255, 255, True, "large"),
    small("constant-causal", 4, 2, 129, 257, True, "constant", scale=0.07),
    small("negative-full", 4, 2, 100, 300, False, "negative"),
    small("rising-full", 4, 2, 70, 321, False, "rising"),
    small("step-full", 6, 3, 70, 640, False, "step"),
    small("long-causal", 4, 2, 700, 700, True, "normal"),
    *far(replace(small("", 8, 4, 40, 70, True, "dominant"), batch=4)),
)

_BY_KV_HEADS = (
    published("AVO", "b200", (1646, 1677, 1663, 1528), (1467, 1511, 1618, 1625), AVO_PAPER, "-4kv"),
    published("AVO", "b200", (1633, 1673, 1679, 1526), (1464, 1506, 1603, 1647), AVO_PAPER, "-8kv"),
)
_BASELINES = (
    Baseline("AVO", "b200", {case: value for part in _BY_KV_HEADS for case, value in part.tflops.items()}, AVO_PAPER),
)

PROBLEM = GQA = Attention(
    name="gqa",
    correctness_cases=_CORRECTNESS,
    suites={"quick": _QUICK, "paper": _PAPER, HELD_OUT: _HELD_OUT},
    baselines=_BASELINES,
    figures=FIGURES,
    other="mha",
)
