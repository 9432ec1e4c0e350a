"""Work that is missing only at a benchmark's lengths is seen, although just a sample of its programs is executed."""

import re

import pytest

from avo.evaluator.candidate import Candidate
from avo.evaluator.evaluation import Status
from avo.evaluator.judging.judge import Judge
from tests.corpus import sample
from tests.kernels import edited

GRID = "    grid = (triton.cdiv(q_len, block_m), batch * heads)\n"
LOOP = "range(0, kv_len, BLOCK_N)"
STORE = "        mask=(offs_m < q_len)[:, None] & in_d[None, :],\n    )\n    tl.store(\n        Lse"
MARKER = "\n\n@triton.jit\ndef set_length(Length, kv_len):\n    tl.store(Length, kv_len)\n\n\ndef attention("


TWO_LAUNCHES = (
    ("\n\ndef attention(", MARKER),
    (
        GRID,
        GRID
        + "    length = torch.zeros(1, dtype=torch.int32, device=q.device)\n    set_length[(1,)](length, kv_len)\n",
    ),
    ("import triton\n", "import torch\nimport triton\n"),
)
PRODUCTS = (
    (
        TWO_LAUNCHES[0][0],
        MARKER.replace(
            "    tl.store(Length, kv_len)\n",
            "    zeros = tl.zeros([16, 16], tl.bfloat16)\n"
            "    tl.store(Length, kv_len + tl.sum(tl.dot(zeros, zeros)).to(tl.int32))\n",
        ),
    ),
    *TWO_LAUNCHES[1:],
)
LOADED_LENGTH = (
    ("    kv_len,\n    CAUSAL", "    kv_len,\n    Length,\n    CAUSAL"),
    (LOOP, "range(0, tl.load(Length), BLOCK_N)"),
    ("        kv_len,\n        CAUSAL", "        kv_len,\n        length,\n        CAUSAL"),
)
ATTACKS = {
    "a grid of one program": (
        edited((GRID, GRID + "    grid = grid if q_len <= 2048 else (1, 1)\n")),
        Status.INCORRECT,
        "work is missing",
    ),
    "programs that return early": (
        edited(
            ("    offs_m = block_m", "    if (q_len > 2048) & (block_m % 8 > 0):\n        return\n    offs_m = block_m")
        ),
        Status.INCORRECT,
        "work is missing",
    ),
    "columns never stored": (
        edited((STORE, STORE.replace("in_d[None, :]", "(offs_d < (64 if q_len > 2048 else 128))[None, :]"))),
        Status.UNWRITTEN,
        "33554432 of 67108864 elements of out",
    ),
    "few keys, behind another launch": (
        edited(*TWO_LAUNCHES, (LOOP, "range(0, tl.minimum(kv_len, 2048), BLOCK_N)")),
        Status.INCORRECT,
        "work is missing",
    ),
    "wrong numbers, behind another launch": (
        edited(*TWO_LAUNCHES, ("* scale\n", "* (scale if kv_len <= 2048 else scale * 0.5)\n")),
        Status.INCORRECT,
        "8k-causal:",
    ),
    "wrong numbers in full batches, behind another launch": (
        edited(
            *TWO_LAUNCHES,
            (
                "        scale,\n        *q.stride()",
                "        scale if batch * heads <= 16 else 0.5 * scale,\n        *q.stride()",
            ),
        ),
        Status.INCORRECT,
        "8k-causal:",
    ),
    "wrong numbers in a kernel that looks at its own output": (
        edited(
            (
                "    out = acc / row_sum[:, None]\n",
                "    out = acc / row_sum[:, None]\n"
                "    if q_len > 2048:\n        out = tl.where(tl.load(Lse) > 1e30, out, 0.5 * out)\n",
            )
        ),
        Status.INCORRECT,
        "8k-causal:",
    ),
    "products that are skipped at length": (
        edited(
            (
                "        scores = tl.dot(q, k) * scale\n",
                "        scores = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)\n"
                "        if q_len <= 2048:\n            scores = tl.dot(q, k) * scale\n",
            ),
            (
                "        acc = tl.dot(p.to(v.dtype), v, acc)\n",
                "        if q_len <= 2048:\n            acc = tl.dot(p.to(v.dtype), v, acc)\n",
            ),
        ),
        Status.INCORRECT,
        "work is missing",
    ),
    "one tile of rows in eleven": (
        edited(
            (
                "    offs_m = block_m",
                "    if q_len > 2048:\n        kv_len = tl.where(block_m % 11 == 5, 64, kv_len)\n    offs_m = block_m",
            )
        ),
        Status.INCORRECT,
        "8k-",
    ),
    "a length that another launch computes with products": (
        edited(*PRODUCTS, *LOADED_LENGTH),
        Status.UNSUPPORTED,
        "depends on what an earlier launch computes",
    ),
    "a length that another launch changes in full batches": (
        edited(
            *TWO_LAUNCHES,
            (
                "torch.zeros(1, dtype=torch.int32, device=q.device)\n    set_length[(1,)](length, kv_len)",
                "torch.full((1,), kv_len, dtype=torch.int32, device=q.device)\n"
                "    if batch * heads > 16:\n        set_length[(1,)](length, 64)",
            ),
            *LOADED_LENGTH,
        ),
        Status.INCORRECT,
        "8k-causal.*work is missing",
    ),
}


