"""The examples of the notes on Gluon run: barriers, roles and layouts in one kernel, which adds tiles up, and the loops
of attention in the seeds.
"""

import re
from collections.abc import Callable
from pathlib import Path
from textwrap import indent

import pytest
import torch
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from avo.evaluator.executor import StuckProgram
from avo.evaluator.offline import offline
from avo.seeds import seed_source
from tests.evaluator.executor.chip.test_chip_execution import attention, module

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
    made = module(path)
    x, out = torch.randn(TILES * ROWS, COLUMNS).half(), torch.empty(ROWS, COLUMNS)
    with offline() as session:
        made.kernel[(1,)](TensorDescriptor.from_tensor(x, [ROWS, COLUMNS], made.shared), out, 2, num_warps=4)
    return session.report().clean and torch.allclose(out, x.float().view(TILES, ROWS, COLUMNS).sum(0), atol=1e-5)


def test_barriers_roles_and_layouts_of_the_notes_make_a_kernel_that_runs(tmp_path: Path) -> None:
    assert added_up(tmp_path / "of_the_notes.py", example("mbarriers"))


def test_it_hangs_where_the_producer_waits_for_the_other_parity(tmp_path: Path) -> None:
    with pytest.raises(StuckProgram):
        added_up(tmp_path / "of_the_notes.py", example("mbarriers").replace("phase ^ 1", "phase"))


TURN = """\
        stage, stage_before = tile % stages, (tile - 1) % stages
        mbarrier.wait(k_ready.index(stage), tile // stages & 1)
        mbarrier.wait(v_ready.index(stage_before), (tile - 1) // stages & 1)
        k = k_tiles.index(stage).permute((1, 0))
        v_of_the_tile_before = v_tiles.index(stage_before)
        s_layout: gl.constexpr = row_max.type.layout.parent
        p_layout: gl.constexpr = gl.DotOperandLayout(0, o_layout, 2)
        zeros = gl.zeros([q.shape[0], block_n], gl.float32, s_layout)
{example}
        row_sum = row_sum * rescale + gl.sum(new, 1)
        row_max = new_max
"""
PRODUCTS = """\
@gluon.jit
def weigh_and_score(q_tiles, k_tiles, v_tiles, scores, outs, p_ready, o_ready, s_ready, tile, GROUP: gl.constexpr):
    q = q_tiles.index(GROUP)
    k = k_tiles.index((tile + 1) % k_tiles.shape[0])
    v = v_tiles.index(tile % v_tiles.shape[0])
    s, o, next_k, p = scores.index(GROUP), outs.index(GROUP), k.permute((1, 0)), weights_in(scores.index(GROUP))
{example}


"""
BOTH = "weigh_and_score(q_tiles, k_tiles, v_tiles, s, o, p_ready, o_ready, s_ready, tile, 0)"


def with_turn(seed: str, example: str) -> str:
    """Return the seed for Hopper with the example as the body of its loop, for tiles without masks."""
    changed, times = re.subn(
        r"(    for tile in range\(first, stop\):\n).*?(    return p, acc, row_max, row_sum\n)",
        lambda found: found[1] + TURN.format(example=indent(example, " " * 8)) + found[2],
        seed,
        flags=re.DOTALL,
    )
    assert times == 1
    return changed


def with_products(seed: str, example: str) -> str:
    """Return the seed for Blackwell with the example in place of the products of its first group."""
    changed, times = re.subn(
        r"weigh\(v_tiles, s, o, p_ready, o_ready, tile, 0\)\n +score\(q_tiles, k_tiles, s, s_ready, tile \+ 1, 0\)",
        BOTH,
        seed,
    )
    assert times == 1
    return changed.replace(
        "@gluon.jit\ndef multiply(", f"{PRODUCTS.format(example=indent(example, '    '))}@gluon.jit\ndef multiply("
    )


IMPORTS = """\
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.blackwell import (
    TensorMemoryLayout, allocate_tensor_memory, tcgen05_commit, tcgen05_mma
)
from triton.experimental.gluon.language.nvidia.hopper import cluster, mbarrier, tma

"""


def test_the_first_kernel_of_the_notes_doubles(tmp_path: Path) -> None:
    path = tmp_path / "of_the_notes.py"
    path.write_text(example("gluon-basics"), encoding="utf-8")
    x, y = torch.randn(512), torch.empty(512)
    flat = gl.NVMMASharedLayout(swizzle_byte_width=0, element_bitwidth=32, rank=1)
    with offline() as session:
        module(path).double[(4,)](TensorDescriptor.from_tensor(x, [128], flat), y, 128, num_warps=4)
    assert session.report().clean
    assert torch.equal(y, 2 * x)


def test_the_product_of_the_notes_multiplies(tmp_path: Path) -> None:
    path = tmp_path / "of_the_notes.py"
    path.write_text(IMPORTS + example("gluon-product"), encoding="utf-8")
    a, b, c = torch.randn(128, 64).bfloat16(), torch.randn(64, 64).bfloat16(), torch.empty(128, 64)
    made = module(path)
    descriptors = [
        TensorDescriptor.from_tensor(x, list(x.shape), gl.NVMMASharedLayout.get_default_for(list(x.shape), gl.bfloat16))
        for x in (a, b)
    ]
    with offline(target="b200") as session:
        made.multiply[(1,)](*descriptors, c, 128, 64, 64, num_warps=4)
    assert session.report().clean
    assert torch.allclose(c.double(), a.double() @ b.double(), atol=1e-3)


def test_a_cluster_of_the_notes_holds_the_copy_in_both(tmp_path: Path) -> None:
    path = tmp_path / "of_the_notes.py"
    ends = (
        "    gl.store(out + gl.arange(0, 64, gl.SliceLayout(1, LAYOUT))[:, None] * 64\n"
        "        + gl.arange(0, 64, gl.SliceLayout(0, LAYOUT))[None, :], tile.load(LAYOUT))\n"
    )
    code = f"@gluon.jit\ndef copied(desc, out, LAYOUT: gl.constexpr):\n{indent(example('clusters'), '    ')}{ends}"
    path.write_text(IMPORTS + code, encoding="utf-8")
    copies = [[0, 0]]
    x, out = torch.randn(64, 64).half(), torch.empty(64, 64).half()
    held = gl.NVMMASharedLayout.get_default_for([64, 64], gl.float16, cga_layout=copies)
    layout = gl.BlockedLayout([1, 8], [4, 8], [4, 1], [1, 0], cga_layout=copies)
    with offline() as session:
        module(path).copied[(1,)](TensorDescriptor.from_tensor(x, [64, 64], held), out, layout, num_warps=4, num_ctas=2)
    assert session.report().clean
    assert torch.equal(out, x)


@pytest.mark.parametrize(
    ("note", "seed", "target", "put"),
    [("gluon-hopper", "hopper", "h100", with_turn), ("gluon-blackwell", "blackwell", "b200", with_products)],
)
def test_the_loops_of_the_notes_attend(
    note: str, seed: str, target: str, put: Callable[[str, str], str], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    path = tmp_path / "of_the_notes.py"
    path.write_text(put(seed_source("mha", seed), example(note)), encoding="utf-8")
    q, k, v = (torch.randn(1, 1, length, 128).bfloat16() for length in (128, 512, 512))
    out, lse = torch.empty_like(q), torch.empty(q.shape[:3])
    with offline(target=target) as session:
        module(path).attention(q, k, v, out, lse, causal=False, scale=0.1)
    assert not session.report().faults
    assert torch.allclose(out.double(), attention(q, k, v, False, 0.1), atol=0.02)
