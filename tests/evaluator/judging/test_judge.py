"""The seed passes; one faulty kernel for each status is recognised. The corpora next to this file have more of both."""

import random
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from avo.evaluator.candidate import Candidate
from avo.evaluator.errors import UnknownProblem
from avo.evaluator.evaluation import TRAITS, Evaluation, Fault, Status
from avo.evaluator.judging.examination import Examination
from avo.evaluator.judging.judge import Judge
from avo.evaluator.problems.mha import MHA
from avo.evaluator.target import ScoreKind
from avo.evaluator.targets import get_target
from avo.seeds import seed_source
from corpora.attacks.benchmark import INDENTED, PERSISTENT_SOFTMAX
from tests.corpus import sample
from tests.kernels import edited, stored

SEED = seed_source("mha")


def judged(judge: Judge, source: str) -> Evaluation:
    return judge.evaluate(Candidate("mha", source))


def edit(old: str, new: str, source: str = SEED) -> str:
    assert source.count(old) >= 1, old
    return source.replace(old, new)


def test_the_seed_is_correct_and_its_score_is_called_predicted(seed: Evaluation) -> None:
    assert seed.score is not None
    assert seed.score.kind is ScoreKind.PREDICTED
    assert [case.case for case in seed.score.cases] == ["8k-causal", "8k-full"]
    assert all(case.passed for case in seed.cases)
    assert seed.resources[0].registers > 32
    assert {**seed.traits, "limiter": "any"} == {
        "tile": "64x64",
        "warps": "4",
        "stages": "1",
        "shared": "32 KiB",
        "occupancy": "3",
        "limiter": "any",
        "masks": "one loop",
        "grid": "one a tile",
        "sums": "in order",
    }
    assert tuple(seed.traits) == TRAITS


