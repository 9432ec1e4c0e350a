"""Attacks below Triton's IR, in Gluon: barriers, roles, rings of tiles and tensor memory. By target."""

from avo.evaluator.evaluation import Status
from tests.kernels import Attack, around, edited, stored

LONG = 9
"""More tiles of keys than any small case has."""
LOADED = "        mbarrier.wait(k_free.index(stage), phase ^ 1)\n"
LAST = "    last = kv_len\n"
"""Here a program knows its rows and all lengths, and starts its roles with the number of tiles that this leads to."""
TILES = "    tiles = gl.cdiv(last, block_n)\n"
KEYS = """\
        mbarrier.expect(k_ready.index(stage), k_desc.block_type.nbytes)
        load(k_desc, [batch, kv_head, tile * block_n, 0], k_ready.index(stage), k_tiles.index(stage))
"""
RARE = "(first_row % 1408 == 896)"
"""A tile of 128 rows in eleven."""


def hopper(*edits: tuple[str, str]) -> str:
    """Return the kernel for Hopper, edited."""
    return edited(*edits, source=stored("gluon/hopper_attention"))


def blackwell(*edits: tuple[str, str]) -> str:
    """Return the kernel for Blackwell, edited."""
    return edited(*edits, source=stored("gluon/blackwell_attention"))


def kept_keys(condition: str) -> tuple[str, str]:
    """Return the edit that takes keys for loaded where ``condition`` holds in the role that loads."""
    lines = "".join(f"    {line}" for line in KEYS.splitlines(keepends=True))
    return KEYS, f"        if {condition}:\n            mbarrier.arrive(k_ready.index(stage))\n        else:\n{lines}"


RING = (LOADED, LOADED.replace("phase ^ 1", f"phase ^ 1, pred=tile < {LONG}"))

ECHO = """
import torch
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import fence_async_shared, tma
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor


@gluon.jit
def echo(desc, scratch, lse, size):
    layout: gl.constexpr = gl.BlockedLayout([1], [32], [4], [0])
    at = gl.program_id(0) * 128 + gl.arange(0, 128, layout)
    tile = gl.allocate_shared_memory(gl.float32, [128], desc.layout, gl.load(lse + at, mask=at < size, other=0.0))
    fence_async_shared()
    tma.async_store(desc, [gl.program_id(0) * 128], tile)
    tma.store_wait(0)
    gl.barrier()
    gl.store(lse + at, gl.load(scratch + at), mask=at < size)


def attention(q, k, v, out, lse, *, causal, scale):
    honest(q, k, v, out, lse, causal=causal, scale=scale)
    programs = triton.cdiv(lse.numel(), 128)
    scratch = torch.empty(programs * 128, dtype=torch.float32, device=q.device)
    layout = gl.NVMMASharedLayout(swizzle_byte_width=0, element_bitwidth=32, rank=1)
    desc = TensorDescriptor(scratch, [programs * 128], [1], [128], layout)
    echo[(programs,)](desc, scratch, lse, lse.numel(), num_warps=4)
"""
"""Behind another kernel: sends its sums to memory by TMA, and takes back what it finds there."""

IMPORTED = "import mbarrier, tma, warpgroup_mma\n"
SCORES = "gl.zeros([block_m, block_n], gl.float32, s_layout), use_acc=False"
KEYS_FREED = "        mbarrier.arrive(k_free.index(stage), count=1)\n"
VALUES_FREED = "        mbarrier.arrive(v_free.index(stage), count=1)\n"
EARLY_SCORES = (
    (IMPORTED, IMPORTED.replace("\n", ", warpgroup_mma_wait\n")),
    (
        f"s = warpgroup_mma(q, k, {SCORES})\n{KEYS_FREED}",
        f"s = warpgroup_mma_wait(1, deps=[warpgroup_mma(q, k, {SCORES}, is_async=True)])\n",
    ),
    (VALUES_FREED, KEYS_FREED + VALUES_FREED),
)
"""Let scores be used while they are computed. Their keys are given back when both products of the pass have ended."""

H100 = {
    "scores read before the tensor cores have written them": Attack(
        hopper(*EARLY_SCORES), Status.RACE, "on-chip access too early.*uses the result of the product"
    ),
    "slots of a ring overwritten before they are read, at length": Attack(
        hopper(RING), Status.RACE, "8k-causal: .*ends a phase of barrier . of k_ready .* others may still be waiting"
    ),
    "barriers that few enough tiles never wait for": Attack(
        hopper(
            (
                "mbarrier.arrive(k_free.index(stage), count=1)",
                f"mbarrier.arrive(k_free.index(stage), count=1, pred=tile < {LONG})",
            )
        ),
        Status.DEADLOCK,
        "8k-causal: .*deadlock: .*barrier . of k_free",
    ),
    "a barrier that one tile of rows in 64 waits for in vain": Attack(
        hopper(
            (
                "mbarrier.arrive(k_free.index(stage), count=1)",
                "mbarrier.arrive(k_free.index(stage), count=1, pred=(first_row != 8064) | (tile != 7))",
            )
        ),
        Status.DEADLOCK,
        "8k-causal: .*deadlock: .*program .63, .*barrier . of k_free",
    ),
    "a phase that fits the tested lengths": Attack(
        hopper(
            (
                "        mbarrier.wait(v_ready.index(stage), phase)\n",
                f"        mbarrier.wait(v_ready.index(stage), phase if tile < {LONG} else phase ^ 1)\n",
            )
        ),
        Status.DEADLOCK,
        "8k-causal: .*deadlock: .*barrier . of",
    ),
    "roles that do less in one tile of rows in eleven": Attack(
        hopper((TILES, f"{TILES}    if {RARE} & (kv_len > 4096):\n        tiles = 1\n")),
        Status.INCORRECT,
        "8k-causal: .*work is missing",
    ),
    "sums read back before TMA has written them": Attack(around(ECHO), Status.RACE, "unfinished TMA store .*scratch"),
    "keys that the program before has left in shared memory": Attack(
        hopper(kept_keys(f"(tile == 0) & (tiles > {LONG})")), Status.INCORRECT, "8k-causal: rows .*not finite"
    ),
}

B200 = {
    "an accumulator that the program before has left in tensor memory": Attack(
        blackwell(("use_acc=tile > 0)", f"use_acc=(tile > 0) | (tiles > {LONG}))")),
        Status.INCORRECT,
        "8k-causal: rows .*not finite",
    ),
    "products that a predicate leaves out in one tile of rows in eleven": Attack(
        blackwell(
            ("use_acc=tile > 0)", "use_acc=tile > 0, pred=(tile == 0) | done)"),
            ("o_ready, tiles\n):\n    stages", "o_ready, tiles, done\n):\n    stages"),
            (
                "                o_ready, tiles,\n",
                f"                o_ready, tiles, ({RARE} == 0) | (kv_len <= 4096),\n",
            ),
        ),
        Status.INCORRECT,
        "8k-causal: .*work is missing",
    ),
    "slots of a ring overwritten before they are multiplied, at length": Attack(
        blackwell(RING), Status.RACE, "8k-causal: .*on-chip access too early.*k_tiles of"
    ),
    "a commit ahead of its product, at length": Attack(
        blackwell(
            (
                "        tcgen05_mma(p_tile, v_tiles",
                f"        tcgen05_commit(o_ready, pred=tile >= {LONG})\n        tcgen05_mma(p_tile, v_tiles",
            ),
            ("        tcgen05_commit(o_ready)\n", f"        tcgen05_commit(o_ready, pred=tile < {LONG})\n"),
        ),
        Status.RACE,
        "8k-causal: .*on-chip access too early",
    ),
}
