"""Flash Sparse Attention (arXiv 2508.18224), backward: the problem ``fsa_backward``.

As in ``backward``, lse and out may be of more keys than are given.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from typing import TYPE_CHECKING

from avo.evaluator.problem import HELD_OUT, Baseline, Call, Case, Expected, Output, Problem, TensorSpec
from avo.evaluator.problems.dense import total_bytes, value_dim
from avo.evaluator.problems.fsa import (
    FSA,
    ROWS_AT_ONCE,
    block_indices,
    blocks_of_keys,
    chosen_blocks,
    flops_an_element,
    make_blocks,
    make_more,
    meaning_of_selected,
    reported,
    scalars,
    selected_logits,
    tiled_selection,
)
from avo.evaluator.problems.gradients import (
    OF_SINKS,
    OUTPUTS,
    backward_inputs,
    backward_views,
    gradients,
    of_keys,
    of_queries,
    of_sinks,
    plant_gradient,
    small_inputs,
    tiled_inputs,
)
from avo.evaluator.problems.refusals import of_selection, refusal
from avo.evaluator.problems.selection import SelectedCase
from avo.evaluator.problems.settings import in_setting
from avo.evaluator.problems.variants import small_selected
from avo.evaluator.problems.visible import seen
from avo.evaluator.setting import Setting

if TYPE_CHECKING:
    from random import Random

    import torch


@dataclass(frozen=True, slots=True)
class SelectedBackwardCase(SelectedCase):
    """A case of a backward pass whose queries select blocks of keys."""

    elsewhere: float = 0.0
    """By how much a query's lse may exceed that of the keys that it selects: see ``BackwardCase``."""


@dataclass(frozen=True)
class SelectedAttentionBackward:
    """``def selected_attention_backward(q, k, v, block_indices, out, lse, dout, dq, dk, dv, *, block_size, scale)``.

    q, out, dout and dq are [batch, heads, q_len, head_dim], k, v, dk and dv [batch, kv_heads, q_len, head_dim], lse
    float32 [batch, heads, q_len], contiguous. block_indices is int32 [batch, kv_heads, q_len, blocks], contiguous,
    ascending, padded with -1 at the tail. Query t of head h sees key u when ``u <= t`` and ``u // block_size`` is in
    ``block_indices[b, h // (heads / kv_heads), t]``. The block of t always is, none behind it ever is, and block 0 and
    the one before that of t always are, unless the problem's name says local. block_size is 16, 32, 64 or 128, and
    blocks is 3 or more. The gradients of a KV head are sums over its query heads.

    With P = exp(scale * q k^T - lse) where a key is seen, and 0 elsewhere: dv = P^T dout, dS = P * (dout v^T -
    rowsum(dout * out)), dq = scale * dS k, dk = scale * dS^T q. lse and out are taken as they are: they may be of more
    keys than k has. Sums may be made in any order, by atomic additions too.
    """

    name: str
    correctness_cases: tuple[SelectedBackwardCase, ...]
    suites: Mapping[str, tuple[SelectedBackwardCase, ...]]
    baselines: tuple[Baseline, ...] = ()
    outputs: tuple[Output, ...] = OUTPUTS
    entry: str = field(default="selected_attention_backward", init=False)

    def call(self, case: Case) -> Call:
        """Return the tensors and scalars of ``case``."""
        return Call(case.name, (*_inputs(case), *gradients(case)), scalars(case))

    def at_other_lengths(self, case: Case, chance: "Random") -> Case:
        """Return what ``fsa`` does."""
        return FSA.at_other_lengths(case, chance)

    def at_length(self, case: Case, length: int, chance: "Random") -> Case:
        """Return what ``fsa`` does."""
        return FSA.at_length(case, length, chance)

    def flops(self, case: Case) -> int:
        """Return ``flops_an_element`` for five products, as in ``backward``."""
        return flops_an_element(_of(case)) * (3 * case.head_dim + 2 * value_dim(case))

    def least_bytes(self, case: Case) -> int:
        """Return the bytes of all tensors."""
        return total_bytes(self.call(case))

    def make_inputs(self, case: Case, seed: int) -> "dict[str, torch.Tensor]":
        """Return the flat storages of all inputs."""
        import torch

        case, chosen, further = _of(case), make_blocks(case, seed), make_more(case, seed)
        if case.inputs == "tiled":
            keys = torch.full((case.q_len,), case.blocks * case.block_size)
            made = tiled_inputs(case, seed, case.elsewhere, keys, further.get("sinks"))
        else:
            scores = partial(selected_logits, case, chosen_blocks(case, {"block_indices": chosen}))
            made = small_inputs(case, seed, case.elsewhere, scores, further)
        return {**made, "block_indices": chosen, **further}

    def reference(
        self, case: Case, inputs: "Mapping[str, torch.Tensor]", of: str, batch: int, head: int, rows: "torch.Tensor"
    ) -> Mapping[str, Expected]:
        """Return dq for rows of queries, dk and dv for rows of keys, dsinks for sinks: see ``Problem.reference``."""
        import torch

        view, chosen = backward_views(case, inputs), chosen_blocks(case, inputs)
        if of == "sinks":
            return of_sinks(case, view, inputs["sinks"], head)
        parts = []
        for part in rows.split(ROWS_AT_ONCE):
            if of == "queries":
                scores = selected_logits(case, chosen, view, batch, head, part)
                parts.append(of_queries(case, view, batch, head, part, scores))
            else:
                queries, visible = seeing(_of(case), chosen[batch, head], part)
                parts.append(of_keys(case, view, batch, head, part, queries, visible))
        return {
            name: Expected(
                torch.cat([part[name].value for part in parts]),
                torch.cat([torch.as_tensor(part[name].attainable) for part in parts]),
            )
            for name in parts[0]
        }

    def plant(
        self, case: Case, inputs: "Mapping[str, torch.Tensor]", chance: "Random"
    ) -> Mapping[str, tuple[int, int, int]]:
        """See ``plant_gradient``."""
        return plant_gradient(case, inputs, chance)

    def refusal(self, setting: Setting) -> str:
        """See ``avo.evaluator.setting.Settable``."""
        return refusal(setting, of_selection(self.name, "gqa_backward", setting))

    def meaning(self, setting: Setting) -> str:
        """See ``avo.evaluator.setting.Settable``."""
        return meaning_of_selected(setting, backward=True)

    def in_setting(self, setting: Setting) -> Problem:
        """See ``avo.evaluator.setting.Settable``."""
        outputs = (*self.outputs, *([OF_SINKS] if setting.sinks else []))
        return in_setting(self, setting, small_selected(setting, self.correctness_cases), outputs=outputs)


