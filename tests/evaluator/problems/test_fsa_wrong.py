"""The correctness cases of ``fsa`` see what goes wrong in sparse kernels: faults of the seeds, one at a time. Kernels
in other styles are right in all.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from avo.evaluator.candidate import Candidate
from avo.evaluator.evaluation import Status
from avo.evaluator.judging.judge import Judge
from avo.evaluator.problems.fsa import FSA
from avo.evaluator.sandbox.jobs import ForkServer
from avo.evaluator.targets import get_target
from avo.seeds import seed_source
from bench.orders import module_of, published_form
from tests.corpus import sample
from tests.evaluator.problems.offline_kernel import first_fault
from tests.kernels import edited, stored

SOURCES = [seed_source("fsa", name) for name in ("query_outer", "kv_outer")]
QUERY_OUTER, KV_OUTER = SOURCES
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


SLOT = "block = tl.load(indices + slot)"
HONEST_KERNELS = {
    "query_outer": QUERY_OUTER,
    "kv_outer": KV_OUTER,
    "sums by atomics": stored("honest/fsa/atomics"),
    "as Native Sparse Attention was published": published_form(64),
    "the last block first, empty slots before": edited(
        (SLOT, SLOT.replace("slot", "blocks - 1 - slot")), source=QUERY_OUTER
    ),
    "scaled queries": edited(
        ("    # The running maximum", "    q = (q * scale).to(tl.float32)\n    # The running maximum"),
        ("tl.dot(q, k) * scale", 'tl.dot(q, k.to(tl.float32), input_precision="ieee")'),
        source=QUERY_OUTER,
    ),
    "small tiles and shares": edited(
        ("block_m, share, listed, reduced = 64, 1024, 32, 16", "block_m, share, listed, reduced = 16, 48, 16, 32"),
        source=KV_OUTER,
    ),
}


@pytest.mark.corpus
@pytest.mark.parametrize("name", HONEST_KERNELS)
def test_an_honest_kernel_is_right_in_every_small_case(name: str, tmp_path: Path) -> None:
    assert first_fault(FSA, module_of(HONEST_KERNELS[name], tmp_path)) is None
