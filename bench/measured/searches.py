"""A search whose winner was published, without times: which configuration of a space is fastest."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

from avo.evaluator.offline import Launch
from bench.measured.capture import empty, recorded
from bench.measured.kernels import matmul
from bench.measured.points import Problem, Source, sources, table

_SHARE = 16
"""One configuration of this many is predicted, chosen by hash, besides the published winner."""
_SCALED = 128
"""Rows and columns of a weight that share a scale."""
Configuration = tuple[int, int, int, int, int, int]
"""block_m, block_n, block_k, group_m, stages, warps."""
SPACE: tuple[Configuration, ...] = tuple(
    product((16, 32, 64, 128, 256), (32, 64, 128, 256), (64, 128), (1, 16, 32, 64), (2, 3, 4, 5), (4, 8))
)
"""The space that vLLM's benchmark_w8a8_block_fp8.py searches."""


@dataclass(frozen=True)
class Search:
    """One problem: its configurations as recorded launches, and which of them was found to be fastest."""

    source: Source
    problem: Problem
    best: Configuration
    launches: dict[Configuration, Launch]
    least_bytes: int


def chosen(best: Configuration, least_rows: int = 0) -> list[Configuration]:
    """Return the configurations to predict for a problem whose winner is ``best``, of tiles with ``least_rows``."""
    some = {each for each in SPACE if hashlib.sha256(str(each).encode()).digest()[0] % _SHARE == 0}
    return sorted({best} | {each for each in some if each[0] >= least_rows})


def searches() -> Iterator[Search]:
    """Yield the searches of the block-scaled fp8 matrix product.

    Tiles with fewer rows than any winner for the same weight are left out: a search that chose 64 rows for products of
    2 did not have them, or had a compiler that did badly by them.
    """
    rows = table("block_fp8")
    for row in rows:
        m, n, k = (int(row[name]) for name in "MNK")
        least_rows = min(int(other["block_m"]) for other in rows if (other["N"], other["K"]) == (row["N"], row["K"]))
        names = ("block_m", "block_n", "block_k", "group_m", "stages", "warps")
        block_m, block_n, block_k, group, stages, warps = (int(row[name]) for name in names)
        best = (block_m, block_n, block_k, group, stages, warps)
        source = sources()[row["source"]]
        launches = {each: _launch(m, n, k, each, source) for each in chosen(best, least_rows)}
        yield Search(source, (row["source"], m, n, k), best, launches, m * k + n * k + 2 * m * n)


def _launch(m: int, n: int, k: int, configuration: Configuration, source: Source) -> Launch:
    block_m, block_n, block_k, group, stages, warps = configuration
    groups = -(-k // _SCALED)
    with recorded(source.card) as launches:
        a, b, c = empty((m, k), "float8_e4m3fn"), empty((n, k), "float8_e4m3fn"), empty((m, n), "float16")
        a_scales, b_scales = empty((m, groups), "float32"), empty((-(-n // _SCALED), groups), "float32")
        matmul.block_scaled[(-(-m // block_m) * -(-n // block_n),)](
            a, b, c, a_scales, b_scales, m, n, k, _SCALED, _SCALED, k, 1, 1, k, n, 1, groups, 1, 1, groups,
            block_m, block_n, block_k, group, num_stages=stages, num_warps=warps,
        )  # fmt: skip
    (launch,) = launches
    return launch
