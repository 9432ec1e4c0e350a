"""The best kernels known of any kind: what moves make of the seeds in Gluon."""

from bench.claims import made

PATHS = {
    ("mha", "h100"): ("mha/hopper", "gluon-groups(3, block_n)", "gluon-ring(2 -> 4)", "gluon-order(8 heads)"),
    ("gqa", "h100"): ("mha/hopper", "gluon-groups(3, block_n)", "gluon-ring(2 -> 4)", "gluon-order(swap)"),
    ("mha", "b200"): ("mha/blackwell", "gluon-packed", "gluon-order(swap)"),
    ("gqa", "b200"): ("mha/blackwell", "gluon-packed", "gluon-registers(184)", "gluon-order(8 heads)"),
}
"""A seed and moves by problem and target, each move with words of its variant's label."""


def sources() -> dict[tuple[str, str], str]:
    """Return the best sources known by problem and target."""
    return {(problem, target): made(steps, target) for (problem, target), steps in PATHS.items()}
