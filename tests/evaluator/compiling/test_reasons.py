"""What Triton's compiler wrote about its failure becomes a line that the kernel's author can act on."""

from dataclasses import replace

import pytest

from avo.evaluator.compiling.passes import Trace
from avo.evaluator.compiling.reasons import advice, failure, reason
from avo.evaluator.targets import get_target

ASSERTION = (
    "build/mlir/lib/IR/Dominance.cpp:262: bool mlir::detail::DominanceInfoBase<false>::properlyDominatesImpl(Block *): "
    'Assertion `aBlock && bBlock && "expected non-null blocks"\' failed.\n'
    "candidate.py:12:1: error: A signal was caught while processing the MLIR module:reproducer generated\n"
)
SPECIALISING = "nvgpu-warp-specialization"
LOOP = "scf.for %i = %a to %b step %c : i32 {\n}"
SPECIALISED = LOOP + " {tt.warp_specialize}"


def test_the_assertion_that_failed_is_named_and_what_says_nothing_is_left_out() -> None:
    assert reason(ASSERTION) == '; Assertion `aBlock && bBlock && "expected non-null blocks"\' failed'
    assert reason("all is well\n") == ""


def test_the_pass_that_says_itself_that_it_failed_is_named() -> None:
    said = "a.py:1:1: note: Pipeline failed while executing [`TritonRewriteTensorPointer` on 'builtin.module']\n"
    assert reason(said) == "; in Triton's pass TritonRewriteTensorPointer"


def trace(said: str, operation: str = "", *places: str, blamed: bool = False, failed: bool = True) -> Trace:
    return Trace(("tritongpu-coalesce", SPECIALISING), failed, said, operation, blamed, places)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (trace(ASSERTION), f"failed: {reason(ASSERTION)[2:]}"),
        (
            trace("", "scf.for", "a.py:3", "a.py:9"),
            "failed, last at `scf.for` (a.py:3 or a.py:9): Assertion `x' failed",
        ),
        (
            trace("Unexpected op\nUNREACHABLE executed at /a/b/WS.cpp:330!\n", "tt.dot", "a.py:3"),
            "failed, last at `tt.dot` (a.py:3): Unexpected op (WS.cpp:330)",
        ),
        (
            trace("kernel.ttir:3:1: error: 'tt.dot' op shapes differ\n", "tt.dot", "kernel.ttir:3:1", blamed=True),
            "failed on `tt.dot` (kernel.ttir:3:1): 'tt.dot' op shapes differ",
        ),
    ],
)
def test_the_pass_that_failed_is_named_with_the_operation_and_what_triton_says(found: Trace, said: str) -> None:
    told = failure(found, "was ended by signal SIGABRT; Assertion `x' failed")
    assert told == f"Triton's pass `{SPECIALISING}` {said}"


def test_a_failure_that_does_not_come_again_is_the_compilers() -> None:
    why = "was ended by signal SIGABRT"
    finished = replace(trace("", failed=False), finished=True)
    assert failure(finished, why).startswith(f"{why}; compiled once more it does not fail")
    assert failure(trace("", failed=False), why) == why


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
    for why in (reason(ASSERTION), failure(trace(""), "PassManager::run failed")):
        assert ("make it the only loop of the kernel" in advice(why, get_target(target), ir)) is said
    other = failure(replace(trace(ASSERTION), passes=("tritongpu-pipeline",)), "")
    for why in ("; error: out of registers", other):
        assert advice(why, get_target(target), ir) == ""


def test_a_single_warp_specialised_loop_is_told_what_else_the_pass_fails_on() -> None:
    why = failure(trace(""), "PassManager::run failed")
    assert "scores that are carried to the next iteration" in advice(why, get_target("h100"), SPECIALISED)
    assert advice(reason(ASSERTION), get_target("h100"), SPECIALISED) == ""


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
