"""The disassembly is read as nvdisasm writes it."""

from pathlib import Path

import pytest

from avo.evaluator.compiling.compile_job import listing
from avo.evaluator.performance.sass import ModelError, parse
from bench.anchors import WIDE_ROLES
from bench.variants import compile_variant

LISTING = """
        .other          other,@"STV_DEFAULT"
other:
        /*0000*/                   NOP ;                                          /* 0x0000000000007918 */
                                                                                  /* 0x000fc00000000000 */
        .other          kernel,@"STO_CUDA_ENTRY STV_DEFAULT"
kernel:
.text.kernel:
        /*0000*/                   LDC R1, c[0x0][0x28] ;                         /* 0x00000a00ff017b82 */
                                                                                  /* 0x000ff00000000800 */
        /*0010*/                   S2R R0, SR_CTAID.Y ;                           /* 0x0000000000007919 */
                                                                                  /* 0x000e620000002600 */
.L_x_1:
        /*0020*/              @!P0 IMAD.SHL.U32 R152, R152, 0x40, RZ ;            /* 0x0000004098987824 */
                                                                                  /* 0x004fce00078e00ff */
        /*0030*/               @P1 BRA `(.L_x_1) ;                                /* 0xffffffd000fcb947 */
                                                                                  /* 0x000fea000383ffff */
"""


def test_the_control_bits_of_an_instruction_are_decoded() -> None:
    special, shift = parse(LISTING).instructions[2:4]
    assert (special.stall, special.write_barrier, special.read_barrier, special.wait_mask) == (1, 1, 7, 0)
    assert (shift.stall, shift.write_barrier, shift.read_barrier, shift.wait_mask) == (7, 7, 7, 0b000100)


def test_predicate_opcode_and_operands_are_told_apart() -> None:
    shift = parse(LISTING).instructions[3]
    assert (shift.predicate, shift.base, shift.opcode) == ("!P0", "IMAD", "IMAD.SHL.U32")
    assert shift.operands == "R152, R152, 0x40, RZ"


def test_labels_name_the_instruction_they_stand_before_and_the_kernel_is_the_entry() -> None:
    code = parse(LISTING)
    assert code.labels[".L_x_1"] == 3
    assert code.entry == 1
    assert [instruction.index for instruction in code.instructions] == [0, 1, 2, 3, 4]


def test_a_listing_without_instructions_is_no_kernel() -> None:
    with pytest.raises(ModelError, match="no code"):
        parse(".text.kernel:\n")


def test_an_instruction_without_its_second_word_is_refused() -> None:
    with pytest.raises(ModelError, match="second word"):
        parse(LISTING.rstrip().rpartition("\n")[0])


def test_where_branches_lead_through_a_table_the_listing_says_where_to() -> None:
    text = compile_variant(WIDE_ROLES, 100).listing
    branches = [i for i in parse(text).instructions if i.base == "BRX"]
    assert branches
    assert all("BRANCH_TARGETS" in i.operands for i in branches)


def test_of_bytes_that_are_no_cubin_there_is_no_listing(tmp_path: Path) -> None:
    path = tmp_path / "kernel.cubin"
    path.write_bytes(b"not a cubin")
    assert listing(path, "") == ""
    with pytest.raises(ModelError, match="no code"):
        parse("")


def test_a_line_that_no_disassembler_writes_is_refused_and_not_searched() -> None:
    with pytest.raises(ModelError, match="a line of the disassembly has 100000"):
        parse(LISTING + " " * 100_000)