FAULTS = {
    "syntax": (edit("def attention_kernel(", "def attention_kernel(("), Status.PARSE_ERROR, "never closed"),
    "import": ("import nosuchmodule\n" + SEED, Status.PARSE_ERROR, "nosuchmodule"),
    "no entry": (edit("def attention(", "def attend("), Status.NO_ENTRY, "attention"),
    "raises": (
        edit("    block_m, block_n = 64, 64", "    raise RuntimeError('boom')"),
        Status.NO_ENTRY,
        "RuntimeError.*boom",
    ),
    "reads contents": (
        edit("    block_m, block_n = 64, 64", "    block_m, block_n = 64, 64 if float(lse[0, 0, 0]) > 0 else 32"),
        Status.READS_CONTENTS,
        "line",
    ),
    "computes in torch": (
        edit("    block_m, block_n = 64, 64", "    block_m, block_n = 64, 64\n    k = k * scale"),
        Status.FORBIDDEN,
        "mul",
    ),
    "does not lower": (edit("tl.maximum(row_max", "tl.biggest(row_max"), Status.LOWERING_ERROR, "biggest"),
    "does not fit": (
        edit("block_m, block_n = 64, 64", "block_m, block_n = 64, 128").replace("num_stages=1", "num_stages=6"),
        Status.DOES_NOT_FIT,
        "shared memory",
    ),
    "unsupported": (
        edit(
            "        new_max =",
            '        scores = tl.inline_asm_elementwise("mov.u32 $0, %smid;", "=r,r", [scores], tl.float32, True, 1)\n'
            "        new_max =",
        ),
        Status.UNSUPPORTED,
        "inline",
    ),
    "ignores causal": (edit("        if CAUSAL:", "        if False:"), Status.INCORRECT, "rows 0 to"),
    "skips last tile": (
        edit("range(0, kv_len, BLOCK_N)", "range(0, kv_len - BLOCK_N + 1, BLOCK_N)"),
        Status.INCORRECT,
        r"rows \d+",
    ),
    "last key of a tile's last row skipped": (
        edit(
            "range(0, kv_len, BLOCK_N)",
            "range(0, tl.minimum(kv_len, (block_m + 1) * BLOCK_M - 1 + kv_len - q_len) if CAUSAL else kv_len, BLOCK_N)",
        ),
        Status.INCORRECT,
        "edge-1-causal",
    ),
    "one block too many without a mask": (
        edit(
            '        scores = tl.where(visible, scores, float("-inf"))',
            "        if start_n + BLOCK_N > (block_m * BLOCK_M + kv_len - q_len + 2) // BLOCK_N * BLOCK_N:\n"
            '            scores = tl.where(visible, scores, float("-inf"))',
        ),
        Status.INCORRECT,
        "edge-126-causal",
    ),
    "last key skipped": (
        edit("offs_n[None, :] < kv_len\n", "offs_n[None, :] < kv_len - (kv_len == 257)\n"),
        Status.INCORRECT,
        "edge-full",
    ),
    "no maximum": (
        edit("new_max = tl.maximum(row_max, tl.max(scores, 1))", "new_max = tl.zeros([BLOCK_M], tl.float32)"),
        Status.INCORRECT,
        "large|negative",
    ),
    "wrong head": (edit("kv_head = head // group", "kv_head = head * 0"), Status.INCORRECT, "head 1"),
    "lse in base 2": (edit("row_max + tl.log(row_sum)", "row_max + tl.log2(row_sum)"), Status.INCORRECT, "lse"),
    "low precision": (
        edit(
            "acc = tl.dot(p.to(v.dtype), v, acc)", "acc = tl.dot(p.to(v.dtype), v, acc).to(tl.bfloat16).to(tl.float32)"
        ),
        Status.INCORRECT,
        "",
    ),
    "scale forgotten": (edit("tl.dot(q, k) * scale", "tl.dot(q, k) * 0.09"), Status.INCORRECT, "rows"),
    "lse unwritten": (
        edit("        mask=offs_m < q_len,\n    )\n\n\ndef", "        mask=offs_m < 0,\n    )\n\n\ndef"),
        Status.UNWRITTEN,
        "lse",
    ),
    "last row unwritten": (
        edit(
            "        out.to(Out.dtype.element_ty),\n        mask=(offs_m < q_len)",
            "        out.to(Out.dtype.element_ty),\n        mask=(offs_m < q_len - 1)",
        ),
        Status.UNWRITTEN,
        "out",
    ),
    "no launch": (edit("    attention_kernel[grid](", "    (lambda *a, **k: None)("), Status.UNWRITTEN, "out"),
    "reads past the end": (
        edit("            mask=(offs_n < kv_len)[None, :] & in_d[:, None],\n            other=0.0,\n", ""),
        Status.OUT_OF_BOUNDS,
        r"candidate\.py:\d+",
    ),
    "keeps the first tile's maximum": (
        edit("tl.maximum(row_max, tl.max(scores, 1))", "tl.where(row_sum > 0, row_max, tl.max(scores, 1))"),
        Status.INCORRECT,
        "rising-full|large-full",  # the second sees it by chance, and comes first
    ),
    "races for a result that comes out right": (
        edit(
            "    out = acc / row_sum[:, None]\n",
            "    tl.store(Lse, block_m.to(tl.float32))\n    out = acc / row_sum[:, None]\n",
        ),
        Status.RACE,
        r"write race in attention_kernel at candidate\.py:\d+.*'lse'",
    ),
    "reads what nobody wrote": (
        edit(
            "    out = acc / row_sum[:, None]\n",
            "    out = acc / row_sum[:, None]\n    out = tl.where(tl.load(Lse) > 1e30, 2 * out, out)\n",
        ),
        Status.INCORRECT,
        r"read of uninitialised memory in attention_kernel at candidate\.py:\d+.*'lse'",
    ),
    "values by the strides of keys": (
        edit("        *v.stride(),", "        *k.stride(),"),
        Status.OUT_OF_BOUNDS,
        "mixed-full",
    ),
    "false assumption": (
        edit("    block_m = tl.program_id(0)\n", "    block_m = tl.program_id(0)\n    tl.assume(kv_len <= BLOCK_N)\n"),
        Status.INCORRECT,
        r"false assumption in attention_kernel at candidate\.py:\d+",
    ),
    "false hint": (
        edit(
            "offs_n = start_n + tl.arange(0, BLOCK_N)", "offs_n = tl.max_constancy(start_n + tl.arange(0, BLOCK_N), 2)"
        ),
        Status.INCORRECT,
        r"false hint in attention_kernel at candidate\.py:\d+",
    ),
    "endless loop": ("while True:\n    pass\n" + SEED, Status.TIMED_OUT, r"used up \d s"),
    "dies": ("import os\nos._exit(0)\n" + SEED, Status.CRASHED, "exit"),
}


@pytest.mark.parametrize("name", sample(FAULTS, 24))
def test_a_fault_is_seen_as_what_it_is(judge: Judge, impatient: Callable[..., None], name: str) -> None:
    source, status, message = FAULTS[name]
    if name == "endless loop":
        impatient(cpu_s=3)
    evaluation = judged(judge, source)
    assert evaluation.status is status, evaluation.message
    assert re.search(message, evaluation.message), evaluation.message


