"""Partitions of a kernel that run side by side are counted together, without loss."""

import numpy as np
import pytest

from evaluator.binary import Binary
from evaluator.work import Access, Body, Counted

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
