"""Honest kernels in the styles of many authors are accepted, whatever they look like."""

import pytest

from avo.evaluator.candidate import Candidate
from avo.evaluator.evaluation import Status
from avo.evaluator.judging.judge import Judge
from avo.evaluator.problems.mha import MHA
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


OF_OTHERS = {
    "gqa": test_gqa_kernels.HONEST_KERNELS,
    "mha_backward": test_backward_kernels.HONEST_KERNELS,
    "decode": {**test_decode.HONEST_KERNELS, **stored_in("honest/decode")},
    "fsa": {**test_fsa_kernels.HONEST_KERNELS, **stored_in("honest/fsa")},
    "fsa_backward": test_fsa_backward_kernels.HONEST_KERNELS,
}
OTHERS = [(problem, name) for problem, sources in OF_OTHERS.items() for name in sources]
CHOSEN = [(problem, next(iter(sources))) for problem, sources in OF_OTHERS.items()]
CHOSEN += [(problem, name) for problem in ("decode", "fsa") for name in stored_in(f"honest/{problem}")]
"""Those that CI judges."""


@pytest.mark.parametrize(("problem", "name"), soaked(OTHERS, {*OTHERS} - {*CHOSEN}))
def test_an_honest_kernel_for_another_problem_is_correct(judge: Judge, problem: str, name: str) -> None:
    evaluation = judge.evaluate(Candidate(problem, OF_OTHERS[problem][name]))
    assert evaluation.status is Status.CORRECT, evaluation.message
