"""Loops of the machine code are matched with those of the IR that they stand for."""

from dataclasses import replace

import numpy as np

from evaluator.performance.kernel import Pass, PlayedKernel
from evaluator.performance.matching import match_loops
from evaluator.work import Body, LoopWork


def passed(clocks: float, flops: float) -> Pass:
    return Pass(clocks, flops, {"issue": 0.1})


def loop(flops: int, trips: int) -> LoopWork:
    return LoopWork(None, Body(flops, 0, 0, 0), np.array([trips], dtype=np.int64))


def test_loops_match_in_order_when_both_sides_have_the_same_kinds() -> None:
    first, second, third = passed(10, 1), passed(20, 0), passed(30, 1)
    kernel = PlayedKernel(1, passed(5, 0), (first, second, third))
    assert match_loops([loop(1, 9), loop(0, 9), loop(1, 9)], kernel) == [first, second, third]


def test_products_moved_from_an_inner_loop_to_its_outer_one_do_not_confuse_the_match() -> None:
    outer, inner = passed(60, 8), passed(20, 8)
    assert match_loops([loop(0, 2), loop(8, 20)], PlayedKernel(1, passed(5, 0), (outer, inner))) == [outer, inner]


def test_loops_of_another_order_match_within_their_kind() -> None:
    scalar, products = passed(10, 0), passed(20, 1)
    kernel = PlayedKernel(1, passed(5, 0), (scalar, products))
    assert match_loops([loop(1, 9), loop(0, 9)], kernel) == [products, scalar]


def test_a_loop_whose_products_are_outside_loops_was_unrolled() -> None:
    hot = passed(10, 8)
    kernel = PlayedKernel(1, passed(5, 8), (hot,))
    assert match_loops([loop(8, 100), loop(8, 1)], kernel) == [hot, None]


def test_loops_match_by_how_deep_they_are_nested_where_there_is_another_number_of_them() -> None:
    short, outer, inner = passed(900, 0), passed(50, 0), passed(10, 0)
    kernel = PlayedKernel(1, passed(5, 0), (short, outer, inner), depths=(0, 0, 1))
    around, within = loop(0, 7), replace(loop(0, 70), parent=0)
    assert match_loops([around, within], kernel) == [short, inner]
    assert match_loops([loop(0, 1), around, within, replace(within, parent=0)], kernel)[1] is outer


def test_loops_that_cannot_be_told_apart_are_charged_as_the_slowest() -> None:
    fast, slow = passed(10, 8), passed(30, 8)
    kernel = PlayedKernel(1, passed(5, 0), (fast, slow))
    assert match_loops([loop(8, 1), loop(8, 1), loop(8, 1)], kernel) == [slow] * 3