@pytest.mark.parametrize("name", sample(ATTACKS, 12))
def test_an_attack_at_benchmark_lengths_is_seen(judge: Judge, name: str) -> None:
    source, status, message = ATTACKS[name]
    evaluation = judge.evaluate(Candidate("mha", source))
    assert evaluation.status is status, evaluation.message
    assert re.search(message, evaluation.message), evaluation.message


@pytest.mark.long
def test_a_length_that_another_launch_computes_is_counted_as_it_is(judge: Judge) -> None:
    known, computed = (judge.evaluate(Candidate("mha", edited(*TWO_LAUNCHES, *more))) for more in ((), LOADED_LENGTH))
    assert computed.status is Status.CORRECT, computed.message
    assert known.score is not None
    assert computed.score is not None
    for ours, theirs in zip(computed.score.cases, known.score.cases, strict=True):
        assert ours.tflops == pytest.approx(theirs.tflops, rel=0.1)


FLAG = (
    ("import triton\n", "import torch\nimport triton\n"),
    ("    Lse,\n    scale,\n", "    Lse,\n    Flag,\n    scale,\n"),
    ("        lse,\n        scale,\n", "        lse,\n        flag,\n        scale,\n"),
    (GRID, f"{GRID}    flag = torch.zeros(1, dtype=torch.int32, device=q.device)\n"),
    (
        "    out = acc / row_sum[:, None]\n",
        "    if (block_m == 0) & (batch_head == 0):\n        tl.atomic_xchg(Flag, 1)\n"
        "    while tl.atomic_add(Flag, 0) == 0:\n        pass\n    out = acc / row_sum[:, None]\n",
    ),
)


@pytest.mark.long
def test_a_sample_may_wait_for_programs_outside_of_it(judge: Judge) -> None:
    evaluation = judge.evaluate(Candidate("mha", edited(*FLAG)))
    assert evaluation.status is Status.CORRECT, evaluation.message
    assert evaluation.score is not None


@pytest.mark.long
def test_outputs_that_are_cleared_first_are_held_against_nobody(judge: Judge) -> None:
    evaluation = judge.evaluate(Candidate("mha", edited((GRID, GRID + "    out.zero_()\n    lse.zero_()\n"))))
    assert evaluation.status is Status.CORRECT, evaluation.message


@pytest.mark.long
def test_clearing_outputs_does_not_count_as_writing_them(judge: Judge) -> None:
    half = STORE.replace("in_d[None, :]", "(offs_d < (64 if q_len > 2048 else 128))[None, :]")
    source = edited((GRID, GRID + "    out.zero_()\n"), (STORE, half))
    assert judge.evaluate(Candidate("mha", source)).status is Status.UNWRITTEN