@pytest.mark.long
def test_an_operation_hidden_on_the_line_of_another_is_executed(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    capturer = judge._tools.planner._capturer
    capture = capturer.alternatives

    def forge(ttir: str) -> str:
        last = [line for line in ttir.splitlines() if "tt.store" in line][-1]
        where, value, *rest = last.strip().removeprefix("tt.store ").split(", ")
        again = f"%doubled = arith.addf {value}, {value} : tensor<64xf32>"
        return ttir.replace(
            last,
            "\n".join([last, f"gpu.barrier {again}", f"gpu.barrier tt.store {', '.join([where, '%doubled', *rest])}"]),
        )

    def forged(*args: Any) -> Any:
        plans = capture(*args)
        assert not isinstance(plans, Fault)
        return tuple(
            (replace(plan, kernels=tuple(replace(kernel, ttir=forge(kernel.ttir)) for kernel in plan.kernels)),)
            for (plan,) in plans
        )

    monkeypatch.setattr(capturer, "alternatives", forged)
    evaluation = judged(judge, SEED)
    assert evaluation.status is Status.INCORRECT
    assert "lse is off" in evaluation.message


@pytest.mark.long
def test_neither_a_comment_nor_a_name_changes_verdict_or_plan(judge: Judge, seed: Evaluation) -> None:
    again = judged(judge, "# a comment\n\n" + SEED.replace("attention_kernel", "kernel_of_attention"))
    assert again.plan_digest == seed.plan_digest
    assert again.score == seed.score


@pytest.mark.long
def test_what_is_wrong_only_at_lengths_that_are_held_out_is_seen_there(judge: Judge) -> None:
    """All lengths that a search sees are small, or multiples of 4096."""
    source = edit(
        "    block_m, block_n = 64, 64",
        "    scale *= 2 if q_len > 4096 and q_len % 4096 else 1\n    block_m, block_n = 64, 64",
    )
    assert judged(judge, source).status is Status.CORRECT
    verified = judge.verify(Candidate("mha", source))
    assert (verified.status, verified.suite) == (Status.INCORRECT, "held_out")


@pytest.mark.long
def test_what_is_right_at_the_lengths_in_the_problems_source_only_is_seen(judge: Judge) -> None:
    """A candidate can read which lengths it will be judged on, not those that are drawn."""
    cases = (*MHA.correctness_cases, *(case for suite in MHA.suites.values() for case in suite))
    known = sorted({(case.batch, case.q_len, case.kv_len) for case in cases})
    source = edit(
        "    block_m, block_n = 64, 64",
        f"    scale *= 1 if (batch, q_len, k.shape[2]) in {known} else 2\n    block_m, block_n = 64, 64",
    )
    assert judged(judge, source).status is Status.CORRECT
    heard: list[tuple[int, int]] = []
    verified = judge.verify(Candidate("mha", source), tell=lambda far: heard.append((far.done, far.of)))
    ((done, of),) = heard
    assert done == 1
    assert of > len((*MHA.correctness_cases, *MHA.suites["held_out"], *MHA.suites["quick"])), "cases are drawn, too"
    assert verified.status is Status.INCORRECT
    assert re.fullmatch(r"square-full at batch \d+, \d+ heads, \d+ queries, \d+ keys", verified.cases[0].case)


@pytest.mark.corpus
def test_heads_that_a_small_sample_may_miss_are_seen_before_acceptance(
    judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each program of a second launch makes many rows: a sample of a few programs may pass it over."""
    monkeypatch.setitem(MHA.suites, "held_out", MHA.suites["held_out"][:1])  # right there: the first takes least time
    source = edited(
        (
            PERSISTENT_SOFTMAX,
            f"            if CHEAT:\n                p, new, a = s, m, l\n            else:\n{INDENTED}",
        ),
        ("tiles_m, tiles,\n           CAUSAL", "tiles_m, first, tiles,\n           CHEAT: tl.constexpr, CAUSAL"),
        ("tl.range(tl.program_id(0), tiles,", "tl.range(first + tl.program_id(0), tiles,"),
        (
            "    kernel[(min(4 * sms, tiles),)](\n",
            "    honest = tiles * 3 // 8 if M == 8192 else tiles\n"
            "    for first, end in ((0, honest), (honest, tiles))[: 1 + (honest < tiles)]:\n"
            "      kernel[(min(132, end - first),)](\n",
        ),
        (
            "k.shape[2], tiles_m, tiles,\n        CAUSAL",
            "k.shape[2], tiles_m, first, end,\n        CHEAT=first > 0, CAUSAL",
        ),
        source=stored("honest/mha/persistent"),
    )
    verified = judge.verify(Candidate("mha", source))
    assert verified.status is Status.INCORRECT, verified.message
    assert re.search("8k-.*: rows", verified.message)


@pytest.mark.long
def test_a_plan_that_was_refused_is_not_tried_again(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    source, status, _ = FAULTS["ignores causal"]
    first = judged(judge, source)
    monkeypatch.setattr(Examination, "score", None)
    same, commented = judged(judge, source), judged(judge, f"# a comment\n{source}")
    assert (same.status, same.message) == (status, first.message)
    assert commented.status is status
    assert (
        commented.message
        == f"{first.message}; seen in another source with the same launch plans, whose lines may be elsewhere"
    )


def test_an_unknown_suite_is_the_callers_fault() -> None:
    with Judge(get_target("h100"), "nosuch") as judge, pytest.raises(UnknownProblem, match="unknown suite"):
        judged(judge, SEED)


@pytest.mark.parametrize("test", range(2))
def test_a_judge_that_tests_share_draws_the_same_in_each(judge: Judge, test: int) -> None:
    assert judge._tools.chance.random() == random.Random(0).random()
