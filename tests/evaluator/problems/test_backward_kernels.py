"""Backward kernels that are subtly wrong are told apart from right ones in many styles."""

import re
from pathlib import Path

import pytest

from avo.evaluator.candidate import Candidate
from avo.evaluator.evaluation import Status
from avo.evaluator.judging.judge import Judge
from avo.evaluator.problem import Problem
from avo.evaluator.problems.gqa_backward import GQA_BACKWARD
from avo.evaluator.problems.mha_backward import MHA_BACKWARD
from avo.evaluator.sandbox.jobs import ForkServer
from avo.evaluator.targets import get_target
from avo.seeds import seed_source
from bench.orders import module_of
from tests.corpus import sample
from tests.evaluator.problems.offline_kernel import first_fault
from tests.evaluator.wrong.mutant import Mutant, one
from tests.kernels import edited, stored

PLAIN = seed_source("mha_backward")
ATOMICS = stored("honest/mha_backward/atomics")

DIAGONAL_OF_KEYS = "offs_n[:, None] <= offs_m[None, :] + (kv_len - q_len)"
DIAGONAL_OF_QUERIES = "offs_n[None, :] <= offs_m[:, None] + (kv_len - q_len)"
DS_OF_KEYS = "ds = p * (tl.dot(v, tl.trans(dout)) - delta[None, :])"
DS_OF_QUERIES = "ds = p * (tl.dot(dout, tl.trans(v)) - delta[:, None])"
STRIDES = "stride_ob, stride_oh, stride_om, stride_od"
P_OF_QUERIES = "tl.exp(tl.dot(q, tl.trans(k)) * scale - lse[:, None])"
P_OF_KEYS = "tl.exp(tl.dot(k, tl.trans(q)) * scale - lse[None, :])"
DK = "dk = tl.dot(ds.to(q.dtype), q, dk)"
DV = "dv = tl.dot(p.to(dout.dtype), dout, dv)"
AT = "at = (batch * heads + head) * q_len\n        for"
ROWS = "offs_n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)\n    batch, kv_head"
DELTA_OF_KEYS = "            delta = tl.load(Delta + at + offs_m, mask=offs_m < q_len, other=0.0)\n"
LOG2_E = "1.4426950408889634"
MHA, GQA = "mha_backward", "gqa_backward"

WRONG: dict[str, tuple[str, Mutant]] = {
    "dk without the row sums": (MHA, one(DS_OF_KEYS, DS_OF_KEYS.replace(" - delta[None, :]", ""), "square-full.* dk,")),
    "dq without the row sums": (
        MHA,
        one(DS_OF_QUERIES, DS_OF_QUERIES.replace(" - delta[:, None]", ""), "square-full.* dq,"),
    ),
    "dk accumulated twice": (MHA, one(DK, f"{DK}\n            {DK}", "square-full.* dk,")),
    "dv accumulated twice": (MHA, one(DV, f"{DV}\n            {DV}", "square-full.* dv,")),
    "dk without the scale": (MHA, one("        dk * scale,", "        dk,", "square-full.* dk,")),
    "dq scaled twice": (MHA, one("Dq, dq * scale,", "Dq, dq * scale * scale,", "square-full.* dq,")),
    "dk of probabilities": (MHA, one("dk = tl.dot(ds.to", "dk = tl.dot(p.to", "square-full.* dk,")),
    "the diagonal of dk one key too far": (
        MHA,
        one(DIAGONAL_OF_KEYS, DIAGONAL_OF_KEYS + " + 1", "-causal.* d[kv],"),
    ),
    "the diagonal of dq one key too near": (
        MHA,
        one(DIAGONAL_OF_QUERIES, DIAGONAL_OF_QUERIES.replace("<=", "<"), "square-causal.* dq,"),
    ),
    "the first queries of a tile of keys left out": (
        MHA,
        one("// BLOCK_M * BLOCK_M", "// BLOCK_M * BLOCK_M + BLOCK_M", "square-causal.* dk,"),
    ),
    "the last tile of keys left out": (
        MHA,
        one("end = kv_len\n", "end = kv_len // BLOCK_N * BLOCK_N\n", "odd-full.* dq,"),
    ),
    "row sums that are those of the keys at hand": (
        MHA,
        one(
            DS_OF_KEYS,
            "dp = tl.dot(v, tl.trans(dout))\n            ds = p * (dp - tl.sum(p * dp, 0)[None, :])",
            "square-full.* dk,",
        ),
    ),
    "probabilities that add up to one in a tile": (
        MHA,
        one(DS_OF_QUERIES, "p = p / tl.sum(p, 1)[:, None]\n        " + DS_OF_QUERIES, "square-full.* dq,"),
    ),
    "exponentials of two": (MHA, one(P_OF_KEYS, P_OF_KEYS.replace("exp(", "exp2("), "square-full.* d[kv],")),
    "lse in bfloat16": (
        MHA,
        one(P_OF_KEYS, P_OF_KEYS.replace("lse[", "lse.to(tl.bfloat16).to(tl.float32)["), "square-causal.* d[kv],"),
    ),
    "one head of each group": (GQA, one("range(group)", "range(1)", "group-8-causal.* dk,")),
    "lse of the first head of the group": (
        GQA,
        one(AT, AT.replace("+ head)", "+ kv_head * group)"), "group-8-causal.* dk,"),
    ),
}
"""Mutants of the seed, with where they are wrong first."""

