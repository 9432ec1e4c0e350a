"""Wrong answers to ``gqa``: mutants of its seeds, by what is wrong with them."""

from avo.evaluator.evaluation import Status
from avo.evaluator.problems.mha.wrong import LAGS, MAXIMUM
from avo.evaluator.problems.mutant import one

KV_HEAD = "kv_head = head // group"
OF_LSE = "Lse + batch_head.to(tl.int64) * q_len + offs_m"
DIAGONAL = "(kv_len - q_len))"
SINK = "sink = tl.load(Sinks + head)"

HEADS = {
    "query heads in turns": one(KV_HEAD, "kv_head = head % (heads // group)", "group-4-full: rows"),
    "the first KV head for all": one(KV_HEAD, "kv_head = head * 0", "group-4-full: rows"),
    "groups of two": one(KV_HEAD, "kv_head = tl.minimum(head // 2, heads // group - 1)", "group-4-full: rows"),
    "a KV head for each query head": one(KV_HEAD, "kv_head = head", "read out of bounds", Status.OUT_OF_BOUNDS),
    "groups in the opposite order": one(KV_HEAD, "kv_head = heads // group - 1 - head // group", "group-4-full: rows"),
    "values of the neighbour's group": one(
        "V + batch * stride_vb + kv_head * stride_vh",
        "V + batch * stride_vb + (kv_head + 1) % (heads // group) * stride_vh",
        "group-4-full: rows",
    ),
    "lse of the first head of a group": one(
        OF_LSE, "Lse + (batch * heads + kv_head * group) * q_len + offs_m", "write race", Status.RACE
    ),
    "KV heads in 32 bits": one(
        KV_HEAD, "kv_head = batch_head % heads // group", "far-heads: integer overflow", Status.OUT_OF_BOUNDS
    ),
    "a maximum that lags by 124 bits": one(MAXIMUM, LAGS, "step-full: rows"),
    "the mask from the top left": one(DIAGONAL, "0)", "group-2-causal: rows"),
}

SETTINGS = {
    "the sinks of KV heads": one(SINK, "sink = tl.load(Sinks + kv_head)", "rows", setting="d64-w128-global-sinks"),
    "96 dimensions, of which 64 are multiplied": one(
        "mask=(offs_n < kv_len)[None, :] & in_d[:, None],",
        "mask=(offs_n < kv_len)[None, :] & (offs_d < 64)[:, None],",
        "group-4-full: rows|group-8-causal: rows",
        setting="d96-fp16",
    ),
}

WRONG = HEADS | SETTINGS
