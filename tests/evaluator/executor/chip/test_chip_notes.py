"""The examples of the notes on Gluon run: barriers, roles and layouts, in one kernel, which adds tiles up."""

import importlib.util
import re
from pathlib import Path
from textwrap import indent

import pytest
import torch
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from evaluator.executor import StuckProgram, offline

ORACLE = "torch"

NOTES = Path(__file__).parents[4] / "knowledge_base/notes"
TILES, ROWS, COLUMNS = 5, 128, 64

KERNEL = """\
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import mbarrier, tma

num_warps, N = 4, {columns}
{layouts}
IN_REGISTERS = gl.constexpr(rows)


@gluon.jit
def load(k_desc, v_desc, k_tiles, v_tiles, ready, free):
    STAGES: gl.constexpr = k_tiles.shape[0]
    BLOCK_N: gl.constexpr = k_tiles.shape[1]
    desc, tiles_in_shared, tiles = k_desc, k_tiles, {tiles}
{barriers}


@gluon.jit
def attend(q_tile, k_tiles, v_tiles, ready, free, out):
    total = gl.zeros([k_tiles.shape[1], k_tiles.shape[2]], gl.float32, IN_REGISTERS)
    for tile in range({tiles}):
        stage = tile % k_tiles.shape[0]
        mbarrier.wait(ready.index(stage), tile // k_tiles.shape[0] & 1)
        total += k_tiles.index(stage).load(IN_REGISTERS).to(gl.float32)
        mbarrier.arrive(free.index(stage), count=1)
    row = gl.arange(0, k_tiles.shape[1], gl.SliceLayout(1, IN_REGISTERS))
    column = gl.arange(0, k_tiles.shape[2], gl.SliceLayout(0, IN_REGISTERS))
    gl.store(out + row[:, None] * k_tiles.shape[2] + column[None, :], total)


@gluon.jit
def kernel(k_desc, out, STAGES: gl.constexpr):
    k_tiles = gl.allocate_shared_memory(gl.float16, [STAGES, {rows}, {columns}], k_desc.layout)
    ready = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    free = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    for stage in gl.static_range(STAGES):
        mbarrier.init(ready.index(stage), count=1)
        mbarrier.init(free.index(stage), count=1)
    q_tile, v_tiles, v_desc = k_tiles, k_tiles, k_desc
{roles}
"""


def example(note: str) -> str:
    (code,) = re.findall(r"```python\n(.*?)```", (NOTES / f"{note}.md").read_text(encoding="utf-8"), re.S)
    return str(code)


def added_up(path: Path, barriers: str) -> bool:
    """Whether the kernel that the notes' examples make adds up what it is given, and nothing is found."""
    codes = {"barriers": indent(barriers, "    "), "roles": indent(example("gluon-roles"), "    ")}
    source = KERNEL.format(layouts=example("gluon-layouts"), **codes, tiles=TILES, rows=ROWS, columns=COLUMNS)
    path.write_text(source, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    x, out = torch.randn(TILES * ROWS, COLUMNS).half(), torch.empty(ROWS, COLUMNS)
    with offline() as session:
        module.kernel[(1,)](TensorDescriptor.from_tensor(x, [ROWS, COLUMNS], module.shared), out, 2, num_warps=4)
    return session.report().clean and torch.allclose(out, x.float().view(TILES, ROWS, COLUMNS).sum(0), atol=1e-5)


def test_barriers_roles_and_layouts_of_the_notes_make_a_kernel_that_runs(tmp_path: Path) -> None:
    assert added_up(tmp_path / "of_the_notes.py", example("mbarriers"))


def test_it_hangs_where_the_producer_waits_for_the_other_parity(tmp_path: Path) -> None:
    with pytest.raises(StuckProgram):
        added_up(tmp_path / "of_the_notes.py", example("mbarriers").replace("phase ^ 1", "phase"))
