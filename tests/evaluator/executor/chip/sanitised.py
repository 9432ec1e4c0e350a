"""What tests of the sanitiser share: how a kernel is judged in its faulty and its right form, and pieces of kernels.

Kernels take a TMA descriptor of one tile, a tensor of float16 [4096], and which form they are to have.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import mbarrier, tma
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from avo.evaluator.executor import StuckProgram, UnsupportedOperation
from avo.evaluator.offline import offline

EARLY = "on-chip access too early"
MISUSED = "barrier misused"
UNFENCED = "missing fence"
DEADLOCK = "deadlock"
REFUSED = "refused"

LAYOUT = gl.constexpr(gl.BlockedLayout([1, 4], [8, 4], [4, 1], [1, 0]))
"""Registers of a tile [64, 64]."""
FLAT = gl.constexpr(gl.SwizzledSharedLayout(1, 1, 1, [0]))
"""Shared memory of a line [128]."""
ROW = gl.constexpr(gl.BlockedLayout([1], [32], [4], [0]))
"""Registers of a line."""
BOTH_FLAT = gl.constexpr(gl.SwizzledSharedLayout(1, 1, 1, [0], cga_layout=[[0]]))
"""Shared memory of a line of which each of two CTAs has a copy."""
BOTH_ROW = gl.constexpr(gl.BlockedLayout([1], [32], [4], [0], cga_layout=[[0]]))
"""Registers of a line, for two CTAs that have a copy each."""
BOTH = gl.constexpr(gl.BlockedLayout([1, 4], [8, 4], [4, 1], [1, 0], cga_layout=[[0, 0]]))
"""Registers of a tile, for two CTAs that have a copy each."""
COPIES = ((0, 0),)
"""The CGA layout of a tile of which each of two CTAs has a copy."""


@dataclass(frozen=True)
class Case:
    """A kernel, and what is found in its faulty form."""

    kernel: Any
    target: str
    kind: str
    message: str
    """A regular expression."""
    wrong: object = False
    """What the faulty form is called."""
    right: object = True
    """What its clean twin is called."""
    divided: tuple[tuple[int, int], ...] = ()
    """How the tile lies in the two CTAs of a cluster, as a CGA layout; empty: one CTA."""
    also: tuple[str, ...] = ()
    """Other kinds of findings in the faulty form."""


def found(case: Case, form: object) -> list[tuple[str, str]]:
    """Return kind and message of all that is found in one form of a kernel."""
    layout = gl.NVMMASharedLayout(128, 16, rank=2, cga_layout=case.divided)
    desc = TensorDescriptor.from_tensor(torch.zeros(64, 64, dtype=torch.float16), [64, 64], layout)
    x = torch.zeros(4096, dtype=torch.float16)
    with offline(target=case.target) as session:
        try:
            case.kernel[(1,)](desc, x, form, num_warps=4, num_ctas=2 if case.divided else 1)
        except StuckProgram as stuck:
            return [(DEADLOCK, str(stuck))]
        except UnsupportedOperation as refused:
            return [(REFUSED, str(refused))]
    return [(fault.kind, fault.message) for fault in session.report().faults]


def judge(case: Case) -> None:
    """Fail unless the faulty form has the finding, and none of other kinds, and its clean twin none at all."""
    faults = found(case, case.wrong)
    assert {kind for kind, _ in faults} == {case.kind, *case.also}, faults
    assert any(re.search(case.message, message) for _, message in faults), faults
    assert found(case, case.right) == []


def each(cases: Iterable[str]) -> pytest.MarkDecorator:
    """Run a test once for each name of a case."""
    return pytest.mark.parametrize("what", cases)


@gluon.jit
def started(NUMBER: gl.constexpr, COUNT: gl.constexpr = 1):
    """Some barriers that wait for arrivals."""
    bars = mbarrier.allocate_mbarrier(batch=NUMBER)
    for i in gl.static_range(NUMBER):
        mbarrier.init(bars.index(i), count=COUNT)
    return bars


@gluon.jit
def bring(desc, tile, ready):
    """Let TMA fill a tile."""
    mbarrier.expect(ready, desc.nbytes_per_cta)
    tma.async_load(desc, [0, 0], ready, tile)


@gluon.jit
def fill(tile):
    """Write to a tile."""
    tile.store(gl.full([64, 64], 1.0, gl.float16, LAYOUT))


@gluon.jit
def read(tile, x):
    """Read a tile, which is stored so that no compiler leaves the load out."""
    rows, columns = gl.arange(0, 64, gl.SliceLayout(1, LAYOUT)), gl.arange(0, 64, gl.SliceLayout(0, LAYOUT))
    gl.store(x + rows[:, None] * 64 + columns[None, :], tile.load(LAYOUT))


@gluon.jit
def lines(NUMBER: gl.constexpr):
    """Some lines of shared memory."""
    return gl.allocate_shared_memory(gl.float16, [NUMBER, 128], FLAT)


@gluon.jit
def put(line):
    """Write to a line, with any number of warps."""
    line.store(gl.full([128], 1.0, gl.float16, gl.BlockedLayout([1], [32], [gl.num_warps()], [0])))


@gluon.jit
def take(line, x):
    """Read a line, with any number of warps."""
    layout: gl.constexpr = gl.BlockedLayout([1], [32], [gl.num_warps()], [0])
    gl.store(x + gl.arange(0, 128, layout), line.load(layout))


@gluon.jit
def idle():
    """What a partition does that does nothing."""


@gluon.jit
def rank():
    """The number of the CTA in its cluster."""
    return gl.inline_asm_elementwise("mov.u32 $0, %cluster_ctarank;", "=r", [], gl.int32, is_pure=True, pack=1)
