"""Flash Sparse Attention (arXiv 2508.18224), forward: the problem ``fsa``, the selected branch of Native Sparse
Attention (arXiv 2502.11089).

A candidate may rely on head dim 128, bfloat16 and block sizes that are powers of two from 16 to 128; not on lengths,
groups, strides, nor on how many blocks a query may select. How blocks are chosen stays outside the kernel.

In settings with sinks or packed sequences these come behind the indices, as behind v in dense attention.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from avo.evaluator.plan import Role
from avo.evaluator.problem import CROWDED, HELD_OUT, Baseline, Call, Case, Expected, Output, Problem, TensorSpec
from avo.evaluator.problems.dense import (
    OUTPUTS,
    attend,
    expected,
    far,
    make_qkv,
    outputs,
    plant_key,
    qkv,
    softmax_scale,
    structured,
    total_bytes,
    value_dim,
    views,
)
from avo.evaluator.problems.refusals import of_selection, refusal
from avo.evaluator.problems.selection import (
    SELECTIONS,
    SelectedCase,
    make_block_indices,
    selected_pairs,
)
from avo.evaluator.problems.settings import in_setting
from avo.evaluator.problems.variants import small_selected
from avo.evaluator.problems.visible import (
    further_inputs,
    further_scalars,
    lengths,
    make_further,
    redrawn,
    seen,
    with_sink,
)
from avo.evaluator.problems.wording import meaning
from avo.evaluator.setting import HEAD_DIM, Setting

if TYPE_CHECKING:
    from random import Random

    import torch

KV_HEADS = 4
_LONG = 16384
"""Tokens from which a case that is drawn has one KV head, and no rows that are padded: both take the judge too long."""
_MOST_HEADS = 8191
"""Most query heads of all sequences of a case of up to ``CROWDED`` keys: the partial outputs of more, three for each of
a tile of up to 128 queries, do not fit the scratch that a candidate may have, and gradients of more take the judge too
long.
"""
ROWS_AT_ONCE = 64
"""Rows of queries that the reference handles at once; it bounds the memory of its float64 matrices of rows by keys."""

meaning_of_selected = partial(
    meaning, counted="t, u and the blocks", keys="as many as queries, so that both have the same lengths"
)


@dataclass(frozen=True)
class SelectedAttention:
    """``def selected_attention(q, k, v, block_indices, out, lse, *, block_size: int, scale: float) -> None``.

    q and out are [batch, heads, q_len, head_dim], k and v [batch, kv_heads, q_len, head_dim]. lse is float32
    [batch, heads, q_len], contiguous, the natural logarithm of the sum of exponentials of the scaled scores.
    block_indices is int32 [batch, kv_heads, q_len, blocks], contiguous, ascending, padded with -1 at the tail. Query t
    of head h sees key u when ``u <= t`` and ``u // block_size`` is in ``block_indices[b, h // (heads / kv_heads), t]``.
    The block of t always is, none behind it ever is, and block 0 and the one before that of t always are, unless the
    problem's name says local. block_size is 16, 32, 64 or 128, and blocks is 3 or more.
    """

    name: str
    correctness_cases: tuple[SelectedCase, ...]
    suites: Mapping[str, tuple[SelectedCase, ...]]
    baselines: tuple[Baseline, ...] = ()
    entry: str = field(default="selected_attention", init=False)
    outputs: tuple[Output, ...] = field(default=OUTPUTS, init=False)

    def call(self, case: Case) -> Call:
        """Return the tensors and scalars of ``case``."""
        tensors = (*qkv(case), block_indices(case), *further_inputs(case), *outputs(case))
        return Call(case.name, tensors, scalars(case))

    def at_other_lengths(self, case: Case, chance: "Random") -> Case:
        """Return ``case`` with up to 63 tokens more, and possibly fewer batches."""
        length = case.q_len + chance.randrange(1, 64)
        return replace(case, batch=chance.randint(1, case.batch), q_len=length, kv_len=length)

    def at_length(self, case: Case, length: int, chance: "Random") -> Case:
        """Return ``structured`` with block size, number of blocks, selection and packed sequences drawn too.

        The batch is 1 and there are few KV heads: where indices decide what programs do, all of them are read. Long
        cases are ``contiguous`` or ``bshd``. Up to ``CROWDED`` keys there are nearly ``_MOST_HEADS``.
        """
        drawn = _of(redrawn(structured(case, length, chance, _MOST_HEADS), chance))
        batch, kv_heads, group = drawn.batch, drawn.kv_heads, drawn.heads // drawn.kv_heads
        if length > CROWDED:
            batch, kv_heads = 1, min(kv_heads, 2 if length < _LONG else 1)
        return replace(
            drawn,
            batch=batch,
            heads=kv_heads * group,
            kv_heads=kv_heads,
            layout="bshd" if length >= _LONG and drawn.layout != "contiguous" else drawn.layout,
            block_size=chance.choice((16, 32, 64, 128)),
            blocks=chance.randint(3, 16 if length > CROWDED else 3),
            selection=chance.choice(sorted(SELECTIONS)),
        )

    def flops(self, case: Case) -> int:
        """Return ``flops_an_element`` times the elements of a key and of a value."""
        return _flops(_of(case))

    def least_bytes(self, case: Case) -> int:
        """Return the bytes of all tensors: every block is selected, by its own queries if by no others."""
        return total_bytes(self.call(case))

    def make_inputs(self, case: Case, seed: int) -> "dict[str, torch.Tensor]":
        """Return the flat storages of all inputs."""
        return {**make_qkv(case, seed), "block_indices": make_blocks(case, seed), **make_more(case, seed)}

    def reference(
        self, case: Case, inputs: "Mapping[str, torch.Tensor]", of: str, batch: int, head: int, rows: "torch.Tensor"
    ) -> Mapping[str, Expected]:
        """Return out and lse: see ``Problem.reference``."""
        import torch

        view, chosen = views(case, inputs), chosen_blocks(case, inputs)
        v = view["v"][batch, head // (case.heads // case.kv_heads)].double()
        parts = (
            attend(*with_sink(selected_logits(case, chosen, view, batch, head, part), v, inputs, head), view["q"].dtype)
            for part in rows.split(ROWS_AT_ONCE)
        )
        return expected(*(torch.cat(column) for column in zip(*parts, strict=True)))

    def plant(
        self, case: Case, inputs: "Mapping[str, torch.Tensor]", chance: "Random"
    ) -> Mapping[str, tuple[int, int, int]]:
        """Give one query a key of its own: see ``plant_key``."""
        return plant_key(case, inputs, chance)

    def refusal(self, setting: Setting) -> str:
        """See ``avo.evaluator.setting.Settable``."""
        return refusal(setting, of_selection(self.name, "gqa", setting))

    def meaning(self, setting: Setting) -> str:
        """See ``avo.evaluator.setting.Settable``."""
        return meaning_of_selected(setting)

    def in_setting(self, setting: Setting) -> Problem:
        """See ``avo.evaluator.setting.Settable``."""
        return in_setting(self, setting, small_selected(setting, self.correctness_cases))


def chosen_blocks(case: Case, inputs: "Mapping[str, torch.Tensor]") -> "torch.Tensor":
    """Return ``block_indices`` over their flat storage."""
    return inputs["block_indices"].view(block_indices(case).shape)


def make_blocks(case: Case, seed: int) -> "torch.Tensor":
    """Return the flat storage of ``block_indices``."""
    import torch

    from avo.evaluator.problems.inputs import seeded

    generator = seeded("block_indices", seed)
    return torch.cat([make_block_indices(part, generator) for part in _sequences(_of(case))], 2).flatten()


def blocks_of_keys(case: SelectedCase) -> "torch.Tensor":
    """Return the block of each key, int64 [keys], counted within its sequence."""
    import torch

    keys = torch.arange(case.kv_len)
    return (keys - seen(case, keys)[0]) // case.block_size


def selected_logits(
    case: Case,
    chosen: "torch.Tensor",
    view: "Mapping[str, torch.Tensor]",
    batch: int,
    head: int,
    rows: "torch.Tensor",
) -> "torch.Tensor":
    """Return the scaled scores of query ``rows`` [n], float64 [n, keys], -inf where a key is not selected or not seen.

    ``chosen`` is what ``chosen_blocks`` returns; ``view`` has q and k.
    """
    import torch

    kv_head, keys, of_keys = head // (case.heads // case.kv_heads), torch.arange(case.kv_len), blocks_of_keys(_of(case))
    first, end = seen(case, rows)
    blocks = torch.zeros(len(rows), -(-case.kv_len // _of(case).block_size) + 1, dtype=torch.bool)
    blocks.scatter_(1, chosen[batch, kv_head, rows].long() + 1, True)  # the first column takes what is -1
    visible = blocks[:, of_keys + 1] & (keys >= first[:, None]) & (keys < end[:, None])
    scores = view["q"][batch, head, rows].double() @ view["k"][batch, kv_head].double().T * softmax_scale(case)
    return scores.masked_fill(~visible, -math.inf)


def scalars(case: Case) -> tuple[tuple[str, Any], ...]:
    """Return block size and scale, and the longest of packed sequences."""
    return (("block_size", _of(case).block_size), ("scale", softmax_scale(case)), *further_scalars(case))


def make_more(case: Case, seed: int) -> "dict[str, torch.Tensor]":
    """Return the flat storages of ``further_inputs``."""
    return make_further(case, seed, _of(case).blocks * _of(case).block_size)


def _of(case: Case) -> SelectedCase:
    assert isinstance(case, SelectedCase)
    return case


def _sequences(case: SelectedCase) -> tuple[SelectedCase, ...]:
    return tuple(replace(case, q_len=length, kv_len=length, sequences=0) for length, _ in lengths(case) if length)


def flops_an_element(case: SelectedCase) -> int:
    """Return 2 for each query head and each key that it selects and sees.

    Makers of block indices fix how many there are: see ``selection``.
    """
    return 2 * case.batch * case.heads * sum(map(selected_pairs, _sequences(case)))


def _flops(case: SelectedCase) -> int:
    return flops_an_element(case) * (case.head_dim + value_dim(case))


def block_indices(case: Case) -> TensorSpec:
    """Return the blocks that the queries of ``case`` select, [batch, kv_heads, q_len, blocks]."""
    shape = (case.batch, case.kv_heads, case.q_len, _of(case).blocks)
    strides = (math.prod(shape[1:]), math.prod(shape[2:]), shape[3], 1)
    return TensorSpec("block_indices", "int32", shape, strides, math.prod(shape), Role.INPUT)


def _case(
    name: str,
    heads: int,
    kv_heads: int,
    length: int,
    block_size: int,
    blocks: int,
    selection: str,
    inputs: str,
    layout: str = "contiguous",
    scale: float = 0.0,
    batch: int = 2,
) -> SelectedCase:
    return SelectedCase(
        name,
        batch,
        heads,
        kv_heads,
        length,
        length,
        HEAD_DIM,
        True,
        inputs=inputs,
        layout=layout,
        scale=scale,
        block_size=block_size,
        blocks=blocks,
        selection=selection,
    )


def tiled_selection(
    name: str,
    length: int,
    block_size: int,
    blocks: int,
    heads: int,
    kv_heads: int = KV_HEADS,
    selection: str = "random",
) -> SelectedCase:
    """Return a benchmark case."""
    return _case(name, heads, kv_heads, length, block_size, blocks, selection, "tiled", batch=1)


def _benchmark(length_k: int, block_size: int, group: int) -> SelectedCase:
    """Return a case of the FSA paper: 16 blocks of 64 keys or 8 of 128. It names no number of KV heads; 4 is ours."""
    return tiled_selection(
        f"{length_k}k-b{block_size}-g{group}", length_k * 1024, block_size, 1024 // block_size, group * KV_HEADS
    )


_PAPER = tuple(
    _benchmark(length, block_size, group)
    for block_size, groups in ((64, (2, 8, 4, 1)), (128, (8, 4, 1, 2)))
    for length, group in zip((8, 16, 32, 64), groups, strict=True)
)
"""A selection of the 32 combinations of the paper's block sizes, lengths and groups. Each length and each group occurs
once with each block size. Long ones have small groups, so that a case takes no more memory than one of ``mha``.
"""
_QUICK = (_PAPER[0], _PAPER[4])
_SCRIPT = (
    *(tiled_selection(f"{length}k-32kv", length * 1024, 64, 16, 32, 32) for length in (8, 16, 32, 64)),
    tiled_selection("8k-4kv", 8192, 64, 16, 32),
)
"""What the public benchmark of Flash Sparse Attention runs, which has as many KV heads as query heads by default
(scripts/run_unit_test_sel_attn.sh of github.com/Relaxed-System-Lab/Flash-Sparse-Attention), at the paper's lengths, and
the one shape at which somebody published what it gave.
"""
_MINIMAX_M3 = tuple(tiled_selection(f"{length}k-m3", length * 1024, 128, 16, 64) for length in (4, 8, 16, 32, 64))
"""The shape of MiniMax-M3: 64 query heads on 4 KV heads and 16 blocks of 128 keys (github.com/MiniMax-AI/MSA)."""
_HELD_OUT = (
    tiled_selection("12k-b64-g4-skewed", 12288, 64, 16, 16, selection="skewed"),
    tiled_selection("20k-b128-g1", 20480, 128, 8, 6, kv_heads=6),
    tiled_selection("ragged-b64-g8", 9999, 64, 12, 16, kv_heads=2),
)
"""Held-out shapes, which no operator is shown: other lengths, head counts and numbers of blocks, and a hot block."""


_CORRECTNESS = (
    _case("group-1", 3, 3, 321, 32, 5, "random", "normal"),
    _case("group-2", 4, 2, 260, 16, 7, "random", "dominant", "bshd"),
    _case("group-4", 4, 1, 400, 64, 4, "random", "large"),
    _case("group-8", 8, 1, 200, 16, 6, "random", "edge", "mixed"),
    _case("group-16", 16, 1, 70, 16, 4, "random", "dominant"),
    _case("skewed", 2, 1, 450, 32, 5, "skewed", "dominant", "padded"),
    _case("nearly-dense", 4, 2, 190, 16, 11, "dense", "outliers"),
    _case("forced-only", 4, 1, 250, 32, 8, "shortest", "dominant", scale=0.11),
    _case("uneven", 4, 2, 331, 16, 8, "uneven", "negative"),
    _case("fewer-blocks-than-slots", 2, 2, 150, 64, 16, "random", "edge"),
    _case("less-than-a-block", 2, 1, 20, 64, 8, "random", "edge"),
    _case("one-token", 4, 2, 1, 16, 3, "random", "normal"),
    _case("constant", 2, 1, 257, 32, 5, "random", "constant", scale=0.07),
    _case("rising", 2, 2, 290, 16, 9, "random", "rising"),
    _case("blocks-of-64", 2, 1, 750, 64, 8, "random", "normal"),
    _case("blocks-of-128", 2, 1, 850, 128, 4, "skewed", "large"),
    _case("step", 3, 3, 400, 64, 5, "random", "step", batch=1),
    *far(_case("", 8, 4, 50, 16, 4, "random", "dominant", batch=4)),
)


def reported(name: str, flops: int, milliseconds: float) -> Baseline:
    """Return what the public benchmark was reported to give at its one shape, from the time of one run."""
    source = "Relaxed-System-Lab/Flash-Sparse-Attention, issue 3: H200, 20 runs, with the blocks that it selects itself"
    return Baseline(name, "h200", {_SCRIPT[-1].name: flops / (milliseconds * 1e9)}, source)


_BASELINES = (
    Baseline("seed query_outer", "", {}, "the order of the kernel of Native Sparse Attention", seed="query_outer"),
    Baseline(
        "Flash Sparse Attention",
        "h200",
        {},
        "FSA, arXiv 2508.18224, abstract: H20 and H200",
        "a ratio alone: its kernels take 1.6 times less time than those of Native Sparse Attention on average, "
        "3.5 times at most",
    ),
    reported("Native Sparse Attention's kernel", _flops(_SCRIPT[-1]), 31.077 / 20),
    reported("Flash Sparse Attention's kernels", _flops(_SCRIPT[-1]), 123.353 / 20),
)
"""We know of published times at one shape alone."""

PROBLEM = FSA = SelectedAttention(
    name="fsa",
    correctness_cases=_CORRECTNESS,
    suites={"quick": _QUICK, "paper": _PAPER, "script": _SCRIPT, "minimax-m3": _MINIMAX_M3, HELD_OUT: _HELD_OUT},
    baselines=_BASELINES,
)
