"""Bank conflicts of accesses whose addresses are written down here, in PTX or in SASS, and of attention kernels."""

import subprocess
from pathlib import Path

import pytest
from triton import knobs

from avo.evaluator.compiling.compile_job import listing
from avo.evaluator.performance.banks import SHARED_ACCESS, wavefronts
from avo.evaluator.performance.kernel import read
from avo.evaluator.performance.pipes import Costs
from avo.evaluator.performance.sass import Instruction, parse
from avo.evaluator.performance.structure import Graph
from avo.evaluator.targets import get_target
from bench.anchors import ROLES, TUNED, WIDE_ROLES
from bench.variants import Variant, compile_variant
from tests.evaluator.performance.handmade import code, sass

PTX = """
.version 8.0
.target sm_90a
.address_size 64
.visible .entry kernel(.param .u64 out)
.reqntid 128
{
    .reg .b32 %r<99>; .reg .b64 %rd<9>;
    .shared .align 1024 .b8 tile[16384];
    mov.u32 %r1, %tid.x;
    mov.u32 %r2, tile;
    and.b32 %r3, %r1, 31;
    shr.u32 %r4, %r1, 5;
    // a row of 128 bytes for each lane, read down a column; then with its 16-byte chunks exchanged by XOR
    shl.b32 %r5, %r3, 7;
    add.u32 %r6, %r2, %r5;
    ld.volatile.shared.b32 %r10, [%r6];
    ld.volatile.shared.v4.b32 {%r11, %r12, %r13, %r14}, [%r6+4096];
    and.b32 %r7, %r3, 7;
    shl.b32 %r7, %r7, 4;
    xor.b32 %r8, %r5, %r7;
    add.u32 %r9, %r2, %r8;
    ld.volatile.shared.v4.b32 {%r15, %r16, %r17, %r18}, [%r9];
    // rows of 132 bytes; two words for each lane; every warp its own kilobyte
    mad.lo.u32 %r19, %r3, 132, %r2;
    ld.volatile.shared.b32 %r20, [%r19];
    shl.b32 %r21, %r3, 3;
    shl.b32 %r22, %r4, 10;
    add.u32 %r23, %r21, %r22;
    add.u32 %r24, %r2, %r23;
    ld.volatile.shared.b32 %r25, [%r24];
    ld.volatile.shared.v2.b32 {%r26, %r27}, [%r24];
    ld.param.u64 %rd1, [out];
    mul.wide.u32 %rd2, %r1, 4;
    add.u64 %rd3, %rd1, %rd2;
    add.u32 %r30, %r10, %r11; add.u32 %r30, %r30, %r15; add.u32 %r30, %r30, %r20; add.u32 %r30, %r30, %r25;
    add.u32 %r30, %r30, %r27;
    st.global.b32 [%rd3], %r30;
    ret;
}
"""


def handwritten(folder: Path) -> list[float | None]:
    source, cubin = folder / "kernel.ptx", folder / "kernel.cubin"
    source.write_text(PTX)
    command = [knobs.nvidia.ptxas.path, "--gpu-name=sm_90a", str(source), "-o", str(cubin)]
    subprocess.run(command, check=True, capture_output=True)
    graph = Graph(parse(listing(cubin, PTX)))
    found = wavefronts(graph, 128)
    return [found.get(i.index) for i in graph.code.instructions if i.base in SHARED_ACCESS and i.predicate != "!PT"]


def test_conflicts_of_a_compiled_kernel_are_those_of_the_addresses_it_was_written_with(tmp_path: Path) -> None:
    column, column_of_16, swizzled, padded, every_other_word, two_words = handwritten(tmp_path)
    assert (column, padded) == (32, 1)
    assert (column_of_16, swizzled) == (32, 4)  # four phases at best, of eight lanes each
    assert (every_other_word, two_words) == (2, 2)


TID = sass("S2R", "R0, SR_TID.X")


def clocks(*instructions: Instruction) -> float | None:
    """Return the clocks of the last instruction, in a CTA of four warps."""
    graph = Graph(code(TID, *instructions))
    return wavefronts(graph, 128).get(len(instructions))


def address(opcode: str, operands: str) -> float | None:
    return clocks(sass(opcode, operands), sass("LDS", "R9, [R1]"))


@pytest.mark.parametrize(
    ("opcode", "operands", "expected"),
    [
        ("IMAD.SHL.U32", "R1, R0.reuse, 0x4, RZ", 1),
        ("SHF.L.U32", "R1, R0, 0x3, RZ", 2),
        ("SHF.R.U32.HI", "R1, RZ, 0x1, R0", 1),  # two words of one bank are read at once only if they are one word
        ("SHF.R.S32.HI", "R1, RZ, 0x1f, R0", 1),
        ("LEA", "R1, R0, 0x100, 0x7", 32),
        ("LEA.HI", "R1, R0, 0x30, RZ, 0x1e", 1),
        ("IMAD", "R1, R0, 0x84, RZ", 1),
        ("IADD3", "R1, P0, R0, -R0, 0x40", 1),
        ("IADD3", "R1, PT, PT, R0, ~R0, RZ", 1),
        ("LOP3.LUT", "R1, R0, 0x1f, RZ, 0xc0, !PT", 1),
        ("SGXT.U32", "R1, R0, 0x5", 1),
        ("MOV", "R1, c[0x0][0x210]", None),
        ("IADD3.X", "R1, R0, RZ, RZ, P0, !PT", None),
        ("LDS", "R1, [R0]", None),
        ("QUUX", "R1, R0", None),
    ],
)
def test_an_address_is_followed_through_what_makes_it(opcode: str, operands: str, expected: float | None) -> None:
    assert address(opcode, operands) == expected


