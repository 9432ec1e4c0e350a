"""Right backward kernels in many styles are right in every small case."""

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
from corpora.edits import BACKWARD_ATOMICS as ATOMICS
from tests.evaluator.problems.offline_kernel import first_fault
from tests.kernels import edited

PLAIN = seed_source("mha_backward")

DS_OF_QUERIES = "ds = p * (tl.dot(dout, tl.trans(v)) - delta[:, None])"
STRIDES = "stride_ob, stride_oh, stride_om, stride_od"
P_OF_QUERIES = "tl.exp(tl.dot(q, tl.trans(k)) * scale - lse[:, None])"
P_OF_KEYS = "tl.exp(tl.dot(k, tl.trans(q)) * scale - lse[None, :])"
ROWS = "offs_n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)\n    batch, kv_head"
DELTA_OF_KEYS = "            delta = tl.load(Delta + at + offs_m, mask=offs_m < q_len, other=0.0)\n"
LOG2_E = "1.4426950408889634"
MHA, GQA = "mha_backward", "gqa_backward"


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
