"""Backward kernels of selected attention that are subtly wrong are told apart from right ones in many styles."""

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
from tests.evaluator.wrong.mutant import Mutant, one
from tests.kernels import edited

pytestmark = pytest.mark.corpus

PLAIN = seed_source("fsa_backward", "query_outer")
ONE_WALK = seed_source("fsa_backward", "kv_outer")

DS_OF_KEYS = "ds = p * (tl.dot(v, tl.trans(dout)) - delta[None, :])"
DS_OF_QUERIES = "ds = p * (tl.dot(dout, tl.trans(v)) - delta[:, None])"
P_OF_KEYS = "tl.exp(tl.dot(k, tl.trans(q)) * scale - lse[None, :])"
P_OF_QUERIES = "tl.exp(tl.dot(q, tl.trans(k)) * scale - lse[:, None])"
DK, DV = "dk = tl.dot(ds.to(q.dtype), q, dk)", "dv = tl.dot(p.to(dout.dtype), dout, dv)"
DQ = "dq = tl.dot(ds.to(k.dtype), k, dq)"
VISIBLE = "visible = in_n[:, None] & in_m[None, :] & (keys[:, None] <= token[None, :])"
SLOTS = "for slot in range(tl.sum((chosen >= 0).to(tl.int32))):\n        keys = tl.load(indices + slot) * block_size"
SHARES = "range(share * SHARE, tl.minimum(rows, (share + 1) * SHARE), BLOCK_M)"
SUMS = ("tl.atomic_add(SumK + place, dk * scale, ", "tl.atomic_add(SumV + place, dv, ")
LOG2_E = "1.4426950408889634"

WRONG: dict[str, Mutant] = {
    "dk without the row sums": one(DS_OF_KEYS, DS_OF_KEYS.replace(" - delta[None, :]", ""), "group-1.* dk,"),
    "dq without the row sums": one(DS_OF_QUERIES, DS_OF_QUERIES.replace(" - delta[:, None]", ""), "group-1.* dq,"),
    "dk accumulated twice": one(DK, f"{DK}\n        {DK}", "group-1.* dk,"),
    "dv accumulated twice": one(DV, f"{DV}\n        {DV}", "group-1.* dv,"),
    "dq accumulated twice": one(DQ, f"{DQ}\n        {DQ}", "group-1.* dq,"),
    "dk without the scale": one("dk * scale", "dk", "group-1.* dk,"),
    "dq scaled twice": one("dq * scale", "dq * scale * scale", "group-1.* dq,"),
    "dk of probabilities": one("tl.dot(ds.to(q.dtype), q, dk)", "tl.dot(p.to(q.dtype), q, dk)", "group-1.* dk,"),
    "row sums of the keys of a block": one(
        DS_OF_QUERIES,
        "dp = tl.dot(dout, tl.trans(v))\n        ds = p * (dp - tl.sum(p * dp, 1)[:, None])",
        "group-1.* dq,",
    ),
    "probabilities that add up to one in a block": one(
        DS_OF_QUERIES, f"p = p / tl.sum(p, 1)[:, None]\n        {DS_OF_QUERIES}", "group-1.* dq,"
    ),
    "exponentials of two": one(P_OF_KEYS, P_OF_KEYS.replace("exp(", "exp2("), "group-1.* d[kv],"),
    "lse in bfloat16": one(
        P_OF_KEYS, P_OF_KEYS.replace("lse[", "lse.to(tl.bfloat16).to(tl.float32)["), "group-1.* d[kv],"
    ),
    "the usual scale": one(P_OF_KEYS, P_OF_KEYS.replace("scale", "0.08838834764831845"), "forced-only.* d[kv],"),
    "the first block left out": one(SLOTS, SLOTS.replace("range(", "range(1, "), "group-1.* dq,"),
    "the query's own block left out": one(
        SLOTS, SLOTS.replace("to(tl.int32))):", "to(tl.int32)) - 1):"), "group-1.* dq,"
    ),
    "the first block twice": one(
        SLOTS,
        SLOTS.replace("to(tl.int32))):", "to(tl.int32)) + 1):").replace("+ slot)", "+ tl.maximum(slot - 1, 0))"),
        "group-1.* dq,",
    ),
    "neighbours in place of selected blocks": one(
        SLOTS, SLOTS.replace("tl.load(indices + slot)", "(position // block_size - slot)"), "group-1.* dq,"
    ),
    "the last slot in no list": one("(slot < blocks)[None, :]", "(slot < blocks - 1)[None, :]", "group-1.* d[kv],"),
    "the selection of the first KV head for all": one(
        "(batch_head * length + position) * blocks", "(batch * kv_heads * length + position) * blocks", "group-1.* dq,"
    ),
    "future keys of the own block for dk and dv": one(
        VISIBLE, "visible = in_n[:, None] & in_m[None, :]", "group-1.* d[kv],"
    ),
    "future keys of the own block for dq": one("(keys <= position)", "(keys < length)", "group-1.* dq,"),
    "the own key left out": one("(keys <= position)", "(keys < position)", "group-.* dq,"),
    "query heads in turns": one(
        "head = kv_head * group + row % group", "head = kv_head + kv_heads * (row % group)", "group-2.* d[kv],"
    ),
    "one query head of each group": one(
        "head = kv_head * group + row % group", "head = kv_head * group + 0 * row", "group-2.* d[kv],"
    ),
    "lse of the first head of the group": one(
        "of_row = (batch * kv_heads * group + head) * length + token",
        "of_row = (batch * kv_heads * group + kv_head * group) * length + token",
        "group-2.* d[kv],",
    ),
    "every share from the start of its list": one(
        SHARES, SHARES.replace("share * SHARE,", "0,", 1), "group-4.* d[kv],"
    ),
    "the end of a share left out": one(
        SHARES, SHARES.replace("(share + 1) * SHARE)", "(share + 1) * SHARE - BLOCK_M)"), "group-4.* d[kv],"
    ),
}
"""Mutants of the seed ``query_outer``, with where they are wrong first."""
PART = "part = tl.dot(tl.trans(ds.to(q.dtype)), k) * scale"
WRONG_PARTS: dict[str, Mutant] = {
    "parts of dq without the scale": one(PART, PART.removesuffix(" * scale"), "group-1.* dq,"),
    "parts of dq without the row sums": one(
        PART, "part = tl.dot(tl.trans((p * tl.dot(v, tl.trans(dout))).to(q.dtype)), k) * scale", "group-1.* dq,"
    ),
    "parts of dq for the first head of the group": one(
        "of_part = of_row[:, None]", "of_part = (of_row - row % group * length)[:, None]", "group-2.* dq,"
    ),
}
"""The same of the seed ``kv_outer``."""

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


