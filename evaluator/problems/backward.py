"""Dense attention, backward: the problems ``mha_backward`` and ``gqa_backward``.

The formulas are those of FlashAttention-2 (arXiv 2307.08691, algorithm 2). lse and out are inputs that a candidate
takes as they are. They may be of more keys than are given, as under ring attention (arXiv 2310.01889), where each
device has a part of the keys; so statistics that are computed again from the keys at hand are wrong.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import partial
from typing import TYPE_CHECKING

from avo.evaluator.problem import HELD_OUT, Baseline, Call, Case, Expected, Output
from avo.evaluator.problems.dense import (
    benchmark,
    logits,
    longer,
    of_any_length,
    published,
    small,
    softmax_scale,
    tiled,
    total_bytes,
    value_dim,
)
from avo.evaluator.problems.gradients import (
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

if TYPE_CHECKING:
    from random import Random

    import torch

LENGTHS_K = (4, 8, 16)
"""Sequence lengths of the benchmark cases, in units of 1024 tokens, of which each case has 32, as in ``mha``."""


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


def _tiled_case(name: str, batch: int, heads: int, kv_heads: int, length: int, causal: bool) -> BackwardCase:
    return backward_case(tiled(name, batch, heads, kv_heads, length, causal), 1.0)


def _paper(heads: int, kv_heads: int, suffix: str = "") -> tuple[BackwardCase, ...]:
    return tuple(
        backward_case(benchmark(length, causal, heads, kv_heads, suffix), 1.0)
        for causal in (True, False)
        for length in LENGTHS_K
    )


_TLX = (
    "facebookexperimental/triton, pull requests 3465 (full) and 3582 (causal; from microseconds): H100, batches of 4, "
    "48 heads (here 16)"
)
_FA4 = "Dao-AILab/flash-attention, pull request 2280: sm_100, card not named, 16 heads in batches of 4"

_MHA_PAPER = _paper(16, 16)
MHA_BACKWARD = AttentionBackward(
    name="mha_backward",
    correctness_cases=(
        backward_case(small("square-full", 2, 2, 192, 192, False, "normal")),
        backward_case(small("square-causal", 2, 2, 192, 192, True, "dominant"), 1.0),
        backward_case(small("odd-full", 1, 1, 193, 321, False, "dominant"), 1.0),
        backward_case(small("odd-causal", 3, 3, 77, 333, True, "dominant", "bshd"), 1.0),
        # As for mha: 1 and 126 are where a bound meets the edge of a tile, in either order of the loops.
        backward_case(small("edge-full", 1, 1, 130, 257, False, "edge"), 1.0),
        backward_case(small("edge-1-causal", 2, 2, 128, 129, True, "edge", scale=0.11), 1.0),
        backward_case(small("edge-126-causal", 2, 2, 128, 254, True, "edge"), 1.0),
        backward_case(small("short-causal", 1, 1, 5, 5, True, "normal")),
        backward_case(small("one-query", 2, 2, 1, 130, False, "outliers")),
        backward_case(small("padded-causal", 1, 1, 161, 161, True, "outliers", "padded")),
        backward_case(small("mixed-full", 2, 2, 65, 140, False, "normal", "mixed"), 1.0),
        backward_case(small("large-causal", 1, 1, 255, 255, True, "large"), 1.0),
        backward_case(small("constant-causal", 2, 2, 129, 257, True, "constant", scale=0.07), 1.0),
        backward_case(small("negative-full", 1, 1, 100, 300, False, "negative"), 1.0),
        backward_case(small("rising-full", 2, 2, 70, 321, False, "rising"), 1.0),
    ),
    suites={
        "quick": tuple(case for case in _MHA_PAPER if case.name.startswith("8k")),
        "paper": _MHA_PAPER,
        HELD_OUT: (
            _tiled_case("6k-causal", 3, 12, 12, 6144, True),
            _tiled_case("5k-full", 2, 24, 24, 5120, False),
            _tiled_case("ragged-causal", 2, 16, 16, 9224, True),
        ),
    },
    baselines=(
        published("FlashAttention-3", "h100", (526.7, 564.3), (444.0, 538.7), _TLX, lengths_k=(4, 8)),
        published("Triton with TLX", "h100", (517.7, 567.0), (468.4, 539.1), _TLX, lengths_k=(4, 8)),
        Baseline("FlashAttention-4, deterministic", "b200", {"8k-full": 1166.7, "8k-causal": 1097.2}, _FA4),
        Baseline("FlashAttention-4", "b200", {"8k-full": 1359.8, "8k-causal": 1208.6}, _FA4),
    ),
)

_GQA_PAPER = _paper(32, 8, "-8kv")
GQA_BACKWARD = AttentionBackward(
    name="gqa_backward",
    correctness_cases=(
        backward_case(small("group-8-causal", 8, 1, 130, 130, True, "dominant"), 1.0),
        backward_case(small("group-4-full", 8, 2, 70, 197, False, "dominant", "bshd"), 1.0),
        backward_case(small("group-2-causal", 6, 3, 77, 200, True, "dominant"), 1.0),
        backward_case(small("group-1-full", 3, 3, 65, 140, False, "normal", "mixed")),
        backward_case(small("group-3-causal", 6, 2, 128, 254, True, "edge"), 1.0),
        backward_case(small("group-8-padded", 16, 2, 68, 99, True, "edge", "padded"), 1.0),
        backward_case(small("edge-1-causal", 4, 2, 128, 129, True, "edge", scale=0.11), 1.0),
        backward_case(small("short-causal", 8, 2, 5, 5, True, "normal")),
        backward_case(small("one-query", 8, 2, 1, 130, False, "outliers"), 1.0),
        backward_case(small("large-causal", 4, 1, 155, 155, True, "large"), 1.0),
        backward_case(small("constant-causal", 4, 2, 69, 157, True, "constant", scale=0.07), 1.0),
        backward_case(small("negative-full", 4, 2, 70, 200, False, "negative"), 1.0),
    ),
    suites={
        "quick": tuple(case for case in _GQA_PAPER if case.name.startswith("8k")),
        "paper": _GQA_PAPER,
        HELD_OUT: (
            _tiled_case("6k-causal-2kv", 3, 12, 2, 6144, True),
            _tiled_case("5k-full-8kv", 2, 24, 8, 5120, False),
            _tiled_case("ragged-causal-1kv", 2, 8, 1, 9224, True),
        ),
    },
)
