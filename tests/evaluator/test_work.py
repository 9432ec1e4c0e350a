"""Partitions of a kernel that run side by side are counted together, without loss."""

import numpy as np
import pytest

from avo.evaluator.binary import Binary
from avo.evaluator.work import ALL_ROLES, Access, Body, Counted, Pace, Waits

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
    access = Access(len(products), 0, False, 256, 1.0, 1.0, 1.0, 256, 2, 9)
    bodies = (PRODUCT,) * len(products) + (COPY,)
    counted = Counted(
        trips, bodies, Body(0, 0, 0, 0), (None,) * len(trips), (range(1),) * len(trips), (access,), (2**20,),
        (0,) * len(products) + (1,),
    )  # fmt: skip
    work = counted.of(BINARY, PROGRAMS)
    assert work.total("load_bytes") == PROGRAMS * copies * 256
    (found,) = work.accesses
    assert (found.loop, found.program_bytes, found.program_lines) == (loop, each_time, each_time / 128)


def test_a_wait_of_a_partition_comes_as_late_in_the_passes_that_it_is_counted_in() -> None:
    trips = (np.full(PROGRAMS, 3), np.full(PROGRAMS, 6))
    waits = Waits(np.array([0, 1]), np.array([[0.5, 1, 0], [0.5, 0, 4]]), np.array([[0, 1]]))
    counted = Counted(
        trips, (PRODUCT, COPY), Body(0, 0, 0, 0), (None, None), (range(1), range(1)), roles=(0, 1), waits=waits
    )
    found = counted.of(BINARY, PROGRAMS).waits
    assert found is not None
    assert found.places.tolist() == [[0.5, 1], [0.5, 2]]


@pytest.mark.parametrize(
    ("products", "copies", "counted_in", "pace"),
    [
        ([6], 5, 1, Pace(5 / 6, 1.0, -0.5)),
        ([5, 1], 6, 1, Pace()),  # one loop beside two: in that which is passed most
    ],
)
def test_partitions_that_are_started_in_a_loop_are_counted_in_it(
    products: list[int], copies: int, counted_in: int, pace: Pace
) -> None:
    tiles = 2
    trips = tuple(np.full(PROGRAMS, count) for count in (tiles, *products, copies))
    lines = tuple(range(10 * i, 10 * i + 5) for i in range(len(trips)))
    access = Access(len(trips) - 1, 0, False, 256, 1.0, 1.0, 1.0, 256, 2, 9)
    counted = Counted(
        trips, (PRODUCT, *(PRODUCT for _ in products), COPY), Body(0, 0, 0, 0), (None,) + (0,) * (len(trips) - 1),
        lines, (access,), (2**20,), (ALL_ROLES, *(0 for _ in products), 1),
    )  # fmt: skip
    work = counted.of(BINARY, PROGRAMS)
    assert [loop.parent for loop in work.loops] == [None, *(0 for _ in products)]
    assert work.total("load_bytes") == PROGRAMS * copies * 256
    assert work.total("dot_flops") == PROGRAMS * (tiles + sum(products)) * 1024
    assert [each.loop for each in work.accesses] == [counted_in]
    paces = {at.start // 10: found for at, found in work.paces}
    assert paces.get(len(trips) - 1, Pace()) == pace


@pytest.mark.parametrize(
    ("others", "theirs", "pace"),
    [
        (30, 20, Pace(20 / 30, 20 / 30)),  # ten fewer a start are not peeled off
        (30, 45, Pace(1.5, 1.5)),
        (4, 3, Pace(0.75, 1.0, -1.0)),
        (4, 9, Pace(2.25, 2.0, 1.0)),
        (4, 0, Pace(0.0, 0.0)),
        (0, 0, Pace()),  # neither passes it
    ],
)
def test_passes_that_a_partition_peels_off_are_told_from_its_pace(others: int, theirs: int, pace: Pace) -> None:
    starts = 2
    trips = tuple(np.full(PROGRAMS, starts * count) for count in (1, others, 60, theirs, 60))
    lines = tuple(range(10 * i, 10 * i + 5) for i in range(len(trips)))
    counted = Counted(
        trips, (PRODUCT,) * 3 + (COPY,) * 2, Body(0, 0, 0, 0), (None, 0, 0, 0, 0), lines,
        roles=(ALL_ROLES, 0, 0, 1, 1),
    )  # fmt: skip
    found = {at.start // 10: each for at, each in counted.of(BINARY, PROGRAMS).paces}
    assert found.get(3, Pace()) == pytest.approx(pace)
    assert 4 not in found
