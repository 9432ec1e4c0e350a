"""Loops and the path that is played, on small listings."""

import pytest

from avo.evaluator.performance.sass import Code, Instruction, ModelError
from avo.evaluator.performance.structure import Graph, Loop, Structure


def assemble(text: str) -> Code:
    """Lines are ``label:`` or ``[@P] OPCODE operands``."""
    instructions: list[Instruction] = []
    labels: dict[str, int] = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        if line.endswith(":"):
            labels[line[:-1]] = len(instructions)
            continue
        predicate = ""
        if line.startswith("@"):
            predicate, _, line = line[1:].partition(" ")
        opcode, _, operands = line.partition(" ")
        index = len(instructions)
        instructions.append(Instruction(index, 16 * index, predicate, opcode, operands, 1, 7, 7, 0))
    return Code(tuple(instructions), labels, 0)


def structure(text: str) -> Structure:
    code = assemble(text)
    return Graph(code).structure(code.entry)


def opcodes(items: tuple[Instruction | Loop, ...]) -> list[str]:
    return [item.opcode if isinstance(item, Instruction) else "loop" for item in items]


def test_a_backward_branch_makes_a_loop() -> None:
    found = structure(
        """
        MOV
        .L1:
        FFMA
        @P0 BRA `(.L1)
        STG
        EXIT
        """
    )
    assert opcodes(found.items) == ["MOV", "loop", "STG", "EXIT"]
    assert opcodes(found.top[0].items) == ["FFMA", "BRA"]


def test_a_poll_out_of_line_is_neither_a_loop_nor_on_the_path_nor_a_lighter_one() -> None:
    found = structure(
        """
        .L1:
        SYNCS.PHASECHK
        @!P0 BRA `(.Lpoll)
        .Lback:
        HGMMA.64x64x16
        @P1 BRA `(.L1)
        EXIT
        .Lpoll:
        SYNCS.PHASECHK
        @!P0 BRA `(.Lpoll)
        BRA `(.Lback)
        """
    )
    (loop,) = found.top
    assert opcodes(loop.items) == ["SYNCS.PHASECHK", "BRA", "HGMMA.64x64x16", "BRA"]
    assert not loop.inner
    assert loop.light is None


@pytest.mark.parametrize("light", ["MOV", "MOV\nMOV"])
def test_where_code_branches_the_side_with_more_work_is_played(light: str) -> None:
    found = structure(
        f"""
        @P0 BRA `(.Lheavy)
        {light}
        BRA `(.Ljoin)
        .Lheavy:
        FMUL
        FMUL
        FMUL
        FMUL
        .Ljoin:
        EXIT
        """
    )
    assert opcodes(found.items) == ["BRA", "FMUL", "FMUL", "FMUL", "FMUL", "EXIT"]


def test_loops_nest() -> None:
    found = structure(
        """
        .L1:
        MOV
        .L2:
        HMMA.16816.F32
        @P0 BRA `(.L2)
        STG
        @P1 BRA `(.L1)
        EXIT
        """
    )
    (outer,) = found.top
    assert opcodes(outer.items) == ["MOV", "loop", "STG", "BRA"]
    assert [loop.address for loop in outer.tree()] == [0, 16]
    assert opcodes(outer.inner[0].own) == ["HMMA.16816.F32", "BRA"]


def test_a_loop_in_the_branch_not_played_is_kept_aside() -> None:
    found = structure(
        """
        @P0 BRA `(.Lother)
        .L1:
        HMMA.16816.F32
        HMMA.16816.F32
        @P1 BRA `(.L1)
        BRA `(.Lend)
        .Lother:
        HMMA.16816.F32
        @P1 BRA `(.Lother)
        .Lend:
        EXIT
        """
    )
    assert len(found.top) == 2
    assert [loop.address for loop in found.aside] == [6 * 16 - 16]


def test_a_called_function_is_played_where_it_is_called() -> None:
    found = structure(
        """
        CALL.REL.NOINC `($helper)
        EXIT
        $helper:
        FMUL
        RET
        """
    )
    assert opcodes(found.items) == ["CALL.REL.NOINC", "FMUL", "RET", "EXIT"]


def test_a_call_to_a_local_label_is_a_far_jump() -> None:
    found = structure(
        """
        .L1:
        HMMA.16816.F32
        @P0 CALL.REL.NOINC `(.Lend)
        BRA `(.L1)
        .Lend:
        EXIT
        """
    )
    assert opcodes(found.items) == ["loop", "EXIT"]
    assert opcodes(found.top[0].items) == ["HMMA.16816.F32", "CALL.REL.NOINC", "BRA"]


def test_a_loop_may_be_left_by_exiting_and_an_early_exit_is_not_taken() -> None:
    found = structure(
        """
        @P0 EXIT
        .L1:
        FMUL
        @P1 EXIT
        BRA `(.L1)
        """
    )
    assert opcodes(found.items) == ["EXIT", "loop"]
    assert opcodes(found.top[0].items) == ["FMUL", "EXIT", "BRA"]


def test_code_without_an_exit_is_refused() -> None:
    with pytest.raises(ModelError, match="no path"):
        structure(
            """
            .L1:
            FMUL
            BRA `(.L1)
            """
        )


def test_a_loop_that_branches_keeps_its_lightest_path_too() -> None:
    found = structure(
        """
        .L1:
        MOV
        @P0 BRA `(.Lskip)
        HMMA.16816.F32
        FMUL
        .Lskip:
        @P1 BRA `(.L1)
        EXIT
        """
    )
    (loop,) = found.top
    assert opcodes(loop.items) == ["MOV", "BRA", "HMMA.16816.F32", "FMUL", "BRA"]
    assert loop.light is not None
    assert opcodes(loop.light) == ["MOV", "BRA", "BRA"]


def test_the_pass_of_a_role_goes_through_its_loop_though_another_way_is_heavier() -> None:
    found = structure(
        """
        .dispatch:
        USETMAXREG
        @P0 BRA `(.first)
        @P1 BRA `(.around)
        EXIT
        .first:
        MUFU.RCP
        @P2 BRA `(.long)
        .loop:
        FFMA
        @P3 BRA `(.loop)
        BRA `(.last)
        .long:
        """
        + "HMMA.16816.F32\n" * 9
        + """
        .last:
        STG
        BRA `(.dispatch)
        .around:
        MUFU.EX2
        @P3 BRA `(.around)
        BRA `(.dispatch)
        """
    )
    (dispatch,) = found.top
    assert [opcodes(role) for role in dispatch.roles] == [
        ["USETMAXREG", "BRA", "MUFU.RCP", "BRA", "loop", "BRA", "STG", "BRA"],
        ["USETMAXREG", "BRA", "BRA", "loop", "BRA"],
    ]
