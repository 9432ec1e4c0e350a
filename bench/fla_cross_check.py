"""Compare the reference of ``fsa`` with the kernel that fla-core has for Native Sparse Attention, on the CPU.

python -m bench.fla_cross_check

Needs fla-core 0.6: ``pip install --no-deps --target FOLDER fla-core==0.6.* einops``, and FOLDER on PYTHONPATH. Its
kernel is executed from its Triton IR on inputs of the problem's own makers. It rounds queries times scale to the input
type. That loses nothing where the scale is a power of two; elsewhere it makes its lse inexact.
"""

# mypy: disable-error-code="import-not-found"
# The package is not installed where types are checked.

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from avo.evaluator.offline import offline
from avo.evaluator.problems.dense import softmax_scale, views
from avo.evaluator.problems.fsa import FSA
from avo.evaluator.problems.selection import SelectedCase

OUT_TOLERANCE = 1e-2
"""Relative error of the output; bfloat16 has 8 bits."""
LSE_TOLERANCE = {True: 1e-3, False: 2e-2}
"""Largest difference of lse, by whether the scale is a power of two."""


def _case(name: str, block_size: int, blocks: int, selection: str, inputs: str, scale: float = 0.0) -> SelectedCase:
    """Return a case of 16 query heads a KV head: fla's kernel takes no smaller group."""
    return SelectedCase(
        name, 1, 32, 2, 200, 200, 128, True, inputs=inputs, layout="bshd", scale=scale, block_size=block_size,
        blocks=blocks, selection=selection,
    )  # fmt: skip


CASES = (
    _case("random, scale 1/8", 16, 6, "random", "normal", 0.125),
    _case("skewed, scale 1/16, dominant keys", 32, 5, "skewed", "dominant", 0.0625),
    _case("blocks of 64, scale 1/sqrt(128)", 64, 3, "random", "normal"),
)


@dataclass(frozen=True, slots=True)
class Found:
    """How fla's kernel and our reference differ on one case."""

    case: str
    out_error: float
    """``||fla - ours|| / ||ours||``."""
    lse_error: float
    """The largest difference."""
    agrees: bool


def cross_check() -> Iterator[Found]:
    """Yield the comparison of each case; raise ``ImportError`` without fla-core."""
    from fla.ops.nsa.parallel import parallel_nsa_fwd

    for case in CASES:
        inputs = FSA.make_inputs(case, 7)
        q, k, v = (views(case, inputs)[name].transpose(1, 2).contiguous() for name in ("q", "k", "v"))
        shape = (case.batch, case.kv_heads, case.q_len, case.blocks)
        indices = inputs["block_indices"].view(shape).transpose(1, 2).contiguous()
        with offline("h100", autotune="first") as session:
            out, lse = parallel_nsa_fwd(q, k, v, indices, case.blocks, case.block_size, softmax_scale(case))
            faults = session.report().faults
        assert not faults, faults
        yield _compare(case, inputs, out.transpose(1, 2).double(), lse.transpose(1, 2).double())


def _compare(case: SelectedCase, inputs: dict[str, torch.Tensor], out: torch.Tensor, lse: torch.Tensor) -> Found:
    rows = torch.arange(case.q_len)
    ours = [FSA.reference(case, inputs, "queries", 0, head, rows) for head in range(case.heads)]
    right, right_lse = (torch.stack([each[name].value for each in ours]) for name in ("out", "lse"))
    out_error = float((out[0] - right).norm() / right.norm())
    lse_error = float((lse[0] - right_lse).abs().max())
    scale = softmax_scale(case)
    exact = math.frexp(scale)[0] == 0.5
    return Found(case.name, out_error, lse_error, out_error < OUT_TOLERANCE and lse_error < LSE_TOLERANCE[exact])


def main() -> None:
    """Print the comparison."""
    print("| case | relative error of out | largest difference of lse | |\n|---|---|---|---|")
    for found in cross_check():
        words = "agrees" if found.agrees else "differs"
        print(f"| {found.case} | {found.out_error:.1e} | {found.lse_error:.1e} | {words} |")


if __name__ == "__main__":
    main()
