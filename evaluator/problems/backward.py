"""Dense attention, backward: what ``mha_backward`` and ``gqa_backward`` have in common.

The formulas are those of FlashAttention-2 (arXiv 2307.08691, algorithm 2). lse and out are inputs that a candidate
takes as they are. They may be of more keys than are given, as under ring attention (arXiv 2310.01889), where each
device has a part of the keys; so statistics that are computed again from the keys at hand are wrong.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import partial
from typing import TYPE_CHECKING

from avo.evaluator.problem import Baseline, Call, Case, Expected, Output, Problem
from avo.evaluator.problems.dense import (
    benchmark,
    logits,
    longer,
    of_any_length,
    shares,
    softmax_scale,
    tiled,
    total_bytes,
    value_dim,
)
from avo.evaluator.problems.figures import Figures
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
from avo.evaluator.problems.refusals import of_forward, of_no_blocks, of_sharing, refusal
from avo.evaluator.problems.settings import in_setting
from avo.evaluator.problems.variants import small_variants
from avo.evaluator.problems.visible import (
    DenseCase,
    dense,
    flops_an_element,
    further_scalars,
    lengths,
    make_further,
    seen,
    sequence_of,
)
from avo.evaluator.problems.wording import meaning
from avo.evaluator.setting import Setting

if TYPE_CHECKING:
    from random import Random

    import torch

LENGTHS_K = (4, 8, 16)
"""Sequence lengths of the benchmark cases, in units of 1024 tokens, of which each case has 32, as in ``mha``."""
_LONG = 500
"""Queries from which a small case is one of the forward pass alone: many tiles of keys for one of queries."""


@dataclass(frozen=True, slots=True)
class BackwardCase(DenseCase):
    """A case of a backward pass."""

    elsewhere: float = 0.0
    """By how much a query's lse may exceed that of the keys at hand, as keys elsewhere have a part in it and in out."""


