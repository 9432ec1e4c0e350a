"""Inputs and references are made where torch is told to make them: where speed is measured, on the GPU.

The device ``meta`` has no numbers and mixes with no other, so a tensor that is made elsewhere fails.
"""

import math

import pytest
import torch

from avo.evaluator.catalogue import get_problem
from avo.evaluator.problem import Case, rows_of
from avo.evaluator.problems import fsa, fsa_backward, inputs
from tests.corpus import sample

PLACE = torch.device("meta")


def blocks(case: Case, seed: int) -> torch.Tensor:
    return torch.empty(math.prod(fsa.block_indices(case).shape), dtype=torch.int32)


def everything(case: Case, chosen: torch.Tensor, keys: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.arange(len(chosen)), torch.ones(len(keys), len(chosen), dtype=torch.bool)


@pytest.mark.parametrize(
    "name", sample(["fsa", "mha", "mha_backward", "gqa", "fsa_backward", "gqa_backward-w128-sinks-packed"], 3)
)
def test_inputs_and_references_are_on_the_default_device(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = get_problem(name)
    monkeypatch.setattr(inputs, "seeded", lambda name, seed: None)  # there are no random numbers for it
    monkeypatch.setattr(inputs, "pool_storage", lambda name, size, row, dtype, seed: torch.randn(size).to(dtype))
    for module in (fsa, fsa_backward):  # block indices are chosen, and queries found, by values
        monkeypatch.setattr(module, "make_blocks", blocks)
    monkeypatch.setattr(fsa_backward, "seeing", everything)
    for case in (*problem.correctness_cases, *problem.suites["quick"]):
        with PLACE:
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
