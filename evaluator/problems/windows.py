"""Dense attention with a sliding window, with attention sinks, or with both.

A window is that of Mistral 7B (arXiv 2310.06825): a query sees so many keys, its own and those before it. A sink is a
learned logit of each head that takes part in the softmax and has no value, as in gpt-oss (arXiv 2508.10925).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

from evaluator.plan import Role
from evaluator.problem import Call, Case, Expected, TensorSpec, Wrong
from evaluator.problems.dense import (
    Attention,
    attend,
    expected,
    logits,
    make_qkv,
    of_any_length,
    outputs,
    plant_key,
    qkv,
    small,
    softmax_scale,
    value_dim,
    views,
)
from evaluator.setting import Setting

if TYPE_CHECKING:
    from random import Random

    import torch

_SHORT, _LONG = 128, 4096
"""Drawn windows have up to this many keys, half of them up to the first."""
_LEVELS = (0.0, 2.0, -2.0, 4.0)
"""By how much the sinks of neighbouring heads exceed the usual lse of their queries, so that they have shares of an
eighth to nearly all.
"""


@dataclass(frozen=True, slots=True)
class WindowCase(Case):
    """A case with a window, with sinks, or with both."""

    window: int | None = None
    """Number of keys that a query sees; 0: all of them. None: the call has no window."""
    sinks: bool = False
    """Whether each head has a sink."""


@dataclass(frozen=True)
class WindowedAttention(Attention):
    """``def attention(q, k, v, [sinks,] out, lse, *, causal: bool, scale: float[, window: int]) -> None``.

    q and out are [batch, heads, q_len, head_dim], k and v [batch, kv_heads, kv_len, head_dim]; the rows of v and out
    have ``head_dim_v`` elements where a case sets it. lse is float32 [batch, heads, q_len], the natural logarithm of
    the sum of exponentials of the scaled scores. Query i sees key j when not causal or ``j <= i + kv_len - q_len``.
    Head h uses KV head ``h // (heads / kv_heads)``.

    Where there is a window it is 1 or more, causal is True, and query i sees key j only if also
    ``j > i + kv_len - q_len - window``: ``window`` keys at most. Layers that see all keys have the window kv_len.
    Where there are sinks they are float32 [heads], contiguous: one logit more for each query head, beside its scaled
    scores and not scaled itself. It counts in the denominator of the softmax and in lse, and has no value.
    """

    def call(self, case: Case) -> Call:
        """Return the tensors and scalars of ``case``."""
        of, scalars = _of(case), [("causal", case.causal), ("scale", softmax_scale(case))]
        if of.window is not None:
            scalars.append(("window", of.window or case.kv_len))
        return Call(case.name, (*qkv(case), *_sinks(of), *outputs(case)), tuple(scalars))

    def at_length(self, case: Case, length: int, chance: "Random") -> Case:
        """Return ``of_any_length``, half of the time with another window; a call that has no window stays without."""
        drawn = _of(of_any_length(case, length, chance))
        window = chance.choice((chance.randint(1, _SHORT), chance.randint(1, _LONG)))
        if drawn.window is None:
            return drawn
        return replace(drawn, window=chance.choice((drawn.window, window)))

    def flops(self, case: Case) -> int:
        """Return 2 times the elements of a key and of a value for each query and key that it sees; of cases without a
        window as ``Attention`` counts.
        """
        window = _of(case).window
        if not window:
            return Attention.flops(self, case)
        # The first queries see fewer keys than the window has.
        first = case.kv_len - case.q_len + 1
        rising = min(max(window - first, 0), case.q_len)
        pairs = rising * first + rising * (rising - 1) // 2 + (case.q_len - rising) * window
        return 2 * case.batch * case.heads * pairs * (case.head_dim + value_dim(case))

    def make_inputs(self, case: Case, seed: int) -> "dict[str, torch.Tensor]":
        """Return the flat storages of q, k, v and the sinks."""
        made = make_qkv(case, seed)
        return {**made, **({"sinks": _made(case, seed)} if _of(case).sinks else {})}

    def reference(
        self, case: Case, inputs: "Mapping[str, torch.Tensor]", of: str, batch: int, head: int, rows: "torch.Tensor"
    ) -> Mapping[str, Expected]:
        """Return out and lse: see ``Problem.reference``."""
        view = views(case, inputs)
        hidden = ~_seen(case, rows, _of(case).window or case.kv_len)
        scores = logits(case, view, batch, head, rows).masked_fill(hidden, -math.inf)
        v = view["v"][batch, head // (case.heads // case.kv_heads)].double()
        scores, v = _with_sink(scores, v, inputs["sinks"][head] if _of(case).sinks else None)
        return expected(*attend(scores, v, view["q"].dtype))

    def plant(
        self, case: Case, inputs: "Mapping[str, torch.Tensor]", chance: "Random"
    ) -> Mapping[str, tuple[int, int, int]]:
        """Give one query a key of its own within its window: see ``plant_key``."""
        return plant_key(case, inputs, chance, _of(case).window or 0)

    def diagnose(self, case: Case, inputs: "Mapping[str, torch.Tensor]", wrong: Wrong) -> str:
        """Return which of the mistakes that are usual with windows and sinks explains the rows."""
        from evaluator.problems.diagnosis import explains

        view, of = views(case, inputs), _of(case)
        kv_head = wrong.head // (case.heads // case.kv_heads)
        scores = logits(case, view, wrong.batch, wrong.head, wrong.rows)
        width = of.window or case.kv_len
        v, sink = view["v"][wrong.batch, kv_head].double(), inputs["sinks"][wrong.head] if of.sinks else None
        # The right result is the first: a mistake that changes little explains no more than it does.
        guesses = [("", width, sink)]
        if of.window:
            guesses += [
                ("windows have one key too many", width + 1, sink),
                ("windows have one key too few", width - 1, sink),
                ("the window is ignored", case.kv_len, sink),
            ]
        if sink is not None:
            guesses += [
                ("the sinks are left out", width, None),
                ("the sinks are scaled as scores are", width, sink * softmax_scale(case)),
            ]
        errors: dict[str, float] = {}
        for text, window, taken in guesses:
            seen = scores.masked_fill(~_seen(case, wrong.rows, window), -math.inf)
            out, lse, _ = attend(*_with_sink(seen, v, taken), view["q"].dtype)
            off = (wrong.values["out"] - out).norm() / out.norm(), (wrong.values["lse"] - lse).abs().max()
            errors[text] = max(map(float, off))
        best = min(errors, key=lambda text: errors[text])
        return best if explains(errors[best], errors[""]) else ""


def with_windows(problem: Attention, suites: Mapping[str, tuple[Case, ...]], setting: Setting) -> WindowedAttention:
    """Return the problem with the windows and sinks of a setting, on the cases of ``suites``.

    All cases with a window are causal. With layers that see all keys beside those with a window, each case of the
    suites is there twice: as it is named, and with ``-global`` behind its name.
    """

    def of(case: Case, window: int | None) -> WindowCase:
        known = {each.name: getattr(case, each.name) for each in fields(Case)}
        return WindowCase(**known, window=window, sinks=setting.sinks)

    if not setting.window:
        return WindowedAttention(
            name=problem.name,
            correctness_cases=tuple(of(case, None) for case in problem.correctness_cases),
            suites={suite: tuple(of(case, None) for case in cases) for suite, cases in suites.items()},
            baselines=(),
        )
    made = {}
    for suite, cases in suites.items():
        causal = (replace(case, name=case.name.replace("-full", "-causal"), causal=True) for case in cases)
        each = {case.name: of(case, setting.window) for case in causal}.values()
        twice = (replace(case, name=f"{case.name}-global", window=0) for case in each if setting.everywhere)
        made[suite] = (*each, *twice)
    return WindowedAttention(
        name=problem.name,
        correctness_cases=tuple(of(case, window) for case, window in _small(grouped=problem.name.startswith("gqa"))),
        suites=made,
        baselines=(),
    )


def _small(*, grouped: bool) -> tuple[tuple[Case, int], ...]:
    """Return correctness cases with windows within a tile, across tiles, at their edges, and longer than all keys."""
    a, b, c = ((8, 2), (4, 1), (6, 3)) if grouped else ((2, 2), (2, 2), (1, 1))
    return (
        (small("within-a-tile", *a, 100, 100, True, "edge"), 20),
        (small("across-tiles", *b, 333, 333, True, "dominant", "bshd"), 130),
        (small("whole-tiles", *a, 256, 256, True, "edge"), 64),
        # As for mha, 1 and 126 are where a bound meets the edge of a tile; windows end there, too.
        (small("edge-1", *b, 128, 129, True, "edge", scale=0.11), 65),
        (small("edge-126", *a, 128, 254, True, "edge"), 127),
        (small("fewer-queries", *c, 77, 333, True, "dominant", "mixed"), 128),
        (small("one-key", *a, 70, 70, True, "normal"), 1),
        (small("one-query", *b, 1, 130, True, "outliers"), 50),
        (small("short", *a, 5, 5, True, "normal"), 3),
        (small("longer-than-all", *c, 150, 150, True, "large"), 400),
        (small("all-keys", *a, 161, 161, True, "outliers", "padded"), 0),
        (small("constant", *a, 129, 257, True, "constant", scale=0.07), 100),
        (small("negative", *c, 100, 300, True, "negative"), 90),
        (small("rising", *a, 70, 321, True, "rising"), 200),
        (small("long", *c, 700, 700, True, "normal"), 256),
    )


def _of(case: Case) -> WindowCase:
    assert isinstance(case, WindowCase)
    return case


def _sinks(case: WindowCase) -> tuple[TensorSpec, ...]:
    return (TensorSpec("sinks", "float32", (case.heads,), (1,), case.heads, Role.INPUT),) if case.sinks else ()


def _made(case: Case, seed: int) -> "torch.Tensor":
    """Return sinks near the lse of a usual query: see ``_LEVELS``."""
    import torch

    from evaluator.problems import inputs

    usual = math.log(min(_of(case).window or case.kv_len, case.kv_len)) + (-100.0 if case.inputs == "negative" else 0.5)
    levels = torch.tensor(_LEVELS)[torch.arange(case.heads) % len(_LEVELS)]
    return usual + levels + 0.3 * torch.randn(case.heads, generator=inputs.seeded("sinks", seed))


def _seen(case: Case, rows: "torch.Tensor", window: int) -> "torch.Tensor":
    """Return which keys are not before the windows of ``rows`` [n], bool [n, keys]."""
    import torch

    keys = torch.arange(case.kv_len)
    return keys > rows[:, None] + (case.kv_len - case.q_len) - window


def _with_sink(
    scores: "torch.Tensor", v: "torch.Tensor", sink: "torch.Tensor | None"
) -> "tuple[torch.Tensor, torch.Tensor]":
    """Return scores and values with the sink as one key more, whose value is zero."""
    import torch

    if sink is None:
        return scores, v
    column = sink.double().expand(len(scores), 1)
    return torch.cat((scores, column), 1), torch.cat((v, torch.zeros_like(v[:1])))
