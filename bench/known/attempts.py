"""What a language model made of the plain seed of ``mha`` for h100 in its first seven attempts.

Today's moves make it again, and for the last attempt three edits of the text.
"""

from collections.abc import Iterator

from avo.agents.moves import MOVES
from avo.evaluator.targets import get_target
from avo.seeds import seed_source

TARGET = "h100"
STEPS = (
    ("one loop with roles, tiles of 128x128, descriptors made in the kernel", (("specialise", ""),)),
    (
        "half of the exponentials as a polynomial, eight heads side by side",
        (("polynomial", "half of the exponentials by a polynomial"), ("side", "8 heads side by side along one axis")),
    ),
    (
        "the sum of a row computed later, which is the best order for both cases",
        (("reorder", "row_sum computed later"),),
    ),
)
"""What its first attempts with a gain did, and the moves that do it now, each with the end of its variant's label."""
LAST = "the polynomial on the other column, the longest programs first"
EDITS = (
    ("    first_1, rest_1 = tl.split(", "    rest_1, first_1 = tl.split("),
    ("tl.join(tl.exp2(first_1), rest)", "tl.join(rest, tl.exp2(first_1))"),
    ("    block_m = (program // SIDE % blocks)", "    block_m = blocks - 1 - program // SIDE % blocks"),
)
"""What the last did, as old and new text: no move chooses the column."""


def kernels() -> Iterator[tuple[str, str]]:
    """Yield what each attempt did to the one before, and its source."""
    by_name = {move.name: move for move in MOVES}
    source = seed_source("mha")
    for what, moves in STEPS:
        for name, label in moves:
            made = by_name[name].variants(source, get_target(TARGET))
            source = next(variant.source for variant in made if variant.label.endswith(label))
        yield what, source
    for old, new in EDITS:
        assert old in source, old
        source = source.replace(old, new)
    yield LAST, source
