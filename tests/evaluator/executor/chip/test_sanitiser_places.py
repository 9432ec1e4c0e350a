"""What others may still do in shared memory that the compiler has given to something else is found.

It gives memory away once the code makes no more use of it, and does not see copies, products and live barriers.
"""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.ampere import async_copy
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)

from tests.evaluator.executor.chip.sanitised import (
    EARLY,
    FLAT,
    LAYOUT,
    MISUSED,
    ROW,
    Case,
    bring,
    each,
    fill,
    found,
    judge,
    put,
    read,
    started,
    take,
)

ORACLE = "the expected messages and locations"


@gluon.jit
def converted(x, value):
    """Store a tile in another layout of registers, for which warps exchange it in shared memory."""
    other: gl.constexpr = gl.BlockedLayout([4, 1], [4, 8], [1, 4], [0, 1])
    rows, columns = gl.arange(0, 64, gl.SliceLayout(1, other)), gl.arange(0, 64, gl.SliceLayout(0, other))
    gl.store(x + rows[:, None] * 64 + columns[None, :], gl.convert_layout(value, other))


@gluon.jit
def over_a_barrier(desc, x, WHAT: gl.constexpr, RIGHT: gl.constexpr):
    live = started(1).index(0)
    if RIGHT:
        mbarrier.invalidate(live)
    if WHAT == "registers":
        converted(x, gl.full([64, 64], 1.0, gl.float16, LAYOUT))
    else:
        line = gl.allocate_shared_memory(gl.float16, [128], FLAT)
        if WHAT == "copy":
            async_copy.async_load(line, x + gl.arange(0, 128, ROW))
            async_copy.commit_group()
            async_copy.wait_group(0)
        else:
            line.store(gl.full([128], 1.0, gl.float16, ROW))
        take(line, x)


@gluon.jit
def a_store_over_a_barrier(desc, x, RIGHT: gl.constexpr):
    over_a_barrier(desc, x, "store", RIGHT)


@gluon.jit
def a_copy_over_a_barrier(desc, x, RIGHT: gl.constexpr):
    over_a_barrier(desc, x, "copy", RIGHT)


@gluon.jit
def registers_over_a_barrier(desc, x, RIGHT: gl.constexpr):
    over_a_barrier(desc, x, "registers", RIGHT)


@gluon.jit
def a_barrier_over_a_copy(desc, x, RIGHT: gl.constexpr):
    line = gl.allocate_shared_memory(gl.float16, [128], FLAT)
    async_copy.async_load(line, x + gl.arange(0, 128, ROW))
    async_copy.commit_group()
    if RIGHT:
        async_copy.wait_group(0)
    mbarrier.invalidate(started(1).index(0))
    async_copy.wait_group(0)


@gluon.jit
def registers_over_what_is_sent(desc, x, RIGHT: gl.constexpr):
    value = gl.full([64, 64], 1.0, gl.float16, LAYOUT)
    tile = gl.allocate_shared_memory(gl.float16, [64, 64], desc.layout, value)
    fence_async_shared()
    tma.async_store(desc, [0, 0], tile)
    if RIGHT:
        tma.store_wait(0)
    converted(x, value)
    tma.store_wait(0)


@gluon.jit
def a_tile_over_what_is_sent(desc, x, WAITED: gl.constexpr):
    for _ in gl.static_range(2):
        tile = gl.allocate_shared_memory(gl.float16, [64, 64], desc.layout)
        fill(tile)
        fence_async_shared()
        tma.async_store(desc, [0, 0], tile)
        tma.store_wait(WAITED)
    tma.store_wait(0)


@gluon.jit
def a_ring_over_what_is_sent(desc, x, FIRST: gl.constexpr):
    """The first buffer of the ring takes the memory of the tile, the second does not."""
    tile = gl.allocate_shared_memory(gl.float16, [64, 64], desc.layout)
    fill(tile)
    fence_async_shared()
    tma.async_store(desc, [0, 0], tile)
    ring = gl.allocate_shared_memory(gl.float16, [2, 64, 64], desc.layout)
    fill(ring.index(FIRST))
    tma.store_wait(0)
    fill(ring.index(1 - FIRST))
    read(ring.index(0), x)
    read(ring.index(1), x)


