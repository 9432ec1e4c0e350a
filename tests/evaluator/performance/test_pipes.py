"""Costs of single instructions against published throughputs."""

import pytest

from avo.evaluator.performance.constants import constants
from avo.evaluator.performance.pipes import Costs, Kind, Op, Pipe
from avo.evaluator.performance.sass import Instruction
from avo.evaluator.targets import get_target


def cost(target: str, opcode: str, operands: str = "", *before: tuple[str, str], predicate: str = "") -> Op:
    listing = [Instruction(i, 16 * i, "", *text, 1, 7, 7, 0) for i, text in enumerate(before)]
    instruction = Instruction(len(listing), 16 * len(listing), predicate, opcode, operands, 4, 2, 7, 0b100001)
    return Costs([*listing, instruction], get_target(target)).op(instruction)


@pytest.mark.parametrize(
    ("target", "opcode", "per_clock_and_sm"),
    [
        ("a100", "FFMA", 64),
        ("h100", "FFMA", 128),
        ("h100", "MUFU.EX2", 16),
        ("h100", "LOP3.LUT", 64),
        ("h100", "FMNMX", 64),
        ("h100", "IMAD", 64),
        ("a100", "I2F.RP", 16),
        ("b300", "MUFU.EX2", 32),
        ("rtx4090", "LOP3.LUT", 64),
        ("rtx5090", "LOP3.LUT", 128),
    ],
)
def test_arithmetic_has_the_throughput_of_the_programming_guide(
    target: str, opcode: str, per_clock_and_sm: int
) -> None:
    assert 4 * 32 / cost(target, opcode).busy == per_clock_and_sm


@pytest.mark.parametrize(
    ("target", "opcode", "operands", "share"),
    [
        ("a100", "HMMA.16816.F32.BF16", "R36, R60, R56, RZ", 1.0),
        ("h100", "HGMMA.64x128x16.F32.BF16", "R24, gdesc[UR8], R24", 1.0),
        ("h100", "HGMMA.64x8x16.F32.BF16", "R24, R8, gdesc[UR8], R24", 1.0),
        ("h100", "HMMA.16816.F32.BF16", "R36, R60, R56, RZ", 0.62),
        ("rtx4090", "HMMA.16816.F32.BF16", "R36, R60, R56, RZ", 1.0),
        ("rtx4090", "HMMA.16816.F16", "R36, R60, R56, RZ", 2.0),
        ("rtx4090", "IMMA.16832.S8.S8", "R36, R60.ROW, R56.COL, RZ", 4.0),
        ("rtx4090", "QMMA.16832.F32.E4M3.E4M3", "R36, R60, R56, RZ", 2.0),
        ("l40s", "HMMA.16816.F16", "R36, R60, R56, RZ", 1.0),
    ],
)
def test_matrix_products_run_at_the_peak_rate_or_their_known_share(
    target: str, opcode: str, operands: str, share: float
) -> None:
    op = cost(target, opcode, operands)
    assert op.flops / op.busy * 4 == pytest.approx(get_target(target).tensor_flop * share)


@pytest.mark.parametrize(
    ("descriptor", "first", "shared", "busy"),
    [
        ("0x8200490", "gdesc[UR8]", 64, 64),  # 128x128: both operands take as long as the product
        ("0x8100490", "gdesc[UR8]", 48, 48),  # 128x64: longer
        ("0x8100490", "tmem[UR8]", 16, 32),
    ],
)
def test_operands_of_a_product_on_tensor_memory_are_read_from_shared_memory(
    descriptor: str, first: str, shared: float, busy: float
) -> None:
    product = f"{first}, gdesc[UR16], tmem[UR7], tmem[UR14], idesc[UR15], UPT"
    op = cost("b200", "UTCHMMA", product, ("UMOV", f"UR15, {descriptor}"))
    assert (op.shared, op.busy) == (shared, busy)


def test_a_product_of_two_ctas_takes_each_sm_half_of_it() -> None:
    product = "gdesc[UR8], gdesc[UR16], tmem[UR7], tmem[UR14], idesc[UR15], UPT"
    alone, pair = (
        cost("b200", opcode, product, ("UMOV", f"UR15, {descriptor}"))
        for opcode, descriptor in (("UTCHMMA", "0x8200490"), ("UTCHMMA.2CTA", "0x10200490"))
    )
    assert pair.flops == alone.flops == 2 * 128 * 128 * 16
    assert (pair.busy, pair.shared) == (64, 48)  # half of the 128 columns of B


