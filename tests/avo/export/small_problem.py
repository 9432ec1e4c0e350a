"""Dense attention on shapes that are judged in seconds: a problem for exports."""

from evaluator.problem import HELD_OUT
from evaluator.problems.dense import Attention, small, tiled

PROBLEM = Attention(
    name="small",
    correctness_cases=(
        small("odd-causal", 2, 1, 77, 133, True, "dominant", "mixed"),
        small("odd-full", 2, 2, 65, 70, False, "large", scale=0.07),
    ),
    suites={"quick": (tiled("1k-causal", 1, 4, 2, 1024, True),), HELD_OUT: (tiled("600-full", 1, 2, 2, 600, False),)},
    baselines=(),
)
