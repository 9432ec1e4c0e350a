"""Wrong answers to ``fsa``: mutants of its seeds, by what is wrong with them."""

from avo.evaluator.evaluation import Status
from avo.evaluator.problems.mha.wrong import LAGS, MAXIMUM
from avo.evaluator.problems.mutant import one

FIRST = (
    "tl.max(tl.where((tl.arange(0, BLOCK_M) == 0)[:, None], scores, float('-inf'))) + tl.zeros([BLOCK_M], tl.float32)"
)
SINK = "sink = tl.load(Sinks + heads, mask=in_g, other=0.0)"
ADDED = "row_sum = row_sum * rescale + tl.exp(sink - new_max)"
OF_SEQUENCE = "first = tl.max(tl.where(starts <= position, starts, 0))"
KEYS = "keys = first + tl.load(indices + slot) * block_size + offs_n"

SELECTION = {
    "neighbours in place of selected blocks": one("tl.load(indices + slot)", "position // block_size - slot", "rows"),
    "last slot left out": one("range(blocks)", "range(blocks - 1)", "rows"),
    "future keys of the own block": one("(keys <= position)", "(keys < length)", "rows"),
    "own key left out": one("(keys <= position)", "((keys < position) | (position == 0))", "rows"),
    "query heads in turns": one("kv_head * group + offs_g", "kv_head + kv_heads * offs_g", "rows"),
    "selection of the first head for all": one(
        "(batch_head.to(tl.int64) * length", "(batch * kv_heads * length", "rows"
    ),
    "selected keys in 32 bits": one(
        "keys[:, None].to(tl.int64) * stride_vn",
        "keys[:, None] * stride_vn",
        "far-rows: integer overflow",
        Status.OUT_OF_BOUNDS,
    ),
    "a maximum that lags by 124 bits": one(MAXIMUM, LAGS, "step: rows"),
    "no maximum": one("tl.maximum(row_max, tl.max(scores, 1))", "tl.maximum(row_max, 0.0)", "not finite"),
    "usual scale": one("tl.dot(q, k) * scale", "tl.dot(q, k) * 0.08838834764831845", "rows"),
    "lse to base 2": one("row_max + tl.log(row_sum)", "(row_max + tl.log(row_sum)) * 1.4426950408889634", "lse is off"),
    "maximum of a tile's first row": one(
        "row_max = tl.max(scores, 1)\n", f"row_max = {FIRST}\n", "not finite", seed="kv_outer"
    ),
    "parts without their weights": one(
        "tl.exp(part_lse - new_max)", "tl.where(chosen, 1.0, 0.0)", "rows", seed="kv_outer"
    ),
    "end of a share left out": one(
        "(share + 1) * SHARE)",
        "(share + 1) * SHARE) - (share > 0) * BLOCK_M",
        "uninitialised memory in reduce_kernel",
        seed="kv_outer",
    ),
    "all that neighbours selected": one(
        'subtracted = tl.where(chosen, new_max, float("inf"))', "subtracted = new_max", "rows", seed="query_union"
    ),
}

SETTINGS = {
    "sinks left out": one("SINKS=len(sinks) > 0", "SINKS=False", "rows", setting="sinks"),
    "sinks scaled": one(SINK, f"{SINK} * scale", "rows", setting="sinks"),
    "sinks in base two": one(ADDED, ADDED.replace("tl.exp(sink", "tl.exp2(sink"), "rows", setting="sinks"),
    "the sink of a group's first head": one(
        SINK, SINK.replace("Sinks + heads", "Sinks + kv_head * group + 0 * offs_g"), "rows", setting="sinks"
    ),
    "sinks in lse alone": one(
        "    out = acc / row_sum[:, None]",
        "    out = acc / (row_sum - tl.exp(sink - row_max))[:, None]",
        "rows",
        setting="sinks",
    ),
    "blocks counted from the first key of all": one(OF_SEQUENCE, "first = 0", "rows", setting="packed"),
    "blocks of the sequence before": one(
        "starts <= position, starts", "starts < position - 40, starts", "rows", setting="packed"
    ),
    "sequences that start where blocks do": one(
        KEYS, KEYS.replace("first +", "first // block_size * block_size +"), "rows", setting="packed"
    ),
    "sequences of equal shares": one(
        OF_SEQUENCE, "first = position // (length // sequences) * (length // sequences)", "rows", setting="packed"
    ),
    "the last sequence as part of the one before": one(
        "mask=sequence < sequences", "mask=sequence < sequences - 1", "rows", setting="packed"
    ),
}

WRONG = SELECTION | SETTINGS
