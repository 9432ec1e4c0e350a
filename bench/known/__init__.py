"""The best kernels known: a seed and the moves that lead from it to the kernel, by problem and target."""

SUITE = "quick"

Paths = dict[tuple[str, str], tuple[str, ...]]

TRITON: Paths = {
    ("mha", "h100"): (
        "mha/plain", "specialise", "side(4 heads)", "reorder(row_sum)", "reorder(rescale)", "reorder(scores)",
    ),
    ("gqa", "h100"): ("gqa/plain", "specialise", "reverse", "swap", "reorder(row_sum)", "reorder(rescale)"),
    ("mha", "b200"): ("mha/plain", "specialise", "side(4 heads)"),
    ("gqa", "b200"): ("gqa/plain", "specialise", "side(8 heads)"),
    ("fsa", "h100"): ("fsa/kv_outer", "far(with partial outputs)", "early(0 -> 5)", "early(5 -> 6)"),
    ("fsa", "b200"): (
        "fsa/kv_outer", "far(with partial outputs)", "early(0 -> 5)", "rows(ROWS 64 -> 128)", "swap",
        "share(SHARE 512 -> 2048)", "share(SHARE 2048 -> 4096)", "registers(255)",
    ),
}  # fmt: skip
"""In plain Triton. Each move has words of its variant's label, or none for the first variant."""
GLUON: Paths = {
    ("mha", "h100"): ("mha/hopper", "gluon-groups(3, block_n)", "gluon-ring(2 -> 4)", "gluon-order(8 heads)"),
    ("gqa", "h100"): ("mha/hopper", "gluon-groups(3, block_n)", "gluon-ring(2 -> 4)", "gluon-order(swap)"),
    ("mha", "b200"): ("mha/blackwell", "gluon-packed", "gluon-order(swap)"),
    ("gqa", "b200"): ("mha/blackwell", "gluon-packed", "gluon-registers(184)", "gluon-order(8 heads)"),
}
"""Of any kind, where that is another."""