def test_lop3_does_what_its_table_says() -> None:
    shifted = sass("IMAD.SHL.U32", "R1, R0, 0x80, RZ")
    for table, expected in ((0xC0, 1), (0xFC, 32), (0x3C, 32), (0x0C, 1)):  # and, or, xor, not a and b, with a word
        logic = sass("LOP3.LUT", f"R2, R1, 0x40, RZ, {table:#x}, !PT")
        assert clocks(shifted, logic, sass("LDS", "R9, [R2]")) == expected


def test_a_matrix_takes_its_rows_from_eight_lanes() -> None:
    rows = sass("IMAD.SHL.U32", "R1, R0, 0x100, RZ")
    chunk = sass("IMAD.SHL.U32", "R2, R0, 0x10, RZ")
    within = sass("LOP3.LUT", "R2, R2, 0x70, RZ, 0xc0, !PT")
    swizzle = sass("LOP3.LUT", "R1, R1, R2, RZ, 0x3c, !PT")
    for matrices, opcode in ((1, "LDSM.16.M88"), (2, "LDSM.16.MT88.2"), (4, "STSM.16.M88.4")):
        assert clocks(rows, sass(opcode, "R4, [R1+0x8000]")) == 8 * matrices
        assert clocks(rows, chunk, within, swizzle, sass(opcode, "R4, [R1+0x8000]")) == matrices


def test_wide_accesses_collide_within_a_quarter_or_a_half_of_the_warp_only() -> None:
    row = [sass("LOP3.LUT", "R1, R0, 0x7, RZ, 0xc0, !PT"), sass("IMAD.SHL.U32", "R1, R1, 0x80, RZ")]
    chunk = [sass("SHF.R.U32.HI", "R2, RZ, 0x3, R0"), sass("LOP3.LUT", "R2, R2, 0x3, RZ, 0xc0, !PT")]
    place = sass("LEA", "R1, R2, R1, 0x4")  # eight rows of 128 bytes, of each four chunks of 16
    assert clocks(*row, *chunk, place, sass("LDS.128", "R4, [R1]")) == 4 * 8
    assert clocks(*row, *chunk, place, sass("LDS.64", "R4, [R1]")) == 2 * 8
    assert clocks(*row, *chunk, place, sass("LDS", "R4, [R1]")) == 8


def test_lanes_that_do_not_take_part_do_not_collide() -> None:
    apart = sass("IMAD.SHL.U32", "R1, R0, 0x80, RZ")
    few = sass("ISETP.LT.U32.AND", "P0, PT, R3, 0x4, PT")
    lane = sass("S2R", "R3, SR_LANEID")
    assert clocks(apart, lane, few, sass("@P0 STS", "[R1], R2")) == 4
    assert clocks(apart, lane, few, sass("@!P0 STS", "[R1], R2")) == 28
    assert clocks(apart, sass("@P3 STS", "[R1], R2")) == 32  # not known who: everyone


def test_what_is_set_under_a_guard_is_known_where_both_ways_are() -> None:
    pick = [sass("ISETP.GE.AND", "P0, PT, R0, 0x40, PT"), sass("IMAD.SHL.U32", "R1, R0, 0x4, RZ")]
    load = sass("LDS", "R9, [R1]")
    assert clocks(*pick, sass("@P0 MOV", "R1, 0x80"), load) == 1
    assert clocks(*pick, sass("@P2 MOV", "R1, 0x80"), load) is None
    assert clocks(*pick, sass("SEL", "R1, R1, 0x80, P0"), load) == 1


def test_a_spilled_thread_number_is_still_known() -> None:
    spilled = [sass("STL", "[R1+0x38], R0"), sass("MOV", "R0, RZ"), sass("LDL.LU", "R2, [R1+0x38]")]
    far = [sass("IMAD.SHL.U32", "R3, R2, 0x80, RZ"), sass("LDS", "R9, [R3]")]
    assert clocks(*spilled, *far) == 32
    assert clocks(spilled[0], sass("STL.64", "[R1+0x34], R4"), *spilled[1:], *far) is None


def test_a_constant_in_disguise_is_one() -> None:
    half = sass("HFMA2.MMA", "R4, -RZ, RZ, 0, 2.384185791015625e-07")  # the fourth smallest: 4
    assert clocks(half, sass("IMAD", "R1, R0, R4, RZ"), sass("LDS", "R9, [R1]")) == 1


@pytest.mark.corpus
@pytest.mark.parametrize(("variant", "arch"), [(TUNED, 80), (TUNED, 90), (ROLES, 90), (TUNED, 100), (WIDE_ROLES, 100)])
def test_every_address_of_an_attention_kernel_is_followed_and_none_collides(variant: Variant, arch: int) -> None:
    binary = compile_variant(variant, arch)
    reading = read(binary)
    accesses = [i for i in reading.code.instructions if i.base in SHARED_ACCESS and i.predicate != "!PT"]
    assert accesses
    assert all(reading.wavefronts[i.index] <= max(1, 32 * i.lane_bytes / 128) for i in accesses)


def test_conflicts_take_the_time_of_shared_memory_and_unknown_addresses_are_noted() -> None:
    load = sass("LDS.128", "R4, [R1]")
    free, colliding, unknown = (Costs((load,), get_target("h100"), wavefronts=w) for w in ({0: 4.0}, {0: 32.0}, {}))
    assert (free.op(load).busy, colliding.op(load).busy, unknown.op(load).busy) == (4, 32, 4)
    assert (free.unfollowed, colliding.unfollowed, unknown.unfollowed) == (set(), set(), {0})
