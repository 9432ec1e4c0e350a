"""Tolerances leave room for what a GPU computes approximately and the executor computes exactly."""

import math
from dataclasses import replace

import pytest
import torch

from avo.evaluator.executor import Allocation
from avo.evaluator.judging.compare import compare
from avo.evaluator.problem import Absolute, Rounded
from avo.evaluator.problems.dense import OUTPUTS
from avo.evaluator.problems.mha import MHA
from tests import forward
from tests.evaluator.executor.approximations import APPROXIMATIONS

ATTAINED = 0.25
"""Relative error that correct kernels reach, in machine epsilons of their type, as ``Rounded`` says."""
(OUT, LSE) = (output.tolerance for output in OUTPUTS)
LARGEST_LOGIT = 130.0
"""Largest logit of the correctness inputs, rounded up."""
FLOAT32_ULP = 2.0**-23


def worst(operation: str) -> float:
    """Return the largest relative error of an operation on float32."""
    (found,) = [a for a in APPROXIMATIONS if (a.operation, a.element) == (operation, "f32")]
    return max(found.ulps * FLOAT32_ULP, found.relative)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_tolerance_of_outputs_exceeds_the_bounds_of_exponentials_and_division(dtype: torch.dtype) -> None:
    assert isinstance(OUT, Rounded)
    exponential = max(worst("math.exp2"), worst("math.exp") + LARGEST_LOGIT * 2.0**-24)
    approximate = (2 * exponential + worst("arith.divf")) / torch.finfo(dtype).eps
    assert ATTAINED + approximate < OUT.epsilons / 2


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_correct_kernels_reach_less_than_half_of_the_tolerance(dtype: str) -> None:
    """The arithmetic of ``attend``, which rounds as a kernel does, on each small case."""
    assert isinstance(OUT, Rounded)
    for case in (replace(case, dtype=dtype) for case in MHA.correctness_cases):
        inputs = MHA.make_inputs(case, 1)
        out, _, attainable = forward.reference(MHA, case, inputs, 0, 0, torch.arange(case.q_len))
        assert attainable.norm() / out.norm() < OUT.epsilons / 2 * torch.finfo(getattr(torch, dtype)).eps


def test_the_tolerance_of_lse_exceeds_the_bounds_of_exponentials_and_logarithm() -> None:
    assert isinstance(LSE, Absolute)
    exponential = max(worst("math.exp2"), worst("math.exp") + LARGEST_LOGIT * 2.0**-24)
    assert exponential + LARGEST_LOGIT * FLOAT32_ULP < LSE.most / 10


@pytest.mark.parametrize(
    ("found", "message"), [(0.0, ""), (1e-3, "not zero, as they should be"), (math.nan, "not finite")]
)
def test_where_zeros_are_right_they_alone_are(found: float, message: str) -> None:
    case = replace(MHA.correctness_cases[0], batch=1, heads=1, kv_heads=1, q_len=5)
    inputs = MHA.make_inputs(case, 1)
    inputs["v"].zero_()
    lse = forward.reference(MHA, case, inputs, 0, 0, torch.arange(case.q_len))[1]
    out = torch.full((case.q_len * case.head_dim,), found, dtype=torch.bfloat16)
    outputs = {
        name: Allocation(name, data, torch.ones(len(data), dtype=torch.bool))
        for name, data in (("out", out), ("lse", lse.float()))
    }
    fault = compare(MHA, case, inputs, outputs, whole=True).fault
    assert message in fault.message if fault else not message
    assert (fault is None) == (found == 0.0)


@pytest.mark.parametrize(("factor", "message"), [(1.314, "off by up to 31%"), (13.4, "off by up to 1,200%")])
def test_rows_are_off_by_percent(factor: float, message: str) -> None:
    case = replace(MHA.correctness_cases[0], batch=1, heads=1, kv_heads=1, q_len=5)
    inputs = MHA.make_inputs(case, 1)
    out, lse, _ = forward.reference(MHA, case, inputs, 0, 0, torch.arange(case.q_len))
    results = {"out": (out.flatten() * factor).bfloat16(), "lse": lse.float()}
    outputs = {name: Allocation(name, data, torch.ones(len(data), dtype=torch.bool)) for name, data in results.items()}
    fault = compare(MHA, case, inputs, outputs, whole=True).fault
    assert fault is not None
    assert f"are {message};" in fault.message


@pytest.mark.parametrize("size", [1.0, 1e-9])
def test_zeros_are_wrong_however_small_the_outputs_are(size: float) -> None:
    case = replace(MHA.correctness_cases[0], batch=1, heads=1, kv_heads=1, q_len=5)
    inputs = MHA.make_inputs(case, 1)
    inputs["v"] *= size
    lse = forward.reference(MHA, case, inputs, 0, 0, torch.arange(case.q_len))[1]
    results = {"out": torch.zeros(case.q_len * case.head_dim, dtype=torch.bfloat16), "lse": lse.float()}
    outputs = {name: Allocation(name, data, torch.ones(len(data), dtype=torch.bool)) for name, data in results.items()}
    fault = compare(MHA, case, inputs, outputs, whole=True).fault
    assert fault is not None
    assert "rows 0 to 4" in fault.message