def test_the_shape_of_a_product_on_tensor_memory_is_read_from_its_descriptor() -> None:
    op = cost(
        "b200",
        "UTCHMMA",
        "tmem[UR42], gdesc[UR22], tmem[UR8], tmem[UR20], idesc[UR21], UPT",
        ("UMOV", "UR21, 0x8110490"),
        ("UMOV", "UR21, 0x8210490"),
        ("UMOV", "UR21, 0x40004040"),
    )
    assert op.kind is Kind.TENSOR_MMA
    assert op.leader
    assert op.flops == 2 * 128 * 128 * 16
    assert op.busy == 64


def test_a_product_with_both_operands_in_shared_memory_reads_more_of_it() -> None:
    both = cost("h100", "HGMMA.64x64x16.F32.BF16", "R88, gdesc[UR8], RZ")
    one = cost("h100", "HGMMA.64x64x16.F32.BF16", "R24, R120, gdesc[UR8].tnspB, R24")
    assert both.shared == 2 * one.shared == 128 * 32 / 128 / 4


@pytest.mark.parametrize(
    ("opcode", "clocks"),
    [("LDS", 1), ("LDS.64", 2), ("LDS.128", 4), ("LDSM.16.M88.4", 4), ("STSM.16.MT88.2", 2), ("SHFL.BFLY", 1)],
)
def test_shared_memory_moves_128_bytes_a_clock(opcode: str, clocks: int) -> None:
    op = cost("h100", opcode)
    assert (op.pipe, op.busy) == (Pipe.SHARED, clocks)


def test_a_global_load_takes_longer_than_was_measured_without_load_on_the_memory() -> None:
    for opcode in ("LDG.E.128", "LDGSTS.E.BYPASS.128", "UTMALDG.2D"):
        assert 479 < cost("h100", opcode, "R4").latency < 1000


def test_a_spilled_register_goes_through_the_load_store_unit() -> None:
    for opcode in ("LDL", "STL"):
        op = cost("h100", opcode, "R4, [R1]")
        assert (op.pipe, op.busy) == (Pipe.LSU, 1)
        assert op.latency > cost("h100", "LDS", "R4, [R1]").latency


def test_an_instruction_that_is_never_executed_occupies_nothing() -> None:
    op = cost("h100", "LDS", "RZ, [RZ]", predicate="!PT")
    assert (op.pipe, op.busy, op.latency) == (Pipe.NONE, 0, 0)


def test_the_schedule_is_taken_from_the_control_bits() -> None:
    op = cost("h100", "FFMA")
    assert (op.stall, op.waits, op.write_barrier, op.read_barrier) == (4, 0b100001, 2, 7)


def test_a_wait_for_copied_bytes_is_told_from_a_wait_for_a_product() -> None:
    arrive = ("SYNCS.ARRIVE.TRANS64", "RZ, [UR9+0x3c120], R3")
    wait = "SYNCS.PHASECHK.TRANS64.TRYWAIT"
    assert cost("b200", wait, "P0, [UR15+0x3c120], R8", arrive).kind is Kind.MBARRIER_WAIT_COPY
    assert cost("b200", wait, "P0, [UR15], R8", arrive).kind is Kind.MBARRIER_WAIT_TENSOR


def test_a_bulk_copy_takes_the_bytes_its_mbarrier_expects_of_the_share_of_l2() -> None:
    expect = (("MOV", "R7, 0x4000"), ("SYNCS.ARRIVE.TRANS64", "RZ, [UR6+0xc000], R7"))
    share = constants(90).l2_bytes
    assert cost("h100", "UTMALDG.4D", "[UR8], [UR22]", *expect).l2 == pytest.approx(0x4000 / share)
    assert cost("h100", "UTMALDG.4D", "[UR8], [UR22]", *expect, ("UTMALDG.4D", "[UR8], [UR24]")).l2 == pytest.approx(
        0x2000 / share
    )


@pytest.mark.parametrize("opcode", ["LDL.LU", "STL.128"])
def test_spilled_registers_ask_l2_for_what_l1_does_not_hold(opcode: str) -> None:
    table = constants(90)
    access = Instruction(0, 0, "", opcode, "R4, [R1+0x10]", 4, 2, 7, 0)
    costs = Costs([access], get_target("h100"))
    held, half = (costs.under(table, {}, missed).op(access) for missed in (0.0, 0.5))
    assert (held.latency, held.l2) == (table.l1_latency, 0)
    assert half.latency == (table.l1_latency + table.l2_hit_latency) / 2
    assert half.l2 == 0.5 * 32 * access.lane_bytes / table.l2_bytes
    assert half.busy == held.busy