HONEST_KERNELS: dict[str, str] = {
    "atomics": ATOMICS,
    "powers of two": edited(
        (P_OF_KEYS, f"tl.exp2(tl.dot(k, tl.trans(q)) * (scale * {LOG2_E}) - lse[None, :] * {LOG2_E})"),
        (P_OF_QUERIES, f"tl.exp2(tl.dot(q, tl.trans(k)) * (scale * {LOG2_E}) - lse[:, None] * {LOG2_E})"),
        source=PLAIN,
    ),
    "large tiles, the last first": edited(
        ("block_m, block_n = 64, 64", "block_m, block_n = 32, 128"),
        (ROWS, "tile = tl.num_programs(0) - 1 - tl.program_id(0)\n    " + ROWS.replace("tl.program_id(0)", "tile")),
        ("first = tl.maximum(tl.program_id(0) * BLOCK_N", "first = tl.maximum(tile * BLOCK_N"),
        source=PLAIN,
    ),
    "row sums within the loop": edited(
        (
            "    Q, K, V, Dout, Lse, Delta, Dk, Dv, scale,\n",
            f"    Q, K, V, Out, Dout, Lse, Dk, Dv, scale, {STRIDES},\n",
        ),
        (
            DELTA_OF_KEYS,
            f"            out = load_rows(Out, batch, head, offs_m, q_len, {STRIDES}, HEAD_DIM, BLOCK_D)\n"
            "            delta = tl.sum(out.to(tl.float32) * dout.to(tl.float32), 1)\n",
        ),
        (
            "q, k, v, dout, lse, delta, dk, dv, scale, *strides,",
            "q, k, v, out, dout, lse, dk, dv, scale, *out.stride(), *strides,",
        ),
        source=PLAIN,
    ),
    "scaled row sums, scaled early": edited(
        (DS_OF_QUERIES, "ds = p * (tl.dot(dout, tl.trans(v)) * scale - (delta * scale)[:, None])"),
        ("Dq, dq * scale,", "Dq, dq,"),
        source=PLAIN,
    ),
}


@pytest.mark.parametrize("name", sample(WRONG, 32))
def test_a_wrong_kernel_is_told_which_gradient_is_wrong(name: str, tmp_path: Path) -> None:
    problem, mutant = WRONG[name]
    found = {MHA: MHA_BACKWARD, GQA: GQA_BACKWARD}[problem]
    fault = first_fault(found, module_of(mutant.of(PLAIN), tmp_path))
    assert fault is not None
    assert fault.status is mutant.status
    assert re.search(mutant.message, fault.message), fault.message


@pytest.mark.corpus
@pytest.mark.parametrize("problem", [MHA_BACKWARD, GQA_BACKWARD], ids=[MHA, GQA])
@pytest.mark.parametrize("name", HONEST_KERNELS)
def test_an_honest_kernel_is_right_in_every_small_case(name: str, problem: Problem, tmp_path: Path) -> None:
    assert first_fault(problem, module_of(HONEST_KERNELS[name], tmp_path)) is None


RACING = edited(
    (
        'tl.atomic_add(place, part, mask=(offs_m < q_len)[:, None] & (offs_d < HEAD_DIM)[None, :], sem="relaxed")',
        "inside = (offs_m < q_len)[:, None] & (offs_d < HEAD_DIM)[None, :]\n"
        "            tl.store(place, tl.load(place, mask=inside, other=0.0) + part, mask=inside)",
    ),
    source=ATOMICS,
)


@pytest.mark.corpus
@pytest.mark.parametrize(
    ("source", "status"), [(ATOMICS, Status.CORRECT), (RACING, Status.RACE)], ids=["atomic", "not"]
)
def test_sums_in_any_order_are_right_if_they_are_atomic(fork_server: ForkServer, source: str, status: Status) -> None:
    with Judge(get_target("h100"), "quick", server=fork_server) as judge:
        evaluation = judge.evaluate(Candidate(MHA, source))
    assert evaluation.status is status, evaluation.message
    assert evaluation.traits.get("sums") == ("atomic" if evaluation.correct else None)
