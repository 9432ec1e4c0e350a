"""What copies by TMA and cp.async may still be doing is found. Each kernel has a clean twin: another form of it."""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import fence_async_shared, mbarrier, tma

from tests.evaluator.executor.chip.sanitised import DEADLOCK, EARLY, Case, bring, each, fill, judge, read, started

ORACLE = "the expected messages and locations"


@gluon.jit
def two_tiles_on_one_barrier(desc, x, RIGHT: gl.constexpr):
    tiles = gl.allocate_shared_memory(gl.float16, [2, 64, 64], desc.layout)
    ready = started(1).index(0)
    mbarrier.expect(ready, 2 * desc.nbytes_per_cta)
    for i in gl.static_range(2):
        tma.async_load(desc, [0, 0], ready, tiles.index(i))
    mbarrier.wait(ready, 0, pred=RIGHT)
    read(tiles.index(1), x)


@gluon.jit
def first_of_two_tiles(desc, x, READ: gl.constexpr):
    tiles = gl.allocate_shared_memory(gl.float16, [2, 64, 64], desc.layout)
    ready = started(2)
    for i in gl.static_range(2):
        bring(desc, tiles.index(i), ready.index(i))
    mbarrier.wait(ready.index(1), 0)
    read(tiles.index(READ), x)
    mbarrier.wait(ready.index(0), 0)


@gluon.jit
def phase_of_before(desc, x, RIGHT: gl.constexpr):
    tile = gl.allocate_shared_memory(gl.float16, [64, 64], desc.layout)
    ready = started(1, 2).index(0)
    mbarrier.arrive(ready, count=2)
    bring(desc, tile, ready)
    mbarrier.arrive(ready, pred=RIGHT)
    mbarrier.wait(ready, 1 if RIGHT else 0)
    read(tile, x)


@gluon.jit
def barrier_of_before(desc, x, RIGHT: gl.constexpr):
    tile = gl.allocate_shared_memory(gl.float16, [64, 64], desc.layout)
    ready = started(2)
    bring(desc, tile, ready.index(0))
    mbarrier.wait(ready.index(0), 0)
    bring(desc, tile, ready.index(1))
    mbarrier.wait(ready.index(1 if RIGHT else 0), 0)
    read(tile, x)


@gluon.jit
def copied_twice(desc, x, WRONG: gl.constexpr):
    tile = gl.allocate_shared_memory(gl.float16, [64, 64], desc.layout)
    ready = started(2)
    bring(desc, tile, ready.index(0))
    mbarrier.wait(ready.index(0), 0, pred=WRONG == "")
    if WRONG != "sent":
        bring(desc, tile, ready.index(1))
        mbarrier.wait(ready.index(1), 0)
    if WRONG != "brought":
        tma.async_store(desc, [0, 0], tile)
        tma.store_wait(0)


@gluon.jit
def second_of_two_sent(desc, x, RIGHT: gl.constexpr):
    tiles = gl.allocate_shared_memory(gl.float16, [2, 64, 64], desc.layout)
    for i in gl.static_range(2):
        fill(tiles.index(i))
    fence_async_shared()
    for i in gl.static_range(2):
        tma.async_store(desc, [0, 0], tiles.index(i))
    tma.store_wait(1)
    fill(tiles.index(0))
    if RIGHT:
        tma.store_wait(0)
    fill(tiles.index(1))


@gluon.jit
def other_bytes_expected(desc, x, MORE: gl.constexpr):
    tile = gl.allocate_shared_memory(gl.float16, [64, 64], desc.layout)
    ready = started(1).index(0)
    mbarrier.expect(ready, desc.nbytes_per_cta + MORE)
    tma.async_load(desc, [0, 0], ready, tile)
    mbarrier.wait(ready, 0)


CASES = {
    "a barrier of two copies that is not waited for": Case(
        two_tiles_on_one_barrier, "h100", EARLY, "reads tiles of .* signals barrier bar of .* may still be writing"
    ),
    "a wait for a later copy": Case(
        first_of_two_tiles, "h100", EARLY, "reads tiles of .* signals barrier 0 of bar of", wrong=0, right=1
    ),
    "a wait for the phase before that of a copy": Case(phase_of_before, "h100", EARLY, "reads tile of .* be writing"),
    "a wait for the copy that another one replaces": Case(
        barrier_of_before, "h100", EARLY, "reads tile of .*, which .* signals barrier 1 of bar of"
    ),
    "a copy over what a copy brings": Case(
        copied_twice, "h100", EARLY, "writes tile of .* signals barrier 0 of bar of", wrong="brought", right=""
    ),
    "a copy of what a copy brings": Case(
        copied_twice, "h100", EARLY, "reads tile of .* signals barrier 0 of bar of", wrong="sent", right=""
    ),
    "a store over the last of two tiles that are sent": Case(
        second_of_two_sent, "h100", EARLY, "writes tiles of .*, which a TMA copy to global memory of the program may"
    ),
    "more bytes expected than come": Case(
        other_bytes_expected, "h100", DEADLOCK, "lacks 0 arrivals and 16 bytes ", wrong=16, right=0
    ),
    "fewer bytes expected than come": Case(
        other_bytes_expected, "h100", DEADLOCK, "lacks 0 arrivals and got 16 bytes too many ", wrong=-16, right=0
    ),
}


@each(CASES)
def test_what_a_copy_may_still_do_is_found_and_its_clean_twin_is_clean(what: str) -> None:
    judge(CASES[what])
