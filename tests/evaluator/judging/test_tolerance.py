"""Tolerances leave room for what a GPU computes approximately and the executor computes exactly."""

from evaluator.executor.operations.approximations import APPROXIMATIONS
from evaluator.judging.compare import LSE_TOLERANCE, RELATIVE_TOLERANCE

ATTAINED = 2e-3
"""Relative error that correct bf16 kernels reach, as ``compare`` says."""
LARGEST_LOGIT = 130.0
"""Largest logit of the correctness inputs, rounded up."""
FLOAT32_ULP = 2.0**-23


def worst(operation: str) -> float:
    """Return the largest relative error of an operation on float32."""
    (found,) = [a for a in APPROXIMATIONS if (a.operation, a.element) == (operation, "f32")]
    return max(found.ulps * FLOAT32_ULP, found.relative)


def test_the_tolerance_of_outputs_exceeds_the_bounds_of_exponentials_and_division() -> None:
    exponential = max(worst("math.exp2"), worst("math.exp") + LARGEST_LOGIT * 2.0**-24)
    assert ATTAINED + 2 * exponential + worst("arith.divf") < RELATIVE_TOLERANCE / 2


def test_the_tolerance_of_lse_exceeds_the_bounds_of_exponentials_and_logarithm() -> None:
    exponential = max(worst("math.exp2"), worst("math.exp") + LARGEST_LOGIT * 2.0**-24)
    assert exponential + LARGEST_LOGIT * FLOAT32_ULP < LSE_TOLERANCE / 10
