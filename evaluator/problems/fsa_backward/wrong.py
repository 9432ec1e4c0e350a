"""Wrong answers to ``fsa_backward``: mutants of its seeds, by what is wrong with them."""

from avo.evaluator.evaluation import Status
from avo.evaluator.problems.mutant import one

DS_OF_KEYS = "ds = p * (tl.dot(v, tl.trans(dout)) - delta[None, :])"
DS_OF_QUERIES = "ds = p * (tl.dot(dout, tl.trans(v)) - delta[:, None])"
P_OF_KEYS = "tl.exp(tl.dot(k, tl.trans(q)) * scale - lse[None, :])"
DK, DV = "dk = tl.dot(ds.to(q.dtype), q, dk)", "dv = tl.dot(p.to(dout.dtype), dout, dv)"
DQ = "dq = tl.dot(ds.to(k.dtype), k, dq)"
VISIBLE = "visible = in_n[:, None] & in_m[None, :] & (keys[:, None] <= token[None, :])"
SLOTS = "for slot in range(tl.sum((chosen >= 0).to(tl.int32))):\n        keys = tl.load(indices + slot) * block_size"
SHARES = "range(share * SHARE, tl.minimum(rows, (share + 1) * SHARE), BLOCK_M)"
PART = "part = tl.dot(tl.trans(ds.to(q.dtype)), k) * scale"
ATOMIC = (
    'tl.atomic_add(SumK + place, dk * scale, mask=inside, sem="relaxed")',
    'tl.atomic_add(SumV + place, dv, mask=inside, sem="relaxed")',
)
DSINK = "dsink -= tl.exp(sink - lse) * delta"
BATCH_HEAD = "batch_head = tl.program_id(1)"
NUMBERS = "start // block_size + sequence"

GRADIENTS = {
    "dk without the row sums": one(
        DS_OF_KEYS, DS_OF_KEYS.replace(" - delta[None, :]", ""), "group-1.* dk,", seed="query_outer"
    ),
    "dq without the row sums": one(
        DS_OF_QUERIES, DS_OF_QUERIES.replace(" - delta[:, None]", ""), "group-1.* dq,", seed="query_outer"
    ),
    "batches and heads in 32 bits": one(
        f"{BATCH_HEAD}.to(tl.int64)", BATCH_HEAD, "far-batch: integer overflow", Status.OUT_OF_BOUNDS
    ),
    "dk accumulated twice": one(DK, f"{DK}\n        {DK}", "group-1.* dk,", seed="query_outer"),
    "dv accumulated twice": one(DV, f"{DV}\n        {DV}", "group-1.* dv,", seed="query_outer"),
    "dq accumulated twice": one(DQ, f"{DQ}\n        {DQ}", "group-1.* dq,", seed="query_outer"),
    "dk without the scale": one("dk * scale", "dk", "group-1.* dk,", seed="query_outer"),
    "dq scaled twice": one("dq * scale", "dq * scale * scale", "group-1.* dq,", seed="query_outer"),
    "dk of probabilities": one(
        "tl.dot(ds.to(q.dtype), q, dk)", "tl.dot(p.to(q.dtype), q, dk)", "group-1.* dk,", seed="query_outer"
    ),
    "row sums of the keys of a block": one(
        DS_OF_QUERIES,
        "dp = tl.dot(dout, tl.trans(v))\n        ds = p * (dp - tl.sum(p * dp, 1)[:, None])",
        "group-1.* dq,",
        seed="query_outer",
    ),
    "probabilities that add up to one in a block": one(
        DS_OF_QUERIES, f"p = p / tl.sum(p, 1)[:, None]\n        {DS_OF_QUERIES}", "group-1.* dq,", seed="query_outer"
    ),
    "exponentials of two": one(P_OF_KEYS, P_OF_KEYS.replace("exp(", "exp2("), "group-1.* d[kv],", seed="query_outer"),
    "lse in bfloat16": one(
        P_OF_KEYS,
        P_OF_KEYS.replace("lse[", "lse.to(tl.bfloat16).to(tl.float32)["),
        "group-1.* d[kv],",
        seed="query_outer",
    ),
    "the usual scale": one(
        P_OF_KEYS, P_OF_KEYS.replace("scale", "0.08838834764831845"), "forced-only.* d[kv],", seed="query_outer"
    ),
    "the first block left out": one(SLOTS, SLOTS.replace("range(", "range(1, "), "group-1.* dq,", seed="query_outer"),
    "the query's own block left out": one(
        SLOTS, SLOTS.replace("to(tl.int32))):", "to(tl.int32)) - 1):"), "group-1.* dq,", seed="query_outer"
    ),
    "the first block twice": one(
        SLOTS,
        SLOTS.replace("to(tl.int32))):", "to(tl.int32)) + 1):").replace("+ slot)", "+ tl.maximum(slot - 1, 0))"),
        "group-1.* dq,",
        seed="query_outer",
    ),
    "neighbours in place of selected blocks": one(
        SLOTS,
        SLOTS.replace("tl.load(indices + slot)", "(position // block_size - slot)"),
        "group-1.* dq,",
        seed="query_outer",
    ),
    "the last slot in no list": one(
        "(slot < blocks)[None, :]", "(slot < blocks - 1)[None, :]", "group-1.* d[kv],", seed="query_outer"
    ),
    "the selection of the first KV head for all": one(
        "(batch_head * length + position) * blocks",
        "(batch * kv_heads * length + position) * blocks",
        "group-1.* dq,",
        seed="query_outer",
    ),
    "future keys of the own block for dk and dv": one(
        VISIBLE, "visible = in_n[:, None] & in_m[None, :]", "group-1.* d[kv],", seed="query_outer"
    ),
    "future keys of the own block for dq": one(
        "(keys <= position)", "(keys < length)", "group-1.* dq,", seed="query_outer"
    ),
    "the own key left out": one("(keys <= position)", "(keys < position)", "group-.* dq,", seed="query_outer"),
    "query heads in turns": one(
        "head = kv_head * group + row % group",
        "head = kv_head + kv_heads * (row % group)",
        "group-2.* d[kv],",
        seed="query_outer",
    ),
    "one query head of each group": one(
        "head = kv_head * group + row % group",
        "head = kv_head * group + 0 * row",
        "group-2.* d[kv],",
        seed="query_outer",
    ),
    "lse of the first head of the group": one(
        "of_row = (batch * kv_heads * group + head) * length + token",
        "of_row = (batch * kv_heads * group + kv_head * group) * length + token",
        "group-2.* d[kv],",
        seed="query_outer",
    ),
    "every share from the start of its list": one(
        SHARES, SHARES.replace("share * SHARE,", "0,", 1), "group-4.* d[kv],", seed="query_outer"
    ),
    "the end of a share left out": one(
        SHARES,
        SHARES.replace("(share + 1) * SHARE)", "(share + 1) * SHARE - BLOCK_M)"),
        "group-4.* d[kv],",
        seed="query_outer",
    ),
}

