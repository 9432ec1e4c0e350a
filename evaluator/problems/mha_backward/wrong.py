"""Wrong answers to ``mha_backward``: mutants of its seeds, by what is wrong with them."""

from avo.evaluator.evaluation import Status
from avo.evaluator.problems.mutant import Mutant, one

DIAGONAL_OF_KEYS = "offs_n[:, None] <= offs_m[None, :] + (kv_len - q_len)"
DIAGONAL_OF_QUERIES = "offs_n[None, :] <= offs_m[:, None] + (kv_len - q_len)"
DS_OF_KEYS = "ds = p * (tl.dot(v, tl.trans(dout)) - delta[None, :])"
DS_OF_QUERIES = "ds = p * (tl.dot(dout, tl.trans(v)) - delta[:, None])"
P_OF_KEYS = "tl.exp(tl.dot(k, tl.trans(q)) * scale - lse[None, :])"
DK = "dk = tl.dot(ds.to(q.dtype), q, dk)"
DV = "dv = tl.dot(p.to(dout.dtype), dout, dv)"
MHA, GQA = "mha_backward", "gqa_backward"
OF_KEYS = "offs_n[:, None] > offs_m[None, :] + shift - window"
OF_QUERIES = "offs_n[None, :] > offs_m[:, None] + shift - window"
STOP = "stop = tl.minimum(end_q, start_n + BLOCK_N - 1 - shift + window)"
FIRST = "start = first_k + tl.maximum(first_row + shift - window + 1 - first_k, 0)"
SINK = "dsink -= tl.exp(sink - lse) * delta"
SUM = "tl.sum(dsink, 0)"
STORED = """rows[:, None].to(tl.int64) * stride_m + offs_d[None, :] * stride_d
    tl.store("""
STARTS = "first_k, end_k = tl.load(StartsK + sequence), tl.load(StartsK + sequence + 1)\n    start_n"

ADDED = "adds to 'dq' in numbers narrower than float32"
DQ_STRIDES = "stride_dqb, stride_dqh, stride_dqm, stride_dqd, HEAD_DIM, BLOCK_D"
DQ_PART = """\
        place = Dq + batch * stride_dqb + head * stride_dqh + offs_m[:, None].to(tl.int64) * stride_dqm
        place += tl.arange(0, BLOCK_D)[None, :] * stride_dqd
        inside = (offs_m < q_len)[:, None] & (tl.arange(0, BLOCK_D) < HEAD_DIM)[None, :]
        tl.atomic_add(place, (tl.dot(ds.to(k.dtype), k) * scale).to(k.dtype), mask=inside)
"""
ZEROED = "    delta = lse.new_empty(", "    dq.zero_()\n    delta = lse.new_empty("
SUMS = {
    "dq summed by bfloat16 atomics": Mutant(
        (
            ("        dq = tl.dot(ds.to(k.dtype), k, dq)\n", DQ_PART),
            ("    store_rows(\n        Dq, dq * scale,", "    if q_len < 0:\n      store_rows(\n        Dq, dq,"),
            ZEROED,
        ),
        ADDED,
    ),
    "dq summed in bfloat16 by four launches": Mutant(
        (
            ("Lse, Delta, Dq, scale,", "Lse, Delta, Dq, quarter, scale,"),
            ("range(0, end, BLOCK_N)", "range(quarter * BLOCK_N, end, 4 * BLOCK_N)"),
            ("Dq, dq * scale,", f"Dq, dq * scale + load_rows(Dq, batch, head, offs_m, q_len, {DQ_STRIDES}),"),
            ZEROED,
            ("    queries_kernel[", "    for quarter in range(4):\n      queries_kernel["),
            ("lse, delta, dq, scale,", "lse, delta, dq, quarter, scale,"),
        ),
        ADDED,
    ),
}

