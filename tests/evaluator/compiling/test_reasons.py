"""What Triton's compiler wrote about its failure becomes a line that the kernel's author can act on."""

import pytest

from evaluator.compiling.reasons import advice, reason
from evaluator.targets import get_target

ASSERTION = (
    "build/mlir/lib/IR/Dominance.cpp:262: bool mlir::detail::DominanceInfoBase<false>::properlyDominatesImpl(Block *): "
    'Assertion `aBlock && bBlock && "expected non-null blocks"\' failed.\n'
    "candidate.py:12:1: error: A signal was caught while processing the MLIR module:reproducer generated\n"
)
PASS = (
    "candidate.py:12:1: error: Failures have been detected while processing an MLIR pass pipeline\n"
    "candidate.py:12:1: note: Pipeline failed while executing [`NVGPUWarpSpecialization` on 'builtin.module']\n"
)
LOOP = "scf.for %i = %a to %b step %c : i32 {\n}"
SPECIALISED = LOOP + " {tt.warp_specialize}"


def test_the_assertion_that_failed_is_named_and_what_says_nothing_is_left_out() -> None:
    assert reason(ASSERTION) == '; Assertion `aBlock && bBlock && "expected non-null blocks"\' failed'
    assert reason("all is well\n") == ""


def test_the_pass_that_failed_is_named() -> None:
    assert reason(PASS) == "; in Triton's pass NVGPUWarpSpecialization"


@pytest.mark.parametrize(
    ("target", "ir", "said"),
    [
        ("h100", SPECIALISED + SPECIALISED, True),
        ("h100", SPECIALISED + LOOP, True),
        ("h100", SPECIALISED, False),
        ("h100", LOOP + LOOP, False),
        ("b200", SPECIALISED + SPECIALISED, False),
    ],
)
def test_a_warp_specialised_loop_beside_others_is_told_the_rule_for_hopper(target: str, ir: str, said: bool) -> None:
    for stderr in (ASSERTION, PASS):
        assert ("make it the only loop of the kernel" in advice(reason(stderr), get_target(target), ir)) is said
    assert advice("; error: out of registers", get_target(target), ir) == ""


@pytest.mark.parametrize(
    ("text", "target", "what"),
    [
        ("error: 'ttng.tc_gen5_mma' op requires tcgen05 support", "h100", "a Blackwell kernel"),
        ("LLVM ERROR: Cannot select: intrinsic %llvm.nvvm.wgmma.commit_group.sync.aligned", "b200", "a Hopper kernel"),
        ("LLVM ERROR: Cannot select: intrinsic %llvm.nvvm.setmaxnreg.dec", "a100", "a kernel for Hopper or later"),
    ],
)
def test_what_the_target_lacks_is_said_with_who_has_it(text: str, target: str, what: str) -> None:
    assert f"; this is {what}: " in advice(text, get_target(target))


@pytest.mark.parametrize(
    "text",
    [
        "candidate.py:3:1: error: 'tt.func' op @tmem_copy: shapes differ",
        "ptxas error : Entry function 'wgmma_setmaxnreg_tcgen05' uses too much shared data",
        "error: use of undeclared tensor_memory",
    ],
)
@pytest.mark.parametrize("target", ["a100", "h100", "rtx5090"])
def test_what_the_author_named_after_hardware_is_no_reason(text: str, target: str) -> None:
    assert advice(text, get_target(target)) == ""


def test_what_the_target_has_is_no_reason() -> None:
    assert advice("error in tcgen05.mma", get_target("b200")) == advice("wgmma failed", get_target("h100")) == ""
