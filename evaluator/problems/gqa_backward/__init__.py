"""Grouped-query attention, backward: the problem ``gqa_backward`` with its cases."""

from dataclasses import replace

from avo.evaluator.problem import HELD_OUT
from avo.evaluator.problems.backward import AttentionBackward, backward_case, paper, tiled_backward
from avo.evaluator.problems.dense import far, small
from avo.evaluator.problems.figures import WINDOW, WINDOWED, Figures

_PAPER = paper(32, 8, "-8kv")
PROBLEM = GQA_BACKWARD = AttentionBackward(
    name="gqa_backward",
    correctness_cases=(
        backward_case(small("group-8-causal", 8, 1, 130, 130, True, "dominant"), 1.0),
        backward_case(small("group-4-full", 8, 2, 70, 197, False, "dominant", "bshd"), 1.0),
        backward_case(small("group-2-causal", 6, 3, 77, 200, True, "dominant"), 1.0),
        backward_case(small("group-1-full", 3, 3, 65, 140, False, "normal", "mixed")),
        backward_case(small("group-3-causal", 6, 2, 128, 254, True, "edge"), 1.0),
        backward_case(small("group-8-padded", 16, 2, 68, 99, True, "edge", "padded"), 1.0),
        backward_case(small("edge-1-causal", 4, 2, 128, 129, True, "edge", scale=0.11), 1.0),
        backward_case(small("short-causal", 8, 2, 5, 5, True, "normal")),
        backward_case(small("one-query", 8, 2, 1, 130, False, "outliers"), 1.0),
        backward_case(small("large-causal", 4, 1, 155, 155, True, "large"), 1.0),
        backward_case(small("constant-causal", 4, 2, 69, 157, True, "constant", scale=0.07), 1.0),
        backward_case(small("negative-full", 4, 2, 70, 200, False, "negative"), 1.0),
        *far(backward_case(replace(small("", 8, 4, 40, 70, True, "dominant"), batch=4), 1.0)),
    ),
    suites={
        "quick": tuple(case for case in _PAPER if case.name.startswith("8k")),
        "paper": _PAPER,
        HELD_OUT: (
            tiled_backward("6k-causal-2kv", 3, 12, 2, 6144, True),
            tiled_backward("5k-full-8kv", 2, 24, 8, 5120, False),
            tiled_backward("ragged-causal-1kv", 2, 8, 1, 9224, True),
        ),
    },
    figures=(
        Figures("FlashAttention-4", "b300", WINDOW, {WINDOWED: 4.04}, milliseconds=True),
        Figures("FlashAttention-2", "b300", WINDOW, {WINDOWED: 13.98}, milliseconds=True),
    ),
    other="mha_backward",
)
