"""The best kernels known: a seed and the moves that lead from it to the kernel, by problem and target."""

from functools import cache

from avo.agents.moves import MOVES
from avo.evaluator.target import Target
from avo.seeds import seed_source

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

_MOVES = {move.name: move for move in MOVES}


class Unmakeable(Exception):
    """A kernel that cannot be made or predicted; the message says why."""


def moved(source: str, step: str, target: Target) -> str:
    """Return what a step such as ``side(4 heads)`` makes of a source; raise ``Unmakeable``."""
    name, _, words = step.removesuffix(")").partition("(")
    if name not in _MOVES:
        raise Unmakeable(f"{step}: there is no move {name!r}")
    variants = _MOVES[name].variants(source, target)
    chosen = next((variant.source for variant in variants if words in variant.label), None)
    if chosen is None:
        labels = "; ".join(variant.label for variant in variants) or "none"
        raise Unmakeable(f"{step} does not apply to the kernel: its variants are {labels}")
    return chosen


@cache
def source_of(path: tuple[str, ...], target: Target) -> str:
    """Return the kernel at the end of a path."""
    seed, *steps = path
    source = seed_source(*seed.split("/"))
    for step in steps:
        source = moved(source, step, target)
    return source
