"""Honest kernels in the styles of many authors are accepted, whatever they look like."""

import pytest

from avo.evaluator.candidate import Candidate
from avo.evaluator.evaluation import Status
from avo.evaluator.judging.judge import Judge
from avo.evaluator.problems.mha import MHA
from avo.seeds import seed_source
from tests.corpus import soaked
from tests.evaluator.problems import (
    test_backward_kernels,
    test_decode,
    test_fsa_backward_kernels,
    test_fsa_kernels,
    test_gqa_kernels,
)
from tests.kernels import edited, stored_in

pytestmark = pytest.mark.corpus

SOURCES = stored_in("honest/mha")
# Programmatic dependent launch: both kernels start early and wait for what they read.
SOURCES["dependent_launch"] = edited(
    (
        "import triton.language as tl\n",
        "import triton.language as tl\nfrom triton.language.extra.cuda import gdc_launch_dependents, gdc_wait\n",
    ),
    ("    tile = tl.program_id(0)\n", "    gdc_wait()\n    tile = tl.program_id(0)\n"),
    (
        "    at = (bh.to(tl.int64) * SPLITS + split)",
        "    gdc_launch_dependents()\n    at = (bh.to(tl.int64) * SPLITS + split)",
    ),
    ("    row = tl.program_id(0)\n", "    row = tl.program_id(0)\n    gdc_wait()\n"),
    ("num_stages=2)", "num_stages=2, launch_pdl=True)"),
    ("num_warps=1)", "num_warps=1, launch_pdl=True)"),
    source=SOURCES["split_kv"],
)
SOURCES["cooperative"] = edited(
    ("min(4 * sms, tiles)", "min(sms, tiles)"),
    ("num_stages=3)", "num_stages=3, launch_cooperative_grid=True)"),
    source=SOURCES["persistent"],
)


@pytest.mark.parametrize("name", SOURCES)
def test_an_honest_kernel_is_correct(judge: Judge, name: str) -> None:
    evaluation = judge.evaluate(Candidate("mha", SOURCES[name]))
    if "Block pointers have been removed" in evaluation.message:
        pytest.skip("this version of Triton has no block pointers")
    assert evaluation.status is Status.CORRECT, evaluation.message
    assert evaluation.score is not None
    assert [case.case for case in evaluation.score.cases] == [case.name for case in MHA.suites["quick"]]


LSE_STORE = '    tl.store(PartLse + at, tl.where(seen, row_max + tl.log(divisor), float("-inf")), mask=in_m)\n'
# All programs meet once they have attended to their parts, and combine the rows among them.
ONE_LAUNCH = edited(
    ("import triton\n", "import torch\nimport triton\n"),
    ("\nPROGRAMS = 264", "\nPROGRAMS = 132"),
    ("triton.cdiv(PROGRAMS, batch * kv_heads)", "PROGRAMS // (batch * kv_heads)"),
    (
        "Part, PartLse, scale,\n",
        "Part, PartLse, Met, Sinks, Out, Lse, scale, stride_ob, stride_oh, stride_om, stride_od,\n",
    ),
    ("    WINDOWED: tl.constexpr", "    SINKS: tl.constexpr, BLOCK_S: tl.constexpr, WINDOWED: tl.constexpr"),
    (
        LSE_STORE,
        LSE_STORE + "    tl.atomic_add(Met, 1)\n"
        "    while tl.atomic_add(Met, 0) < tl.num_programs(0) * tl.num_programs(1):\n        pass\n"
        "    for i in range(split, group * q_len, splits):\n"
        "        row = (batch * heads + kv_head * group + i // q_len) * q_len + i % q_len\n"
        "        combine_kernel(row, Part, PartLse, Sinks, Out, Lse, stride_ob, stride_oh, stride_om, stride_od,\n"
        "            heads, q_len, splits, SINKS, VALUE_DIM, BLOCK_V, BLOCK_S)\n",
    ),
    ("    Part, PartLse, Sinks, Out", "    row, Part, PartLse, Sinks, Out"),
    ("    row = tl.program_id(0).to(tl.int64)\n", ""),
    (
        "part, part_lse, scale, *q.stride()",
        "part, part_lse, torch.zeros(1, dtype=torch.int32, device=q.device), sinks[0] if sinks else lse, out, lse, "
        "scale, *out.stride(), *q.stride()",
    ),
    ("BLOCK_N=block_n,\n", "BLOCK_N=block_n, SINKS=len(sinks) > 0, BLOCK_S=triton.next_power_of_2(splits),\n"),
    source=seed_source("decode").split("    combine_kernel[")[0],
)

OF_OTHERS = {
    "gqa": test_gqa_kernels.HONEST_KERNELS,
    "mha_backward": test_backward_kernels.HONEST_KERNELS,
    "decode": {**test_decode.HONEST_KERNELS, **stored_in("honest/decode"), "one_launch": ONE_LAUNCH},
    "fsa": {**test_fsa_kernels.HONEST_KERNELS, **stored_in("honest/fsa")},
    "fsa_backward": test_fsa_backward_kernels.HONEST_KERNELS,
}
OTHERS = [(problem, name) for problem, sources in OF_OTHERS.items() for name in sources]
CHOSEN = [(problem, next(iter(sources))) for problem, sources in OF_OTHERS.items()]
CHOSEN += [(problem, name) for problem in ("decode", "fsa") for name in stored_in(f"honest/{problem}")]
CHOSEN.append(("decode", "one_launch"))
"""Those that CI judges."""


@pytest.mark.parametrize(("problem", "name"), soaked(OTHERS, {*OTHERS} - {*CHOSEN}))
def test_an_honest_kernel_for_another_problem_is_correct(judge: Judge, problem: str, name: str) -> None:
    evaluation = judge.evaluate(Candidate(problem, OF_OTHERS[problem][name]))
    assert evaluation.status is Status.CORRECT, evaluation.message
