"""What cases of dense attention may have besides q, k and v, and which keys a query sees: windows, soft caps, sinks and
packed sequences.

A window is that of Mistral 7B (arXiv 2310.06825): a query sees so many keys, its own and those before it. A soft cap is
that of Gemma 2 (arXiv 2408.00118): a score s becomes ``cap * tanh(s / cap)``. A sink is a learned logit of each query
head that takes part in the softmax and has no value, as in gpt-oss (arXiv 2508.10925). Where packed sequences
begin is said by cumulative lengths, as in FlashAttention's functions for variable lengths.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import TYPE_CHECKING

from avo.evaluator.plan import Role
from avo.evaluator.problem import Case, TensorSpec

if TYPE_CHECKING:
    from random import Random

    import torch

_SHORT, _LONG = 128, 4096
"""Drawn windows have up to this many keys, half of them up to the first."""
_MOST_SEQUENCES = 16
_CAPS = (20.0, 60.0)
"""Between these are drawn caps: a key whose logit is 25 still stands out."""
_LEVELS = (0.0, 2.0, -2.0, 4.0)
"""By how much the sinks of neighbouring heads exceed the usual lse of their queries, so that they have shares of an
eighth to nearly all.
"""


@dataclass(frozen=True, slots=True)
class DenseCase(Case):
    """A case of dense attention."""

    window: int | None = None
    """Number of keys that a query sees; 0: all of them. None: the call has no window."""
    softcap: float = 0.0
    """What scaled scores stay below by absolute value; 0: they are not capped, and the call has no cap."""
    sinks: bool = False
    """Whether each query head has a sink."""
    sequences: int = 0
    """How many sequences are packed one after another; ``batch`` is 1 then, and ``q_len`` and ``kv_len`` are those of
    all together. 0: nothing is packed.
    """
    even: bool = False
    """Whether packed sequences are equally long, as nearly as may be; else each is longer than the one before."""


def dense(case: Case) -> DenseCase:
    """Return ``case``; one that is no ``DenseCase`` as one without windows, sinks and packed sequences."""
    if isinstance(case, DenseCase):
        return case
    return DenseCase(**{each.name: getattr(case, each.name) for each in fields(Case)})


def further_inputs(case: Case) -> tuple[TensorSpec, ...]:
    """Return the cumulative lengths of packed sequences, then the sinks; nothing for most cases."""
    of, size = dense(case), dense(case).sequences + 1
    cu = [TensorSpec(f"cu_seqlens_{name}", "int32", (size,), (1,), size, Role.INPUT) for name in "qk"]
    sinks = TensorSpec("sinks", "float32", (case.heads,), (1,), case.heads, Role.INPUT)
    return (*(cu if of.sequences else ()), *([sinks] if of.sinks else ()))


def further_scalars(case: Case) -> tuple[tuple[str, int | float], ...]:
    """Return the window, the soft cap, then the longest of packed sequences; nothing for most cases."""
    of, longest = dense(case), [max(b - a for a, b in pairwise(each)) for each in starts(case)]
    window = [("window", of.window or case.kv_len)] if of.window is not None else []
    softcap = [("softcap", of.softcap)] if of.softcap else []
    return (*window, *softcap, *(zip(("max_seqlen_q", "max_seqlen_k"), longest, strict=True) if of.sequences else ()))


def starts(case: Case) -> tuple[list[int], list[int]]:
    """Return where the queries and the keys of sequences begin, and where the last ends.

    Each sequence has as many keys as it has queries, and a part of all that are more.
    """
    of = dense(case)

    def cut(total: int) -> list[int]:
        cuts = [s if of.even else s * (s + 1) // 2 for s in range((of.sequences or 1) + 1)]
        return [total * each // cuts[-1] for each in cuts]

    queries = cut(case.q_len)
    return queries, [a + b for a, b in zip(queries, cut(case.kv_len - case.q_len), strict=True)]


def lengths(case: Case) -> list[tuple[int, int]]:
    """Return the number of queries and of keys of each sequence of a batch."""
    queries, keys = starts(case)
    return [(b - a, d - c) for (a, b), (c, d) in zip(pairwise(queries), pairwise(keys), strict=True)]


def sequence_of(case: Case, rows: "torch.Tensor") -> "torch.Tensor":
    """Return the sequence of each query of ``rows``, int64 [n], counted within the batch."""
    import torch

    return torch.searchsorted(torch.tensor(starts(case)[0]), rows, right=True) - 1


def seen(case: Case, rows: "torch.Tensor", *, apart: bool = True) -> "tuple[torch.Tensor, torch.Tensor]":
    """Return, for query ``rows`` [n], the first key that each sees and the first one behind those, both int64 [n].

    If not ``apart``, queries of packed sequences see what comes before their own, too.
    """
    import torch

    queries, keys = map(torch.tensor, starts(case))
    sequence = sequence_of(case, rows)
    end = keys[sequence + 1] - (queries[sequence + 1] - 1 - rows if case.causal else 0)
    first = keys[sequence] if apart else torch.zeros_like(rows)
    window = dense(case).window
    return (torch.maximum(first, end - window) if window else first), end


def flops_an_element(case: Case) -> int:
    """Return the FLOPs of one product of queries and keys with vectors of a single element: 2 for each query head and
    key that it sees. In causal cases without a window, half of all pairs of a sequence count, as in the AVO paper.
    """
    window, found = dense(case).window, 0
    for queries, keys in lengths(case):
        if not window:
            found += queries * keys * (1 if case.causal else 2)
            continue
        # The first queries see fewer keys than the window has.
        first = keys - queries + 1
        rising = min(max(window - first, 0), queries)
        found += 2 * (rising * first + rising * (rising - 1) // 2 + (queries - rising) * window)
    return case.batch * case.heads * found


def redrawn(case: Case, chance: "Random") -> Case:
    """Return ``case`` with other sequences, and half of the time with another window and cap, if its call has any."""
    of = dense(case)
    window = chance.choice((chance.randint(1, _SHORT), chance.randint(1, _LONG)))
    sequences, even = chance.randint(1, _MOST_SEQUENCES), chance.random() < 0.5
    if of.window is not None:
        of = replace(of, window=chance.choice((of.window, window)))
    if of.softcap:
        of = replace(of, softcap=chance.choice((of.softcap, chance.uniform(*_CAPS))))
    return replace(of, batch=1, sequences=sequences, even=even) if of.sequences else of


def make_rows(case: Case, seed: int) -> "dict[str, torch.Tensor]":
    """Return q, k and v from the input maker of ``case``, which makes each of packed sequences as a case of its own."""
    import torch

    from avo.evaluator.problems import inputs

    if not dense(case).sequences:
        return inputs.make(case, seed)
    parts = [
        inputs.make(replace(case, q_len=queries, kv_len=keys), seed + number)
        for number, (queries, keys) in enumerate(lengths(case))
        if keys
    ]
    return {name: torch.cat([part[name] for part in parts], 2) for name in ("q", "k", "v")}


def make_further(case: Case, seed: int, most: float = math.inf) -> "dict[str, torch.Tensor]":
    """Return the flat storages of ``further_inputs``; sinks are near the lse of a usual query: see ``_LEVELS``. It sees
    ``most`` keys at most.
    """
    import torch

    from avo.evaluator.problems import inputs

    of, made = dense(case), {}
    if of.sequences:
        for name, found in zip("qk", starts(case), strict=True):
            made[f"cu_seqlens_{name}"] = torch.tensor(found, dtype=torch.int32)
    if of.sinks:
        keys = min(case.kv_len / (of.sequences or 1), most)
        usual = math.log(min(of.window or keys, keys)) + (-100.0 if case.inputs == "negative" else 0.5)
        levels = torch.tensor(_LEVELS)[torch.arange(case.heads) % len(_LEVELS)]
        made["sinks"] = usual + levels + 0.3 * torch.randn(case.heads, generator=inputs.seeded("sinks", seed))
    return made


def capped(scores: "torch.Tensor", case: Case) -> "torch.Tensor":
    """Return scaled scores below the soft cap of ``case``, if it has any."""
    cap = dense(case).softcap
    return (scores / cap).tanh_().mul_(cap) if cap else scores


def with_sink(
    scores: "torch.Tensor", v: "torch.Tensor", inputs: "Mapping[str, torch.Tensor]", head: int
) -> "tuple[torch.Tensor, torch.Tensor]":
    """Return scores [n, keys] and values [keys, elements] with the sink of a query head, where ``inputs`` have sinks,
    as one key more whose value is zero.
    """
    import torch

    if "sinks" not in inputs:
        return scores, v
    column = inputs["sinks"][head].double().expand(len(scores), 1)
    return torch.cat((scores, column), 1), torch.cat((v, torch.zeros_like(v[:1])))
