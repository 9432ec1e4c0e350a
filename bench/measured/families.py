"""The families of measured kernels: what each row of a table launches."""

from collections.abc import Callable, Iterator
from itertools import accumulate

import numpy as np
import torch

from bench.measured.capture import descriptor, empty, record
from bench.measured.kernels import attention, matmul
from bench.measured.liger import call, parse
from bench.measured.points import Row, Source, sources, table
from evaluator.target import TARGETS

_PAGES = 4321
"""Pages of the cache that the paged attention was measured on."""


def mm() -> Iterator[Row]:
    """Inductor's matrix products."""
    for row in table("mm"):
        yield _mm(row, sources()[row["source"]])


def _mm(row: dict[str, str], source: Source) -> Row:
    m, n, k = (int(row[name]) for name in "MNK")
    strides = [int(row[name]) for name in ("stride_am", "stride_ak", "stride_bk", "stride_bn")]
    block_m, block_n, block_k, group = (int(row[name]) for name in ("block_m", "block_n", "block_k", "group_m"))
    a, b, c = (empty((size,), row["dtype"]) for size in (m * k, max(k * strides[2], n * strides[3]), m * n))
    grid = (-(-m // block_m) * -(-n // block_n), 1, 1)

    def launch() -> None:
        matmul.grouped[grid](a, b, c, m, n, k, *strides, block_m, block_n, block_k, group, **_options(row))

    return Row(
        "mm" if m < 1024 else "large mm",
        source,
        (row["source"], m, n, k),
        f"{block_m}x{block_n}x{block_k}, {row['warps']} warps, {row['stages']} stages",
        float(row["measured_us"]),
        record(launch, TARGETS[source.card]),
        (m * k + k * n + m * n) * a.element_size(),
    )


def causal_attention() -> Iterator[Row]:
    """Causal attention of one sequence, each length at its best configuration."""
    for row in table("attention"):
        yield _causal(row, sources()[row["source"]])


def _causal(row: dict[str, str], source: Source) -> Row:
    heads, kv_heads, length, dim = (int(row[name]) for name in ("q_heads", "kv_heads", "length", "head_dim"))
    block_m, block_n, pre_load = int(row["block_m"]), int(row["block_n"]), row["pre_load_v"] == "True"
    q, out = (empty((length, heads, dim), "float16") for _ in range(2))
    k, v = (empty((length, kv_heads, dim), "float16") for _ in range(2))
    lse = empty((1, heads, length), "float32")
    starts, kv_starts = (torch.tensor([0, length], dtype=torch.int32) for _ in range(2))
    strides = (q.stride(1), q.stride(0), k.stride(1), k.stride(0))
    grid = (-(-length // block_m), heads, 1)
    sizes = (heads, kv_heads, length, dim, dim**-0.5)

    def launch() -> None:
        attention.causal_varlen[grid](
            q, k, v, lse, out, starts, kv_starts, *strides, *sizes, block_m, block_n, pre_load, **_options(row)
        )

    return Row(
        "attention",
        source,
        (row["source"], heads, kv_heads, length),
        f"{heads}/{kv_heads} heads, {length}: {block_m}x{block_n}, {row['warps']} warps, {row['stages']} stages",
        float(row["measured_us"]),
        record(launch, TARGETS[source.card]),
        2 * length * dim * (2 * heads + 2 * kv_heads) + 4 * heads * length,
    )


def paged_attention() -> Iterator[Row]:
    """Attention over a paged cache, each mix of sequences at its best configuration."""
    for row in table("paged"):
        yield _paged(row, sources()[row["source"]])


def _paged(row: dict[str, str], source: Source) -> Row:
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

    def launch() -> None:
        attention.paged[grid](
            out, q, k, v, tables, lens, dim**-0.5, heads, group, tables.stride(0), q.stride(0), q.stride(1),
            out.stride(0), out.stride(1), page, dim, *k.stride()[:3], *v.stride()[:3], starts, sequences,
            block_m, block_n, **_options(row),
        )  # fmt: skip

    mix = "/".join(row[name] for name in ("max_q", "max_k", "mean_q", "mean_k"))
    return Row(
        "paged attention",
        source,
        (row["source"], mix),
        f"{mix}: {block_m}x{block_n}, {row['warps']} warps, {row['stages']} stages",
        float(row["measured_us"]),
        record(launch, TARGETS[source.card]),
        2 * dim * (2 * tokens * heads + 2 * sum(kv_lens) * kv_heads),
    )


def tutorials() -> Iterator[Row]:
    """Kernels of Triton's tutorials 09 (matrix products) and 06 (attention)."""
    for row in table("tutorial_mm"):
        yield _tutorial_mm(row, sources()[row["source"]])
    for row in table("tutorial_attention"):
        yield _tutorial_attention(row, sources()[row["source"]])


def _tutorial_mm(row: dict[str, str], source: Source) -> Row:
    m, n, k = (int(row[name]) for name in "MNK")
    a, b, c = (empty(shape, row["dtype"]) for shape in ((m, k), (n, k), (m, n)))
    blocks = tuple(int(row[name]) for name in ("block_m", "block_n", "block_k"))
    block_m, block_n, block_k = blocks
    tiles, sms = -(-m // block_m) * -(-n // block_n), TARGETS[source.card].sms
    strides = (k, 1, 1, k, n, 1)
    shapes = ((block_m, block_k), (block_n, block_k), (block_m, block_n))

    def launch() -> None:
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

    return Row(
        "tutorials",
        source,
        (row["source"], row["kernel"]),
        f"{row['kernel']}, {m}x{n}x{k}",
        float(row["measured_us"]),
        record(launch, TARGETS[source.card]),
        a.nbytes + b.nbytes + c.nbytes,
    )


def _tutorial_attention(row: dict[str, str], source: Source) -> Row:
    batch, heads, length, dim = (int(row[name]) for name in ("batch", "heads", "length", "head_dim"))
    block_m, block_n = int(row["block_m"]), int(row["block_n"])
    tensors = [empty((batch * heads * length, dim), row["dtype"]) for _ in range(4)]
    lse = empty((batch * heads, length), "float32")
    grid = (-(-length // block_m), batch * heads, 1)

    def launch() -> None:
        rows = (block_m, block_n, block_n, block_m)
        made = (descriptor(tensor, [count, dim]) for tensor, count in zip(tensors, rows, strict=True))
        attention.dense[grid](dim**-0.5, lse, heads, *made, length, dim, block_m, block_n, **_options(row))

    return Row(
        "tutorials",
        source,
        (row["source"], length),
        f"attention, {length}",
        float(row["measured_us"]),
        record(launch, TARGETS[source.card]),
        sum(tensor.nbytes for tensor in tensors) + lse.nbytes,
    )


def liger() -> Iterator[Row]:
    """Kernels of the package liger-kernel. Torch's own kernels around them are left out."""
    for row in table("liger"):
        source = sources()[row["source"]]
        launch, least_bytes = call(row["kernel"], row["mode"], parse(row["sizes"]), row["dtype"])
        yield Row(
            "liger",
            source,
            (row["source"], row["kernel"], row["mode"], row["sizes"]),
            f"{row['kernel']} {row['mode']}, {row['sizes']}",
            float(row["measured_us"]),
            record(launch, TARGETS[source.card]),
            least_bytes,
        )


def _options(row: dict[str, str]) -> dict[str, int]:
    return {"num_stages": int(row["stages"]), "num_warps": int(row["warps"])}


FAMILIES: dict[str, Callable[[], Iterator[Row]]] = {
    "mm": mm,
    "attention": causal_attention,
    "paged attention": paged_attention,
    "liger": liger,
    "tutorials": tutorials,
}
