"""What is found of barriers themselves, in whatever order partitions run. Each kernel has a clean twin."""

import re
from typing import Any

import pytest
import torch
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.ampere import async_copy
from triton.experimental.gluon.language.nvidia.hopper import fence_async_shared, mbarrier, tma
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from avo.evaluator.offline import offline
from tests.evaluator.executor.chip.sanitised import FLAT, ROW, bring, read

ORACLE = "the expected messages and locations"

COPIED = gl.constexpr(gl.BlockedLayout([1, 8], [4, 8], [4, 1], [1, 0]))


@gluon.jit
def arrive_often(bar, free, RIGHT: gl.constexpr):
    for i in range(3):
        mbarrier.arrive(bar, count=1)
        mbarrier.wait(free, i & 1, pred=RIGHT)


@gluon.jit
def wait_often(bar, free, RIGHT: gl.constexpr):
    for i in range(3):
        mbarrier.wait(bar, i & 1)
        if RIGHT:
            mbarrier.arrive(free, count=1)


@gluon.jit
def runs_ahead(desc, x, RIGHT: gl.constexpr, SWAPPED: gl.constexpr):
    bars = mbarrier.allocate_mbarrier(batch=2)
    for i in gl.static_range(2):
        mbarrier.init(bars.index(i), count=1)
    given = (bars.index(0), bars.index(1), RIGHT)
    if SWAPPED:
        gl.warp_specialize([(wait_often, given), (arrive_often, given)], [4], [24])
    else:
        gl.warp_specialize([(arrive_often, given), (wait_often, given)], [4], [24])


@gluon.jit
def begin(bar, RIGHT: gl.constexpr):
    if not RIGHT:
        mbarrier.init(bar, count=1)
    mbarrier.arrive(bar, count=1)


@gluon.jit
def wait_once(bar, RIGHT: gl.constexpr):
    mbarrier.wait(bar, 0)


@gluon.jit
def begun_beside_its_use(desc, x, RIGHT: gl.constexpr, SWAPPED: gl.constexpr):
    bar = mbarrier.allocate_mbarrier()
    if RIGHT:
        mbarrier.init(bar, count=1)
    if SWAPPED:
        gl.warp_specialize([(wait_once, (bar, RIGHT)), (begin, (bar, RIGHT))], [4], [24])
    else:
        gl.warp_specialize([(begin, (bar, RIGHT)), (wait_once, (bar, RIGHT))], [4], [24])


@gluon.jit
def end(bar, heard, RIGHT: gl.constexpr):
    mbarrier.arrive(bar, count=1)
    mbarrier.wait(heard, 0, pred=RIGHT)
    mbarrier.invalidate(bar)


@gluon.jit
def wait_and_tell(bar, heard, RIGHT: gl.constexpr):
    mbarrier.wait(bar, 0)
    mbarrier.arrive(heard, count=1)


@gluon.jit
def ended_beside_its_use(desc, x, RIGHT: gl.constexpr, SWAPPED: gl.constexpr):
    bar, heard = mbarrier.allocate_mbarrier(), mbarrier.allocate_mbarrier()
    mbarrier.init(bar, count=1)
    mbarrier.init(heard, count=1)
    if SWAPPED:
        gl.warp_specialize([(wait_and_tell, (bar, heard, RIGHT)), (end, (bar, heard, RIGHT))], [4], [24])
    else:
        gl.warp_specialize([(end, (bar, heard, RIGHT)), (wait_and_tell, (bar, heard, RIGHT))], [4], [24])


@gluon.jit
def copy(x, tile, copied, RIGHT: gl.constexpr):
    rows = gl.arange(0, 64, gl.SliceLayout(1, COPIED))
    columns = gl.arange(0, 64, gl.SliceLayout(0, COPIED))
    async_copy.async_load(tile, x + rows[:, None] * 64 + columns[None, :])
    async_copy.commit_group()
    async_copy.wait_group(0)
    if RIGHT:
        fence_async_shared()
    mbarrier.arrive(copied, count=1)


@gluon.jit
def send(desc, tile, copied):
    mbarrier.wait(copied, 0)
    tma.async_store(desc, [0, 0], tile)
    tma.store_wait(0)


