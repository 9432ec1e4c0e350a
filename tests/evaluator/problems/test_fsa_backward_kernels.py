"""Backward kernels of selected attention in many styles are right."""

import re
from pathlib import Path

import pytest

from avo.evaluator.candidate import Candidate
from avo.evaluator.evaluation import Status
from avo.evaluator.judging.judge import Judge
from avo.evaluator.problems.fsa_backward import FSA_BACKWARD
from avo.evaluator.sandbox.jobs import ForkServer
from avo.evaluator.targets import get_target
from avo.seeds import seed_source
from bench.orders import module_of
from tests.corpus import soaked
from tests.evaluator.problems.offline_kernel import first_fault
from tests.kernels import edited

pytestmark = pytest.mark.corpus

PLAIN = seed_source("fsa_backward", "query_outer")
ONE_WALK = seed_source("fsa_backward", "kv_outer")

DS_OF_QUERIES = "ds = p * (tl.dot(dout, tl.trans(v)) - delta[:, None])"
P_OF_KEYS = "tl.exp(tl.dot(k, tl.trans(q)) * scale - lse[None, :])"
P_OF_QUERIES = "tl.exp(tl.dot(q, tl.trans(k)) * scale - lse[:, None])"
DQ = "dq = tl.dot(ds.to(k.dtype), k, dq)"
SLOTS = "for slot in range(tl.sum((chosen >= 0).to(tl.int32))):\n        keys = tl.load(indices + slot) * block_size"
LOG2_E = "1.4426950408889634"


ATOMIC = (
    'tl.atomic_add(SumK + place, dk * scale, mask=inside, sem="relaxed")',
    'tl.atomic_add(SumV + place, dv, mask=inside, sem="relaxed")',
)
ONE_BY_ONE = """        at_keys = (batch_head * length + keys[:, None]) * HEAD_DIM + tl.arange(0, BLOCK_D)[None, :]
        inside = visible[:, None] & (tl.arange(0, BLOCK_D) < HEAD_DIM)[None, :]
        tl.atomic_add(SumK + at_keys, tl.dot(tl.trans(ds.to(q.dtype)), q) * scale, mask=inside, sem="relaxed")
        tl.atomic_add(SumV + at_keys, tl.dot(tl.trans(p.to(dout.dtype)), dout), mask=inside, sem="relaxed")
"""
LAST_FIRST = SLOTS.replace("indices + slot", "indices + tl.sum((chosen >= 0).to(tl.int32)) - 1 - slot")


def without_lists() -> str:
    """The seed ``query_outer`` in one order: each position adds to the gradients of the keys that it selected."""
    source = edited(
        (
            "Q, K, V, Indices, Dout, Lse, Delta, Dq, scale,",
            "Q, K, V, Indices, Dout, Lse, Delta, SumK, SumV, Dq, scale,",
        ),
        (f"        {DQ}\n", f"        {DQ}\n{ONE_BY_ONE}"),
        (
            "q, k, v, block_indices, dout, lse, delta, dq,",
            "q, k, v, block_indices, dout, lse, delta, sum_k, sum_v, dq,",
        ),
        source=PLAIN,
    )
    head, lists, rest = re.split(r"(?=    counts = block)|(?=    sum_k, sum_v = )", source)
    sums, rounding, queries = re.split(r"(?=    for total, gradient)|(?=    queries_kernel\[)", rest)
    assert "list_kernel[grid]" in lists
    return head + sums[: sums.index("    keys_kernel[")] + queries + "\n" + rounding


HONEST_KERNELS: dict[str, str] = {
    "two walks": PLAIN,
    "one walk": ONE_WALK,
    "powers of two": edited(
        (P_OF_KEYS, f"tl.exp2(tl.dot(k, tl.trans(q)) * (scale * {LOG2_E}) - lse[None, :] * {LOG2_E})"),
        (P_OF_QUERIES, f"tl.exp2(tl.dot(q, tl.trans(k)) * (scale * {LOG2_E}) - lse[:, None] * {LOG2_E})"),
        source=PLAIN,
    ),
    "a program has all of a block's list": edited(
        (ATOMIC[0], "tl.store(SumK + place, dk * scale, mask=inside)"),
        (ATOMIC[1], "tl.store(SumV + place, dv, mask=inside)"),
        ("rounded = 64, 1024,", "rounded = 64, 1048576,"),
        source=PLAIN,
    ),
    "no lists": without_lists(),
    "small shares, the last block first": edited(
        (SLOTS, LAST_FIRST), ("rounded = 64, 1024, 32, 64", "rounded = 32, 96, 16, 128"), source=PLAIN
    ),
    "scaled row sums, scaled early": edited(
        (DS_OF_QUERIES, "ds = p * (tl.dot(dout, tl.trans(v)) * scale - (delta * scale)[:, None])"),
        ("dq * scale", "dq"),
        source=PLAIN,
    ),
}


@pytest.mark.parametrize("name", soaked(HONEST_KERNELS, ["no lists"]))
def test_an_honest_kernel_is_right_in_every_small_case(name: str, tmp_path: Path) -> None:
    assert first_fault(FSA_BACKWARD, module_of(HONEST_KERNELS[name], tmp_path)) is None


IN_ORDER = "a program has all of a block's list", "in order"


@pytest.mark.parametrize(
    ("name", "sums"), soaked([("one walk", "atomic"), IN_ORDER], [IN_ORDER]), ids=["atomic", "not"]
)
def test_the_judge_takes_sums_in_any_order_and_says_which(fork_server: ForkServer, name: str, sums: str) -> None:
    with Judge(get_target("h100"), "quick", server=fork_server) as judge:
        evaluation = judge.evaluate(Candidate("fsa_backward", HONEST_KERNELS[name]))
    assert evaluation.status is Status.CORRECT, evaluation.message
    assert evaluation.traits["sums"] == sums
