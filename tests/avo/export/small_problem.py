"""Dense attention on shapes that are judged in seconds: a problem for exports."""

from avo.evaluator.problem import HELD_OUT
from avo.evaluator.problems.attention import Attention
from avo.evaluator.problems.dense import small, tiled

_BENCHMARKS = (tiled("600-causal", 1, 4, 2, 600, True), tiled("300-full", 1, 2, 2, 300, False))
PROBLEM = Attention(
    name="small",
    correctness_cases=(
        small("odd-causal", 2, 1, 77, 133, True, "dominant", "mixed"),
        small("odd-full", 2, 2, 65, 70, False, "large", scale=0.07),
    ),
    suites={"quick": _BENCHMARKS, HELD_OUT: _BENCHMARKS},
    baselines=(),
)
