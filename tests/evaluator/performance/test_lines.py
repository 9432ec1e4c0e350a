"""Lines of instructions: from PTX as the compiler prints it, and of compiled kernels."""

import inspect
from dataclasses import replace

import pytest

from avo.evaluator.locations import source_lines
from avo.evaluator.performance.kernel import read
from avo.evaluator.performance.lines import ir_lines, ptx_around
from avo.evaluator.performance.sass import Instruction
from bench import variants
from bench.variants import Variant, compile_variant, ir_of

PTX = """\
.visible .entry kernel()
	.loc	1 11 0                          // kernel.ttir:11:0
	mov.u32 %r1, 0;
	.loc	1 68 17
	// begin inline asm
	.loc	1 69 17
	ld.global.v4.b32 { %r2 }, [ %rd1 ];
	// end inline asm
	bar.sync 	0;
	.loc	1 0 17
	ret;
	.file	1 "kernel.ttir"
"""


def line_of(text: str) -> int | None:
    """The line of IR that the line of PTX with this text is from."""
    (number,) = (number for number, line in enumerate(PTX.split("\n")) if text in line)
    return ir_lines(PTX)[number]


def test_a_line_of_ptx_has_the_line_of_ir_that_stands_above_it() -> None:
    assert line_of("mov.u32") == 11
    assert line_of(".visible") is None
    assert line_of("ret;") is None


def test_inline_assembly_is_where_it_begins_and_so_is_what_follows() -> None:
    assert line_of("ld.global") == line_of("bar.sync") == 68


@pytest.mark.parametrize(
    ("variant", "opcode", "expected"),
    [
        (
            Variant(128, 64, 8, 3),
            "MUFU.EX2",
            {"p = tl.exp2(s * scale - m_new[:, None])", "rescale = tl.exp2(m - m_new)"},
        ),
        (
            Variant(128, 64, 8, 3),
            "LDGSTS.E.BYPASS.128",
            {
                "k = tl.load(k_base + n[None, :] * stride_kn + offs_d[:, None])",
                "v = tl.load(v_base + n[:, None] * stride_vn + offs_d[None, :])",
            },
        ),
        (
            Variant(128, 64, 4, 3, descriptors=True, specialised=True),
            "WARPGROUP.DEPBAR.LE",
            {"s = tl.dot(q, k_desc.load([row * kv_len + start_n, 0]).T)", "acc = tl.dot(p.to(v.dtype), v, acc)"},
        ),
    ],
    ids=["exponentials", "loads", "waits for products"],
)
def test_instructions_of_a_compiled_kernel_have_the_lines_of_what_they_do(
    variant: Variant, opcode: str, expected: set[str]
) -> None:
    binary = compile_variant(variant, 90)
    places = source_lines(ir_of(variant, 90))
    source = inspect.getsource(variants).splitlines()
    found = {
        source[int(places[i.line - 1].removeprefix("variants.py:")) - 1].strip()
        for i in read(binary).code.instructions
        if i.opcode == opcode and i.line
    }
    assert found == expected


def in_a_loop(ptx: str, *lines: int) -> tuple[str, ...]:
    made = [Instruction(0, 0, "", "NOP", "", 0, 0, 0, 0, line) for line in lines]
    return ptx_around(replace(compile_variant(Variant(64, 64, 4, 2), 90), ptx=ptx), made)


LOOPS = "a;\n$L__BB0_1:\nb;\n$L__BB0_2:\n\t.loc 1 2 3\nc;\n@%p1 bra $L__BB0_2;\nd;\nbra.uni $L__BB0_1;\ne;"


def test_the_ptx_of_a_loop_is_the_smallest_loop_that_most_of_it_is_from() -> None:
    assert in_a_loop(LOOPS, 6, 6, 1) == ("$L__BB0_2:", "c;", "@%p1 bra $L__BB0_2;")
    assert in_a_loop(LOOPS, 6, 3, 8)[0] == "$L__BB0_1:"
    assert in_a_loop("a;\nb;\nc;\nd;", 2, 3) == ("b;", "c;")
    assert in_a_loop("a;", 70) == ()
