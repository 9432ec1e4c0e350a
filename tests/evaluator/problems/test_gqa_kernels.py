"""Kernels of grouped-query attention in many styles are right."""

from pathlib import Path

import pytest

from avo.evaluator.problems.gqa import GQA
from avo.seeds import seed_source
from bench.orders import module_of
from tests.evaluator.problems.offline_kernel import first_fault
from tests.kernels import edited

PLAIN = seed_source("gqa")
OF_LSE = "Lse + batch_head.to(tl.int64) * q_len + offs_m"

ROWS = """offs_r = block_m * BLOCK_M + tl.arange(0, BLOCK_M)
    offs_m = offs_r // group
    kv_head = (batch_head % kv_heads).to(tl.int64)
    head = kv_head * group + offs_r % group"""
KEYS = "    for start_n in range(0, kv_len, BLOCK_N):\n"
HONEST_KERNELS: dict[str, str] = {
    "plain": PLAIN,
    "descriptors, two loops": seed_source("gqa", "tuned"),
    "one kernel for all settings": seed_source("gqa-w64"),
    "the query heads of a group in one tile": edited(
        ("    batch = (batch_head // heads)", "    kv_heads = heads // group\n    batch = (batch_head // kv_heads)"),
        ("    head = (batch_head % heads).to(tl.int64)\n    kv_head = head // group\n", ""),
        ("offs_m = block_m * BLOCK_M + tl.arange(0, BLOCK_M)", ROWS),
        ("q_base = Q + batch * stride_qb + head * stride_qh", "q_base = Q + batch * stride_qb"),
        ("o_base = Out + batch * stride_ob + head * stride_oh", "o_base = Out + batch * stride_ob"),
        ("q_base + offs_m[:, None].to", "q_base + head[:, None] * stride_qh + offs_m[:, None].to"),
        ("o_base + offs_m[:, None].to", "o_base + head[:, None] * stride_oh + offs_m[:, None].to"),
        (OF_LSE, "Lse + (batch * heads + head) * q_len + offs_m"),
        ("(triton.cdiv(q_len, block_m), batch * heads)",
         "(triton.cdiv(q_len * (heads // kv_heads), block_m), batch * kv_heads)"),
        source=PLAIN,
    ),
    "powers of two": edited(
        ("scores = tl.dot(q, k) * scale", "scores = tl.dot(q, k) * (scale * 1.4426950408889634)"),
        ("rescale = tl.exp(row_max - new_max)", "rescale = tl.exp2(row_max - new_max)"),
        ("p = tl.exp(scores - new_max[:, None])", "p = tl.exp2(scores - new_max[:, None])"),
        ("row_max + tl.log(row_sum)", "(row_max + tl.log2(row_sum)) * 0.6931471805599453"),
        source=PLAIN,
    ),
    "the keys from the last to the first": edited(
        ('row_max = tl.full([BLOCK_M], float("-inf")', "row_max = tl.full([BLOCK_M], -1.0e30"),
        (KEYS, f"{KEYS.replace('start_n', 'back')}        start_n = (kv_len - 1) // BLOCK_N * BLOCK_N - back\n"),
        source=PLAIN,
    ),
}  # fmt: skip


@pytest.mark.corpus
@pytest.mark.parametrize("name", HONEST_KERNELS)
def test_an_honest_kernel_is_right_in_every_small_case(name: str, tmp_path: Path) -> None:
    assert first_fault(GQA, module_of(HONEST_KERNELS[name], tmp_path)) is None
