"""Views of one buffer that have items in common are one memory, others are not. Each kernel has a clean twin."""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.ampere import async_copy
from triton.experimental.gluon.language.nvidia.blackwell import TensorMemoryLayout, allocate_tensor_memory
from triton.experimental.gluon.language.nvidia.hopper import mbarrier, tma

from tests.evaluator.executor.chip.sanitised import EARLY, FLAT, ROW, Case, each, fill, judge, put, read, started, take

ORACLE = "the expected messages and locations"


@gluon.jit
def write_and_tell(line, told):
    line.store(gl.full(line.shape, 1.0, gl.float16, ROW))
    mbarrier.arrive(told)


@gluon.jit
def take_when_told(line, x, told, WAITS: gl.constexpr):
    mbarrier.wait(told, 0, pred=WAITS)
    take(line, x)


@gluon.jit
def read_of_the_second_half(desc, x, FORM: gl.constexpr):
    line = gl.allocate_shared_memory(gl.float16, [256], FLAT)
    told = started(1).index(0)
    half = line.slice(128, 128)
    gl.warp_specialize(
        [(write_and_tell, (line.slice(0, FORM[0]), told)), (take_when_told, (half, x, told, FORM[1]))], [4], [24]
    )


@gluon.jit
def copy_and_tell(line, x, told, WAITS: gl.constexpr):
    async_copy.async_load(line, x + gl.arange(0, line.shape[0], ROW))
    async_copy.commit_group()
    if WAITS:
        async_copy.wait_group(0)
    mbarrier.arrive(told)
    async_copy.wait_group(0)


@gluon.jit
def put_when_told(line, told):
    mbarrier.wait(told, 0)
    put(line)


@gluon.jit
def copy_of_the_second_half(desc, x, FORM: gl.constexpr):
    line = gl.allocate_shared_memory(gl.float16, [256], FLAT)
    told = started(1).index(0)
    half = line.slice(128, 128)
    gl.warp_specialize(
        [(copy_and_tell, (line.slice(0, FORM[0]), x, told, FORM[1])), (put_when_told, (half, told))], [4], [24]
    )


@gluon.jit
def write_and_bring_half(desc, tile, ready):
    mbarrier.expect(ready, desc.nbytes_per_cta)
    fill(tile.slice(0, 64, dim=1))
    fill(tile.slice(64, 64, dim=1))
    tma.async_load(desc, [0, 0], ready, tile.slice(64, 64, dim=1))


@gluon.jit
def read_when_brought(tile, x, ready):
    mbarrier.wait(ready, 0)
    read(tile, x)


@gluon.jit
def half_brought_over_a_store(desc, x, START: gl.constexpr):
    tile = gl.allocate_shared_memory(gl.float16, [64, 128], desc.layout)
    ready = started(1).index(0)
    gl.warp_specialize(
        [(write_and_bring_half, (desc, tile, ready)), (read_when_brought, (tile.slice(START, 64, dim=1), x, ready))],
        [4],
        [24],
    )


@gluon.jit
def load_and_tell(slab, sink, told):
    sink.store(slab.load(slab.get_reg_layout()))
    mbarrier.arrive(told)


@gluon.jit
def clear_when_told(slab, told, WAITS: gl.constexpr):
    mbarrier.wait(told, 0, pred=WAITS)
    slab.store(gl.zeros(slab.shape, gl.float32, slab.get_reg_layout()))


PAGE = gl.constexpr(TensorMemoryLayout([128, 128], col_stride=1))
SINK = gl.constexpr(gl.SwizzledSharedLayout(1, 1, 1, [1, 0]))


@gluon.jit
def columns_in_common(desc, x, RIGHT: gl.constexpr):
    page = allocate_tensor_memory(gl.float32, [128, 128], PAGE)
    sink = gl.allocate_shared_memory(gl.float32, [128, 64], SINK)
    told = started(1).index(0)
    gl.warp_specialize(
        [(load_and_tell, (page.slice(0, 64), sink, told)), (clear_when_told, (page.slice(32, 32), told, RIGHT))],
        [4],
        [24],
    )


@gluon.jit
def slabs_of_pages(desc, x, CLEARED: gl.constexpr):
    pages = allocate_tensor_memory(gl.float32, [2, 256, 128], PAGE)
    sink = gl.allocate_shared_memory(gl.float32, [256, 64], SINK)
    told = started(1).index(0)
    cleared = pages.index(CLEARED[0]).slice(CLEARED[1], 64)
    gl.warp_specialize(
        [(load_and_tell, (pages.index(0).slice(64, 64), sink, told)), (clear_when_told, (cleared, told, False))],
        [4],
        [24],
    )


DEFAULT = "which the default partition may still be"
CASES = {
    "half of what is written": Case(
        read_of_the_second_half, "h100", EARLY, f"partition 0 reads line of .*, {DEFAULT} writing",
        wrong=(256, False), right=(256, True),
    ),
    "the half that is not written": Case(
        read_of_the_second_half, "h100", EARLY, f"partition 0 reads line of .*, {DEFAULT} writing",
        wrong=(256, False), right=(128, False),
    ),
    "half of what is copied": Case(
        copy_of_the_second_half, "a100", EARLY, r"partition 0 writes line of .* \(cp\.async\) of the default partition",
        wrong=(256, False), right=(256, True),
    ),
    "the half that is not copied": Case(
        copy_of_the_second_half, "a100", EARLY, r"partition 0 writes line of .* \(cp\.async\) of the default partition",
        wrong=(256, False), right=(128, False),
    ),
    "the half that a copy brings over a store": Case(
        half_brought_over_a_store, "h100", EARLY, f"partition 0 reads tile of .*, {DEFAULT} writing", wrong=0, right=64
    ),
    "columns of tensor memory": Case(
        columns_in_common, "b200", EARLY, f"partition 0 writes page of .*, {DEFAULT} reading"
    ),
    "columns of another page of tensor memory": Case(
        slabs_of_pages, "b200", EARLY, f"partition 0 writes pages of .*, {DEFAULT} reading", wrong=(0, 64), right=(1, 0)
    ),
    "other columns of a page of tensor memory": Case(
        slabs_of_pages, "b200", EARLY, f"partition 0 writes pages of .*, {DEFAULT} reading", wrong=(0, 64), right=(0, 0)
    ),
}  # fmt: skip


@each(CASES)
def test_views_are_one_memory_where_they_have_items_in_common(what: str) -> None:
    judge(CASES[what])
