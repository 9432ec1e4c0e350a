"""The families of measured kernels: what each row of a table launches."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import torch

from avo.evaluator.target import TARGETS
from bench.measured.capture import descriptor, empty, recorded
from bench.measured.kernels import attention, matmul
from bench.measured.liger import call, parse
from bench.measured.points import Problem, Row, Source, sources, table

_PAGES = 4321
"""Pages of the cache that the paged attention was measured on."""


@dataclass(frozen=True)
class Described:
    """What a row of a table is about; see ``Row``. The source is not part of ``problem`` here."""

    family: str
    problem: Problem
    label: str
    least_bytes: int


def _mm(row: dict[str, str], source: Source) -> Described:
    m, n, k = (int(row[name]) for name in "MNK")
    strides = [int(row[name]) for name in ("stride_am", "stride_ak", "stride_bk", "stride_bn")]
    block_m, block_n, block_k, group = (int(row[name]) for name in ("block_m", "block_n", "block_k", "group_m"))
    a, b, c = (empty((size,), row["dtype"]) for size in (m * k, max(k * strides[2], n * strides[3]), m * n))
    grid = (-(-m // block_m) * -(-n // block_n), 1, 1)
    matmul.grouped[grid](a, b, c, m, n, k, *strides, block_m, block_n, block_k, group, **_options(row))
    return Described(
        "mm" if m < 1024 else "large mm",
        (m, n, k),
        f"{block_m}x{block_n}x{block_k}, {row['warps']} warps, {row['stages']} stages",
        (m * k + k * n + m * n) * a.element_size(),
    )


def _causal(row: dict[str, str], source: Source) -> Described:
    heads, kv_heads, length, dim = (int(row[name]) for name in ("q_heads", "kv_heads", "length", "head_dim"))
    block_m, block_n, pre_load = int(row["block_m"]), int(row["block_n"]), row["pre_load_v"] == "True"
    q, out = (empty((length, heads, dim), "float16") for _ in range(2))
    k, v = (empty((length, kv_heads, dim), "float16") for _ in range(2))
    lse = empty((1, heads, length), "float32")
    starts, kv_starts = (torch.tensor([0, length], dtype=torch.int32) for _ in range(2))
    strides = (q.stride(1), q.stride(0), k.stride(1), k.stride(0))
    grid = (-(-length // block_m), heads, 1)
    sizes = (heads, kv_heads, length, dim, dim**-0.5)
    attention.causal_varlen[grid](
        q, k, v, lse, out, starts, kv_starts, *strides, *sizes, block_m, block_n, pre_load, **_options(row)
    )
    return Described(
        "attention",
        (heads, kv_heads, length),
        f"{heads}/{kv_heads} heads, {length}: {block_m}x{block_n}, {row['warps']} warps, {row['stages']} stages",
        2 * length * dim * (2 * heads + 2 * kv_heads) + 4 * heads * length,
    )


def _paged(row: dict[str, str], source: Source) -> Described:
    heads, group, dim, page = (int(row[name]) for name in ("q_heads", "group", "head_dim", "page"))
    q_lens, kv_lens = ([int(text) for text in row[name].split()] for name in ("q_lens", "kv_lens"))
    block_m, block_n, kv_heads = int(row["block_m"]), int(row["block_n"]), heads // group
    tokens, sequences = sum(q_lens), len(q_lens)
    q, out = (empty((tokens, heads, dim), "float16") for _ in range(2))
    k, v = (empty((_PAGES, page, kv_heads, dim), "float16") for _ in range(2))
    shape = (sequences, -(-max(kv_lens) // page))
    tables = torch.from_numpy(np.random.default_rng(0).integers(0, _PAGES, shape, dtype=np.int32))
    lens = torch.tensor(kv_lens, dtype=torch.int32)
    starts = torch.tensor([0, *accumulate(q_lens)], dtype=torch.int32)
    grid = (tokens // (block_m // group) + sequences, kv_heads, 1)
    attention.paged[grid](
        out, q, k, v, tables, lens, dim**-0.5, heads, group, tables.stride(0), q.stride(0), q.stride(1),
        out.stride(0), out.stride(1), page, dim, *k.stride()[:3], *v.stride()[:3], starts, sequences,
        block_m, block_n, **_options(row),
    )  # fmt: skip

    mix = "/".join(row[name] for name in ("max_q", "max_k", "mean_q", "mean_k"))
    return Described(
        "paged attention",
        (mix,),
        f"{mix}: {block_m}x{block_n}, {row['warps']} warps, {row['stages']} stages",
        2 * dim * (2 * tokens * heads + 2 * sum(kv_lens) * kv_heads),
    )


def _tutorial_mm(row: dict[str, str], source: Source) -> Described:
    m, n, k = (int(row[name]) for name in "MNK")
    a, b, c = (empty(shape, row["dtype"]) for shape in ((m, k), (n, k), (m, n)))
    blocks = tuple(int(row[name]) for name in ("block_m", "block_n", "block_k"))
    block_m, block_n, block_k = blocks
    tiles, sms = -(-m // block_m) * -(-n // block_n), TARGETS[source.card].sms
    strides = (k, 1, 1, k, n, 1)
    shapes = ((block_m, block_k), (block_n, block_k), (block_m, block_n))
    group, options = int(row["group_m"]), _options(row)
    if row["kernel"] == "tiled":
        matmul.tiled[(tiles,)](a, b, c, m, n, k, *strides, *blocks, group, **options)
    elif row["kernel"] == "persistent":
        matmul.persistent[(sms,)](a, b, c, m, n, k, *strides, *blocks, group, sms, **options)
    elif row["kernel"] == "persistent_descriptors":
        matmul.persistent_descriptors[(sms,)](a, b, c, m, n, k, *blocks, group, sms, **options)
    else:
        made = (descriptor(t, list(shape)) for t, shape in zip((a, b, c), shapes, strict=True))
        matmul.persistent_tma[(sms,)](*made, m, n, k, *blocks, group, sms, **options)

    return Described("tutorials", (row["kernel"],), f"{row['kernel']}, {m}x{n}x{k}", a.nbytes + b.nbytes + c.nbytes)


def _tutorial_attention(row: dict[str, str], source: Source) -> Described:
    batch, heads, length, dim = (int(row[name]) for name in ("batch", "heads", "length", "head_dim"))
    block_m, block_n = int(row["block_m"]), int(row["block_n"])
    tensors = [empty((batch * heads * length, dim), row["dtype"]) for _ in range(4)]
    lse = empty((batch * heads, length), "float32")
    grid = (-(-length // block_m), batch * heads, 1)
    counts = (block_m, block_n, block_n, block_m)
    made = (descriptor(tensor, [count, dim]) for tensor, count in zip(tensors, counts, strict=True))
    attention.dense[grid](dim**-0.5, lse, heads, *made, length, dim, block_m, block_n, **_options(row))
    return Described(
        "tutorials", (length,), f"attention, {length}", sum(tensor.nbytes for tensor in tensors) + lse.nbytes
    )


def _liger(row: dict[str, str], source: Source) -> Described:
    launch, least_bytes = call(row["kernel"], row["mode"], parse(row["sizes"]), row["dtype"])
    launch()
    names = row["kernel"], row["mode"], row["sizes"]
    return Described("liger", names, f"{row['kernel']} {row['mode']}, {row['sizes']}", least_bytes)


def _options(row: dict[str, str]) -> dict[str, int]:
    return {"num_stages": int(row["stages"]), "num_warps": int(row["warps"])}


FAMILIES: dict[str, tuple[tuple[str, Callable[[dict[str, str], Source], Described]], ...]] = {
    "mm": (("mm", _mm),),
    "attention": (("attention", _causal),),
    "paged attention": (("paged", _paged),),
    "liger": (("liger", _liger),),
    "tutorials": (("tutorial_mm", _tutorial_mm), ("tutorial_attention", _tutorial_attention)),
}
"""The tables of each family, and what launches a row of each.

Matrix products as torch's inductor makes them; causal attention of one sequence, each length at its best configuration;
attention over a paged cache, each mix of sequences at its best configuration; kernels of the package liger-kernel,
without torch's own kernels around them; and those of Triton's tutorials 09 (matrix products) and 06 (attention).
"""


def rows(family: str) -> Iterator[Row]:
    """Yield the rows of a family, with what they launch."""
    for name, launch in FAMILIES[family]:
        for row in table(name):
            source = sources()[row["source"]]
            with recorded(source.card) as launches:
                made = launch(row, source)
            yield Row(
                made.family,
                source,
                (row["source"], *made.problem),
                made.label,
                float(row["measured_us"]),
                tuple(launches),
                made.least_bytes,
            )
