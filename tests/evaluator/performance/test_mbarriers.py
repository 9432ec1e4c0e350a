"""Names of mbarriers, the rings they belong to, and what bulk copies they count."""

from avo.evaluator.performance.kernel import read
from avo.evaluator.performance.mbarriers import Asynchrony, scan
from avo.evaluator.performance.sass import Instruction
from bench.variants import Variant, compile_variant


def read_off(text: str) -> Asynchrony:
    """Lines are ``OPCODE operands``."""
    lines = [line.strip().partition(" ") for line in text.strip().splitlines()]
    return scan(Instruction(i, 16 * i, "", op, operands, 1, 7, 7, 0) for i, (op, _, operands) in enumerate(lines))


RING = """
    SYNCS.EXCH.64 URZ, [UR9+0x100], UR4
    SYNCS.EXCH.64 URZ, [UR9+0x108], UR4
    SYNCS.EXCH.64 URZ, [UR9+0x110], UR4
    SYNCS.EXCH.64 URZ, [UR9+0x118], UR4
    MOV R3, 0x4000
    SYNCS.ARRIVE.TRANS64 RZ, [UR9+0x100], R3
    UTMALDG.2D [UR8], [UR16]
    SYNCS.ARRIVE.TRANS64 RZ, [UR9+0x108], R3
    UTMALDG.2D [UR8], [UR16]
    SYNCS.PHASECHK.TRANS64.TRYWAIT P0, [R5+UR9+0x100], R2
    SYNCS.ARRIVE.TRANS64 RZ, [R5+UR9+0x100], R3
    UTMALDG.2D [UR8], [UR16]
    UTMALDG.2D [UR8], [UR18]
    SYNCS.ARRIVE.TRANS64.ART0 RZ, [R5+URZ+0x110], R10
"""


def test_slots_of_a_ring_go_by_the_name_of_its_first_and_end_where_the_next_ring_begins() -> None:
    found = read_off(RING)
    assert [found.names[i] for i in (5, 7, 9, 10, 13)] == [0x100, 0x100, 0x100, 0x100, 0x110]
    assert found.depths == {0x100: 2, 0x110: 2}


def test_copies_belong_to_the_mbarrier_that_was_told_to_expect_their_bytes() -> None:
    found = read_off(RING)
    assert {found.names[copy] for copy in (6, 8, 11, 12)} == {0x100}
    assert [found.copies[copy] for copy in (6, 8, 11, 12)] == [1, 1, 2, 2]
    assert [found.bytes[copy] for copy in (6, 8, 11, 12)] == [0x4000, 0x4000, 0x2000, 0x2000]
    assert found.copied == {0x100}
    assert found.arrived == {0x110}


def test_an_address_that_was_added_up_beforehand_is_followed() -> None:
    found = read_off(
        """
        SYNCS.EXCH.64 URZ, [UR9+0x610], UR4
        UIADD3 UR62, UPT, UPT, UR16, 0x610, URZ
        UTCBAR [UR62], URZ
        SYNCS.PHASECHK.TRANS64.TRYWAIT P0, [UR22+0x610], R4
        """
    )
    assert found.names == {0: 0x610, 2: 0x610, 3: 0x610}


def test_an_address_is_followed_into_a_register_and_back_and_forgotten_with_it() -> None:
    found = read_off(
        """
        UIADD3 UR10, UPT, UPT, UR7, 0x610, URZ
        MOV R3, UR10
        UIADD3 UR10, UPT, UPT, UR6, 0x406, URZ
        R2UR UR50, R3
        UTCBAR [UR50], URZ
        R2UR UR50, R4
        UTCBAR [UR50], URZ
        """
    )
    assert found.names == {4: 0x610, 6: 0}


def test_an_mbarrier_used_by_itself_is_no_slot_of_the_ring_before_it() -> None:
    found = read_off(
        """
        SYNCS.EXCH.64 URZ, [UR9+0x600], UR4
        SYNCS.EXCH.64 URZ, [UR9+0x608], UR4
        SYNCS.EXCH.64 URZ, [UR9+0x610], UR4
        SYNCS.PHASECHK.TRANS64.TRYWAIT P0, [UR22+0x600], R4
        SYNCS.PHASECHK.TRANS64.TRYWAIT P0, [UR9+0x608], R4
        SYNCS.PHASECHK.TRANS64.TRYWAIT P0, [UR9+0x610], R4
        SYNCS.ARRIVE.TRANS64.A1T0 RZ, [UR9+0x610], RZ
        """
    )
    assert [found.names[i] for i in (3, 4, 5, 6)] == [0x600, 0x600, 0x610, 0x610]
    assert found.depths == {0x600: 2}


def test_an_mbarrier_used_for_one_copy_is_no_slot_of_the_ring_before_it() -> None:
    found = read_off(
        """
        SYNCS.EXCH.64 URZ, [UR5+0x700], UR4
        SYNCS.EXCH.64 URZ, [UR5+0x708], UR4
        SYNCS.EXCH.64 URZ, [UR5+0x710], UR4
        SYNCS.ARRIVE.TRANS64 RZ, [UR5+0x710], R2
        UTMALDG.4D [UR8], [UR18]
        SYNCS.PHASECHK.TRANS64.TRYWAIT P0, [UR5+0x710], R4
        SYNCS.ARRIVE.TRANS64.A1T0 RZ, [UR11+0x700], RZ
        SYNCS.PHASECHK.TRANS64.TRYWAIT P0, [UR15+0x700], R2
        """
    )
    assert [found.names[i] for i in (3, 5, 6, 7)] == [0x710, 0x710, 0x700, 0x700]
    assert (found.copied, found.arrived, found.depths) == ({0x710}, {0x700}, {0x700: 2})


def test_a_specialised_kernel_has_a_ring_of_its_stages_for_each_of_the_operands() -> None:
    binary = compile_variant(Variant(128, 64, 4, 3, descriptors=True, specialised=True), 90)
    code = read(binary).code
    found = scan(code.instructions)
    loaded = {found.names[copy] for copy, count in found.bytes.items() if count == 64 * 128 * 2}
    assert [found.depths[ring] for ring in sorted(loaded)][:2] == [3, 3]
    waited = {found.names[i.index] for i in code.instructions if "PHASECHK" in i.opcode}
    assert found.arrived & waited


def test_an_arrival_at_the_leading_cta_of_a_pair_is_at_the_same_mbarrier() -> None:
    found = read_off(
        """
        SYNCS.EXCH.64 URZ, [UR20+0x250], UR4
        SYNCS.EXCH.64 URZ, [UR20+0x260], UR4
        UIADD3 UR14, UPT, UPT, UR20, 0x250, URZ
        ULOP3.LUT UR14, UR14, 0xfefffff0, URZ, 0xc0, !UPT
        SYNCS.ARRIVE.TRANS64.RED.A1T0 RZ, [UR14], RZ
        SYNCS.PHASECHK.TRANS64.TRYWAIT P0, [UR20+0x250], R2
        MOV R3, 0x4000
        UIADD3 UR15, UPT, UPT, UR20, 0x260, URZ
        ULOP3.LUT UR15, UR15, 0xfefffff8, URZ, 0xc0, !UPT
        SYNCS.ARRIVE.TRANS64.RED RZ, [UR15], R3
        UTMALDG.2D.2CTA [UR8], [UR18]
        SYNCS.PHASECHK.TRANS64.TRYWAIT P0, [UR20+0x260], R2
        """
    )
    assert [found.names[i] for i in (4, 5, 9, 10, 11)] == [0x250, 0x250, 0x260, 0x260, 0x260]
    assert found.bytes == {10: 0x4000}
