"""Lines of instructions: from listings and PTX as the tools print them, and of compiled kernels."""

import inspect
from dataclasses import replace

import pytest

from bench import variants
from bench.variants import Variant
from evaluator.performance.kernel import read
from evaluator.performance.lines import Line, parse_listing, parse_ptx, ptx_around, read_lines
from tests.evaluator.performance.handmade import fresh_work

INSTRUCTION = """        /*{0:04x}*/                   NOP ;                    /* 0x0000000000007918 */
                                                                        /* 0x000fc00000000000 */
"""
LISTING = (
    "\t.section\t.text.kernel\nkernel:\n"
    + INSTRUCTION.format(0)
    + '\t//## File ".nv_debug_ptx_txt", line 11\n'
    + INSTRUCTION.format(16)
    + INSTRUCTION.format(32)
    + '\t//## File ".nv_debug_ptx_txt", line 7\n'
    + INSTRUCTION.format(48)
    + "\t.section\t.text.helper\nhelper:\n"
    + INSTRUCTION.format(0)
)
PTX = """\
.visible .entry kernel()
	.loc	1 11 0                          // candidate.py:11:0
	mov.u32 %r1, 0;
	.loc	1 68 17
	// begin inline asm
	.loc	1 69 17
	ld.global.v4.b32 { %r2 }, [ %rd1 ];
	// end inline asm
	bar.sync 	0;
	.loc	2 216 16, function_name $L__info_string0, inlined_at 1 82 39 // standard.py:216:16
	.loc	2 196 12, function_name $L__info_string0, inlined_at 2 216 16
	max.f32 %f1, %f1, %f2;
	.loc	2 7 1
	add.f32 %f1, %f1, %f2;
	.loc	3 7 1
	ret;
	.file	1 "candidate.py"
	.file	2 "/lib/standard.py"
"""


def line_of(text: str) -> Line | None:
    """What the line of PTX that has this text is from."""
    (number,) = (number for number, line in enumerate(PTX.split("\n")) if text in line)
    return parse_ptx(PTX, "candidate.py")[number]


def test_an_instruction_has_the_line_of_ptx_that_stands_above_it() -> None:
    assert parse_listing(LISTING) == (None, 11, 11, 7, None)


def test_a_line_of_ptx_has_the_source_line_that_stands_above_it() -> None:
    assert line_of("mov.u32") == Line("candidate.py", 11)
    assert line_of(".visible") is None


def test_inline_assembly_is_where_it_begins_and_so_is_what_follows() -> None:
    assert line_of("ld.global") == line_of("bar.sync") == Line("candidate.py", 68)


def test_what_is_inlined_counts_for_the_line_it_is_inlined_at() -> None:
    assert line_of("max.f32") == Line("candidate.py", 82)


def test_a_line_of_another_file_stays_one_and_one_of_no_file_is_none() -> None:
    assert line_of("add.f32") == Line("/lib/standard.py", 7)
    assert line_of("ret;") is None


def test_places_that_are_inlined_at_each_other_have_an_end() -> None:
    circle = (
        "\t.loc 2 1 1, function_name $L, inlined_at 2 2 2\n\t.loc 2 2 2, function_name $L, inlined_at 2 1 1\n"
        '\t.file 2 "a.py"\n'
    )
    assert parse_ptx(circle, "candidate.py")[1] == Line("a.py", 2)


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
    binary = fresh_work(variant).binary
    file = inspect.getfile(variants)
    lines = read_lines(binary, file)
    code = read(binary.listing, binary.threads).code
    assert len(lines) == len(code.instructions)
    source = inspect.getsource(variants).splitlines()
    found = {
        source[line.number - 1].strip()
        for i, line in zip(code.instructions, lines, strict=True)
        if i.opcode == opcode and line is not None and line.file == file
    }
    assert found == expected


def in_a_loop(ptx: str, *lines: int) -> tuple[str, ...]:
    listing = "\t.section\t.text.kernel\nkernel:\n"
    for place, line in enumerate(lines):
        listing += f'\t//## File ".nv_debug_ptx_txt", line {line}\n' + INSTRUCTION.format(16 * place)
    binary = replace(fresh_work(Variant(64, 64, 4, 2)).binary, ptx=ptx, listing=listing)
    return ptx_around(binary, range(len(lines)))


LOOPS = "a;\n$L__BB0_1:\nb;\n$L__BB0_2:\n\t.loc 1 2 3\nc;\n@%p1 bra $L__BB0_2;\nd;\nbra.uni $L__BB0_1;\ne;"


def test_the_ptx_of_a_loop_is_the_smallest_loop_that_most_of_it_is_from() -> None:
    assert in_a_loop(LOOPS, 6, 6, 1) == ("$L__BB0_2:", "c;", "@%p1 bra $L__BB0_2;")
    assert in_a_loop(LOOPS, 6, 3, 8)[0] == "$L__BB0_1:"
    assert in_a_loop("a;\nb;\nc;\nd;", 2, 3) == ("b;", "c;")
    assert in_a_loop("a;", 70) == ()
