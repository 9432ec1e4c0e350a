"""A program that checks attention candidates on the offline executor, which finds races and stray accesses too.

It reads one JSON pair, a key of ``CHECKS`` and a source, per line and answers with a string: empty when all cases are
right, else what is wrong.
"""

import importlib.util
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from avo.evaluator.catalogue import get_problem
from avo.evaluator.offline import offline
from avo.evaluator.problems.dense import views
from avo.evaluator.problems.selection import SelectedCase
from tests import forward

# batch, heads, KV heads, queries, keys, head dim, causal, layout
CASES = (
    (1, 2, 1, 100, 100, 32, True, "contiguous"),
    (1, 4, 2, 70, 130, 16, False, "bshd"),
    (2, 2, 2, 33, 161, 24, True, "bshd"),
    (1, 1, 1, 65, 300, 24, True, "odd rows"),
    (1, 2, 1, 1, 1, 16, True, "contiguous"),
    # With tiles of 64: a block's last row sees one key of its last tile, its first row all but one of a tile.
    (1, 4, 2, 128, 129, 16, True, "contiguous"),
    (1, 4, 2, 128, 190, 16, True, "contiguous"),
    (1, 1, 1, 3, 64, 16, False, "contiguous"),
    # Maxima that rise by more than 8 from tile to tile.
    (1, 2, 1, 40, 300, 16, False, "rising"),
)

SELECTIONS = (
    SelectedCase(
        "group 2",
        1,
        2,
        1,
        21,
        21,
        16,
        True,
        "float16",
        "rising",
        layout="bshd",
        block_size=16,
        blocks=2,
        selection="random",
    ),
    SelectedCase("group 1", 2, 1, 1, 9, 9, 24, True, "float16", block_size=32, blocks=2, selection="uneven", scale=0.4),
)
"""Cases of the problem ``fsa``: fewer blocks than slots, and a last block that is not full."""

PROMISED = (
    SelectedCase(
        "far blocks", 1, 4, 2, 275, 275, 128, True, "float16", "rising", block_size=16, blocks=5, selection="random"
    ),
    SelectedCase(
        "group 3",
        2,
        3,
        1,
        150,
        150,
        128,
        True,
        "float16",
        layout="bshd",
        block_size=16,
        blocks=4,
        selection="uneven",
        scale=0.4,
    ),
    SelectedCase("forced only", 1, 1, 1, 70, 70, 128, True, "float16", block_size=32, blocks=3, selection="shortest"),
)
"""Cases of ``fsa`` as the problem promises them: head dim 128, and three blocks a query or more."""


def _check_selected(selected_attention: Any, case: SelectedCase) -> str:
    problem = get_problem("fsa")
    inputs = problem.make_inputs(case, 7)
    view = views(case, inputs)
    out, lse = torch.full_like(view["q"], torch.nan), torch.full(view["q"].shape[:3], torch.nan)
    indices = inputs["block_indices"].view(case.batch, case.kv_heads, case.q_len, case.blocks)
    scalars = dict(problem.call(case).scalars)
    selected_attention(view["q"], view["k"], view["v"], indices, out, lse, **scalars)
    for batch in range(case.batch):
        for head in range(case.heads):
            right, right_lse, _ = forward.reference(problem, case, inputs, batch, head, torch.arange(case.q_len))
            error = float((out[batch, head].double() - right).norm() / right.norm())
            lse_error = float((lse[batch, head].double() - right_lse).abs().max())
            if not (error < 2e-3 and lse_error < 1e-3):
                return f"{case.name}, head {head}: relative error {error:.1e}, lse {lse_error:.1e}"
    return ""


def _check(attention: Any, case: tuple[Any, ...]) -> str:
    batch, heads, kv_heads, queries, keys, head_dim, causal, layout = case
    generator = torch.Generator().manual_seed(7)

    def tensor(heads: int, length: int) -> torch.Tensor:
        width = head_dim + 1 if layout == "odd rows" else head_dim
        x = torch.randn(batch, length, heads, width, generator=generator).to(torch.float16)
        return (x.transpose(1, 2).contiguous() if layout == "contiguous" else x.transpose(1, 2))[..., :head_dim]

    q, k, v = tensor(heads, queries), tensor(kv_heads, keys), tensor(kv_heads, keys)
    if layout == "rising":
        k *= torch.linspace(0, 20, keys)[:, None].to(k.dtype)
    out = torch.full_like(q, torch.nan)
    lse = torch.full((batch, heads, queries), torch.nan)
    scale = 1.5 * head_dim**-0.5
    attention(q, k, v, out, lse, causal=causal, scale=scale)
    group = heads // kv_heads
    wide_k, wide_v = (x.double().repeat_interleave(group, 1) for x in (k, v))
    scores = q.double() @ wide_k.transpose(2, 3) * scale
    if causal:
        visible = torch.arange(keys) <= torch.arange(queries)[:, None] + keys - queries
        scores = scores.masked_fill(~visible, -torch.inf)
    reference = scores.softmax(-1) @ wide_v
    error = float((out.double() - reference).norm() / reference.norm())
    lse_error = float((lse.double() - scores.logsumexp(-1)).abs().max())
    return "" if error < 2e-3 and lse_error < 1e-3 else f"{case}: relative error {error:.1e}, lse {lse_error:.1e}"


CHECKS: dict[str, tuple[str, Any, tuple[Any, ...]]] = {
    "attention": ("attention", _check, CASES),
    "selected_attention": ("selected_attention", _check_selected, SELECTIONS),
    "fsa": ("selected_attention", _check_selected, PROMISED),
}
"""Entry function, check and cases, by what a source is checked as."""


def _complaint(checked_as: str, source: str, folder: Path, number: int) -> str:
    path = folder / f"candidate_{number}.py"
    path.write_text(source)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        entry, check, cases = CHECKS[checked_as]
        return next(filter(None, (check(getattr(module, entry), case) for case in cases)), "")
    except Exception as error:
        return f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name, offline(target="b200", on_fault="raise"):
        for index, line in enumerate(sys.stdin):
            print(json.dumps(_complaint(*json.loads(line), Path(name), index)), flush=True)
