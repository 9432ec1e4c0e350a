"""The correctness cases of ``fsa`` see what goes wrong in sparse kernels: faults of the seeds, one at a time."""

from collections.abc import Iterator

import pytest

from evaluator.candidate import Candidate
from evaluator.evaluation import Status
from evaluator.judging.judge import Judge
from evaluator.sandbox.jobs import ForkServer
from evaluator.targets import get_target
from seeds import seed_source
from tests.corpus import sample

SOURCES = [seed_source("fsa", name) for name in ("query_outer", "kv_outer")]
FIRST = (
    "tl.max(tl.where((tl.arange(0, BLOCK_M) == 0)[:, None], scores, float('-inf'))) + tl.zeros([BLOCK_M], tl.float32)"
)
WRONG = {
    "neighbours in place of selected blocks": ("tl.load(indices + slot)", "position // block_size - slot"),
    "last slot left out": ("range(blocks)", "range(blocks - 1)"),
    "future keys of the own block": ("(keys <= position)", "(keys < length)"),
    "own key left out": ("(keys <= position)", "((keys < position) | (position == 0))"),
    "query heads in turns": ("kv_head * group + offs_g", "kv_head + kv_heads * offs_g"),
    "selection of the first head for all": ("(batch_head.to(tl.int64) * length", "(batch * kv_heads * length"),
    "no maximum": ("tl.maximum(row_max, tl.max(scores, 1))", "tl.maximum(row_max, 0.0)"),
    "usual scale": ("tl.dot(q, k) * scale", "tl.dot(q, k) * 0.08838834764831845"),
    "lse to base 2": ("row_max + tl.log(row_sum)", "(row_max + tl.log(row_sum)) * 1.4426950408889634"),
    "maximum of a tile's first row": ("row_max = tl.max(scores, 1)\n", f"row_max = {FIRST}\n"),
    "parts without their weights": ("tl.exp(part_lse - new_max)", "tl.where(chosen, 1.0, 0.0)"),
    "end of a share left out": ("(share + 1) * SHARE)", "(share + 1) * SHARE) - (share > 0) * BLOCK_M"),
}


@pytest.fixture(scope="module")
def judge(fork_server: ForkServer) -> Iterator[Judge]:
    with Judge(get_target("h100"), "quick", server=fork_server) as judge:
        yield judge


@pytest.mark.parametrize("fault", sample(WRONG, 12))
def test_a_wrong_sparse_kernel_is_seen(judge: Judge, fault: str) -> None:
    right, wrong = WRONG[fault]
    source = next(text for text in SOURCES if right in text)
    evaluation = judge.evaluate(Candidate("fsa", source.replace(right, wrong)))
    assert evaluation.status is Status.INCORRECT, evaluation.message
