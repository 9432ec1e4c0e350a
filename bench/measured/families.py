"""The families of measured kernels: what each row of a table launches."""

from collections.abc import Callable, Iterator

from bench.measured.capture import empty, record
from bench.measured.kernels import matmul
from bench.measured.points import Row, Source, sources, table
from evaluator.target import TARGETS


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
    options = {"num_stages": int(row["stages"]), "num_warps": int(row["warps"])}

    def launch() -> None:
        matmul.grouped[grid](a, b, c, m, n, k, *strides, block_m, block_n, block_k, group, **options)

    return Row(
        "mm" if m < 1024 else "large mm",
        source,
        (row["source"], m, n, k),
        f"{block_m}x{block_n}x{block_k}, {row['warps']} warps, {row['stages']} stages",
        float(row["measured_us"]),
        record(launch, TARGETS[source.card]),
        (m * k + k * n + m * n) * a.element_size(),
    )


FAMILIES: dict[str, Callable[[], Iterator[Row]]] = {"mm": mm}