@gluon.jit
def a_copy_over_an_operand(desc, x, RIGHT: gl.constexpr):
    layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, 64, 16])
    operand = gl.allocate_shared_memory(gl.float16, [64, 64], desc.layout)
    fill(operand)
    fence_async_shared()
    acc = warpgroup_mma(operand, operand, gl.zeros([64, 64], gl.float32, layout), is_async=True)
    if RIGHT:
        acc = warpgroup_mma_wait(0, deps=(acc,))
    tile = gl.allocate_shared_memory(gl.float16, [64, 64], desc.layout)
    ready = started(1).index(0)
    bring(desc, tile, ready)
    mbarrier.wait(ready, 0)
    mbarrier.invalidate(ready)
    read(tile, x)
    warpgroup_mma_wait(0, deps=(acc,))


@gluon.jit
def lines_over_a_copy(desc, x, FIRST: gl.constexpr):
    """The first line of the ring takes the memory of the line, the second does not."""
    line = gl.allocate_shared_memory(gl.float16, [128], FLAT)
    async_copy.async_load(line, x + gl.arange(0, 128, ROW))
    async_copy.commit_group()
    ring = gl.allocate_shared_memory(gl.float16, [2, 128], FLAT)
    put(ring.index(FIRST))
    async_copy.wait_group(0)
    put(ring.index(1 - FIRST))
    take(ring.index(0), x)
    take(ring.index(1), x)


@gluon.jit
def over_a_line_in_flight(desc, x, FLYING: gl.constexpr):
    """The line takes the memory of the first of two."""
    ring = gl.allocate_shared_memory(gl.float16, [2, 128], FLAT)
    put(ring.index(1 - FLYING))
    take(ring.index(1 - FLYING), x)
    async_copy.async_load(ring.index(FLYING), x + gl.arange(0, 128, ROW))
    async_copy.commit_group()
    line = gl.allocate_shared_memory(gl.float16, [128], FLAT)
    put(line)
    async_copy.wait_group(0)
    take(line, x)


@gluon.jit
def barriers_over_a_copy(desc, x, FIRST: gl.constexpr):
    """Two of four barriers take the memory of what is copied."""
    layout: gl.constexpr = gl.BlockedLayout([2], [32], [4], [0])
    pair = gl.allocate_shared_memory(gl.int64, [2], FLAT)
    async_copy.async_load(pair, x.to(gl.pointer_type(gl.int64)) + gl.arange(0, 2, layout))
    async_copy.commit_group()
    bars = mbarrier.allocate_mbarrier(batch=4)
    for i in gl.static_range(2):
        mbarrier.init(bars.index(FIRST + i), count=1)
    async_copy.wait_group(0)
    for i in gl.static_range(2):
        mbarrier.init(bars.index(2 - FIRST + i), count=1)
    for i in gl.static_range(4):
        mbarrier.invalidate(bars.index(i))