PARTS = {
    "parts of dq without the scale": one(PART, PART.removesuffix(" * scale"), "group-1.* dq,", seed="kv_outer"),
    "parts of dq without the row sums": one(
        PART,
        "part = tl.dot(tl.trans((p * tl.dot(v, tl.trans(dout))).to(q.dtype)), k) * scale",
        "group-1.* dq,",
        seed="kv_outer",
    ),
    "parts of dq for the first head of the group": one(
        "of_part = of_row[:, None]",
        "of_part = (of_row - row % group * length)[:, None]",
        "group-2.* dq,",
        seed="kv_outer",
    ),
}

UNION = {
    "blocks that a neighbour selected": one(
        'subtracted = tl.where(chosen & in_m, lse, float("inf"))',
        "subtracted = lse",
        "group-1.* dq,",
        seed="query_union",
    ),
}

MEMORY = {
    "additions that race": one(
        ATOMIC[0],
        "tl.store(SumK + place, tl.load(SumK + place, mask=inside, other=0.0) + dk * scale, mask=inside)",
        "race in keys_kernel",
        Status.RACE,
        seed="query_outer",
    ),
    "dk and dv summed in bfloat16": one(
        "sum_k, sum_v = (lse.new_zeros(",
        "sum_k, sum_v = (k.new_zeros(",
        "adds to .* in numbers narrower than float32",
        seed="query_outer",
    ),
    "sums that start from what was there": one(
        "sum_k, sum_v = (lse.new_zeros(",
        "sum_k, sum_v = (lse.new_empty(",
        "never written",
        Status.INCORRECT,
        seed="query_outer",
    ),
    "keys behind the last one": one(
        "in_n = (offs_n < block_size) & (keys < length)",
        "in_n = offs_n < block_size",
        r"at candidate\.py:\d+",
        Status.OUT_OF_BOUNDS,
        seed="query_outer",
    ),
    "dk of the last block not written": one(
        "Rounded, total, batch, head, rows, rows < length,",
        "Rounded, total, batch, head, rows, rows < length - 1,",
        "dk were never written",
        Status.UNWRITTEN,
        seed="query_outer",
    ),
}

SETTINGS = {
    "sinks without a gradient": one(DSINK, "dsink -= 0.0 * delta", " dsinks,", setting="sinks-packed"),
    "the gradient of sinks of the wrong sign": one(
        DSINK, DSINK.replace("-=", "+="), " dsinks,", setting="sinks-packed"
    ),
    "the gradient of sinks without row sums": one(
        DSINK, "dsink -= tl.exp(sink - lse)", " dsinks,", setting="sinks-packed"
    ),
    "the gradient of the sink of the first head for all": one(
        "sink = tl.load(Sinks + head)", "sink = tl.load(Sinks)", " dsinks,", setting="sinks-packed"
    ),
    "the last queries in no sink's gradient": one(
        "range(0, length, BLOCK_M):\n            rows",
        "range(0, length - 60, BLOCK_M):\n            length -= 60\n            rows",
        " dsinks,",
        setting="sinks-packed",
    ),
    "the lists of all sequences as one": one(
        "block + first_block[:, None], -1)", "block, -1)", " d[qkv],", setting="sinks-packed"
    ),
    "two sequences in the list of a block": one(
        f"{NUMBERS}, 2147", "start // block_size, 2147", " d[qkv],|not finite", setting="sinks-packed"
    ),
    "the last key of each sequence without a gradient": one(
        "(keys < end)", "(keys < end - 1)", " d[qkv],", setting="sinks-packed"
    ),
    "keys from where blocks of all sequences start": one(
        "keys = first + block", "keys = first // block_size * block_size + block", " d[qkv],", setting="sinks-packed"
    ),
}

WRONG = GRADIENTS | PARTS | UNION | MEMORY | SETTINGS
