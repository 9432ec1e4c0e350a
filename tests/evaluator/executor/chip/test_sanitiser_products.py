"""What products and copies of the tensor core may still be doing is found. Each kernel has a clean twin: another form
of it."""

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
    warpgroup_mma,
    warpgroup_mma_wait,
)

from tests.evaluator.executor.chip.sanitised import EARLY, LAYOUT, Case, bring, each, fill, judge, started

ORACLE = "the expected messages and locations"

WGMMA = gl.constexpr(gl.NVMMADistributedLayout([3, 0], [4, 1], [16, 64, 16]))
MEMORY = gl.constexpr(TensorMemoryLayout([64, 64], col_stride=1))


@gluon.jit
def operands(desc):
    """Two tiles that the tensor core may read."""
    tiles = gl.allocate_shared_memory(gl.float16, [2, 64, 64], desc.layout)
    fill(tiles.index(0))
    fill(tiles.index(1))
    fence_async_shared()
    return tiles


@gluon.jit
def multiply_each(tiles):
    """Begin two products by wgmma, the second of which is still running at the end."""
    acc = gl.zeros([64, 64], gl.float32, WGMMA)
    for i in gl.static_range(2):
        acc = warpgroup_mma(tiles.index(i), tiles.index(i), acc, is_async=True)
    return warpgroup_mma_wait(1, deps=(acc,))


@gluon.jit
def one_of_two_products(desc, x, OVERWRITTEN: gl.constexpr):
    tiles = operands(desc)
    multiply_each(tiles)
    fill(tiles.index(OVERWRITTEN))


@gluon.jit
def multiply_and_tell(tiles, told):
    multiply_each(tiles)
    mbarrier.arrive(told)


@gluon.jit
def fill_when_told(tile, told):
    mbarrier.wait(told, 0)
    fill(tile)


@gluon.jit
def one_of_two_products_of_a_partition(desc, x, OVERWRITTEN: gl.constexpr):
    tiles = operands(desc)
    told = started(1).index(0)
    gl.warp_specialize(
        [(multiply_and_tell, (tiles, told)), (fill_when_told, (tiles.index(OVERWRITTEN), told))], [4], [24]
    )


