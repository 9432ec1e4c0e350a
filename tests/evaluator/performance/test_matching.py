"""Loops of the machine code are matched with those of the IR that they were made from."""

from collections.abc import Sequence

import numpy as np
import pytest

from avo.evaluator.performance.matching import Matched, match_loops
from avo.evaluator.performance.passes import Pass, PlayedKernel
from avo.evaluator.performance.sass import Instruction
from avo.evaluator.work import Body, LoopWork, Shares

OUTSIDE = Pass(5, 0, {"issue": 0.1})


def passed(clocks: float, *lines: int, flops: float = 0, copies: float = 1, holds: Sequence[int] = ()) -> Pass:
    """A pass whose jumps back have these lines, and whose instructions have the lines that it ``holds``."""
    instructions = tuple(Instruction(0, 0, "", "NOP", "", 0, 0, 0, 0, line=line) for line in holds)
    return Pass(clocks, flops, {"issue": 0.1}, ((instructions, 4),), lines=lines, copies=copies)


def loop(first: int, last: int, parent: int | None = None, flops: float = 0) -> LoopWork:
    return LoopWork(parent, Body(flops, 0, 0, 0), np.array([7], dtype=np.int64), range(first, last + 1))


def match(
    loops: Sequence[LoopWork], passes: Sequence[Pass], depths: tuple[int, ...] = (), shares: Shares = ()
) -> Matched:
    return match_loops(loops, PlayedKernel(1, OUTSIDE, tuple(passes), depths=depths), shares)


def test_a_loop_is_the_one_that_its_jump_back_was_made_from_in_whatever_order() -> None:
    first, second = passed(10, 10), passed(20, 25)
    assert match([loop(10, 19), loop(20, 29)], [second, first]) == Matched(
        (first, second), (None, None), (0, 0, 0), False
    )


def test_nested_loops_are_told_apart_by_the_innermost_that_has_the_line() -> None:
    outer, inner = passed(50, 10), passed(10, 15)
    assert match([loop(10, 29), loop(12, 19, parent=0)], [outer, inner], (0, 1)).passes == (outer, inner)


def test_a_jump_from_the_end_of_an_inner_loop_to_the_beginning_of_the_outer_one_is_the_outer_ones() -> None:
    outer, inner = passed(50, 12, holds=(11, 21, 12)), passed(10, 12, holds=(13, 14, 12))
    assert match([loop(10, 29), loop(12, 19, parent=0)], [outer, inner], (0, 1)).passes == (outer, inner)


@pytest.mark.parametrize("line", [10, 15])
def test_a_loop_that_was_made_within_one_is_charged_once_in_a_pass_of_it(line: int) -> None:
    outer, made = passed(50, 10, holds=(11, 12, 13)), passed(30, line, holds=(line,))
    assert match([loop(10, 19)], [outer, made], (0, 1)) == Matched((outer,), (None,), (0, 30), False)
    assert match([loop(10, 19)], [outer, passed(40, 3)]).made == (40, 0)


def test_a_loop_that_no_jump_goes_back_for_was_unrolled() -> None:
    hot = passed(10, 10, flops=8)
    assert match([loop(10, 19, flops=8), loop(20, 29, flops=8)], [hot]).passes == (hot, None)


def test_what_no_known_line_stands_for_is_charged_as_the_slowest_that_has_none() -> None:
    known, fast, slow = passed(90, 10, flops=8), passed(10, flops=8), passed(30, flops=8)
    found = match([loop(10, 19), loop(20, 29, flops=8)], [known, fast, slow])
    assert found == Matched((known, slow), (None, None), (10, 0, 0), True)


def test_loops_whose_jumps_back_have_no_line_are_told_apart_by_their_instructions() -> None:
    outer, inner = passed(90, holds=(11, 28, 13), flops=8), passed(30, holds=(13, 14, 28), flops=8)
    loops = [loop(10, 29, flops=8), loop(12, 19, parent=0, flops=8)]
    assert match(loops, [outer, inner], (0, 1)) == Matched((outer, inner), (None, None), (0, 0, 0), False)
    assert match(loops, [outer]).passes == (outer, None), "the inner one was unrolled within it"
    assert match([loop(10, 29, flops=8)], [passed(20, 10, flops=8), outer]).made == (90, 0)  # a version it is not


def test_a_dear_version_that_was_not_unrolled_is_no_remainder() -> None:
    cheap, dear = passed(80, 10, copies=4), passed(90, 10)
    assert match([loop(10, 19)], [cheap, dear]) == Matched((dear,), (None,), (0, 0), True)


def test_a_dearer_version_is_no_remainder_where_passes_go_around_a_branch() -> None:
    decoy, rest, real = (
        passed(80, 10, copies=4, holds=[11] * 40),
        passed(25, 10, holds=[11] * 14),
        passed(60, 10, holds=[12] * 16),
    )
    assert match([loop(10, 19)], [decoy, rest, real]).remainders == (real,)
    found = match([loop(10, 19)], [decoy, rest, real], shares=((range(11, 12), 0.0),))
    assert found == Matched((real,), (rest,), (0, 0), True)


def test_a_loop_in_a_function_that_is_called_twice_is_charged_at_both_calls() -> None:
    only = passed(10, 10)
    assert match([loop(10, 19), loop(10, 19)], [only]) == Matched((only, only), (None, None), (0, 0, 0), False)


def test_the_slowest_version_of_a_loop_is_charged_and_the_remainder_of_an_unrolled_one_is_known() -> None:
    fast, slow, four, rest = passed(10, 10), passed(30, 10), passed(80, 10, copies=4), passed(25, 10)
    assert match([loop(10, 19)], [fast, slow]) == Matched((slow,), (None,), (0, 0), True)
    assert match([loop(10, 19)], [four, rest]) == Matched((four,), (rest,), (0, 0), False)
