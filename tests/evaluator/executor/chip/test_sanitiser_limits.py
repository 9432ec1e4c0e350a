"""Where the executor judges otherwise than Triton's own sanitiser, ConSan, what it does instead."""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.ampere import async_copy
from triton.experimental.gluon.language.nvidia.hopper import fence_async_shared, tma

from tests.evaluator.executor.chip.sanitised import (
    COPIES,
    FLAT,
    LAYOUT,
    REFUSED,
    ROW,
    Case,
    each,
    found,
    idle,
    read,
    started,
)

ORACLE = "the expected messages and locations"


@gluon.jit
def line_over_a_barrier(desc, x, FORM: gl.constexpr):
    started(1)
    line = gl.allocate_shared_memory(gl.float16, [128], FLAT, gl.full([128], 1.0, gl.float16, ROW))
    gl.store(x + gl.arange(0, 128, ROW), line.load(ROW))


@gluon.jit
def barrier_over_a_copy(desc, x, FORM: gl.constexpr):
    line = gl.allocate_shared_memory(gl.float16, [128], FLAT)
    async_copy.async_load(line, x + gl.arange(0, 128, ROW))
    async_copy.commit_group()
    started(1)
    async_copy.wait_group(0)


@gluon.jit
def registers_over_what_is_sent(desc, x, FORM: gl.constexpr):
    other: gl.constexpr = gl.BlockedLayout([4, 1], [4, 8], [1, 4], [0, 1])
    value = gl.full([64, 64], 1.0, gl.float16, LAYOUT)
    tile = gl.allocate_shared_memory(gl.float16, [64, 64], desc.layout, value)
    fence_async_shared()
    tma.async_store(desc, [0, 0], tile)
    rows, columns = gl.arange(0, 64, gl.SliceLayout(1, other)), gl.arange(0, 64, gl.SliceLayout(0, other))
    gl.store(x + rows[:, None] * 64 + columns[None, :], gl.convert_layout(value, other))
    tma.store_wait(0)


@gluon.jit
def sent_after_another_read_it(desc, x, FORM: gl.constexpr):
    tile = gl.allocate_shared_memory(gl.float16, [64, 64], desc.layout, gl.full([64, 64], 1.0, gl.float16, LAYOUT))
    fence_async_shared()
    gl.warp_specialize([(idle, ()), (read, (tile, x))], [4], [24])
    tma.async_store(desc, [0, 0], tile)
    tma.store_wait(0)


NOT_FOUND = {
    "a line where a live barrier may lie": (line_over_a_barrier, "h100"),
    "a barrier where a copy may be writing": (barrier_over_a_copy, "h100"),
    "scratch memory where TMA may be reading": (registers_over_what_is_sent, "h100"),
    "no fence after another partition has read": (sent_after_another_read_it, "h100"),
}


@each(NOT_FOUND)
def test_what_allocations_have_in_common_and_fences_after_reads_are_not_looked_for(what: str) -> None:
    kernel, target = NOT_FOUND[what]
    assert found(Case(kernel, target, "", ""), "") == []


@gluon.jit
def number_of_the_cta(desc, x, FORM: gl.constexpr):
    number = gl.inline_asm_elementwise("mov.u32 $0, %cluster_ctarank;", "=r", [], gl.int32, is_pure=True, pack=1)
    gl.store(x, number.to(gl.float16))


@gluon.jit
def gathered_from_a_peer(desc, x, FORM: gl.constexpr):
    registers: gl.constexpr = gl.BlockedLayout([1], [32], [4], [0], cga_layout=[[1]])
    line = gl.allocate_shared_memory(gl.float16, [256], gl.SwizzledSharedLayout(1, 1, 1, [0], cga_layout=[[1]]))
    i = gl.arange(0, 256, registers)
    gl.store(x + i, line.gather(i ^ 128, axis=0))


REFUSALS = {
    "the number of a CTA": (number_of_the_cta, "cluster_ctarank"),
    "a gather of what a peer holds": (gathered_from_a_peer, "ttg.local_gather of what other CTAs hold"),
}


@each(REFUSALS)
def test_what_is_not_followed_is_refused(what: str) -> None:
    kernel, message = REFUSALS[what]
    ((kind, text),) = found(Case(kernel, "h100", "", "", divided=COPIES), "")
    assert kind == REFUSED
    assert message in text
