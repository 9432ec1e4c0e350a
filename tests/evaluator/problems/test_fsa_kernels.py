"""Kernels of ``fsa`` in many styles are right in every small case."""

from pathlib import Path

import pytest

from avo.evaluator.problems.fsa import FSA
from avo.seeds import seed_source
from bench.orders import module_of, published_form
from corpora.edits import FSA_ATOMICS
from tests.evaluator.problems.offline_kernel import first_fault
from tests.kernels import edited

QUERY_OUTER, KV_OUTER = (seed_source("fsa", name) for name in ("query_outer", "kv_outer"))
SLOT = "block = tl.load(indices + slot)"
HONEST_KERNELS = {
    "query_outer": QUERY_OUTER,
    "kv_outer": KV_OUTER,
    "atomics": FSA_ATOMICS,
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