GRADIENTS = {
    "dk without the row sums": one(DS_OF_KEYS, DS_OF_KEYS.replace(" - delta[None, :]", ""), "square-full.* dk,"),
    "dq without the row sums": one(DS_OF_QUERIES, DS_OF_QUERIES.replace(" - delta[:, None]", ""), "square-full.* dq,"),
    "stored rows in 32 bits": one(
        STORED, STORED.replace(".to(tl.int64)", ""), "far-rows: integer overflow", Status.OUT_OF_BOUNDS
    ),
    "dk accumulated twice": one(DK, f"{DK}\n            {DK}", "square-full.* dk,"),
    "dv accumulated twice": one(DV, f"{DV}\n            {DV}", "square-full.* dv,"),
    "dk without the scale": one("        dk * scale,", "        dk,", "square-full.* dk,"),
    "dq scaled twice": one("Dq, dq * scale,", "Dq, dq * scale * scale,", "square-full.* dq,"),
    "dk of probabilities": one("dk = tl.dot(ds.to", "dk = tl.dot(p.to", "square-full.* dk,"),
    "the diagonal of dk one key too far": one(DIAGONAL_OF_KEYS, DIAGONAL_OF_KEYS + " + 1", "-causal.* d[kv],"),
    "the diagonal of dq one key too near": one(
        DIAGONAL_OF_QUERIES, DIAGONAL_OF_QUERIES.replace("<=", "<"), "square-causal.* dq,"
    ),
    "the first queries of a tile of keys left out": one(
        "// BLOCK_M * BLOCK_M", "// BLOCK_M * BLOCK_M + BLOCK_M", "square-causal.* dk,"
    ),
    "the last tile of keys left out": one("end = kv_len\n", "end = kv_len // BLOCK_N * BLOCK_N\n", "odd-full.* dq,"),
    "row sums that are those of the keys at hand": one(
        DS_OF_KEYS,
        "dp = tl.dot(v, tl.trans(dout))\n            ds = p * (dp - tl.sum(p * dp, 0)[None, :])",
        "square-full.* dk,",
    ),
    "probabilities that add up to one in a tile": one(
        DS_OF_QUERIES, "p = p / tl.sum(p, 1)[:, None]\n        " + DS_OF_QUERIES, "square-full.* dq,"
    ),
    "exponentials of two": one(P_OF_KEYS, P_OF_KEYS.replace("exp(", "exp2("), "square-full.* d[kv],"),
    "lse in bfloat16": one(
        P_OF_KEYS, P_OF_KEYS.replace("lse[", "lse.to(tl.bfloat16).to(tl.float32)["), "square-causal.* d[kv],"
    ),
}

SETTINGS = {
    "windows of one key too many in dk": one(OF_KEYS, OF_KEYS.replace(">", ">="), " d[kv],", setting="w1024"),
    "windows of one key too few in dk": one(OF_KEYS, OF_KEYS + " + 1", " d[kv],", setting="w1024"),
    "windows of one key too many in dq": one(OF_QUERIES, OF_QUERIES.replace(">", ">="), " dq,", setting="w1024"),
    "no window in dq": one(OF_QUERIES, "offs_n[None, :] >= 0", " dq,", setting="w1024"),
    "the last query of a window left out": one(
        STOP, STOP.replace("+ window", "+ window - BLOCK_M"), " d[kv],", setting="w1024"
    ),
    "queries of one tile alone": one(STOP, "stop = tl.minimum(end_q, start + BLOCK_M)", " d[kv],", setting="w1024"),
    "the first keys of a window left out": one(FIRST, FIRST.replace("+ 1", "+ BLOCK_N"), " dq,", setting="w1024"),
    "sinks without a gradient": one(SINK, "dsink -= 0.0 * delta", " dsinks,", setting="sinks"),
    "sinks' gradient of the wrong sign": one(SINK, SINK.replace("-=", "+="), " dsinks,", setting="sinks"),
    "sinks' gradient without row sums": one(SINK, "dsink -= tl.exp(sink - lse)", " dsinks,", setting="sinks"),
    "the gradient of sinks in base two": one(SINK, SINK.replace("exp", "exp2"), " dsinks,", setting="sinks"),
    "sinks of the first sequence alone": one("range(batches)", "range(1)", " dsinks,", setting="sinks"),
    "the gradient of sinks scaled": one(SUM, f"{SUM} * 0.0883883", " dsinks,", setting="sinks"),
    "the gradient of sinks accumulated twice": one(SUM, f"{SUM} * 2.0", " dsinks,", setting="sinks"),
    "a sink of the head beside": one(
        "tl.load(Sinks + head)", "tl.load(Sinks + (head ^ 1))", " dsinks,", setting="sinks"
    ),
    "keys of the sequence before": one(
        "start, stop = first_k, end_k", "start, stop = 0, end_k", " dq,", setting="packed"
    ),
    "queries of the sequence before": one(
        "start, stop = first_q, end_q", "start, stop = 0, end_q", " d[kv],", setting="packed"
    ),
    "keys begin where queries do": one(
        STARTS, STARTS.replace("StartsK", "StartsQ"), " d[kv],|not finite", setting="packed"
    ),
    "the mask of a sequence from its top left": one(
        "its last query.\n    shift = end_k - end_q",
        "its last query.\n    shift = first_k - first_q",
        " d[kv],",
        setting="packed",
    ),
    "dk scaled as for values": one("dk = dk * scale", "dk = dk * 0.08838834764831845", " dk,", setting="d192x128"),
    "scores of 128 elements": one(
        "scores = tl.dot(q_rest, tl.trans(k_rest), scores)", "scores += 0.0", " dq,", setting="d192x128"
    ),
}

WRONG = GRADIENTS | SETTINGS | SUMS