def seeing(case: SelectedCase, chosen: "torch.Tensor", keys: "torch.Tensor") -> "tuple[torch.Tensor, torch.Tensor]":
    """Return the queries [m] that see any of ``keys`` [n], and which of these each sees, bool [n, m].

    ``chosen`` [queries, blocks] has the blocks that each query of this head selects.
    """
    import torch

    first, end = seen(case, torch.arange(len(chosen)))
    visible = (chosen == blocks_of_keys(case)[keys, None, None]).any(-1)
    visible &= (first <= keys[:, None]) & (keys[:, None] < end)
    queries = visible.any(0).nonzero()[:, 0]
    return queries, visible[:, queries]


def _inputs(case: Case) -> tuple[TensorSpec, ...]:
    q, k, v, *others = backward_inputs(case)
    return (q, k, v, block_indices(case), *others)


def _of(case: Case) -> SelectedBackwardCase:
    assert isinstance(case, SelectedBackwardCase)
    return case


def _backward(case: SelectedCase, elsewhere: float = 1.0) -> SelectedBackwardCase:
    return SelectedBackwardCase(
        **{each.name: getattr(case, each.name) for each in fields(SelectedCase)}, elsewhere=elsewhere
    )


_ALONE = ("group-1", "less-than-a-block", "nearly-dense")
"""Small cases whose lse and out are those of the selected keys; those of all others have a part for keys elsewhere."""

PROBLEM = FSA_BACKWARD = SelectedAttentionBackward(
    name="fsa_backward",
    correctness_cases=tuple(_backward(case, float(case.name not in _ALONE)) for case in FSA.correctness_cases),
    suites={
        **{name: tuple(map(_backward, cases)) for name, cases in FSA.suites.items() if name != HELD_OUT},
        HELD_OUT: (
            _backward(tiled_selection("10k-b64-g2-skewed", 10240, 64, 16, 8, selection="skewed")),
            _backward(tiled_selection("12k-b128-g1", 12288, 128, 8, 6, kv_heads=6)),
            _backward(tiled_selection("ragged-b64-g8", 7777, 64, 12, 16, kv_heads=2)),
        ),
    },
    baselines=(
        Baseline("seed query_outer", "", {}, "the order of Native Sparse Attention", seed="query_outer"),
        Baseline(
            "Flash Sparse Attention",
            "h200",
            {},
            "FSA, arXiv 2508.18224: H20 and H200",
            "a ratio alone: its kernels take 2.6 times less time than those of Native Sparse Attention on average, "
            "4.3 times at most",
        ),
        reported("Flash Sparse Attention's kernels", FSA.flops(FSA.suites["script"][-1]) * 5 // 2, 110.593 / 20),
    ),
)