@gluon.jit
def sent_after_cp_async(desc, x, RIGHT: gl.constexpr, SWAPPED: gl.constexpr):
    tile = gl.allocate_shared_memory(gl.float16, [64, 64], desc.layout)
    copied = mbarrier.allocate_mbarrier()
    mbarrier.init(copied, count=1)
    if SWAPPED:
        gl.warp_specialize([(send, (desc, tile, copied)), (copy, (x, tile, copied, RIGHT))], [4], [24])
    else:
        gl.warp_specialize([(copy, (x, tile, copied, RIGHT)), (send, (desc, tile, copied))], [4], [24])


@gluon.jit
def store_and_tell(x, told, RIGHT: gl.constexpr):
    gl.store(x + gl.arange(0, 128, ROW), gl.full([128], 1.0, gl.float16, ROW))
    mbarrier.arrive(told, count=1)


@gluon.jit
def load_once_told(x, told, RIGHT: gl.constexpr):
    mbarrier.wait(told, 0, pred=RIGHT)
    gl.store(x + 128 + gl.arange(0, 128, ROW), gl.load(x + gl.arange(0, 128, ROW)))


@gluon.jit
def handed_on_in_global_memory(desc, x, RIGHT: gl.constexpr, SWAPPED: gl.constexpr):
    told = mbarrier.allocate_mbarrier()
    mbarrier.init(told, count=1)
    given = (x + gl.program_id(0) * 256, told, RIGHT)
    if SWAPPED:
        gl.warp_specialize([(load_once_told, given), (store_and_tell, given)], [4], [24])
    else:
        gl.warp_specialize([(store_and_tell, given), (load_once_told, given)], [4], [24])


@gluon.jit
def used_beyond_its_end(desc, x, RIGHT: gl.constexpr, SWAPPED: gl.constexpr):
    bars = mbarrier.allocate_mbarrier(batch=2)
    lines = gl.allocate_shared_memory(gl.float16, [2, 128], FLAT)
    for i in gl.static_range(2):
        mbarrier.init(bars.index(i), count=1)
        lines.index(i).store(gl.full([128], 1.0, gl.float16, ROW))
    for i in range(3):
        line = lines.index(i - 1)
        if SWAPPED:
            mbarrier.arrive(bars.index(i - 1), count=1, pred=i > 0 if RIGHT else i >= 0)
        elif i > 0 or not RIGHT:
            gl.store(x + gl.arange(0, 128, ROW), line.load(ROW))


@gluon.jit
def expect(desc, x, bars, tile):
    for i in range(4):
        mbarrier.wait(bars.index(1), (i & 1) ^ 1)
        mbarrier.expect(bars.index(0), desc.block_type.nbytes)
        mbarrier.arrive(bars.index(2), count=1)


@gluon.jit
def bring_when_told(desc, x, bars, tile):
    for i in range(4):
        mbarrier.wait(bars.index(2), i & 1)
        tma.async_load(desc, [0, 0], bars.index(0), tile)


@gluon.jit
def copy_when_free(desc, x, bars, tile):
    rows = gl.arange(0, 64, gl.SliceLayout(1, COPIED))
    columns = gl.arange(0, 64, gl.SliceLayout(0, COPIED))
    for i in range(4):
        mbarrier.wait(bars.index(1), (i & 1) ^ 1)
        async_copy.async_load(tile, x + rows[:, None] * 64 + columns[None, :])
        async_copy.mbarrier_arrive(bars.index(0), increment_count=False)


@gluon.jit
def take_each(desc, x, bars, tile):
    for i in range(4):
        mbarrier.wait(bars.index(0), i & 1)
        read(tile, x + 4096)
        mbarrier.arrive(bars.index(1), count=1)


@gluon.jit
def take_and_end(desc, x, bars, tile):
    mbarrier.wait(bars.index(0), 0)
    read(tile, x + 4096)
    mbarrier.invalidate(bars.index(0))


@gluon.jit
def hand_on_in_global_memory(desc, x, bars, tile):
    places = gl.arange(0, 128, ROW)
    gl.store(x + 128 + places, gl.load(x + places))


@gluon.jit
def first(desc, x, bars, tile, WHAT: gl.constexpr):
    if WHAT == "two that bring":
        expect(desc, x, bars, tile)
    elif WHAT == "cp.async":
        copy_when_free(desc, x, bars, tile)
    elif WHAT == "ended by who waits":
        bring(desc, tile, bars.index(0))
    else:
        hand_on_in_global_memory(desc, x, bars, tile)


