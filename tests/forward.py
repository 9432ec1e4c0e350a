"""The reference of forward problems, for tests that know what their outputs are."""

from collections.abc import Mapping

import torch

from avo.evaluator.problem import Case, Problem


def reference(
    problem: Problem, case: Case, inputs: Mapping[str, torch.Tensor], batch: int, head: int, rows: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return (out, lse, attainable)."""
    expected = problem.reference(case, inputs, "queries", batch, head, rows)
    assert expected["out"].attainable is not None
    return expected["out"].value, expected["lse"].value, expected["out"].attainable
