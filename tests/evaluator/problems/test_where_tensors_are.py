"""Inputs and references are made where torch is told to make them: where speed is measured, on the GPU.

The device ``meta`` has no numbers and mixes with no other, so a tensor that is made elsewhere fails.
"""

import math

import pytest
import torch

from evaluator.catalogue import get_problem
from evaluator.problem import rows_of
from evaluator.problems import inputs
from evaluator.problems.dense import make_qkv

PLACE = torch.device("meta")


@pytest.mark.parametrize("name", ["mha", "gqa", "fsa", "mha_backward"])
def test_inputs_and_references_are_on_the_default_device(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = get_problem(name)
    monkeypatch.setattr(inputs, "seeded", lambda name, seed: None)  # there are no random numbers for it
    monkeypatch.setattr(inputs, "pool_storage", lambda name, size, row, dtype, seed: torch.randn(size).to(dtype))
    for case in (*problem.correctness_cases, *problem.suites["quick"]):
        with PLACE:
            if name == "fsa":  # block indices are chosen by their values
                size = math.prod(problem.call(case).tensors[3].shape)
                made = make_qkv(case, 1) | {"block_indices": torch.empty(size, dtype=torch.int32)}
            else:
                made = problem.make_inputs(case, 1)
            right = [
                each
                for of in rows_of(problem.outputs)
                for each in problem.reference(case, made, of, 0, 0, torch.arange(min(3, case.q_len))).values()
            ]
        attainable = [each.attainable for each in right if each.attainable is not None]
        assert {tensor.device for tensor in (*made.values(), *attainable, *(each.value for each in right))} == {PLACE}


def test_without_being_told_inputs_are_on_the_cpu() -> None:
    assert inputs.seeded("a", 1).device.type == "cpu"