@gluon.jit
def second(desc, x, bars, tile, WHAT: gl.constexpr):
    if WHAT == "ended by who waits":
        take_and_end(desc, x, bars, tile)
    elif WHAT != "global memory":
        take_each(desc, x, bars, tile)


@gluon.jit
def third(desc, x, bars, tile, WHAT: gl.constexpr):
    if WHAT == "two that bring":
        bring_when_told(desc, x, bars, tile)


@gluon.jit
def partitions_that(desc, x, WHAT: gl.constexpr, SWAPPED: gl.constexpr):
    tile = gl.allocate_shared_memory(gl.float16, [64, 64], desc.layout)
    bars = mbarrier.allocate_mbarrier(batch=3)
    for i in gl.static_range(3):
        mbarrier.init(bars.index(i), count=128 if WHAT == "cp.async" and i == 0 else 1)
    x = x + gl.program_id(0) * 8192
    gl.store(x + gl.arange(0, 128, ROW), gl.full([128], 1.0, gl.float16, ROW))
    if SWAPPED:
        gl.warp_specialize(
            [
                (second, (desc, x, bars, tile, WHAT)),
                (first, (desc, x, bars, tile, WHAT)),
                (third, (desc, x, bars, tile, WHAT)),
            ],
            [4, 4],
            [24, 24],
        )
    else:
        gl.warp_specialize(
            [
                (first, (desc, x, bars, tile, WHAT)),
                (third, (desc, x, bars, tile, WHAT)),
                (second, (desc, x, bars, tile, WHAT)),
            ],
            [4, 4],
            [24, 24],
        )
    if WHAT == "global memory":  # where the barriers are not used the compiler gives their memory to others
        for i in gl.static_range(3):
            mbarrier.invalidate(bars.index(i))
    gl.store(x + gl.arange(0, 128, ROW), gl.load(x + 128 + gl.arange(0, 128, ROW)))


def launched(kernel: Any, *form: object) -> list[tuple[str, str]]:
    """Return kind and message of all that is found in one form of a kernel."""
    layout = gl.NVMMASharedLayout(128, 16, rank=2)
    desc = TensorDescriptor.from_tensor(torch.zeros(64, 64, dtype=torch.float16), [64, 64], layout)
    with offline(target="h100") as session:
        kernel[(2,)](desc, torch.zeros(2 * 8192).half(), *form, num_warps=4)
    return [(fault.kind, fault.message) for fault in session.report().faults]


CLEAN = ("two that bring", "cp.async", "ended by who waits", "global memory")


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("what", CLEAN)
def test_who_has_come_how_far_is_known_from_copies_and_where_partitions_start_and_end(what: str, swapped: bool) -> None:
    assert launched(partitions_that, what, swapped) == []


MISUSED = "barrier misused"
FOUND = {
    "an arrival that overtakes a wait": (
        runs_ahead, MISUSED, "ends a phase of barrier 0 of bar.* while others may still be waiting for the phase before"
    ),
    "a barrier that is initialised beside its use": (
        begun_beside_its_use, MISUSED, "uses barrier bar.*, which (may not be|is not) initialised",
    ),
    "a barrier that is invalidated beside its use": (
        ended_beside_its_use, MISUSED, "invalidates barrier bar.* while another partition may still be using it",
    ),
    "no fence after cp.async": (
        sent_after_cp_async, "missing fence", r"reads tile of .*, which an asynchronous copy \(cp.async\) .* written",
    ),
    "global memory that partitions share": (
        handed_on_in_global_memory, "missing barrier", r"ed by another thread of the program: put an mbarrier between",
    ),
    "an index before the first buffer": (used_beyond_its_end, "index out of range", "buffer -1 of 2 of"),
}  # fmt: skip


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("what", FOUND)
def test_what_is_found_of_barriers_does_not_depend_on_which_partition_runs_first(what: str, swapped: bool) -> None:
    kernel, kind, message = FOUND[what]
    assert launched(kernel, True, swapped) == []
    found = launched(kernel, False, swapped)
    assert {each for each, _ in found} == {kind}
    assert any(re.search(message, text) for _, text in found), found
