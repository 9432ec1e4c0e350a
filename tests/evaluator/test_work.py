"""Partitions of a kernel that run side by side are counted together, without loss."""

import numpy as np
import pytest

from evaluator.binary import Binary
from evaluator.work import ALL_ROLES, Access, Body, Counted

BINARY = Binary("k", "h100", b"", "", 128, 32, 0, 0, 0)
PROGRAMS = 4
PRODUCT, COPY = Body(1024, 0, 0, 0), Body(0, 0, 256, 0)


@pytest.mark.parametrize(
    ("products", "copies", "loop", "each_time"),
    [
        ([6], 6, 0, 256),
        ([3], 6, 0, 512),  # two tiles a pass
        ([5, 1], 6, None, 6 * 256),  # one loop beside two: it counts as outside
    ],
)
def test_what_partitions_copy_counts_as_often_as_they_do(
    products: list[int], copies: int, loop: int | None, each_time: int
) -> None:
    trips = tuple(np.full(PROGRAMS, count) for count in (*products, copies))
    access = Access(len(products), 0, False, 256, 1.0, 1.0, 256, 2, 9)
    bodies = (PRODUCT,) * len(products) + (COPY,)
    counted = Counted(
        trips, bodies, Body(0, 0, 0, 0), (None,) * len(trips), (range(1),) * len(trips), (access,), (2**20,),
        (0,) * len(products) + (1,),
    )  # fmt: skip
    work = counted.of(BINARY, PROGRAMS)
    assert work.total("load_bytes") == PROGRAMS * copies * 256
    (found,) = work.accesses
    assert (found.loop, found.program_bytes, found.program_lines) == (loop, each_time, each_time / 128)


@pytest.mark.parametrize(
    ("products", "copies", "counted_in", "pace"),
    [([6], 5, 1, 5 / 6), ([5, 1], 6, 1, 1.0)],  # one loop beside two: in that which is passed most
)
def test_partitions_that_are_started_in_a_loop_are_counted_in_it(
    products: list[int], copies: int, counted_in: int, pace: float
) -> None:
    tiles = 2
    trips = tuple(np.full(PROGRAMS, count) for count in (tiles, *products, copies))
    lines = tuple(range(10 * i, 10 * i + 5) for i in range(len(trips)))
    access = Access(len(trips) - 1, 0, False, 256, 1.0, 1.0, 256, 2, 9)
    counted = Counted(
        trips, (PRODUCT, *(PRODUCT for _ in products), COPY), Body(0, 0, 0, 0), (None,) + (0,) * (len(trips) - 1),
        lines, (access,), (2**20,), (ALL_ROLES, *(0 for _ in products), 1),
    )  # fmt: skip
    work = counted.of(BINARY, PROGRAMS)
    assert [loop.parent for loop in work.loops] == [None, *(0 for _ in products)]
    assert work.total("load_bytes") == PROGRAMS * copies * 256
    assert work.total("dot_flops") == PROGRAMS * (tiles + sum(products)) * 1024
    assert [each.loop for each in work.accesses] == [counted_in]
    paces = {at.start // 10: pace for at, pace in work.paces}
    assert paces[0] == sum(products) / tiles
    assert paces[len(trips) - 1] == pytest.approx(pace)
