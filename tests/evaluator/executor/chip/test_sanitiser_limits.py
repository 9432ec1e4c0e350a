"""Where the executor judges otherwise than Triton's own sanitiser, ConSan, what it does instead."""

import re

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import fence_async_shared, mbarrier, tma

from tests.evaluator.executor.chip.sanitised import (
    BOTH_FLAT,
    BOTH_ROW,
    COPIES,
    LAYOUT,
    REFUSED,
    Case,
    each,
    found,
    idle,
    rank,
    read,
    started,
)

ORACLE = "the expected messages and locations"


@gluon.jit
def sent_after_another_read_it(desc, x, FORM: gl.constexpr):
    tile = gl.allocate_shared_memory(gl.float16, [64, 64], desc.layout, gl.full([64, 64], 1.0, gl.float16, LAYOUT))
    fence_async_shared()
    gl.warp_specialize([(idle, ()), (read, (tile, x))], [4], [24])
    tma.async_store(desc, [0, 0], tile)
    tma.store_wait(0)


NOT_FOUND = {"no fence after another partition has read": (sent_after_another_read_it, "h100")}


@each(NOT_FOUND)
def test_fences_after_reads_are_not_looked_for(what: str) -> None:
    kernel, target = NOT_FOUND[what]
    assert found(Case(kernel, target, "", ""), "") == []


@gluon.jit
def met_by_one_alone(desc, x, FORM: gl.constexpr):
    bars = started(1)
    if rank() == 0:
        mbarrier.arrive(bars.index(0))


@gluon.jit
def asked_in_a_loop(desc, x, FORM: gl.constexpr):
    for i in range(2):
        gl.store(x + rank() + i, 1.0)


@gluon.jit
def copied_by_one_alone(desc, x, FORM: gl.constexpr):
    line = gl.allocate_shared_memory(gl.float16, [128], BOTH_FLAT)
    if rank() == 0:
        line.store(gl.full([128], 1.0, gl.float16, BOTH_ROW))


REFUSALS = {
    "a barrier of one CTA alone": (met_by_one_alone, "ttng.arrive_barrier by some CTAs of a cluster only"),
    "the number of a CTA in a loop": (asked_in_a_loop, "of what depends on the number of a CTA"),
    "a store of one CTA alone to its copy": (copied_by_one_alone, "ttg.local_store by some CTAs .* to their copies"),
}


@each(REFUSALS)
def test_what_is_not_followed_is_refused(what: str) -> None:
    kernel, message = REFUSALS[what]
    ((kind, text),) = found(Case(kernel, "h100", "", "", divided=COPIES), "")
    assert kind == REFUSED
    assert re.search(message, text)
