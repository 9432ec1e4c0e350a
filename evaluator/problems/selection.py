"""Makers of block indices: which blocks of keys each query of ``fsa`` selects.

As in Native Sparse Attention (arXiv 2502.11089) a query selects its own block, the one before and block 0; in ``local``
cases, as in MiniMax Sparse Attention (arXiv 2606.13392), its own alone. How many others, and which, is the maker's
choice. How many blocks a query selects depends on its position and the case alone, and its own block is always one of
them, so the number of selected pairs follows without a look at the indices.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from avo.evaluator.problems.visible import DenseCase

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class SelectedCase(DenseCase):
    """A case whose queries select blocks of keys; if sequences are packed, blocks of their own sequence's keys."""

    block_size: int = 0
    """Keys of one block."""
    blocks: int = 0
    """Blocks that a query may select at most."""
    selection: str = ""
    """Name of the maker of what is selected."""
    local: bool = False
    """Whether a query's own block is the only one that it always selects."""

    @property
    def forced(self) -> int:
        """Number of blocks that a query always selects, as far as they differ."""
        return 1 if self.local else 3


@dataclass(frozen=True)
class Selection:
    """One way to select blocks."""

    count: Callable[[int, int, int, int], int]
    """Number of blocks that a query selects, given its position, its own block, the largest number it may select and
    how many are forced: at least 1, and no more than its block and that number allow.
    """
    hot: bool = False
    """Whether all queries of a head select the same block besides the forced ones, if they can."""


def _all(position: int, own: int, most: int, forced: int) -> int:
    return min(most, own + 1)


SELECTIONS = {
    "random": Selection(_all),
    "skewed": Selection(_all, hot=True),
    # All but one.
    "dense": Selection(lambda position, own, most, forced: min(most, max(own, min(forced, own + 1)))),
    "shortest": Selection(lambda position, own, most, forced: min(most, forced, own + 1)),
    # Neighbouring queries select different numbers of blocks.
    "uneven": Selection(lambda position, own, most, forced: min(most, forced + 5 * position % 7, own + 1)),
}
"""The ways to select, by the name that ``SelectedCase.selection`` gives."""


def selected_pairs(case: SelectedCase) -> int:
    """Return how many keys all queries of one batch and KV head, of one sequence, select and see together."""
    whole = (count - 1 for count in _counts(case))
    return sum(blocks * case.block_size + t % case.block_size + 1 for t, blocks in enumerate(whole))


@cache
def _counts(case: SelectedCase) -> tuple[int, ...]:
    """Return how many blocks each query selects."""
    count, size = SELECTIONS[case.selection].count, case.block_size
    return tuple(count(position, position // size, case.blocks, case.forced) for position in range(case.q_len))


def make_block_indices(case: SelectedCase, generator: "torch.Generator") -> "torch.Tensor":
    """Return int32 [batch, kv_heads, q_len, blocks] for one sequence: ascending, -1 behind the last."""
    import torch

    selection = SELECTIONS[case.selection]
    own = torch.arange(case.q_len)[:, None] // case.block_size
    counts = torch.tensor(_counts(case))[:, None]
    shape = (case.batch, case.kv_heads, case.q_len, case.blocks)

    # Sorted draws from [0, n - m], plus 0, 1, ... m - 1, are m different numbers below n.
    free = own if case.local else (own - 2).clamp(min=0)
    others = (counts - case.forced).clamp(min=0)
    drawn = (torch.rand(shape, generator=generator) * (free - others + 1)).long()
    slot = torch.arange(case.blocks)
    drawn = drawn.where(slot < others, case.q_len).sort(-1).values + slot
    if selection.hot:
        drawn = _with_hot(drawn, others, free)
    indices = drawn
    if not case.local:
        indices = torch.where((slot == 0) & (counts > 1), 0, 1 + drawn.roll(1, -1))
        indices = torch.where((slot == counts - 2) & (counts >= case.forced), own - 1, indices)
    indices = torch.where(slot == counts - 1, own, indices)
    return indices.where(slot < counts, -1).to(torch.int32)


def _with_hot(drawn: "torch.Tensor", others: "torch.Tensor", free: "torch.Tensor") -> "torch.Tensor":
    """Return ascending rows of ``drawn`` [batch, kv_heads, q_len, blocks] with one number of each KV head among the
    first ``others`` of every row that has any and may hold it, in place of its next greater or else the greatest.
    """
    import torch

    hot = (torch.arange(drawn.shape[1])[:, None, None] % 3).expand(*drawn.shape[:3], 1).contiguous()
    place = torch.searchsorted(drawn, hot).minimum((others - 1).clamp(min=0))
    return drawn.scatter(-1, place, hot).where((others > 0) & (hot < free), drawn)