PLACE = ", in the place of .*, which "
CASES = {
    "a store over a live barrier": Case(
        a_store_over_a_barrier,
        "h100",
        MISUSED,
        r"writes line of .*, in the place of barrier bar.* of .* not invalidated",
    ),
    "cp.async over a live barrier": Case(a_copy_over_a_barrier, "h100", MISUSED, "writes line of .* not invalidated"),
    "registers that are exchanged over a live barrier": Case(
        registers_over_a_barrier, "h100", MISUSED, r"scratch memory of ttg\.convert_layout, .* was not invalidated"
    ),
    "a barrier over what cp.async writes": Case(
        a_barrier_over_a_copy, "h100", EARLY, rf"writes bar.*{PLACE}an asynchronous copy \(cp.async\) .* be writing"
    ),
    "registers that are exchanged over what TMA sends": Case(
        registers_over_what_is_sent, "h100", EARLY, rf"scratch memory of .*{PLACE}a TMA copy to .* still be reading"
    ),
    "a tile over what TMA sends": Case(
        a_tile_over_what_is_sent, "h100", EARLY, f"writes tile.*{PLACE}a TMA copy .* be reading", wrong=1, right=0
    ),
    "the buffer of a ring over what TMA sends": Case(
        a_ring_over_what_is_sent, "h100", EARLY, f"writes ring.*{PLACE}a TMA copy .* be reading", wrong=0, right=1
    ),
    "a line of a ring over what cp.async writes": Case(
        lines_over_a_copy, "h100", EARLY, rf"writes ring.*{PLACE}an asynchronous copy \(cp", wrong=0, right=1
    ),
    "a line over one of a ring that cp.async writes": Case(
        over_a_line_in_flight, "h100", EARLY, rf"writes line.*{PLACE}an asynchronous copy \(cp", wrong=0, right=1
    ),
    "two of four barriers over what cp.async writes": Case(
        barriers_over_a_copy, "h100", EARLY, rf"writes bar.*{PLACE}an asynchronous copy \(cp", wrong=0, right=2
    ),
    "TMA over an operand that is given away": Case(
        a_copy_over_an_operand, "h100", EARLY, rf"writes tile.*{PLACE}an asynchronous product \(wgmma\) .* be reading"
    ),
}


@each(CASES)
def test_what_is_done_too_early_in_the_place_of_something_else_is_found_and_its_clean_twin_is_clean(what: str) -> None:
    judge(CASES[what])


@gluon.jit
def half_over_a_copy(desc, x, FORM: gl.constexpr):
    line = gl.allocate_shared_memory(gl.float16, [128], FLAT)
    async_copy.async_load(line, x + gl.arange(0, 128, ROW))
    async_copy.commit_group()
    tiles = gl.allocate_shared_memory(gl.float16, [128, 64], desc.layout)
    fill(tiles.slice(64, 64))
    async_copy.wait_group(0)
    fill(tiles.slice(0, 64))
    gl.barrier()
    read(tiles.slice(64, 64), x)


@gluon.jit
def over_half_of_which_is_copied(desc, x, FORM: gl.constexpr):
    copied: gl.constexpr = gl.BlockedLayout([1, 4], [8, 4], [4, 1], [1, 0])
    rows, columns = gl.arange(0, 64, gl.SliceLayout(1, copied)), gl.arange(0, 64, gl.SliceLayout(0, copied))
    tiles = gl.allocate_shared_memory(gl.float16, [128, 64], desc.layout)
    async_copy.async_load(tiles.slice(64, 64), x + rows[:, None] * 64 + columns[None, :])
    async_copy.commit_group()
    line = gl.allocate_shared_memory(gl.float16, [128], FLAT)
    put(line)
    async_copy.wait_group(0)
    gl.barrier()
    take(line, x)


@gluon.jit
def padded_over_a_copy(desc, x, FORM: gl.constexpr):
    """The second buffer begins behind what is copied, but for its padding it would not."""
    padded: gl.constexpr = gl.PaddedSharedLayout.with_identity_for([[4, 4]], [4, 128], [1, 0])
    copied: gl.constexpr = gl.BlockedLayout([2], [32], [4], [0])
    line = gl.allocate_shared_memory(gl.float16, [1024], FLAT)
    async_copy.async_load(line, x + gl.arange(0, 1024, copied))
    async_copy.commit_group()
    ring = gl.allocate_shared_memory(gl.float16, [2, 4, 128], padded)
    ring.index(1).store(gl.full([4, 128], 1.0, gl.float16, gl.BlockedLayout([4, 1], [1, 32], [1, 4], [1, 0])))
    async_copy.wait_group(0)


ELSEWHERE = {
    "half of a tile": half_over_a_copy,
    "a line over a tile of which half is copied": over_half_of_which_is_copied,
    "a buffer with padding": padded_over_a_copy,
}


@each(ELSEWHERE)
def test_what_may_lie_elsewhere_is_not_reported(what: str) -> None:
    assert found(Case(ELSEWHERE[what], "h100", "", ""), "") == []
