"""What the sanitiser finds on the chip. Each kernel has a clean twin: the same one with ``RIGHT``."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.ampere import async_copy
from triton.experimental.gluon.language.nvidia.blackwell import (
    TensorMemoryLayout,
    allocate_tensor_memory,
    tcgen05_commit,
    tcgen05_copy,
    tcgen05_mma,
)
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from avo.evaluator.executor import MemoryFault, StuckProgram
from avo.evaluator.offline import offline

ORACLE = "the expected messages and locations"

TILE = gl.NVMMASharedLayout(swizzle_byte_width=128, element_bitwidth=16, rank=2)
LAYOUT = gl.constexpr(gl.BlockedLayout([1, 4], [8, 4], [4, 1], [1, 0]))
FLAT = gl.constexpr(gl.SwizzledSharedLayout(1, 1, 1, [0]))
ROW = gl.constexpr(gl.BlockedLayout([1], [32], [4], [0]))


@gluon.jit
def brought_at_the_end(desc, RIGHT: gl.constexpr):
    tile = gl.allocate_shared_memory(gl.float16, [64, 64], desc.layout)
    ready = mbarrier.allocate_mbarrier()
    mbarrier.init(ready, count=1)
    mbarrier.expect(ready, desc.block_type.nbytes)
    tma.async_load(desc, [0, 0], ready, tile)
    mbarrier.wait(ready, 0, pred=RIGHT)
    return tile


@gluon.jit
def copy_read_early(desc, RIGHT: gl.constexpr):
    tile = brought_at_the_end(desc, RIGHT)
    tile.store(tile.load(LAYOUT))


@gluon.jit
def one_barrier_of_two(desc, RIGHT: gl.constexpr):
    tiles = gl.allocate_shared_memory(gl.float16, [2, 64, 64], desc.layout)
    ready = mbarrier.allocate_mbarrier(batch=2)
    for i in gl.static_range(2):
        mbarrier.init(ready.index(i), count=1)
        mbarrier.expect(ready.index(i), desc.block_type.nbytes)
        tma.async_load(desc, [0, 0], ready.index(i), tiles.index(i))
    mbarrier.wait(ready.index(0), 0)
    mbarrier.wait(ready.index(1), 0, pred=RIGHT)
    tiles.index(0).store(tiles.index(1).load(LAYOUT))


@gluon.jit
def sent_and_overwritten(desc, RIGHT: gl.constexpr):
    tile = gl.allocate_shared_memory(gl.float16, [64, 64], desc.layout, gl.full([64, 64], 1.0, gl.float16, LAYOUT))
    fence_async_shared()
    tma.async_store(desc, [gl.program_id(0) * 64, 0], tile)
    if RIGHT:
        tma.store_wait(0)
    tile.store(gl.full([64, 64], 2.0, gl.float16, LAYOUT))
    tma.store_wait(0)


@gluon.jit
def sent_and_brought_back(desc, RIGHT: gl.constexpr):
    tile = gl.allocate_shared_memory(gl.float16, [64, 64], desc.layout, gl.full([64, 64], 1.0, gl.float16, LAYOUT))
    ready = mbarrier.allocate_mbarrier()
    mbarrier.init(ready, count=1)
    fence_async_shared()
    tma.async_store(desc, [gl.program_id(0) * 64, 0], tile)
    tma.store_wait(0, read_only=not RIGHT)
    gl.barrier()
    mbarrier.expect(ready, desc.block_type.nbytes)
    tma.async_load(desc, [gl.program_id(0) * 64, 0], ready, tile)
    mbarrier.wait(ready, 0)


@gluon.jit
def added_and_read(desc, held, RIGHT: gl.constexpr):
    tile = gl.allocate_shared_memory(gl.float16, [64, 64], desc.layout, gl.full([64, 64], 1.0, gl.float16, LAYOUT))
    fence_async_shared()
    tma.async_atomic_add(desc, [gl.program_id(0) * 64, 0], tile)
    tma.store_wait(0, read_only=not RIGHT)
    gl.barrier()
    at = gl.program_id(0) * 4096 + gl.arange(0, 4096, ROW)
    gl.store(held + at, gl.load(held + at) * 2)


@gluon.jit
def send_tile(desc, tile, ready):
    mbarrier.wait(ready, 0)
    tma.async_store(desc, [gl.program_id(0) * 64, 0], tile)
    tma.store_wait(0)


@gluon.jit
def fill_tile(tile, ready, RIGHT: gl.constexpr):
    tile.store(gl.full([64, 64], 2.0, gl.float16, LAYOUT))
    if RIGHT:
        fence_async_shared()
    mbarrier.arrive(ready)


@gluon.jit
def sent_without_a_fence(desc, RIGHT: gl.constexpr):
    tile = gl.allocate_shared_memory(gl.float16, [64, 64], desc.layout)
    ready = mbarrier.allocate_mbarrier()
    mbarrier.init(ready, count=1)
    gl.warp_specialize([(fill_tile, (tile, ready, RIGHT)), (send_tile, (desc, tile, ready))], [1], [24])


@gluon.jit
def group_overwritten(x, y, RIGHT: gl.constexpr):
    i = gl.arange(0, 128, ROW)
    held = gl.allocate_shared_memory(gl.float32, [128], FLAT)
    async_copy.async_load(held, x + i)
    async_copy.commit_group()
    async_copy.wait_group(0 if RIGHT else 1)
    async_copy.async_load(held, x + i)
    async_copy.commit_group()
    async_copy.wait_group(0)
    gl.store(y + gl.program_id(0) * 128 + i, held.load(ROW))


@gluon.jit
def group_read_early(x, y, RIGHT: gl.constexpr):
    i = gl.arange(0, 128, ROW)
    held = gl.allocate_shared_memory(gl.float32, [2, 128], FLAT)
    for stage in gl.static_range(2):
        async_copy.async_load(held.index(stage), x + i)
        async_copy.commit_group()
    async_copy.wait_group(0 if RIGHT else 1)
    gl.store(y + gl.program_id(0) * 128 + i, held.index(1).load(ROW))


@gluon.jit
def produce(desc, tile, ready, free, RIGHT: gl.constexpr):
    for step in range(3):
        if RIGHT:
            mbarrier.wait(free, (step & 1) ^ 1)
        mbarrier.expect(ready, desc.block_type.nbytes)
        tma.async_load(desc, [0, 0], ready, tile)


@gluon.jit
def consume(tile, ready, free):
    for step in range(3):
        mbarrier.wait(ready, step & 1)
        gl.static_assert(tile.shape[0] == 64)
        tile.load(LAYOUT)
        mbarrier.arrive(free)


@gluon.jit
def overwritten_by_a_producer(desc, RIGHT: gl.constexpr):
    tile = gl.allocate_shared_memory(gl.float16, [64, 64], desc.layout)
    ready, free = mbarrier.allocate_mbarrier(), mbarrier.allocate_mbarrier()
    mbarrier.init(ready, count=1)
    mbarrier.init(free, count=1)
    gl.warp_specialize([(consume, (tile, ready, free)), (produce, (desc, tile, ready, free, RIGHT))], [1], [24])


@gluon.jit
def write_tile(tile, ready, RIGHT: gl.constexpr):
    tile.store(gl.full([64, 64], 2.0, gl.float16, LAYOUT))
    if RIGHT:
        mbarrier.arrive(ready)


@gluon.jit
def read_tile(tile, ready, RIGHT: gl.constexpr):
    if RIGHT:
        mbarrier.wait(ready, 0)
    tile.store(tile.load(LAYOUT) + 1)


@gluon.jit
def partitions_without_a_barrier(desc, RIGHT: gl.constexpr):
    tile = gl.allocate_shared_memory(gl.float16, [64, 64], desc.layout)
    ready = mbarrier.allocate_mbarrier()
    mbarrier.init(ready, count=1)
    gl.warp_specialize([(write_tile, (tile, ready, RIGHT)), (read_tile, (tile, ready, RIGHT))], [4], [24])
    mbarrier.invalidate(ready)


@gluon.jit
def do_nothing(tile, ready, RIGHT: gl.constexpr):
    pass


@gluon.jit
def arrive_for_another(tile, ready, RIGHT: gl.constexpr):
    if not RIGHT:
        mbarrier.arrive(ready)


@gluon.jit
def partitions_that_meet_twice(desc, RIGHT: gl.constexpr):
    tile = gl.allocate_shared_memory(gl.float16, [64, 64], desc.layout)
    ready = mbarrier.allocate_mbarrier()
    mbarrier.init(ready, count=1)
    args = (tile, ready, RIGHT)
    gl.warp_specialize([(write_tile, (tile, ready, False)), (do_nothing, args), (do_nothing, args)], [4, 4], [24, 24])
    gl.warp_specialize(
        [(read_tile, (tile, ready, True)), (write_tile, args), (arrive_for_another, args)], [4, 4], [24, 24]
    )


@gluon.jit
def operand_of_wgmma_overwritten(desc, RIGHT: gl.constexpr):
    ones = gl.full([64, 64], 1.0, gl.float16, LAYOUT)
    a = gl.allocate_shared_memory(gl.float16, [64, 64], desc.layout, ones)
    fence_async_shared()
    layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, 64, 16])
    acc = warpgroup_mma(a, a, gl.zeros([64, 64], gl.float32, layout), is_async=True)
    warpgroup_mma_wait(0 if RIGHT else 1, deps=(acc,))
    a.store(ones)


@gluon.jit
def operand_of_tcgen05_overwritten(desc, RIGHT: gl.constexpr):
    ones = gl.full([128, 128], 1.0, gl.float16, LAYOUT)
    a = gl.allocate_shared_memory(gl.float16, [128, 128], TILE, ones)
    acc = allocate_tensor_memory(gl.float32, [128, 128], TensorMemoryLayout([128, 128], col_stride=1))
    done = mbarrier.allocate_mbarrier()
    mbarrier.init(done, count=1)
    fence_async_shared()
    tcgen05_mma(a, a, acc, use_acc=False)
    tcgen05_commit(done)
    mbarrier.wait(done, 0, pred=RIGHT)
    a.store(ones)


@gluon.jit
def product_read_early(desc, RIGHT: gl.constexpr):
    layout: gl.constexpr = gl.BlockedLayout([1, 128], [32, 1], [4, 1], [0, 1])
    a = gl.allocate_shared_memory(gl.float16, [128, 128], TILE, gl.full([128, 128], 1.0, gl.float16, LAYOUT))
    acc = allocate_tensor_memory(gl.float32, [128, 128], TensorMemoryLayout([128, 128], col_stride=1))
    done = mbarrier.allocate_mbarrier()
    mbarrier.init(done, count=1)
    fence_async_shared()
    tcgen05_mma(a, a, acc, use_acc=False)
    if RIGHT:
        tcgen05_mma(a, a, acc)
        tcgen05_commit(done)
    else:
        tcgen05_commit(done)
        tcgen05_mma(a, a, acc)
    mbarrier.wait(done, 0)
    acc.store(acc.load(layout))


@gluon.jit
def sent_at_the_end(desc, RIGHT: gl.constexpr):
    tile = gl.allocate_shared_memory(gl.float16, [64, 64], desc.layout, gl.full([64, 64], 1.0, gl.float16, LAYOUT))
    fence_async_shared()
    tma.async_store(desc, [gl.program_id(0) * 64, 0], tile)
    tma.async_atomic_add(desc, [gl.program_id(0) * 64, 0], tile)
    tma.store_wait(0 if RIGHT else 1)


EARLY = "on-chip access too early"
FOUND: dict[str, tuple[Any, str, str, str]] = {
    "a read of what TMA brings": (
        copy_read_early, "h100", EARLY,
        "the program reads tile of .*, which an asynchronous copy that signals barrier bar of .* may still be writing",
    ),
    "a wait for another barrier": (one_barrier_of_two, "h100", EARLY, "signals barrier 1 of bar of .* may still be"),
    "a store over what TMA sends": (
        sent_and_overwritten, "h100", EARLY,
        "the program writes tile of .*, which a TMA copy to global memory of the program may still be reading",
    ),
    "a read of what TMA has not written": (
        sent_and_brought_back, "h100", "unfinished TMA store",
        r"which TMA may still be writing: wait for it with tma.store_wait\(0, read_only=False\)",
    ),
    "a read of what TMA has not added": (
        added_and_read, "h100", "unfinished TMA store", "held', which TMA may still be writing: wait for it with",
    ),
    "no fence before TMA": (
        sent_without_a_fence, "h100", "missing fence",
        "partition 0 reads tile of .*, which the default partition has written, with no fence_async_shared since",
    ),
    "a read of a group that is not waited for": (group_read_early, "a100", EARLY, r"copy \(cp\.async\) of the program"),
    "a copy over a group that is not waited for": (group_overwritten, "a100", EARLY, "writes held of .* be writing"),
    "a copy over what a partition still reads": (
        overwritten_by_a_producer, "h100", EARLY,
        "partition 0 writes tile of .*, which an asynchronous copy that signals .* may still be writing",
    ),
    "partitions that meet at no barrier": (
        partitions_without_a_barrier, "h100", EARLY,
        "partition 0 reads tile of .*, which the default partition may still be writing",
    ),
    "partitions that met before": (
        partitions_that_meet_twice, "h100", EARLY,
        "the default partition reads tile of .*, which partition 0 may still be writing",
    ),
    "a store over an operand of wgmma": (
        operand_of_wgmma_overwritten, "h100", EARLY, r"which an asynchronous product \(wgmma\) of the program may",
    ),
    "a store over an operand of tcgen05": (
        operand_of_tcgen05_overwritten, "b200", EARLY, r"product or copy \(tcgen05\) of the program may still be read",
    ),
    "a read of a product that came after the commit": (
        product_read_early, "b200", EARLY, r"reads acc of .*, which an asynchronous product .* may still be writing",
    ),
    "a TMA sum at the end": (
        sent_at_the_end, "h100", "unfinished TMA store",
        r"the program ends while a TMA copy .* may still be reading tile of .*: wait for it with tma.store_wait\(0\)",
    ),
    "a TMA load at the end": (brought_at_the_end, "h100", EARLY, "ends while .* barrier bar .* be writing tile of"),
}  # fmt: skip


def launched(kernel: Any, target: str, right: bool) -> tuple[MemoryFault, ...]:
    x, y = torch.randn(128, 64).half(), torch.randn(128)
    with offline(target=target) as session:
        if kernel in (group_read_early, group_overwritten):
            kernel[(2,)](y, torch.empty(256), right, num_warps=4)
        else:
            held = (x,) if kernel is added_and_read else ()
            kernel[(2,)](TensorDescriptor.from_tensor(x, [64, 64], TILE), *held, right, num_warps=4)
    return session.report().faults


@pytest.mark.parametrize("what", FOUND)
def test_what_comes_too_early_is_found_and_its_clean_twin_is_clean(what: str) -> None:
    kernel, target, kind, message = FOUND[what]
    faults = launched(kernel, target, right=False)
    # Who waits too little is also overtaken by the next phase.
    overtaken = {"barrier misused"} if what == "a copy over what a partition still reads" else set()
    assert {fault.kind for fault in faults} == {kind} | overtaken
    assert any(re.search(message, fault.message) for fault in faults), [fault.message for fault in faults]
    assert all("test_chip_findings.py:" in fault.location and fault.others == 1 for fault in faults)
    assert launched(kernel, target, right=True) == ()


@gluon.jit
def misused(HOW: gl.constexpr):
    ready = mbarrier.allocate_mbarrier()
    if HOW != "before":
        mbarrier.init(ready, count=1)
    if HOW == "again":
        mbarrier.init(ready, count=1)
    if HOW == "after":
        mbarrier.invalidate(ready)
    mbarrier.arrive(ready, count=2 if HOW == "often" else 1)
    mbarrier.wait(ready, 0)
    if HOW == "right":
        mbarrier.invalidate(ready)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("before", "uses barrier bar of .*, which is not initialised, or no longer"),
        ("after", "uses barrier bar of .*, which is not initialised, or no longer"),
        ("again", "initialises barrier bar of .* again, which was not invalidated"),
        ("often", "arrives at barrier bar of .* more often than its phase takes"),
        ("right", ""),
    ],
)
def test_barriers_are_initialised_used_and_invalidated_in_turn(how: str, message: str) -> None:
    with offline() as session:
        misused[(1,)](how, num_warps=4)
    faults = session.report().faults
    assert {fault.kind for fault in faults} == ({"barrier misused"} if message else set())
    assert all(re.search(message, fault.message) for fault in faults)


@gluon.jit
def invalidated(desc, EARLY: gl.constexpr):
    tile = gl.allocate_shared_memory(gl.float16, [64, 64], desc.layout)
    ready = mbarrier.allocate_mbarrier()
    mbarrier.init(ready, count=1)
    mbarrier.expect(ready, desc.block_type.nbytes)
    tma.async_load(desc, [0, 0], ready, tile)
    mbarrier.wait(ready, 0, pred=not EARLY)
    mbarrier.invalidate(ready)


def test_a_barrier_is_invalidated_after_what_signals_it() -> None:
    desc = TensorDescriptor.from_tensor(torch.randn(64, 64).half(), [64, 64], TILE)
    with offline() as session:
        invalidated[(1,)](desc, False, num_warps=4)
        invalidated[(1,)](desc, True, num_warps=4)
    fault, _ = session.report().faults
    assert "invalidates barrier bar of" in fault.message


@gluon.jit
def wait_first(one, other, STUCK: gl.constexpr):
    if STUCK:
        mbarrier.wait(one, 0)
        mbarrier.arrive(other)
    else:
        mbarrier.arrive(other)
        mbarrier.wait(one, 0)


@gluon.jit
def crossed(STUCK: gl.constexpr):
    one, other = mbarrier.allocate_mbarrier(), mbarrier.allocate_mbarrier()
    mbarrier.init(one, count=1)
    mbarrier.init(other, count=1)
    gl.warp_specialize([(wait_first, (one, other, STUCK)), (wait_first, (other, one, STUCK))], [4], [24])


@gluon.jit
def too_few_bytes(desc, STUCK: gl.constexpr):
    tile = gl.allocate_shared_memory(gl.float16, [64, 64], desc.layout)
    ready = mbarrier.allocate_mbarrier()
    mbarrier.init(ready, count=1)
    mbarrier.expect(ready, desc.block_type.nbytes + (16 if STUCK else 0))
    tma.async_load(desc, [0, 0], ready, tile)
    mbarrier.wait(ready, 0)


@gluon.jit
def nobody_arrives(STUCK: gl.constexpr):
    bars = mbarrier.allocate_mbarrier(batch=2)
    mbarrier.init(bars.index(0), count=1)
    mbarrier.init(bars.index(1), count=1)
    if STUCK:
        mbarrier.wait(bars.index(1), 0)


@gluon.jit
def another_of_the_array(STUCK: gl.constexpr):
    bars = mbarrier.allocate_mbarrier(batch=2)
    mbarrier.init(bars.index(0), count=1)
    mbarrier.init(bars.index(1), count=1)
    mbarrier.arrive(bars.index(0))
    mbarrier.wait(bars.index(1 if STUCK else 0), 0)


@gluon.jit
def arrive_each_pass(told, taken, STUCK: gl.constexpr):
    for i in range(4):
        mbarrier.wait(taken, (i & 1) ^ 1)
        mbarrier.arrive(told)


@gluon.jit
def wait_each_pass(told, taken, STUCK: gl.constexpr):
    for i in range(4):
        mbarrier.wait(told, 0 if STUCK else i & 1)
        mbarrier.arrive(taken)


@gluon.jit
def phase_that_never_flips(STUCK: gl.constexpr):
    told, taken = mbarrier.allocate_mbarrier(), mbarrier.allocate_mbarrier()
    mbarrier.init(told, count=1)
    mbarrier.init(taken, count=1)
    gl.warp_specialize([(wait_each_pass, (told, taken, STUCK)), (arrive_each_pass, (told, taken, STUCK))], [4], [24])


@pytest.mark.parametrize(
    ("launch", "message"),
    [
        (
            lambda stuck: phase_that_never_flips[(1,)](stuck, num_warps=4),
            r"which lacks 1 arrival and 0 bytes after 4 complete phases \(what ",
        ),
        (lambda stuck: nobody_arrives[(1,)](stuck, num_warps=4), r"0 bytes \(nothing arrives there\)$"),
        (
            lambda stuck: another_of_the_array[(1,)](stuck, num_warps=4),
            r"\(what may arrive at one of these barriers: test_chip_findings\.py:\d+\)$",
        ),
        (
            lambda stuck: crossed[(3,)](stuck, num_warps=4),
            r"^kernel crossed: deadlock: the default partition of program \(0, 0, 0\) at test_chip_findings\.py:\d+ "
            r"waits for phase 0 of barrier bar of \S+, which lacks 1 arrival and 0 bytes "
            r"\(what may arrive there: partition 0 at test_chip_findings\.py:\d+\); partition 0 of program .* at",
        ),
        (
            lambda stuck: too_few_bytes[(1,)](
                TensorDescriptor.from_tensor(torch.zeros(64, 64).half(), [64, 64], TILE), stuck, num_warps=4
            ),
            r"deadlock: program .* which lacks 0 arrivals and 16 bytes \(what may arrive there: \S+ and \S+\)$",
        ),
    ],
)
def test_a_deadlock_says_who_waits_for_what(launch: Callable[[bool], None], message: str) -> None:
    with offline():
        launch(False)
        with pytest.raises(StuckProgram, match=message):
            launch(True)


@gluon.jit
def first_reader(tile, target, ready):
    tcgen05_copy(tile, target)
    tcgen05_commit(ready.index(0))


@gluon.jit
def second_reader(tile, target, ready, RIGHT: gl.constexpr):
    mbarrier.wait(ready.index(0), 0)
    tcgen05_copy(tile, target)
    if RIGHT:
        tcgen05_commit(ready.index(1))
    else:
        mbarrier.arrive(ready.index(1))


@gluon.jit
def writer(tile, ready):
    mbarrier.wait(ready.index(1), 0)
    tile.store(gl.zeros([128, 64], gl.float32, LAYOUT))


@gluon.jit
def handed_on(RIGHT: gl.constexpr):
    tile = gl.allocate_shared_memory(gl.float32, [128, 64], gl.NVMMASharedLayout(128, 32, rank=2))
    layout: gl.constexpr = TensorMemoryLayout([128, 64], col_stride=1)
    first = allocate_tensor_memory(gl.float32, [128, 64], layout)
    second = allocate_tensor_memory(gl.float32, [128, 64], layout)
    ready = mbarrier.allocate_mbarrier(batch=2)
    mbarrier.init(ready.index(0), count=1)
    mbarrier.init(ready.index(1), count=1)
    tile.store(gl.zeros([128, 64], gl.float32, LAYOUT))
    fence_async_shared()
    gl.warp_specialize(
        [(first_reader, (tile, first, ready)), (second_reader, (tile, second, ready, RIGHT)), (writer, (tile, ready))],
        [4, 4],
        [24, 24],
    )


def test_arriving_says_nothing_of_what_the_tensor_core_still_does() -> None:
    with offline(target="b200") as session:
        handed_on[(1,)](True, num_warps=4)
        handed_on[(1,)](False, num_warps=4)
    fault, _ = session.report().faults
    assert "partition 1 writes tile" in fault.message
    assert "an asynchronous product or copy (tcgen05) of partition 0 may still be reading" in fault.message
