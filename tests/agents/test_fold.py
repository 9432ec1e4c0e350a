"""What is known to be true folds away, and nothing else does."""

import libcst as cst
import pytest

from avo.agents.moves import tree
from avo.agents.moves.fold import assume_true


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("x = tl.load(p, mask=n < k, other=0.0)\n", "x = tl.load(p)\n"),
        (
            "x = tl.load(p, mask=(n < k)[:, None] & d[None, :], other=0.0)\n",
            "x = tl.load(p, mask=d[None, :], other=0.0)\n",
        ),
        ("x = tl.load(p, mask=m < k, other=0.0)\n", "x = tl.load(p, mask=m < k, other=0.0)\n"),
        ("v = n < k\nif C:\n    v = v & (n < k)\ns = tl.where(v, s, o)\nt = s\n", "t = s\n"),
        ("v = n < k\nv = v & w\ns = tl.where(v, s, o)\n", "v = w\ns = tl.where(v, s, o)\n"),
        ("v = w\nif C:\n    v = n < k\ns = tl.where(v, s, o)\n", "v = w\nif C:\n    v = True\ns = tl.where(v, s, o)\n"),
        ("mask = n < k\nx.mask = tl.load(p, mask=mask)\n", "x.mask = tl.load(p)\n"),
    ],
)
def test_folding(before: str, after: str) -> None:
    module = cst.parse_module(before)
    known = [node for node in tree.find(module, cst.Comparison) if "n" in tree.names(node)]
    assert assume_true(module, known).code == after
