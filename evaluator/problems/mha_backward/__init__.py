"""Multi-head attention, backward: the problem ``mha_backward`` with its cases and published baselines."""

from dataclasses import replace

from avo.evaluator.problem import HELD_OUT, Baseline
from avo.evaluator.problems.backward import AttentionBackward, backward_case, paper, tiled_backward
from avo.evaluator.problems.dense import far, published, small
from avo.evaluator.problems.figures import DIMS, Figures, latent

_TLX = (
    "facebookexperimental/triton, pull requests 3465 (full) and 3582 (causal; from microseconds): H100, batches of 4, "
    "48 heads (here 16)"
)
_FA4 = "Dao-AILab/flash-attention, pull request 2280: sm_100, card not named, 16 heads in batches of 4"

_PAPER = paper(16, 16)
PROBLEM = MHA_BACKWARD = AttentionBackward(
    name="mha_backward",
    correctness_cases=(
        backward_case(small("square-full", 2, 2, 192, 192, False, "normal")),
        backward_case(small("square-causal", 2, 2, 192, 192, True, "dominant"), 1.0),
        backward_case(small("odd-full", 1, 1, 193, 321, False, "dominant"), 1.0),
        backward_case(small("odd-causal", 3, 3, 77, 333, True, "dominant", "bshd"), 1.0),
        # As for mha: 1 and 126 are where a bound meets the edge of a tile, in either order of the loops.
        backward_case(small("edge-full", 1, 1, 130, 257, False, "edge"), 1.0),
        backward_case(small("edge-1-causal", 2, 2, 128, 129, True, "edge", scale=0.11), 1.0),
        backward_case(small("edge-126-causal", 2, 2, 128, 254, True, "edge"), 1.0),
        backward_case(small("short-causal", 1, 1, 5, 5, True, "normal")),
        backward_case(small("one-query", 2, 2, 1, 130, False, "outliers")),
        backward_case(small("padded-causal", 1, 1, 161, 161, True, "outliers", "padded")),
        backward_case(small("mixed-full", 2, 2, 65, 140, False, "normal", "mixed"), 1.0),
        backward_case(small("large-causal", 1, 1, 255, 255, True, "large"), 1.0),
        backward_case(small("constant-causal", 2, 2, 129, 257, True, "constant", scale=0.07), 1.0),
        backward_case(small("negative-full", 1, 1, 100, 300, False, "negative"), 1.0),
        backward_case(small("rising-full", 2, 2, 70, 321, False, "rising"), 1.0),
        *far(backward_case(replace(small("", 4, 4, 40, 70, True, "dominant"), batch=4), 1.0)),
    ),
    suites={
        "quick": tuple(case for case in _PAPER if case.name.startswith("8k")),
        "paper": _PAPER,
        HELD_OUT: (
            tiled_backward("6k-causal", 3, 12, 12, 6144, True),
            tiled_backward("5k-full", 2, 24, 24, 5120, False),
            tiled_backward("ragged-causal", 2, 16, 16, 9224, True),
        ),
    },
    baselines=(
        published("FlashAttention-3", "h100", (526.7, 564.3), (444.0, 538.7), _TLX, lengths_k=(4, 8)),
        published("Triton with TLX", "h100", (517.7, 567.0), (468.4, 539.1), _TLX, lengths_k=(4, 8)),
        Baseline("FlashAttention-4, deterministic", "b200", {"8k-full": 1166.7, "8k-causal": 1097.2}, _FA4),
        Baseline("FlashAttention-4", "b200", {"8k-full": 1359.8, "8k-causal": 1208.6}, _FA4),
    ),
    figures=(
        Figures("FlashAttention-4", "b200", DIMS, {latent(False): 6.406, latent(True): 3.538}, milliseconds=True),
        Figures(
            "FlashAttention-4, deterministic",
            "b200",
            DIMS,
            {latent(False): 6.671, latent(True): 3.813},
            milliseconds=True,
        ),
    ),
    other="gqa_backward",
)
