"""Other orders of PTX: what may change places, and what not."""

import random
import re
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avo.evaluator.compiling.compiler import Compiler
from avo.evaluator.compiling.orders import orders
from avo.evaluator.judging.refusal import passed
from avo.evaluator.sandbox.jobs import ForkServer
from avo.evaluator.targets import get_target
from tests.evaluator.compiling.test_together import kernels

NAMES = st.integers(0, 5)
GUARDS = st.sampled_from(["", "@%p0 ", "@!%p1 "])
LINES = st.one_of(
    st.tuples(GUARDS, st.sampled_from(["add.s32", "sub.s32"]), NAMES, NAMES, NAMES).map(
        lambda parts: "\t{}{} \t%r{}, %r{}, %r{};".format(*parts)
    ),
    st.tuples(st.integers(0, 1), NAMES, NAMES).map(lambda parts: "\tsetp.lt.s32 \t%p{}, %r{}, %r{};".format(*parts)),
    st.tuples(NAMES, NAMES).map(lambda parts: "\tld.global.b32 \t%r{}, [%r{}];".format(*parts)),
    st.tuples(NAMES, NAMES).map(lambda parts: "\tst.global.b32 \t[%r{}], %r{};".format(*parts)),
    st.just("\tbar.sync \t0;"),
    st.just("$L__BB0_1:"),
)


def kernel(*lines: str) -> str:
    return "\n".join(
        [".version 8.7", ".visible .entry k(", "\t.param .u32 p", ")", "{", "\t.reg .b32 %s<9>;", *lines, "}", ""]
    )


def reordered(ptx: str, seed: int) -> str:
    (order,) = orders(ptx, [seed])
    return order


def body(ptx: str) -> list[str]:
    lines = ptx.splitlines()
    return lines[lines.index("{") + 2 : -1]


def computed(lines: list[str]) -> tuple[dict[str, int], dict[int, int], list[int]]:
    """Return registers and memory after the lines, and what was stored at each barrier."""
    registers, memory, seen = {f"%r{n}": n * n + 1 for n in range(6)} | {"%p0": 1, "%p1": 0}, dict[int, int](), []
    for line in lines:
        guard, opcode, operands = re.fullmatch(r"\s*(?:@(\S+) )?(\S+)\s*(.*)", line).groups()  # type: ignore[union-attr]
        if guard and bool(registers[guard.lstrip("!")]) is guard.startswith("!"):
            continue
        to, *of = re.findall(r"%\w+", operands) or [""]
        if opcode == "add.s32":
            registers[to] = registers[of[0]] + registers[of[1]]
        elif opcode == "mov.b32":
            registers[to] = int(operands.split()[1].rstrip(";"))
        elif opcode == "sub.s32":
            registers[to] = registers[of[0]] - registers[of[1]]
        elif opcode == "setp.lt.s32":
            registers[to] = registers[of[0]] < registers[of[1]]
        elif opcode == "ld.global.b32":
            registers[to] = memory.get(registers[of[0]], 7)
        elif opcode == "st.global.b32":
            memory[registers[to]] = registers[of[0]]
        else:
            seen.append(hash(frozenset(memory.items())))
    return registers, memory, seen


@given(st.lists(LINES, max_size=40), st.integers(0, 99))
def test_any_order_computes_the_same(lines: list[str], seed: int) -> None:
    again = body(reordered(kernel(*lines), seed))
    assert Counter(again) == Counter(lines)
    assert computed(again) == computed(lines)


def test_independent_instructions_change_places_and_the_same_seed_draws_the_same_order() -> None:
    text = kernel(*[f"\tadd.s32 \t%r{n}, %r0, {n};" for n in range(1, 60)])
    found = orders(text, (0, 1, 1))
    assert found[1] == found[2] != found[0] != text


def numbered(lines: list[str], chance: random.Random) -> list[str]:
    """Return the lines with other numbers for the registers that they write first."""
    numbers = [*range(6, 100)]
    chance.shuffle(numbers)
    return [re.sub(r"%s(\d+)", lambda found: f"%s{numbers[int(found[1])]}", line) for line in lines]