@pytest.mark.parametrize("name", WRONG | WRONG_PARTS)
def test_a_wrong_kernel_is_told_which_gradient_is_wrong(name: str, tmp_path: Path) -> None:
    mutant = (WRONG | WRONG_PARTS)[name]
    fault = first_fault(FSA_BACKWARD, module_of(mutant.of(PLAIN if name in WRONG else ONE_WALK), tmp_path))
    assert fault is not None
    assert fault.status is mutant.status
    assert re.search(mutant.message, fault.message), fault.message


@pytest.mark.parametrize("name", soaked(HONEST_KERNELS, ["no lists"]))
def test_an_honest_kernel_is_right_in_every_small_case(name: str, tmp_path: Path) -> None:
    assert first_fault(FSA_BACKWARD, module_of(HONEST_KERNELS[name], tmp_path)) is None


REFUSED: dict[str, Mutant] = {
    "additions that race": one(
        ATOMIC[0],
        "tl.store(SumK + place, tl.load(SumK + place, mask=inside, other=0.0) + dk * scale, mask=inside)",
        "race in keys_kernel",
        Status.RACE,
    ),
    "sums that start from what was there": one(
        "sum_k, sum_v = (lse.new_zeros(", "sum_k, sum_v = (lse.new_empty(", "never written", Status.INCORRECT
    ),
    "keys behind the last one": one(
        "in_n = (offs_n < block_size) & (keys < length)", "in_n = offs_n < block_size", "", Status.OUT_OF_BOUNDS
    ),
    "dk of the last block not written": one(
        "Rounded, total, batch, head, rows, rows < length,",
        "Rounded, total, batch, head, rows, rows < length - 1,",
        "",
        Status.UNWRITTEN,
    ),
}
"""What only the judge finds, which runs kernels in its sanitiser."""


@pytest.mark.parametrize("name", REFUSED)
def test_gradients_by_chance_are_refused(fork_server: ForkServer, name: str) -> None:
    mutant = REFUSED[name]
    with Judge(get_target("h100"), "quick", server=fork_server) as judge:
        evaluation = judge.evaluate(Candidate("fsa_backward", mutant.of(PLAIN)))
    assert evaluation.status is mutant.status, evaluation.message
    assert re.search(mutant.message, evaluation.message), evaluation.message


IN_ORDER = "a program has all of a block's list", "in order"


@pytest.mark.parametrize(
    ("name", "sums"),
    soaked([("one walk", "atomic"), IN_ORDER], [IN_ORDER]),
    ids=["atomic", "not"],
)
def test_the_judge_takes_sums_in_any_order_and_says_which(fork_server: ForkServer, name: str, sums: str) -> None:
    with Judge(get_target("h100"), "quick", server=fork_server) as judge:
        evaluation = judge.evaluate(Candidate("fsa_backward", HONEST_KERNELS[name]))
    assert evaluation.status is Status.CORRECT, evaluation.message
    assert evaluation.traits["sums"] == sums
