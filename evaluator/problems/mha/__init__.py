"""Multi-head attention, forward: the problem ``mha`` with its cases and published baselines."""

from dataclasses import replace

from avo.evaluator.problem import HELD_OUT
from avo.evaluator.problems.attention import Attention
from avo.evaluator.problems.dense import AVO_PAPER, LENGTHS_K, benchmark, far, published, small, tiled
from avo.evaluator.problems.mha.figures import FIGURES

HEADS = 16
"""Head configuration of the AVO paper's benchmark protocol (arXiv 2603.24517)."""

_PAPER = tuple(benchmark(length, causal, HEADS, HEADS) for causal in (True, False) for length in LENGTHS_K)
_HELD_OUT = (
    tiled("6k-causal", 3, 12, 12, 6144, True),
    tiled("5k-full", 2, 24, 24, 5120, False),
    tiled("ragged-causal", 2, 16, 16, 12232, True),
)
"""Held-out shapes, which no operator is shown: other lengths, batches and head counts, and one length that divides no
tile.
"""


_CORRECTNESS = (
    small("square-full", 2, 2, 256, 256, False, "normal"),
    small("square-causal", 2, 2, 256, 256, True, "dominant"),
    small("odd-full", 1, 1, 193, 321, False, "dominant"),
    small("odd-causal", 3, 3, 77, 333, True, "dominant", "bshd"),
    # kv_len - q_len decides where a bound meets the edge of a tile: 1 and 126 do so for tiles up to 128, in either loop
    # of a kernel that splits at the diagonal.
    small("edge-full", 1, 1, 130, 257, False, "edge"),
    small("edge-1-causal", 2, 2, 128, 129, True, "edge", scale=0.11),
    small("edge-126-causal", 2, 2, 128, 254, True, "edge"),
    small("short-causal", 1, 1, 5, 5, True, "normal"),
    small("one-query", 2, 2, 1, 130, False, "outliers"),
    small("padded-causal", 1, 1, 161, 161, True, "outliers", "padded"),
    small("mixed-full", 2, 2, 65, 140, False, "normal", "mixed"),
    small("large-full", 1, 1, 130, 200, False, "large", "bshd"),
    small("large-causal", 1, 1, 255, 255, True, "large"),
    small("constant-causal", 2, 2, 129, 257, True, "constant", scale=0.07),
    small("negative-full", 1, 1, 100, 300, False, "negative"),
    small("rising-full", 2, 2, 70, 321, False, "rising"),
    small("step-full", 3, 3, 70, 640, False, "step"),
    small("long-causal", 1, 1, 1024, 1024, True, "normal"),
    *far(replace(small("", 4, 4, 40, 70, True, "dominant"), batch=4)),
)

_FA3 = (
    "FlashAttention-3, arXiv 2407.08608, figure 5: H100 SXM5, head dim 128, sequences of 4k, 8k and 16k in "
    "batches of 16k tokens (32k here)"
)
_FA3_LENGTHS_K = (4, 8, 16)

_BASELINES = (
    published("FlashAttention-2", "h100", (368, 370, 370), (319, 333, 335), _FA3, lengths_k=_FA3_LENGTHS_K),
    published("Triton", "h100", (389, 392, 395), (353, 369, 378), _FA3, lengths_k=_FA3_LENGTHS_K),
    published("cuDNN", "h100", (609, 600, 595), (518, 529, 539), _FA3, lengths_k=_FA3_LENGTHS_K),
    published("FlashAttention-3", "h100", (638, 646, 648), (579, 602, 616), _FA3, lengths_k=_FA3_LENGTHS_K),
    published("cuDNN 9.19", "b200", (1573, 1609, 1626, 1638), (1344, 1477, 1551, 1590), AVO_PAPER),
    published("FlashAttention-4", "b200", (1578, 1614, 1637, 1651), (1259, 1412, 1502, 1550), AVO_PAPER),
    published("AVO", "b200", (1573, 1615, 1664, 1668), (1392, 1482, 1582, 1637), AVO_PAPER),
)

PROBLEM = MHA = Attention(
    name="mha",
    correctness_cases=_CORRECTNESS,
    suites={
        "quick": tuple(case for case in _PAPER if case.name.startswith("8k")),
        "paper": _PAPER,
        HELD_OUT: _HELD_OUT,
    },
    baselines=_BASELINES,
    figures=FIGURES,
    other="gqa",
)
