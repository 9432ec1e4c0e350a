"""The kernel in the form that was published computes what the seed does."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from avo.evaluator.offline import offline
from avo.evaluator.problems.dense import softmax_scale, views
from avo.evaluator.problems.fsa import FSA
from avo.seeds import seed_source
from bench.orders import module_of, published_form

pytestmark = pytest.mark.long

ORACLE = "the seed query_outer"


@pytest.mark.parametrize(("block_size", "blocks"), [(64, 4), (128, 3)])
def test_the_published_form_has_the_results_of_the_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block_size: int, blocks: int
) -> None:
    monkeypatch.setenv("TRITON_DEFAULT_FP_FUSION", "1")  # as the judge has it: Triton warns where it is not set
    case = replace(FSA.correctness_cases[0], q_len=300, kv_len=300, block_size=block_size, blocks=blocks, batch=1)
    inputs = FSA.make_inputs(case, 1)
    tensors = [view.contiguous() for view in views(case, inputs).values()]
    chosen = inputs["block_indices"].view(1, case.kv_heads, 300, blocks)
    results = []
    for source in (published_form(block_size), seed_source("fsa", "query_outer")):
        out, lse = torch.empty_like(tensors[0]), torch.empty(1, case.heads, 300)
        with offline(target="h200", on_fault="raise"):
            module_of(source, tmp_path).selected_attention(
                *tensors, chosen, out, lse, block_size=block_size, scale=softmax_scale(case)
            )
        results.append((out.float(), lse))
    (out, lse), (seed_out, seed_lse) = results
    assert float((out - seed_out).norm() / seed_out.norm()) < 3e-3
    assert float((lse - seed_lse).abs().max()) < 1e-4
