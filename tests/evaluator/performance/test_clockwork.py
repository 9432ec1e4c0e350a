"""Shared memory: operands of products and all other accesses take turns, and no clock is given twice."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from avo.evaluator.performance import clockwork
from avo.evaluator.performance.clockwork import multiply
from avo.evaluator.performance.pipes import SCOREBOARDS, Kind, Pipe
from avo.evaluator.performance.records import CHIP


def idle() -> Any:
    return np.zeros(1, CHIP)[0]


def products(memory: Any, count: int, busy: float, clocks: float, accesses: float = 0.0) -> float:
    """When ``count`` products in a row are done, before each of which there are ``accesses``."""
    end = 0.0
    for _ in range(count):
        memory["owed"] += accesses
        end = multiply(memory, end, end + busy, float(clocks))
    return end


def test_products_take_as_long_as_their_operands_if_these_take_longer() -> None:
    assert products(idle(), 4, busy=64, clocks=48) == 4 * 64
    assert products(idle(), 4, busy=64, clocks=96) == 4 * 96


def test_accesses_between_the_operands_cost_nothing() -> None:
    assert products(idle(), 4, busy=64, clocks=48, accesses=16) == 4 * 64


@pytest.mark.parametrize("accesses", [24, 40, 48])
def test_more_accesses_than_operands_leave_clocks_for_hold_products_up_by_the_rest(accesses: float) -> None:
    assert products(idle(), 100, busy=64, clocks=48, accesses=accesses) == pytest.approx(100 * (48 + accesses))


def test_a_product_waits_for_no_more_accesses_than_its_own_operands_take_and_the_next_ones_for_the_rest() -> None:
    memory = idle()
    memory["owed"] += 200
    ends = [0.0]
    for _ in range(4):
        ends.append(multiply(memory, ends[-1], ends[-1] + 64, 48.0))
    assert [after - before for before, after in pairwise(ends)] == [96, 96, 96, 96]
    assert memory["owed"] == 200 - 4 * 48


def test_what_is_owed_is_served_while_no_product_reads() -> None:
    memory = idle()
    memory["owed"] += 200
    assert multiply(memory, 250.0, 314.0, 48.0) == 314
    assert memory["owed"] == 0


def test_the_compiled_loop_knows_kinds_and_pipes_by_their_numbers() -> None:
    names = {"_" + kind.name.replace("MBARRIER_", ""): int(kind) for kind in Kind if kind is not Kind.PLAIN}
    assert {name: getattr(clockwork, name) for name in names} == names
    assert (clockwork._SHARED, clockwork._SCOREBOARDS) == (Pipe.SHARED, SCOREBOARDS)
