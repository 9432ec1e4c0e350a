"""Dense attention to sequences of several lengths, packed one after another: no padding, and none sees another's keys.

Where sequences begin is said by cumulative lengths, ``cu_seqlens``, as in FlashAttention's functions for variable
lengths.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import TYPE_CHECKING

from evaluator.plan import Role
from evaluator.problem import Call, Case, Expected, TensorSpec, Wrong
from evaluator.problems.dense import (
    Attention,
    align,
    attend,
    expected,
    make_qkv,
    of_any_length,
    outputs,
    qkv,
    small,
    softmax_scale,
    stored,
    value_dim,
    views,
)

if TYPE_CHECKING:
    from random import Random

    import torch

_MOST_SEQUENCES = 16


@dataclass(frozen=True, slots=True)
class PackedCase(Case):
    """A case of packed sequences; ``batch`` is 1, ``q_len`` and ``kv_len`` are those of all sequences together."""

    sequences: int = 1
    even: bool = False
    """Whether sequences are equally long, as nearly as may be; else each is longer than the one before."""


@dataclass(frozen=True)
class PackedAttention(Attention):
    """``def attention(q, k, v, cu_seqlens_q, cu_seqlens_k, out, lse, *, causal, scale, max_seqlen_q, max_seqlen_k)``.

    q and out are [1, heads, queries, head_dim], k and v [1, kv_heads, keys, head_dim], of all sequences one after
    another; the rows of v and out have ``head_dim_v`` elements where a case sets it. cu_seqlens_q and cu_seqlens_k are
    int32 [sequences + 1], contiguous, from 0 to the number of all queries or keys: sequence s has the queries from
    ``cu_seqlens_q[s]`` to ``cu_seqlens_q[s + 1] - 1`` and the keys likewise, and at least as many keys as queries. It
    may have none. max_seqlen_q and max_seqlen_k are the longest of them.

    A query sees keys of its own sequence alone: all of them when not causal, else of its q and kv queries and keys
    query i sees key j if ``j <= i + kv - q``. lse is float32 [1, heads, queries], the natural logarithm of the sum of
    exponentials of the scaled scores. Head h uses KV head ``h // (heads / kv_heads)``.
    """

    def call(self, case: Case) -> Call:
        """Return the seven tensors and four scalars of ``case``."""
        starts = [("q", _queries(case)), ("k", _keys(case))]
        size = _of(case).sequences + 1
        cu = (TensorSpec(f"cu_seqlens_{name}", "int32", (size,), (1,), size, Role.INPUT) for name, _ in starts)
        longest = ((f"max_seqlen_{name}", max(b - a for a, b in pairwise(found))) for name, found in starts)
        scalars = (("causal", case.causal), ("scale", softmax_scale(case)), *longest)
        return Call(case.name, (*qkv(case), *cu, *outputs(case)), scalars)

    def at_length(self, case: Case, length: int, chance: "Random") -> Case:
        """Return ``of_any_length`` as one batch of up to 16 sequences."""
        sequences, even = chance.randint(1, _MOST_SEQUENCES), chance.random() < 0.5
        return replace(_of(of_any_length(case, length, chance)), batch=1, sequences=sequences, even=even)

    def flops(self, case: Case) -> int:
        """Return 2 * heads times the elements of a key and of a value for each pair of a query and a key of the same
        sequence, halved when causal, as ``Attention`` counts.
        """
        lengths = zip(pairwise(_queries(case)), pairwise(_keys(case)), strict=True)
        pairs = sum((b - a) * (d - c) for (a, b), (c, d) in lengths)
        full = 2 * case.heads * pairs * (case.head_dim + value_dim(case))
        return full // 2 if case.causal else full

    def make_inputs(self, case: Case, seed: int) -> "dict[str, torch.Tensor]":
        """Return the flat storages of q, k, v and the cumulative lengths."""
        import torch

        starts = {
            f"cu_seqlens_{name}": torch.tensor(found, dtype=torch.int32)
            for name, found in (("q", _queries(case)), ("k", _keys(case)))
        }
        return {**(make_qkv(case, seed) if case.inputs == "tiled" else _made(case, seed)), **starts}

    def reference(
        self, case: Case, inputs: "Mapping[str, torch.Tensor]", of: str, batch: int, head: int, rows: "torch.Tensor"
    ) -> Mapping[str, Expected]:
        """Return out and lse: see ``Problem.reference``."""
        view = views(case, inputs)
        v = view["v"][batch, head // (case.heads // case.kv_heads)].double()
        return expected(*attend(_scores(case, view, batch, head, rows), v, view["q"].dtype))

    def plant(
        self, case: Case, inputs: "Mapping[str, torch.Tensor]", chance: "Random"
    ) -> Mapping[str, tuple[int, int, int]]:
        """Give one query a key of its own in its sequence: see ``align``."""
        head, row = chance.randrange(case.heads), chance.randrange(case.q_len)
        queries, keys = _queries(case), _keys(case)
        sequence = max(s for s, start in enumerate(queries[:-1]) if start <= row)
        end = keys[sequence + 1] - (queries[sequence + 1] - 1 - row if case.causal else 0)
        place = chance.choice((end - 1, chance.randrange(keys[sequence], end)))
        return align(case, inputs, (0, head, row), place, chance)

    def diagnose(self, case: Case, inputs: "Mapping[str, torch.Tensor]", wrong: Wrong) -> str:
        """Say so if queries see the keys of the sequences before theirs."""
        from evaluator.problems.diagnosis import explains

        view = views(case, inputs)
        v = view["v"][0, wrong.head // (case.heads // case.kv_heads)].double()

        def error(*, apart: bool) -> float:
            scores = _scores(case, view, 0, wrong.head, wrong.rows, apart=apart)
            out = attend(scores, v, view["q"].dtype)[0]
            return float((wrong.values["out"] - out).norm() / out.norm())

        together = explains(error(apart=False), error(apart=True))
        return "queries see the keys of the sequences before theirs" if together else ""


def packed(problem: Attention, suites: Mapping[str, tuple[Case, ...]]) -> PackedAttention:
    """Return the problem with each case of ``suites`` packed: as many tokens, in twice as many sequences as it has."""

    def of(case: Case, sequences: int, even: bool) -> PackedCase:
        known = {each.name: getattr(case, each.name) for each in fields(Case)}
        sizes = {"batch": 1, "q_len": case.batch * case.q_len, "kv_len": case.batch * case.kv_len}
        return PackedCase(**{**known, **sizes}, sequences=sequences, even=even)

    return PackedAttention(
        name=problem.name,
        correctness_cases=tuple(
            of(replace(case, batch=1), sequences, even)
            for case, sequences, even in _small(grouped=problem.name.startswith("gqa"))
        ),
        suites={suite: tuple(of(case, 2 * case.batch, False) for case in cases) for suite, cases in suites.items()},
        baselines=(),
    )


def _small(*, grouped: bool) -> tuple[tuple[Case, int, bool], ...]:
    """Return correctness cases with their numbers of sequences, and whether these are equally long."""
    a, b, c = ((8, 2), (4, 1), (6, 3)) if grouped else ((2, 2), (2, 2), (1, 1))
    return (
        (small("one-full", *a, 130, 257, False, "dominant"), 1, True),
        (small("one-causal", *b, 128, 129, True, "edge", scale=0.11), 1, True),
        (small("tiles-causal", *a, 256, 256, True, "dominant"), 4, True),
        (small("uneven-causal", *b, 333, 333, True, "dominant", "bshd"), 4, False),
        (small("uneven-full", *a, 193, 321, False, "dominant", "bshd"), 3, False),
        (small("more-keys-causal", *a, 200, 454, True, "edge", "mixed"), 3, False),
        (small("empty-causal", *c, 5, 60, True, "normal", "padded"), 9, True),
        (small("one-query-each", *a, 6, 300, True, "outliers"), 6, True),
        (small("one-query-each-full", *b, 6, 300, False, "outliers"), 6, True),
        (small("large-causal", *c, 255, 255, True, "large", "bshd"), 2, False),
        (small("constant-causal", *a, 129, 257, True, "constant", scale=0.07), 3, False),
        (small("negative-full", *c, 100, 300, False, "negative"), 2, True),
        (small("rising-full", *a, 140, 321, False, "rising"), 2, False),
        (small("long-causal", *c, 900, 900, True, "normal", "bshd"), 5, False),
    )


def _of(case: Case) -> PackedCase:
    assert isinstance(case, PackedCase)
    return case


def _starts(case: Case, total: int) -> list[int]:
    """Return where ``total`` rows are cut into the sequences of ``case``."""
    sequences = _of(case).sequences
    cuts = [s if _of(case).even else s * (s + 1) // 2 for s in range(sequences + 1)]
    return [total * cut // cuts[-1] for cut in cuts]


def _queries(case: Case) -> list[int]:
    return _starts(case, case.q_len)


def _keys(case: Case) -> list[int]:
    """Return where the keys of sequences begin: each has as many as it has queries, and a part of all that are more."""
    return [a + b for a, b in zip(_queries(case), _starts(case, case.kv_len - case.q_len), strict=True)]


def _made(case: Case, seed: int) -> "dict[str, torch.Tensor]":
    """Return storages of q, k and v, where each sequence is made as a case of its own."""
    import torch

    from evaluator.problems import inputs

    lengths = zip(pairwise(_queries(case)), pairwise(_keys(case)), strict=True)
    parts = [
        inputs.make(replace(case, q_len=b - a, kv_len=d - c), seed + number)
        for number, ((a, b), (c, d)) in enumerate(lengths)
        if d > c
    ]
    return stored(qkv(case), {name: torch.cat([part[name] for part in parts], 2) for name in ("q", "k", "v")})


def _scores(
    case: Case,
    view: "Mapping[str, torch.Tensor]",
    batch: int,
    head: int,
    rows: "torch.Tensor",
    *,
    apart: bool = True,
) -> "torch.Tensor":
    """Return the scaled scores of query ``rows`` [n], float64 [n, keys], -inf where hidden. If not ``apart``, they see
    what comes before in other sequences, too.
    """
    import torch

    queries, keys = torch.tensor(_queries(case)), torch.tensor(_keys(case))
    q, k = view["q"][batch, head, rows].double(), view["k"][batch, head // (case.heads // case.kv_heads)].double()
    sequence = torch.searchsorted(queries, rows, right=True) - 1
    end = keys[sequence + 1] - (queries[sequence + 1] - 1 - rows if case.causal else 0)
    at = torch.arange(case.kv_len)
    seen = at < end[:, None]
    if apart:
        seen &= at >= keys[sequence][:, None]
    return ((q @ k.T) * softmax_scale(case)).masked_fill(~seen, -math.inf)
