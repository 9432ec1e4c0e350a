"""Where the executor judges otherwise than Triton's own sanitiser, ConSan, what it does instead."""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import fence_async_shared, tma

from tests.evaluator.executor.chip.sanitised import (
    COPIES,
    LAYOUT,
    REFUSED,
    Case,
    each,
    found,
    idle,
    read,
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
def number_of_the_cta(desc, x, FORM: gl.constexpr):
    number = gl.inline_asm_elementwise("mov.u32 $0, %cluster_ctarank;", "=r", [], gl.int32, is_pure=True, pack=1)
    gl.store(x, number.to(gl.float16))


REFUSALS = {
    "the number of a CTA": (number_of_the_cta, "cluster_ctarank"),
}


@each(REFUSALS)
def test_what_is_not_followed_is_refused(what: str) -> None:
    kernel, message = REFUSALS[what]
    ((kind, text),) = found(Case(kernel, "h100", "", "", divided=COPIES), "")
    assert kind == REFUSED
    assert message in text
