"""Predicted times of selected attention in both orders of its loops, at the shapes of the suite ``paper`` and at those
of Flash Sparse Attention's public benchmark, which has 32 KV heads.

    python -m bench.orders [--write]

The order of Native Sparse Attention (NSA) is predicted twice: as the seed ``query_outer``, and in the form of the
published kernel that Flash Sparse Attention was compared with (XunhaoLai/native-sparse-attention-triton). Its loop ends
with the last block that was selected instead of branching, loads masked keys too, and is pipelined in three stages, by
eight warps for blocks of 128 keys on Hopper. No kernel is executed but those that list indices.
"""

import math
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

import torch

from avo.evaluator.modules import imported
from avo.evaluator.offline import offline
from avo.evaluator.performance import predict_time
from avo.evaluator.problems.dense import softmax_scale
from avo.evaluator.problems.fsa import FSA
from avo.evaluator.problems.inputs import seeded
from avo.evaluator.problems.selection import SelectedCase, make_block_indices
from avo.evaluator.target import Target
from avo.evaluator.targets import get_target
from avo.seeds import seed_source
from bench.tables import main, row

TARGET = "h200"
BRANCH = """    for slot in range(blocks):
        block = tl.load(indices + slot)
        if block >= 0:
"""
"""The seed's loop, up to what it does with a block."""
LOOP = """    chosen = tl.load(indices + tl.arange(0, 16), mask=tl.arange(0, 16) < blocks, other=-1)
    for slot in range(tl.sum((chosen >= 0).to(tl.int32))):
        block = tl.load(indices + slot)
        if True:
"""
"""The same for at most 16 blocks as published."""


@dataclass(frozen=True, slots=True)
class Predicted:
    """Predicted milliseconds of one case."""

    case: SelectedCase
    published_form: float
    query_outer: float
    kv_outer: float


def predicted(target: Target) -> Iterator[Predicted]:
    """Yield the times of each case of the suite, and of other shapes with blocks of 64 keys."""
    suite = FSA.suites["paper"]
    others = (
        replace(suite[0], name=f"{length}", q_len=length, kv_len=length, heads=32, kv_heads=kv_heads)
        for length, kv_heads in ((8192, 4), (8192, 32), (65536, 32))
    )
    with tempfile.TemporaryDirectory() as folder:
        for case in (*sorted(suite, key=lambda case: (case.block_size, case.heads)), *others):
            forms = (published_form(case.block_size), seed_source("fsa", "query_outer"), seed_source("fsa", "kv_outer"))
            yield Predicted(case, *(milliseconds(module_of(source, Path(folder)), case, target) for source in forms))


def published_form(block_size: int) -> str:
    """Return the seed ``query_outer``, written as the published kernel is."""
    source = seed_source("fsa", "query_outer")
    for old, new in (
        (BRANCH, LOOP),
        ("mask=visible[None, :] & in_d[:, None]", "mask=(keys < length)[None, :] & in_d[:, None]"),
        ("mask=visible[:, None] & in_d[None, :]", "mask=(keys < length)[:, None] & in_d[None, :]"),
        ("* scale, float", "* (scale * 1.44269504), float"),
        ("tl.exp(", "tl.exp2("),
        ("row_max + tl.log(row_sum)", "(row_max + tl.log2(row_sum)) * 0.6931472"),
        ("num_warps=4", f"num_warps={8 if block_size > 64 else 4}"),
        ("num_stages=1", "num_stages=3"),
    ):
        assert old in source, old
        source = source.replace(old, new)
    return source


def milliseconds(module: ModuleType, case: SelectedCase, target: Target) -> float:
    """Return the predicted time of a seed's function on ``case``."""
    shapes = [(case.batch, heads, case.q_len, case.head_dim) for heads in (case.heads, case.kv_heads, case.kv_heads)]
    chosen = make_block_indices(case, seeded("block_indices", 0))
    with offline(target=target.name, execute=False) as session:
        q, k, v = (torch.empty(shape, dtype=torch.bfloat16, device="cuda") for shape in shapes)
        out, lse = torch.empty_like(q), torch.empty(shapes[0][:3], device="cuda")
        call: Callable[..., None] = module.selected_attention
        call(q, k, v, chosen, out, lse, block_size=case.block_size, scale=softmax_scale(case))
    works = [launch.work for launch in session.launches]
    return predict_time(works, target, least_bytes=FSA.least_bytes(case)).us / 1e3


def module_of(source: str, folder: Path) -> ModuleType:
    """Return a source as a module; Triton reads the text of its kernels from a file."""
    path = folder / f"candidate_{abs(hash(source))}.py"
    path.write_text(source)
    return imported(path)


def orders() -> Iterator[str]:
    """Yield the table, and under it the mean ratios over the suite."""
    yield row(
        "keys a block", "group", "KV heads", "tokens", "NSA as published", "`query_outer`", "`kv_outer`", "ratios"
    )
    yield "|--:|--:|--:|--:|--:|--:|--:|--:|"
    ratios: list[tuple[float, float]] = []
    for found in predicted(get_target(TARGET)):
        case, both = found.case, (found.published_form / found.kv_outer, found.query_outer / found.kv_outer)
        if case in FSA.suites["paper"]:
            ratios.append(both)
        times = (f"{ms:.2f} ms" for ms in (found.published_form, found.query_outer, found.kv_outer))
        group = case.heads // case.kv_heads
        yield row(case.block_size, group, case.kv_heads, case.q_len, *times, " and ".join(f"{x:.1f}" for x in both))
    means = (math.exp(sum(map(math.log, column)) / len(column)) for column in zip(*ratios, strict=True))
    yield row("suite `paper`", "", "", "", "", "", "", " and ".join(f"{x:.1f}" for x in means))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main("bench.orders", __doc__, {"orders": orders}, Path("docs", "problems.md"))
