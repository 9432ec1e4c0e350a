"""Kernels that may start early are let through only if their code waits first, whatever it looks like."""

import pytest

from avo.evaluator.binary import Binary
from avo.evaluator.judging.overlap import early
from avo.evaluator.plan import KernelIR

WAIT = "griddepcontrol.wait ;\n"
READ = "ld.global.v4.b32 {%r1, %r2, %r3, %r4}, [%rd1];\n"


def waits(code: str, *, launch_pdl: bool | None = True) -> bool:
    """Whether a kernel of this code is let through."""
    ptx = f".visible .entry k(\n.param .u64 k_param_0\n)\n{{\n.reg .b32 %r<9>;\n$L__tmp0:\n{code}ret;\n}}\n"
    binary = Binary("k", "h100", b"", ptx, 128, 32, 0, 0, 0)
    return early(KernelIR("k", "", (("launch_pdl", launch_pdl),)), binary) is None


@pytest.mark.parametrize(
    "code",
    [
        WAIT + READ,
        "ld.param.b64 %rd1, [k_param_0];\nmov.b64 {%r1, %r2}, %rd1;\n" + WAIT + READ,
        "mbarrier.init.shared::cta.b64 [%r1], 1;\nst.shared.b32 [%r1], %r2;\n@%p1 st.shared.b32 [%r1], %r2;\n" + WAIT,
        "// begin inline asm\n.loc 1 45 5\n" + WAIT + READ,
        "{ mov.u32 %r1, 0; }\n$L_loop: " + WAIT,
    ],
)
def test_a_kernel_that_waits_before_it_accesses_memory_may_start_early(code: str) -> None:
    assert waits(code)


@pytest.mark.parametrize(
    "code",
    [
        READ,
        READ + WAIT,
        "cp.async.cg.shared.global [%r1], [%rd1], 16;\n" + WAIT,
        "cp.async.bulk.tensor.2d.shared::cta.global.mbarrier::complete_tx::bytes [%r1], [%rd1, {%r2, %r3}], [%r4];\n"
        + WAIT,
        "mov.b32 %r1, 0; " + READ + WAIT,
        "{ " + READ + "}\n" + WAIT,
        "$L_first: " + READ + WAIT,
        "@%p1 bra $L_past;\n" + WAIT + "$L_past:\n" + READ,
        "@!complete bra.uni $L_past;\n" + WAIT,
        "@%p1 " + WAIT + READ,
        "// " + WAIT + READ,
        "/* griddepcontrol.wait; */ " + READ + WAIT,
        "ld.u32 %r1, [%rd1];\n" + WAIT,
        "%strange;\n" + WAIT,
        "call (%r1), f, (%r2);\n" + WAIT,
        "griddepcontrol.launch_dependents;\n" + READ,
    ],
)
def test_a_kernel_that_may_access_memory_first_may_not(code: str) -> None:
    assert not waits(code)


@pytest.mark.parametrize("launch_pdl", [False, None])
def test_a_kernel_that_does_not_start_early_need_not_wait(launch_pdl: bool | None) -> None:
    assert waits(READ, launch_pdl=launch_pdl)
