"""Sliding-window attention, forward: a problem of your own in one file.

    avo evaluate examples/sliding_window_seed.py --problem examples/sliding_window.py
    avo run --problem examples/sliding_window.py --seed-kernel examples/sliding_window_seed.py

AVO imports this file, takes ``PROBLEM`` from it and calls its methods: they say what a candidate must define, on which
shapes it is tested and timed, and what the right numbers are. docs/problems.md says what each method must return.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from random import Random

import torch

from avo import HELD_OUT, Baseline, Call, Case, Expected, Output
from avo.evaluator.problems.dense import (
    OUTPUTS,
    attend,
    expected,
    make_qkv,
    outputs,
    plant_key,
    qkv,
    softmax_scale,
    structured,
    total_bytes,
    views,
)


@dataclass(frozen=True, slots=True)
class WindowCase(Case):
    """A case with a window."""

    window: int = 0
    """Number of keys that a query sees: its own and those before it."""


@dataclass(frozen=True)
class SlidingWindow:
    """``def sliding_window(q, k, v, out, lse, *, window: int, scale: float) -> None``.

    Query t sees key u when ``t - window < u <= t``. Shapes are those of ``gqa``, with as many keys as queries, and
    lse is the natural logarithm of the sum of exponentials of the scaled scores.
    """

    name: str = "sliding-window"
    entry: str = "sliding_window"
    outputs: tuple[Output, ...] = OUTPUTS
    baselines: tuple[Baseline, ...] = ()

    @property
    def correctness_cases(self) -> tuple[Case, ...]:
        """Windows within a tile, across tiles, at their edges, and longer than the sequence."""
        return (
            _case("within-a-tile", 2, 1, 100, 20, "edge"),
            _case("across-tiles", 4, 2, 333, 130, "dominant", "bshd"),
            _case("whole-tiles", 2, 2, 256, 64, "normal", "padded"),
            _case("one-key", 2, 1, 70, 1, "normal"),
            _case("longer-than-all", 2, 1, 150, 400, "large"),
            _case("constant", 2, 2, 260, 128, "constant", "mixed"),
        )

    @property
    def suites(self) -> Mapping[str, tuple[Case, ...]]:
        """One case, as long as a prompt, and one that no operator is shown."""
        return {
            "quick": (WindowCase("8k-512", 1, 16, 4, 8192, 8192, 128, True, inputs="tiled", window=512),),
            HELD_OUT: (WindowCase("5k-1000", 2, 8, 4, 5000, 5000, 128, True, inputs="tiled", window=1000),),
        }

    def call(self, case: Case) -> Call:
        """Return the five tensors and two scalars of ``case``."""
        return Call(
            case.name, (*qkv(case), *outputs(case)), (("window", _window(case)), ("scale", softmax_scale(case)))
        )

    def at_other_lengths(self, case: Case, chance: Random) -> Case:
        """Return ``case`` with up to 63 tokens more."""
        length = case.q_len + chance.randrange(1, 64)
        return replace(case, q_len=length, kv_len=length)

    def at_length(self, case: Case, length: int, chance: Random) -> Case:
        """Return ``case`` at another length, with few heads, layout, scale and window drawn."""
        drawn = structured(case, length, chance)
        assert isinstance(drawn, WindowCase)
        return replace(drawn, window=chance.choice((chance.randint(1, 128), chance.randint(1, 4096))))

    def flops(self, case: Case) -> int:
        """Return 4 * head_dim for each pair of a query and a key that it sees."""
        full = min(_window(case), case.q_len)
        pairs = full * (full + 1) // 2 + (case.q_len - full) * full
        return 4 * case.head_dim * case.batch * case.heads * pairs

    def least_bytes(self, case: Case) -> int:
        """Return the bytes of q, k, v, out and lse."""
        return total_bytes(self.call(case))

    def make_inputs(self, case: Case, seed: int) -> dict[str, torch.Tensor]:
        """Return the flat storages of q, k and v."""
        return make_qkv(case, seed)

    def reference(
        self, case: Case, inputs: Mapping[str, torch.Tensor], of: str, batch: int, head: int, rows: torch.Tensor
    ) -> Mapping[str, Expected]:
        """Return out and lse in float64 for some query rows of one batch and head, and how exact out can be."""
        view = views(case, inputs)
        kv_head = head // (case.heads // case.kv_heads)
        k, v = (view[name][batch, kv_head].double() for name in ("k", "v"))
        distance = rows[:, None] - torch.arange(case.kv_len)
        logits = (view["q"][batch, head, rows].double() @ k.T) * softmax_scale(case)
        logits = logits.masked_fill((distance < 0) | (distance >= _window(case)), -math.inf)
        return expected(*attend(logits, v, view["q"].dtype))

    def plant(
        self, case: Case, inputs: Mapping[str, torch.Tensor], chance: Random
    ) -> Mapping[str, tuple[int, int, int]]:
        """Give one query a key of its own."""
        return plant_key(case, inputs, chance)


def _case(
    name: str, heads: int, kv_heads: int, length: int, window: int, inputs: str, layout: str = "contiguous"
) -> WindowCase:
    return WindowCase(name, 2, heads, kv_heads, length, length, 128, True, inputs=inputs, layout=layout, window=window)


def _window(case: Case) -> int:
    assert isinstance(case, WindowCase)
    return case.window


PROBLEM = SlidingWindow()