@dataclass(frozen=True)
class AttentionBackward:
    """``def attention_backward(q, k, v, out, lse, dout, dq, dk, dv, *, causal: bool, scale: float) -> None``.

    q, out, dout and dq are [batch, heads, q_len, head_dim], k, v, dk and dv [batch, kv_heads, kv_len, head_dim], with
    q_len <= kv_len; lse is float32 [batch, heads, q_len], contiguous. Query i sees key j when not causal or
    ``j <= i + kv_len - q_len``. Head h uses KV head ``h // (heads / kv_heads)``, whose gradients are sums over its
    query heads.

    With P = exp(scale * q k^T - lse) where a key is seen, and 0 elsewhere: dv = P^T dout, dS = P * (dout v^T -
    rowsum(dout * out)), dq = scale * dS k, dk = scale * dS^T q. lse and out are taken as they are: they may be of more
    keys than k has. Sums may be made in any order, by atomic additions too.
    """

    name: str
    correctness_cases: tuple[BackwardCase, ...]
    suites: Mapping[str, tuple[BackwardCase, ...]]
    baselines: tuple[Baseline, ...] = ()
    outputs: tuple[Output, ...] = OUTPUTS
    figures: tuple[Figures, ...] = ()
    """What was published in other settings."""
    other: str = ""
    """See ``Attention``."""
    entry: str = "attention_backward"

    def call(self, case: Case) -> Call:
        """Return the tensors and scalars of ``case``."""
        scalars = (("causal", case.causal), ("scale", softmax_scale(case)), *further_scalars(case))
        return Call(case.name, (*backward_inputs(case), *gradients(case)), scalars)

    def at_other_lengths(self, case: Case, chance: "Random") -> Case:
        """Return ``longer``."""
        return longer(case, chance)

    def at_length(self, case: Case, length: int, chance: "Random") -> Case:
        """Return ``of_any_length``."""
        return of_any_length(case, length, chance)

    def flops(self, case: Case) -> int:
        """Return ``flops_an_element`` for five products, three with the elements of keys and two with those of values,
        to the two of the forward pass, as FlashAttention's benchmarks count (arXiv 2307.08691, section 4.1).
        """
        return flops_an_element(case) * (3 * case.head_dim + 2 * value_dim(case))

    def least_bytes(self, case: Case) -> int:
        """Return the bytes of all tensors."""
        return total_bytes(self.call(case))

    def make_inputs(self, case: Case, seed: int) -> "dict[str, torch.Tensor]":
        """Return the flat storages of all inputs."""
        further = make_further(case, seed)
        if case.inputs == "tiled":
            made = tiled_inputs(case, seed, _elsewhere(case), _keys(case), further.get("sinks"))
        else:
            made = small_inputs(case, seed, _elsewhere(case), partial(logits, case), further)
        return {**made, **further}

    def reference(
        self, case: Case, inputs: "Mapping[str, torch.Tensor]", of: str, batch: int, head: int, rows: "torch.Tensor"
    ) -> Mapping[str, Expected]:
        """Return dq for rows of queries, dk and dv for rows of keys, dsinks for sinks: see ``Problem.reference``."""
        import torch

        view = backward_views(case, inputs)
        if of == "queries":
            return of_queries(case, view, batch, head, rows, logits(case, view, batch, head, rows))
        if of == "sinks":
            return of_sinks(case, view, inputs["sinks"], head)
        queries = torch.arange(case.q_len)
        first, end = seen(case, queries)
        visible = (first <= rows[:, None]) & (rows[:, None] < end)
        return of_keys(case, view, batch, head, rows, queries, visible)

    def plant(
        self, case: Case, inputs: "Mapping[str, torch.Tensor]", chance: "Random"
    ) -> Mapping[str, tuple[int, int, int]]:
        """See ``plant_gradient``."""
        return plant_gradient(case, inputs, chance)

    def refusal(self, setting: Setting) -> str:
        """See ``avo.evaluator.setting.Settable``."""
        return refusal(
            setting,
            of_forward(self.name, setting) or of_no_blocks(self.name, setting),
            of_sharing(self, self.other, setting),
        )

    def meaning(self, setting: Setting) -> str:
        """See ``avo.evaluator.setting.Settable``."""
        return meaning(setting, backward=True)

    def in_setting(self, setting: Setting) -> Problem:
        """See ``avo.evaluator.setting.Settable``."""
        small: tuple[DenseCase, ...] = small_variants(setting, self.correctness_cases, grouped=shares(self))
        if setting.window or setting.packed:
            small = tuple(backward_case(each, float(each.inputs != "normal")) for each in small if each.q_len < _LONG)
        outputs = (*self.outputs, *([OF_SINKS] if setting.sinks else []))
        return in_setting(self, setting, small, self.figures, outputs=outputs)


def _elsewhere(case: Case) -> float:
    assert isinstance(case, BackwardCase)
    return case.elsewhere


def _keys(case: Case) -> "torch.Tensor":
    """Return the most keys that a query of each query's sequence sees, int64 [queries]."""
    import torch

    counts = torch.tensor([keys for _, keys in lengths(case)])
    sequence = sequence_of(case, torch.arange(case.q_len))
    return counts[sequence].clamp(max=dense(case).window or case.kv_len)


def backward_case(case: DenseCase, elsewhere: float = 0.0) -> BackwardCase:
    """Return a case of the forward pass as one of the backward pass; ``elsewhere``: see ``BackwardCase``."""
    return BackwardCase(**{each.name: getattr(case, each.name) for each in fields(DenseCase)}, elsewhere=elsewhere)


def tiled_backward(name: str, batch: int, heads: int, kv_heads: int, length: int, causal: bool) -> BackwardCase:
    """Return a benchmark case."""
    return backward_case(tiled(name, batch, heads, kv_heads, length, causal), 1.0)


def paper(heads: int, kv_heads: int, suffix: str = "") -> tuple[BackwardCase, ...]:
    """Return the cases of the AVO paper's protocol, up to 16k tokens."""
    return tuple(
        backward_case(benchmark(length, causal, heads, kv_heads, suffix), 1.0)
        for causal in (True, False)
        for length in LENGTHS_K
    )