@gluon.jit
def ring_of_wgmma(desc, x, DEPTH: gl.constexpr):
    tiles = gl.allocate_shared_memory(gl.float16, [DEPTH, 64, 64], desc.layout)
    ready = started(DEPTH)
    acc = gl.zeros([64, 64], gl.float32, WGMMA)
    bring(desc, tiles.index(0), ready.index(0))
    for step in gl.static_range(4):
        bring(desc, tiles.index((step + 1) % DEPTH), ready.index((step + 1) % DEPTH))
        tile = tiles.index(step % DEPTH)
        mbarrier.wait(ready.index(step % DEPTH), (step // DEPTH) & 1)
        acc = warpgroup_mma(tile, tile, acc, is_async=True)
        acc = warpgroup_mma_wait(1, deps=(acc,))
    mbarrier.wait(ready.index(4 % DEPTH), (4 // DEPTH) & 1)


@gluon.jit
def ring_of_tcgen05(desc, x, DEPTH: gl.constexpr):
    tiles = gl.allocate_shared_memory(gl.float16, [DEPTH, 64, 64], desc.layout)
    ready = started(DEPTH)
    acc = allocate_tensor_memory(gl.float32, [64, 64], MEMORY)
    done = started(2)
    bring(desc, tiles.index(0), ready.index(0))
    for step in gl.static_range(4):
        bring(desc, tiles.index((step + 1) % DEPTH), ready.index((step + 1) % DEPTH))
        tile = tiles.index(step % DEPTH)
        mbarrier.wait(ready.index(step % DEPTH), (step // DEPTH) & 1)
        tcgen05_mma(tile, tile, acc, use_acc=step > 0, mbarriers=[done.index(step % 2)])
        if step > 0:
            mbarrier.wait(done.index((step - 1) % 2), ((step - 1) // 2) & 1)
    mbarrier.wait(ready.index(4 % DEPTH), (4 // DEPTH) & 1)
    mbarrier.wait(done.index(1), 1)


@gluon.jit
def beside_a_product(desc, x, WRONG: gl.constexpr):
    tile = operands(desc).index(0)
    acc = allocate_tensor_memory(gl.float32, [64, 64], MEMORY)
    registers: gl.constexpr = acc.get_reg_layout()
    done, ready = started(1).index(0), started(1).index(0)
    tcgen05_mma(tile, tile, acc, use_acc=False, mbarriers=[done])
    mbarrier.wait(done, 0, pred=WRONG == "")
    if WRONG == "read" or WRONG == "":
        tile.store(gl.convert_layout(acc.load(registers), LAYOUT).to(gl.float16))
    if WRONG == "written" or WRONG == "":
        acc.store(gl.zeros([64, 64], gl.float32, registers))
    if WRONG == "brought" or WRONG == "":
        bring(desc, tile, ready)
        mbarrier.wait(ready, 0)
    if WRONG == "copied" or WRONG == "":
        rows, columns = gl.arange(0, 64, gl.SliceLayout(1, LAYOUT)), gl.arange(0, 64, gl.SliceLayout(0, LAYOUT))
        async_copy.async_load(tile, x + rows[:, None] * 64 + columns[None, :])
        async_copy.commit_group()
        async_copy.wait_group(0)
    mbarrier.wait(done, 0)
    mbarrier.invalidate(done)
    mbarrier.invalidate(ready)


@gluon.jit
def barrier_of_one_of_two_products(desc, x, FORM: gl.constexpr):
    tile = operands(desc).index(0)
    done = started(4)
    acc = allocate_tensor_memory(gl.float32, [2, 64, 64], MEMORY)
    tcgen05_mma(
        tile, tile, acc.index(0), use_acc=False, mbarriers=[done.index(0), done.index(1)], mbarrier_preds=[False, True]
    )
    tcgen05_mma(tile, tile, acc.index(1), use_acc=False, mbarriers=[done.index(2)])
    tcgen05_commit(done.index(3))
    mbarrier.wait(done.index(FORM[0]), 0)
    overwritten = acc.index(FORM[1])
    overwritten.store(gl.zeros([64, 64], gl.float32, overwritten.get_reg_layout()))
    mbarrier.wait(done.index(3), 0)


COPIED = gl.constexpr(TensorMemoryLayout([128, 64], col_stride=1))
WIDE = gl.constexpr(gl.NVMMASharedLayout(128, 32, rank=2))


@gluon.jit
def beside_a_copy(desc, x, WRONG: gl.constexpr):
    held = allocate_tensor_memory(gl.float32, [128, 64], COPIED)
    done = started(1).index(0)
    registers: gl.constexpr = held.get_reg_layout()
    tile = gl.allocate_shared_memory(gl.float32, [128, 64], WIDE, gl.zeros([128, 64], gl.float32, registers))
    tile.store(tile.load(registers) + 1)
    fence_async_shared()
    tcgen05_copy(tile, held)
    tcgen05_commit(done)
    mbarrier.wait(done, 0, pred=WRONG == "")
    if WRONG == "source" or WRONG == "":
        tile.store(gl.zeros([128, 64], gl.float32, registers))
    if WRONG == "target" or WRONG == "":
        held.store(held.load(registers) + 1)


@gluon.jit
def second_of_two_copies(desc, x, WRONG: gl.constexpr):
    held = allocate_tensor_memory(gl.float32, [128, 64], COPIED)
    done = started(1).index(0)
    zeros = gl.zeros([128, 64], gl.float32, held.get_reg_layout())
    tile = gl.allocate_shared_memory(gl.float32, [128, 64], WIDE, zeros)
    fence_async_shared()
    tcgen05_copy(tile, held)
    tcgen05_commit(done)
    mbarrier.wait(done, 0, pred=WRONG != "waited for after the second")
    tcgen05_copy(tile, held)
    if WRONG == "":
        tcgen05_commit(done)
    mbarrier.wait(done, 1 if WRONG == "" else 0)
    tile.store(zeros)


@gluon.jit
def operand_allocated_again(desc, x, RIGHT: gl.constexpr):
    acc = allocate_tensor_memory(gl.float32, [64, 64], TensorMemoryLayout([64, 64], col_stride=1))
    done = started(1).index(0)
    for i in range(2):
        tile = gl.allocate_shared_memory(gl.float16, [64, 64], desc.layout, gl.full([64, 64], 1.0, gl.float16, LAYOUT))
        fence_async_shared()
        tcgen05_mma(tile, tile, acc, use_acc=False)
        tcgen05_commit(done)
        mbarrier.wait(done, i, pred=RIGHT)


PRODUCT = r"an asynchronous product or copy \(tcgen05\) of the program may still be"
CASES = {
    "a store over an operand of the second of two products": Case(
        one_of_two_products, "h100", EARLY, r"writes tiles of .* product \(wgmma\) of the program", wrong=1, right=0
    ),
    "a store of another partition over an operand": Case(
        one_of_two_products_of_a_partition, "h100", EARLY, r"partition 0 writes .* \(wgmma\) of the d", wrong=1, right=0
    ),
    "a ring too short for wgmma": Case(
        ring_of_wgmma, "h100", EARLY, r"writes tiles of .* \(wgmma\) of the program may", wrong=2, right=3
    ),
    "a ring too short for tcgen05": Case(
        ring_of_tcgen05, "b200", EARLY, f"writes tiles of .*, which {PRODUCT} reading", wrong=2, right=3
    ),
    "a read of a product": Case(
        beside_a_product, "b200", EARLY, f"reads acc of .*, which {PRODUCT} writing", wrong="read", right=""
    ),
    "a store over a product": Case(
        beside_a_product, "b200", EARLY, f"writes acc of .*, which {PRODUCT} writing", wrong="written", right=""
    ),
    "TMA over an operand": Case(
        beside_a_product, "b200", EARLY, f"writes tile.* of .*, which {PRODUCT} reading", wrong="brought", right=""
    ),
    "cp.async over an operand": Case(
        beside_a_product, "b200", EARLY, f"writes tile.* of .*, which {PRODUCT} reading", wrong="copied", right=""
    ),
    "an operand that is allocated again": Case(
        operand_allocated_again, "b200", EARLY, f"writes tile of .*, which {PRODUCT} reading", wrong=False, right=True
    ),
    "a store over the second of two products": Case(
        barrier_of_one_of_two_products, "b200", EARLY, f"writes acc.*, which {PRODUCT} wr", wrong=(1, 1), right=(1, 0)
    ),
    "a store over the second of two products before its barrier": Case(
        barrier_of_one_of_two_products, "b200", EARLY, f"writes acc.*, which {PRODUCT} wr", wrong=(1, 1), right=(2, 1)
    ),
    "a store over the second of two products before the commit": Case(
        barrier_of_one_of_two_products, "b200", EARLY, f"writes acc.*, which {PRODUCT} wr", wrong=(1, 1), right=(3, 1)
    ),
    "a store over what the tensor core copies": Case(
        beside_a_copy, "b200", EARLY, f"writes tile of .*, which {PRODUCT} reading", wrong="source", right=""
    ),
    "a read of what the tensor core copies": Case(
        beside_a_copy, "b200", EARLY, f"reads held of .*, which {PRODUCT} writing", wrong="target", right=""
    ),
    "a store over what is copied again": Case(
        second_of_two_copies, "b200", EARLY, f"writes tile of .*, which {PRODUCT} reading", wrong="no wait", right=""
    ),
    "a store over what is copied again before the wait": Case(
        second_of_two_copies, "b200", EARLY, f"writes tile of .*, which {PRODUCT} reading",
        wrong="waited for after the second", right="",
    ),
}  # fmt: skip


@each(CASES)
def test_what_the_tensor_core_may_still_do_is_found_and_its_clean_twin_is_clean(what: str) -> None:
    judge(CASES[what])
