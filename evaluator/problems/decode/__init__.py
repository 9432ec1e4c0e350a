"""Decoding: one to eight queries a sequence over a paged cache of keys and values; the problem ``decode``.

The cache is one of pages, as in PagedAttention (arXiv 2309.06180): a table says which pages a sequence has, in order.
What a page holds behind the end of its sequence is left from before. No two sequences share a page.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from avo.evaluator.plan import ITEM_BYTES, Role
from avo.evaluator.problem import CROWDED, HELD_OUT, Baseline, Call, Case, Expected, Output, Problem, TensorSpec
from avo.evaluator.problems.dense import (
    OUTPUTS,
    attend,
    expected,
    far,
    laid_out,
    outputs,
    query_shape,
    softmax_scale,
    stored,
    structured,
    value_dim,
    viewed,
)
from avo.evaluator.problems.refusals import of_no_blocks, refusal
from avo.evaluator.problems.settings import in_setting
from avo.evaluator.problems.variants import small_decodes
from avo.evaluator.problems.visible import (
    DenseCase,
    capped,
    further_inputs,
    further_scalars,
    make_further,
    redrawn,
    with_sink,
)
from avo.evaluator.problems.wording import meaning
from avo.evaluator.setting import HEAD_DIM, Setting

if TYPE_CHECKING:
    from random import Random

    import torch

MOST_QUERIES = 8
_SPARE = 3
"""Pages of the cache that belong to no sequence."""
_STALE = 8.0
"""Standard deviation of what was left in the cache."""
_LONG = 16384
"""Keys from which a case that is drawn has one or two sequences, to bound its memory."""


@dataclass(frozen=True, slots=True)
class DecodeCase(DenseCase):
    """A case of decoding; ``kv_len`` is the length of the longest sequence."""

    page_size: int = 16
    """Keys of a page."""
    ragged: bool = False
    """Whether sequences differ in length, the last being the longest."""


@dataclass(frozen=True)
class Decode:
    """``def decode(q, k, v, block_table, lengths, out, lse, *, scale: float) -> None``.

    q and out are [batch, heads, q_len, head_dim] with q_len from 1 to 8; k and v are a cache of pages,
    [pages, kv_heads, page_size, head_dim], where page_size is 16, 32, 64 or 128. block_table is int32 [batch, most],
    contiguous: the pages of each sequence in order, then -1. lengths is int32 [batch], contiguous: the keys of each
    sequence, at least q_len and at most page_size * most. Key j of sequence b is in row ``j % page_size`` of page
    ``block_table[b, j // page_size]``. Query i of sequence b sees key j when ``j <= i + lengths[b] - q_len``. Head h
    uses KV head ``h // (heads / kv_heads)``. lse is float32 [batch, heads, q_len], contiguous, the natural logarithm of
    the sum of exponentials of the scaled scores. Rows of the cache that no sequence has hold what was left there.
    """

    name: str
    correctness_cases: tuple[DecodeCase, ...]
    suites: Mapping[str, tuple[DecodeCase, ...]]
    baselines: tuple[Baseline, ...] = ()
    entry: str = field(default="decode", init=False)
    outputs: tuple[Output, ...] = field(default=OUTPUTS, init=False)

    def call(self, case: Case) -> Call:
        """Return the tensors and scalars of ``case``."""
        scalars = (("scale", softmax_scale(case)), *further_scalars(case))
        return Call(case.name, (*_inputs(_of(case)), *further_inputs(case), *outputs(case)), scalars)

    def at_other_lengths(self, case: Case, chance: "Random") -> Case:
        """Return ``case`` with up to 150 keys more, and possibly fewer batches."""
        return replace(case, batch=chance.randint(1, case.batch), kv_len=case.kv_len + chance.randrange(1, 151))

    def at_length(self, case: Case, length: int, chance: "Random") -> Case:
        """Return ``structured`` with the number of queries, the size of pages, the sequences, their lengths and the
        window drawn too.
        """
        drawn = _of(redrawn(structured(case, length, chance), chance))
        # Queries are few: as many sequences fit as their keys allow.
        batch = min(chance.choice((1, 2, 3, max(case.batch, 2))), 2 if length >= _LONG else 16)
        q_len, page_size = chance.randint(1, MOST_QUERIES), chance.choice((16, 32, 64, 128))
        ragged = chance.random() < 2 / 3
        if length <= CROWDED:
            batch, q_len, page_size = drawn.batch, 1, 16
        return replace(drawn, batch=batch, q_len=min(q_len, length), page_size=page_size, ragged=ragged)

    def flops(self, case: Case) -> int:
        """Return 2 times the elements of a key and of a value for each query of each head and each key that it sees;
        lengths follow from the case.
        """
        window = _of(case).window or case.kv_len
        pairs = sum(
            min(length - case.q_len + 1 + query, window) for length in lengths(_of(case)) for query in range(case.q_len)
        )
        return 2 * (case.head_dim + value_dim(case)) * case.heads * pairs

    def least_bytes(self, case: Case) -> int:
        """Return the bytes of q, out and lse, of the keys and values that queries see and their pages in the table, and
        of lengths and sinks.
        """
        item, elements, of = ITEM_BYTES[case.dtype], case.head_dim + value_dim(case), _of(case)
        keys = [min(length, (of.window or length) + case.q_len - 1) for length in lengths(of)]
        rows = math.prod(query_shape(case)[:3])
        pages = sum(math.ceil(count / of.page_size) for count in keys)
        small = 4 * (rows + case.batch + pages + (case.heads if of.sinks else 0))
        return (sum(keys) * case.kv_heads + rows) * elements * item + small

    def make_inputs(self, case: Case, seed: int) -> "dict[str, torch.Tensor]":
        """Return the flat storages of all inputs."""
        import torch

        from avo.evaluator.problems import inputs

        specs = {spec.name: spec for spec in _inputs(_of(case))}
        most, pages = specs["block_table"].shape[1], specs["k"].shape[0]
        order = torch.randperm(pages, generator=inputs.seeded("pages", seed)).to(torch.int32)
        table = torch.full((case.batch, most), -1, dtype=torch.int32)
        first = 0
        for batch, count in enumerate(_pages(_of(case))):
            table[batch, :count] = order[first : first + count]
            first += count
        made = _tiled(_of(case), specs, seed) if case.inputs == "tiled" else _made(_of(case), specs, table, seed)
        sizes = torch.tensor(lengths(_of(case)), dtype=torch.int32)
        return {**made, **make_further(case, seed), "block_table": table.flatten(), "lengths": sizes}

    def reference(
        self, case: Case, inputs: "Mapping[str, torch.Tensor]", of: str, batch: int, head: int, rows: "torch.Tensor"
    ) -> Mapping[str, Expected]:
        """Return out and lse: see ``Problem.reference``."""
        import torch

        view = viewed(_inputs(_of(case)), inputs)
        length, kv_head = lengths(_of(case))[batch], head // (case.heads // case.kv_heads)
        pages = view["block_table"][batch, : _pages(_of(case))[batch]].long()
        k, v = (view[name][pages, kv_head].flatten(0, 1)[:length].double() for name in ("k", "v"))
        scores = (view["q"][batch, head, rows].double() @ k.T) * softmax_scale(case)
        scores = capped(scores, case)
        last_visible = rows[:, None] + (length - case.q_len)
        keys, window = torch.arange(length), _of(case).window or length
        scores = scores.masked_fill((keys > last_visible) | (keys <= last_visible - window), -math.inf)
        return expected(*attend(*with_sink(scores, v, inputs, head), view["q"].dtype))

    def plant(
        self, case: Case, inputs: "Mapping[str, torch.Tensor]", chance: "Random"
    ) -> Mapping[str, tuple[int, int, int]]:
        """Give one query a key of its own, as ``avo.evaluator.problems.dense.plant_key`` does."""
        import torch

        view = viewed(_inputs(_of(case)), inputs)
        batch, head, row = chance.randrange(case.batch), chance.randrange(case.heads), chance.randrange(case.q_len)
        end = row + lengths(_of(case))[batch] - case.q_len + 1
        place = chance.randrange(max(end - (_of(case).window or end), 0), end)
        page, within = divmod(place, _of(case).page_size)
        key_at = (int(view["block_table"][batch, page]), head // (case.heads // case.kv_heads), within)
        generator = torch.Generator("cpu").manual_seed(chance.getrandbits(62))
        key, value = (torch.randn(dim, generator=generator, device="cpu") for dim in (case.head_dim, value_dim(case)))
        query = key * 25.0 / math.sqrt(case.head_dim)
        for name, new, at in (("q", query, (batch, head, row)), ("k", key, key_at), ("v", value, key_at)):
            view[name][at].copy_(new)
        return {"queries": (batch, head, row)}

    def refusal(self, setting: Setting) -> str:
        """See ``avo.evaluator.setting.Settable``."""
        packed = "sequences are not packed in decode: each has its own length and pages" if setting.packed else ""
        return refusal(setting, of_no_blocks(self.name, setting) or packed, one_query=True)

    def meaning(self, setting: Setting) -> str:
        """See ``avo.evaluator.setting.Settable``."""
        window = "{} j > i + lengths[b] - q_len - window. Pages before these keys are in the table all the same."
        return meaning(setting, window=window)

    def in_setting(self, setting: Setting) -> Problem:
        """See ``avo.evaluator.setting.Settable``."""
        return in_setting(self, setting, small_decodes(setting, self.correctness_cases))


def lengths(case: DecodeCase) -> list[int]:
    """Return the number of keys of each sequence."""
    if not case.ragged:
        return [case.kv_len] * case.batch
    return [max(case.kv_len * (batch + 1) // case.batch, case.q_len) for batch in range(case.batch)]


def _pages(case: DecodeCase) -> list[int]:
    return [math.ceil(length / case.page_size) for length in lengths(case)]


def _inputs(case: DecodeCase) -> tuple[TensorSpec, ...]:
    pages = _pages(case)
    cache, most = (sum(pages) + _SPARE, case.kv_heads, case.page_size), max(pages)
    return (
        laid_out("q", query_shape(case), case, Role.INPUT),
        laid_out("k", (*cache, case.head_dim), case, Role.INPUT),
        laid_out("v", (*cache, value_dim(case)), case, Role.INPUT),
        TensorSpec("block_table", "int32", (case.batch, most), (most, 1), case.batch * most, Role.INPUT),
        TensorSpec("lengths", "int32", (case.batch,), (1,), case.batch, Role.INPUT),
    )


def _made(
    case: DecodeCase, specs: Mapping[str, TensorSpec], table: "torch.Tensor", seed: int
) -> "dict[str, torch.Tensor]":
    """Return q, k and v, where each sequence has the last ones of the keys that a maker makes for the longest."""
    import torch

    from avo.evaluator.problems import inputs

    made, generator = inputs.make(case, seed), inputs.seeded("stale", seed)
    found = {"q": made["q"]}
    for name in ("k", "v"):
        cache = torch.randn(specs[name].shape, generator=generator) * _STALE
        for batch, (length, count) in enumerate(zip(lengths(case), _pages(case), strict=True)):
            pages = table[batch, :count].long()
            rows = cache[pages].transpose(0, 1).flatten(1, 2)
            rows[:, :length] = made[name][batch, :, case.kv_len - length :].float()
            cache[pages] = rows.unflatten(1, (count, case.page_size)).transpose(0, 1)
        found[name] = cache.to(made[name].dtype)
    return stored((specs["q"], specs["k"], specs["v"]), found)


def _tiled(case: DecodeCase, specs: Mapping[str, TensorSpec], seed: int) -> "dict[str, torch.Tensor]":
    import torch

    from avo.evaluator.problems import inputs

    drawn = [specs[name] for name in ("q", "k", "v")]
    dtype = getattr(torch, case.dtype)
    made = {s.name: inputs.pool_storage(s.name, math.prod(s.shape), s.shape[-1], dtype, seed) for s in drawn}
    if all(spec.held.size == made[spec.name].numel() for spec in drawn):
        return made
    return stored(drawn, {spec.name: made[spec.name].view(spec.shape) for spec in drawn})


def _of(case: Case) -> DecodeCase:
    assert isinstance(case, DecodeCase)
    return case


def _case(
    name: str,
    batch: int,
    heads: int,
    kv_heads: int,
    q_len: int,
    kv_len: int,
    page_size: int,
    inputs: str = "tiled",
    layout: str = "contiguous",
    scale: float = 0.0,
    ragged: bool = False,
) -> DecodeCase:
    return DecodeCase(
        name,
        batch,
        heads,
        kv_heads,
        q_len,
        kv_len,
        HEAD_DIM,
        True,
        inputs=inputs,
        layout=layout,
        scale=scale,
        page_size=page_size,
        ragged=ragged,
    )


_PAPER = (
    _case("32k-b1-q1", 1, 64, 8, 1, 32768, 64),
    _case("8k-b8-q4-ragged", 8, 64, 8, 4, 8192, 16, ragged=True),
    _case("4k-b16-q1", 16, 32, 8, 1, 4096, 16, layout="bshd"),
    _case("2k-b32-q1-ragged", 32, 32, 4, 1, 2048, 64, ragged=True),
    _case("16k-b2-q8", 2, 64, 8, 8, 16384, 128, layout="bshd"),
)
_CORRECTNESS = (
    _case("one-query", 2, 2, 2, 1, 130, 16, "dominant", ragged=True),
    _case("group-8", 2, 8, 1, 1, 333, 64, "dominant", "bshd", ragged=True),
    _case("group-4-of-2", 3, 8, 2, 2, 257, 16, "edge", "mixed", ragged=True),
    _case("four-queries", 2, 4, 4, 4, 129, 32, "edge", scale=0.11),
    _case("eight-queries", 2, 4, 1, 8, 500, 128, "edge", "padded", ragged=True),
    _case("group-3", 2, 6, 2, 5, 96, 32, "normal"),
    _case("as-many-queries-as-keys", 2, 2, 1, 8, 8, 16, "normal"),
    _case("one-key", 3, 2, 1, 1, 1, 16, "normal"),
    _case("large", 1, 2, 1, 3, 700, 64, "large", ragged=True),
    _case("outliers", 2, 4, 2, 1, 260, 16, "outliers"),
    _case("constant", 2, 2, 1, 2, 321, 64, "constant", scale=0.07, ragged=True),
    _case("negative", 2, 2, 2, 1, 300, 16, "negative", "bshd"),
    _case("rising", 2, 4, 2, 6, 1000, 32, "rising", ragged=True),
    # So many sequences that a program has several tiles of keys.
    _case("step", 22, 3, 3, 2, 1000, 64, "step"),
    *far(_case("", 4, 8, 4, 4, 70, 16, "dominant", ragged=True)),
)

PROBLEM = DECODE = Decode(
    name="decode",
    correctness_cases=_CORRECTNESS,
    suites={
        "quick": _PAPER[:2],
        "paper": _PAPER,
        HELD_OUT: (
            _case("20k-b1-q2", 1, 48, 8, 2, 20480, 32),
            _case("6k-b5-q1-ragged", 5, 24, 3, 1, 6144, 16, ragged=True),
            _case("ragged-b3-q7", 3, 32, 8, 7, 9999, 64, layout="bshd", ragged=True),
        ),
    },
)
