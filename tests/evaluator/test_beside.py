"""Two hot loops are aligned by opcodes, with the clocks of both sides."""

from dataclasses import replace

from avo.evaluator.beside import beside
from avo.evaluator.profile import Code, CodeLine, Profile
from avo.evaluator.units import TFLOPS, Unit
from tests.avo.sample_profile import PROFILE


def made(*code: tuple[str, float]) -> Profile:
    lines = [CodeLine(16 * at, text, 7, "pipe", clocks, clocks / 1000) for at, (text, clocks) in enumerate(code)]
    return replace(PROFILE, code=Code("kernel", "loop at line 69", tuple(lines), ()))


def test_registers_do_not_tell_instructions_apart_and_clocks_of_both_sides_are_shown() -> None:
    said = beside(made(("HGMMA.64x8 R1", 100.0), ("MOV R1, R2", 1.0)), made(("HGMMA.64x8 R9", 140.0)), TFLOPS, "a", "b")
    head, other, _, product, move = said.splitlines()
    assert head == "- a, 8k-full: 217 predicted TFLOPS; loop at line 69: 2 instructions, 3475 clocks per pass"
    assert other.startswith("+ b, 8k-full")
    bounded = beside(made(("NOP", 1.0)), made(("NOP", 1.0)), Unit(1e12, 1e9), "a", "b")
    assert bounded.startswith("- a, 8k-full: 4610 us, 217 predicted GB/s; loop at line 69: 1 instructions")
    assert product.split() == ["100.0", "140.0", "7", "HGMMA.64x8", "R1", "<-", "pipe"]
    assert move.split() == ["1.0", "7", "-", "MOV", "R1,", "R2"]


def test_what_is_alike_or_cheap_shares_a_line() -> None:
    same = [("FMUL R1, R1", 2.0), ("@P0 FADD R1, R1", 3.0), ("FMUL R1, R1", 2.0)]
    said = beside(
        made(*same), made(*same, ("MOV R1", 1.0), ("MOV R2", 1.0), ("NOP", 1.0)), TFLOPS, "a", "b"
    ).splitlines()[3:]
    assert [line.split() for line in said] == [
        ["7.0", "7.0", "3", "alike:", "2", "FMUL,", "1", "FADD"],
        ["3.0", "+", "3", "cheap:", "2", "MOV,", "1", "NOP"],
    ]
