"""Wrong answers to ``decode``: mutants of its seeds, by what is wrong with them."""

from avo.evaluator.evaluation import Status
from avo.evaluator.problems.mha.wrong import LAGS, MAXIMUM, TANH, WIDE
from avo.evaluator.problems.mutant import one

VISIBLE = "keys[None, :] <= token[:, None] + (length - q_len)"
TABLE = "tl.load(Table + batch * most + keys // PAGE, mask=in_n, other=0)"
INSIDE = "keys[None, :] > token[:, None] + (length - q_len) - window"
FIRST = "first = tl.maximum(length - q_len + 1 - window, 0)"
SINK = "sink = tl.load(Sinks + head)"
ADDED = "total += tl.exp(sink - top)"

PAGES = {
    "one key too many": one(VISIBLE, f"{VISIBLE} + 1", "four-queries|group-4"),
    "all keys for all queries": one(f" & ({VISIBLE})", "", "four-queries|group-4"),
    "the table of the first sequence": one(
        "Table + batch * most", "Table + 0 * batch * most", "read out of bounds", Status.OUT_OF_BOUNDS
    ),
    "pages in the order of the cache": one(
        TABLE, "(batch * most + keys // PAGE)", "read out of bounds", Status.OUT_OF_BOUNDS
    ),
    "the longest length for all": one(
        "length = tl.load(Lengths + batch)", "length = most * PAGE", "read out of bounds", Status.OUT_OF_BOUNDS
    ),
    "one part left out": one("mask=part < splits, other", "mask=part < splits - 1, other", "."),
    "parts that weigh the same": one("weights = tl.exp(lse - top)", "weights = tl.where(lse > -1e30, 1.0, 0.0)", "."),
    "the first row of each page": one("row * stride_vn", "row % 1 * stride_vn", "one-query"),
    "pages read past the table": one(
        TABLE, "tl.load(Table + batch * most + keys // PAGE)", "read out of bounds", Status.OUT_OF_BOUNDS
    ),
    "pages in 32 bits": one(f"{TABLE}{WIDE}", TABLE, "far-batch: integer overflow", Status.OUT_OF_BOUNDS),
    "heads in 32 bits": one(
        f"(tl.program_id(1) % kv_heads){WIDE}",
        "tl.program_id(1) % kv_heads",
        "far-heads: integer overflow",
        Status.OUT_OF_BOUNDS,
    ),
    "rows of pages in 32 bits": one(
        "row = row.to(tl.int64)",
        "row = row + 0",
        "far-rows: integer overflow",
        Status.OUT_OF_BOUNDS,
    ),
    "a maximum that lags by 124 bits": one(MAXIMUM, LAGS, "step: rows"),
    "parts without keys that count": one('float("-inf")), mask=in_m', "0.0), mask=in_m", "."),
}

SETTINGS = {
    "windows of one key too many": one(INSIDE, INSIDE.replace(">", ">="), "rows", setting="w1024"),
    "the window of the first query for all": one(INSIDE, "keys[None, :] >= first", "rows", setting="w1024"),
    "the window of the last query for all": one(FIRST, FIRST.replace("- q_len + 1 ", ""), "rows", setting="w1024"),
    "windows of the longest sequence": one(
        FIRST, FIRST.replace("length", "most * PAGE"), "rows|not finite", setting="w1024"
    ),
    "no window": one("WINDOWED=window > 0", "WINDOWED=False", "rows", setting="w1024"),
    "scores that are not capped": one(TANH, "return x", "rows|lse", setting="c50"),
    "scores capped before they are scaled": one(
        "scale / softcap)", "scale / (softcap * scale)) * scale", "rows|lse", setting="c50"
    ),
    "sinks left out": one("SINKS=len(sinks) > 0", "SINKS=False", "rows", setting="sinks"),
    "sinks of KV heads": one(SINK, "sink = tl.load(Sinks + head // 8)", "rows", setting="sinks"),
    "sinks in each part": one(ADDED, "total += splits * tl.exp(sink - top)", "rows", setting="sinks"),
    "sinks in the output alone": one(
        "top + tl.log(total)", "top + tl.log(total - tl.exp(sink - top))", "lse is off", setting="sinks"
    ),
    "no maximum where there is a sink": one(
        "top = tl.maximum(top, sink)", "top = top * 0.0", "rows|not finite", setting="sinks"
    ),
    "values of as many elements as keys": one(
        "part)[:, None] * VALUE_DIM",
        "part)[:, None] * 192",
        "read out of bounds",
        Status.OUT_OF_BOUNDS,
        "d192x128-fp16",
    ),
}

WRONG = PAGES | SETTINGS
