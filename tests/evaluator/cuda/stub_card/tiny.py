"""A problem that is judged on the stub card in seconds."""

from dataclasses import replace

from avo.evaluator.problem import Case
from avo.evaluator.problems.mha import MHA

SMALL = Case("small-causal", 1, 2, 2, 128, 128, 128, True)
PROBLEM = replace(
    MHA,
    name="tiny",
    correctness_cases=(SMALL,),
    suites={"quick": (replace(SMALL, name="large-causal", inputs="tiled"),)},  # of one shape, to compile but once
    baselines=(),
)