@given(st.lists(LINES, max_size=40), st.integers(0, 99))
def test_the_orders_of_a_text_are_those_of_any_of_its_orders_and_numbers(lines: list[str], seed: int) -> None:
    text = kernel(*(f"\tmov.b32 \t%s{n}, {n};" for n in range(6)), *(line.replace("%r", "%s") for line in lines))
    again = kernel(*numbered(body(reordered(text, seed)), random.Random(seed)))
    assert orders(again, (0, 1)) == orders(text, (0, 1))
    for order in orders(text, (0, 1)):
        assert computed(body(order))[1:] == computed(body(text))[1:]


def test_registers_are_numbered_for_each_function_and_not_where_assembly_declares_them() -> None:
    asm = ["\t// begin inline asm", "{ .reg .b32 %t<2>; mov.b32 %t0, 1; }", "\t// end inline asm"]
    parts = [kernel("\tmov.b32 \t%s7, 1;", *asm, "\tadd.s32 \t%s4, %s7, 1;"), kernel("\tmov.b32 \t%s5, 2;")]
    found = re.findall(r"%[st]\d", "".join(orders("".join(parts), [0])))
    assert found == ["%s1", "%s2", "%s1", "%t0", "%s1"]


@pytest.mark.parametrize(
    "fixed",
    [
        ["\t// begin inline asm", "\twgmma.wait_group.sync.aligned 0;", "\t// end inline asm"],
        ["\t// begin inline asm", "{", "waitLoop:", "\tbra.uni waitLoop;", "}", "\t// end inline asm"],
        ["\t{ // callseq 0, 0", "\tcall.uni f, ();", "\t} // callseq 0"],
        ["JTI0_0:", "\t.branchtargets", "\t\t$L__BB0_1,", "\t\t$L__BB0_2;"],
        ["\t@%p1 bra \t$L__BB0_1;"],
    ],
    ids=["products", "a loop in assembly", "a call", "a table", "a branch"],
)
def test_nothing_moves_past_what_synchronises_or_branches(fixed: list[str]) -> None:
    before, after = ([f"\tadd.s32 \t%r{n}, %r0, {n};" for n in of] for of in (range(1, 30), range(30, 60)))
    for seed in range(5):
        again = body(reordered(kernel(*before, *fixed, *after), seed))
        assert set(again[: len(before)]) == set(before)
        assert again[len(before) : -len(after)] == fixed


def test_each_instruction_keeps_its_location() -> None:
    lines = [line for n in range(1, 30) for line in (f"\t.loc\t1 {n} 0", f"\tadd.s32 \t%r{n}, %r0, {n};")]
    again = body(reordered(kernel(*lines), 3))
    found, location = {}, ""
    for line in again:
        location, of = (line, "") if ".loc" in line else (location, line)
        found |= {of: location} if of else {}
    assert found == dict(zip(lines[1::2], lines[::2], strict=True))


@pytest.mark.long
def test_a_kernel_is_compiled_in_as_many_orders_as_are_asked_for(server: ForkServer) -> None:
    target, chance = get_target("h100"), random.Random(0)
    for each in kernels(server, target):
        compiler = Compiler(None, server=server)
        binary = passed(compiler.compile(each, target))
        made = passed(compiler.reordered(each, binary, target, 3))
        assert len({binary.ptx, *(other.ptx for other in made)}) == 4
        assert len({binary.listing, *(other.listing for other in made)}) > 1
        for other in made:
            assert Counter(re.findall("HGMMA|LDG|STG|BAR", other.listing)) == Counter(
                re.findall("HGMMA|LDG|STG|BAR", binary.listing)
            )
            assert replace(other, ptx="", listing="", cubin=b"", registers=0) == replace(
                binary, ptx="", listing="", cubin=b"", registers=0
            )
        untaken = replace(binary, ptx=binary.ptx.replace("ret;", f"no.such{chance.random()};"))
        assert passed(compiler.reordered(each, untaken, target, 2)) == (untaken, untaken)
