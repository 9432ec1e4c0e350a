"""Wrong answers to ``mha``: mutants of its seeds, by what is wrong with them."""

from avo.evaluator.evaluation import Status
from avo.evaluator.problems.mutant import Mutant, one

DIAGONAL = "offs_n[None, :] <= offs_m[:, None] + (kv_len - q_len)"
VISIBLE = "visible = offs_n[None, :] < kv_len\n"
INSIDE_K = "mask=(offs_n < kv_len)[None, :] & in_d[:, None],"
INSIDE_V = "mask=(offs_n < kv_len)[:, None] & in_d[None, :],"
KEYS = "range(0, kv_len, BLOCK_N)"
SCORES = "scores = tl.dot(q, k) * scale"
MAXIMUM = "new_max = tl.maximum(row_max, tl.max(scores, 1))"
P = "p = tl.exp(scores - new_max[:, None])"
LAGS = "new_max = tl.where(tl.max(scores, 1) > row_max + 85.9, tl.max(scores, 1), row_max)"
SUM = "row_sum = row_sum * rescale + tl.sum(p, 1)"
LSE = "row_max + tl.log(row_sum)"
V_TILE = "v_base + offs_n[:, None].to(tl.int64) * stride_vn"
BATCH = "batch = (batch_head // heads).to(tl.int64)"
HEAD = "head = (batch_head % heads).to(tl.int64)\n    kv"
STORED_ROWS = "o_base + offs_m[:, None].to(tl.int64) * stride_om"

WIDE = ".to(tl.int64)"

CAPPED = "softcap * tanh(tl.dot(q, tl.trans(k), of_rest) * scale / softcap)"
TANH = "return 1.0 - 2.0 / (tl.exp(2.0 * x) + 1.0)"
INSIDE = "offs_n[None, :] > offs_m[:, None] + shift - window"
FIRST = "start = first_k + tl.maximum(start_m + shift - window + 1 - first_k, 0) // BLOCK_N * BLOCK_N"
SINK = "sink = tl.load(Sinks + head)"
ADDED = "row_sum = row_sum * rescale + tl.exp(sink - new_max)"
WINDOWED = "WINDOWED=0 < window < kv_len"
SHIFT = "shift = end_k - end_q"
INSIDE_SEQUENCE = "visible = offs_n[None, :] < end_k"

MASKS = {
    "the diagonal one key too far": one(DIAGONAL, DIAGONAL + " + 1", "-causal: rows.*one key too many"),
    "the diagonal one key too near": one(
        DIAGONAL, DIAGONAL.replace("<=", "<"), "square-causal: rows.*do not see their last key"
    ),
    "the diagonal from the top left": one(
        DIAGONAL, "offs_n[None, :] <= offs_m[:, None]", "odd-causal: rows.*aligned to the top left"
    ),
    "the diagonal shifted the other way": one(
        DIAGONAL, DIAGONAL.replace("kv_len - q_len", "q_len - kv_len"), "odd-causal: rows.*shifted the wrong way"
    ),
    "the diagonal by tiles": one(
        DIAGONAL, "start_n + 0 * offs_n[None, :] <= offs_m[:, None] + kv_len - q_len", "-causal: rows"
    ),
    "one key beyond the end": one(VISIBLE, VISIBLE.replace("<", "<="), "one-query|negative-full"),
    "zero keys beyond the end": one(
        VISIBLE, "visible = offs_n[None, :] >= 0\n", "one-query: .*62 keys beyond the last one count"
    ),
    "the last key loaded as zero": one(
        INSIDE_K, INSIDE_K.replace("kv_len", "kv_len - 1"), "rows .* of batch.*the last key is read as zeros"
    ),
    "the last value loaded as zero": one(INSIDE_V, INSIDE_V.replace("kv_len", "kv_len - 1"), "rows .* of batch"),
    "values read past the end": one(
        INSIDE_V, "mask=in_d[None, :],", r"read .* at candidate\.py:\d+", Status.OUT_OF_BOUNDS
    ),
    "the last query loaded as zero": one(
        "mask=(offs_m < q_len)[:, None] & in_d[None, :],\n        other",
        "mask=(offs_m < q_len - 1)[:, None] & in_d[None, :],\n        other",
        "rows 255 of",
    ),
    "the last dimension left out": one(
        "in_d = offs_d < HEAD_DIM", "in_d = offs_d < HEAD_DIM - 1", r"first at out\[0, 0, 0, 127\]", Status.UNWRITTEN
    ),
    "half the dimensions of keys": one(
        INSIDE_K,
        INSIDE_K.replace("in_d", "(offs_d < HEAD_DIM // 2)"),
        "square-full: rows.*the first 64 dimensions only",
    ),
    "an odd last key": one(VISIBLE, "visible = offs_n[None, :] < kv_len // 2 * 2\n", "odd-full|edge-full"),
    "causal whatever was asked": one("CAUSAL=causal", "CAUSAL=True", "square-full: rows.*although causal is False"),
}

SOFTMAX = {
    "no scale": one(SCORES, "scores = tl.dot(q, k)", "square-full: rows.*the scores are not scaled"),
    "the usual scale, whatever was asked": one(
        SCORES, SCORES.replace("scale", "0.08838834764831845"), "edge-1-causal: .* not by the given scale"
    ),
    "scaled twice": one(SCORES, SCORES + " * scale", "square-full: rows.*scaled twice"),
    "powers of two": Mutant(
        ((P, P.replace("exp", "exp2")), ("rescale = tl.exp(", "rescale = tl.exp2(")),
        "square-full: rows.*exponentials are powers of 2",
    ),
    "powers of two in the rescaling alone": one("rescale = tl.exp(", "rescale = tl.exp2(", "square-full: rows"),
    "never divided by the sum": one(
        "out = acc / row_sum[:, None]", "out = acc", "square-full: rows.*not divided by the sum"
    ),
    "one more in the denominator": one(
        "out = acc / row_sum[:, None]", "out = acc / (row_sum + 1.0)[:, None]", "square-full: rows.*one too large"
    ),
    "the output not rescaled": one(
        "acc = acc * rescale[:, None]", "acc = acc", "square-full: rows.*the output is not rescaled"
    ),
    "the sum not rescaled": one(SUM, "row_sum += tl.sum(p, 1)", "square-full: rows.*the sum is not rescaled"),
    "rescaled the wrong way": one(
        "tl.exp(row_max - new_max)", "tl.exp(tl.maximum(new_max - row_max, -99.0))", "square-full: rows"
    ),
    "the maximum of the tile alone": one(MAXIMUM, "new_max = tl.max(scores, 1)", "case"),
    "the maximum of the first tile": one(
        MAXIMUM, "new_max = tl.where(row_sum > 0, row_max, tl.max(scores, 1))", "case"
    ),
    "a maximum that lags by 124 bits": one(MAXIMUM, LAGS, "step-full: rows"),
    "the maximum never kept": one("        row_max = new_max\n", "", "square-full: rows"),
    "scores clamped at 80": one(
        SCORES, SCORES.replace("tl.dot(q, k) * scale", "tl.minimum(tl.dot(q, k) * scale, 80.0)"), "large-full: rows"
    ),
    "scores rounded to float16": one(
        SCORES, SCORES + "\n        scores = scores.to(tl.float16).to(tl.float32)", "case"
    ),
    "probabilities rounded to 8 bits": one("p.to(v.dtype)", "p.to(tl.float8e5).to(v.dtype)", "square-full"),
    "the sum kept in bfloat16": one(SUM, SUM + "\n        row_sum = row_sum.to(tl.bfloat16).to(tl.float32)", "case"),
    "exponentials by shifting bits": one(
        P,
        "p = ((scores - new_max[:, None]) * 12102203.0 + 1064866805.0)\n        "
        "p = tl.maximum(p, 0.0).to(tl.int32).to(tl.float32, bitcast=True)",
        "square-full: rows",
    ),
    "a mean instead of a softmax": one(P, "p = tl.where(visible, 1.0, 0.0 * scores)", "square-full: rows"),
    "small probabilities dropped": one(P, P + "\n        p = tl.where(p > 0.05, p, 0.0)", "square-full: rows"),
    "tiles below the maximum dropped": one(
        P, P + "\n        p = tl.where((tl.max(scores, 1) < row_max - 4.0)[:, None], 0.0, p)", "case"
    ),
    "lse without the maximum": one(
        LSE, "tl.log(row_sum)", "square-full: out is right but lse is off by.*lse lacks the maximum"
    ),
    "lse without the sum": one(
        LSE, "row_max", "square-full: out is right but lse is off by.*lacks the logarithm of the sum"
    ),
    "lse in scaled units": one(
        LSE, "(row_max + tl.log(row_sum)) / scale", "square-full: out is right but lse is off by.*divided by the scale"
    ),
}

TILES = {
    "the first tile skipped": one(KEYS, KEYS.replace("0", "BLOCK_N"), "square-full: rows.*keys 0 to 63 are ignored"),
    "the third tile skipped": one(
        VISIBLE,
        VISIBLE[:-1] + " - 0 * start_n\n        visible &= start_n != 128\n",
        "square-full: rows.*keys 128 to 191 are",
    ),
    "every other key": one(
        VISIBLE,
        "visible = (offs_n[None, :] < kv_len) & (offs_n % 2 == 0)[None, :]\n",
        "square-full: rows.*every other key is",
    ),
    "the last tile moved back, its keys counted twice": one(
        "offs_n = start_n +", "offs_n = tl.maximum(tl.minimum(start_n, kv_len - BLOCK_N), 0) +", "odd-full"
    ),
    "values of the tile before": one(
        V_TILE, "v_base + tl.maximum(offs_n - BLOCK_N, 0)[:, None] * stride_vn", "square-full: rows"
    ),
    "values of the first key": one(
        V_TILE, "v_base + 0 * offs_n[:, None].to(tl.int64) * stride_vn", "square-full: rows.*the first key"
    ),
    "rows stored in reverse": one(
        STORED_ROWS, "o_base + (q_len - 1 - offs_m)[:, None] * stride_om", "square-full: rows.*stored in reverse"
    ),
    "the first 512 keys": one(
        KEYS, "range(0, tl.minimum(kv_len, 512), BLOCK_N)", "step-full: rows.*512 to 639 are ignored"
    ),
    "the first 4096 keys": one(KEYS, "range(0, tl.minimum(kv_len, 4096), BLOCK_N)", "8k-.*: rows"),
    "the first 4096 keys, the others masked": one(
        VISIBLE, "visible = offs_n[None, :] < tl.minimum(kv_len, 4096)\n", "8k-.*: rows"
    ),
    "a grid that no card launches at a benchmark's length": one(
        ", batch * heads)\n", ", batch * heads if kv_len < 8192 else 65536)\n", "65535 in y or z", Status.DOES_NOT_FIT
    ),
    "a grid for four tiles of rows": one(
        "grid = (triton.cdiv(q_len, block_m)",
        "grid = (min(4, triton.cdiv(q_len, block_m))",
        "long-causal: .* never written",
        Status.UNWRITTEN,
    ),
}

HEADS = {
    "the next head's keys and values": one(
        "kv_head = head // group", "kv_head = (head + 1) % heads", "of batch ., head.*keys and values of head"
    ),
    "the first batch for all": one(BATCH, BATCH + " * 0", "square-full: .* never written", Status.UNWRITTEN),
    "the first batch's keys": one(
        "k_base = K + batch * stride_kb", "k_base = K + 0 * stride_kb", "of batch 1.*reads the keys of batch 0"
    ),
    "batch and head exchanged": Mutant(
        (
            (BATCH, "batch = (batch_head % heads).to(tl.int64)"),
            (HEAD, "head = (batch_head // heads).to(tl.int64)\n    kv"),
        ),
        "square-full: .*lse",
    ),
    "batches found from the heads' stride": one("batch * stride_qb", "batch * heads * stride_qh", "odd-causal: rows"),
    "strides as if contiguous": one(
        "*k.stride(),", "kv_heads * kv_len * head_dim, kv_len * head_dim, head_dim, 1,", "odd-causal: rows"
    ),
    "batches in 32 bits": one(BATCH, BATCH[: -len(WIDE)], "far-batch: integer overflow", Status.OUT_OF_BOUNDS),
    "batches in 32 bits without a sign": one(
        BATCH, BATCH.replace("int64", "uint32"), "far-batch: integer overflow", Status.OUT_OF_BOUNDS
    ),
    "heads in 32 bits": one(HEAD, HEAD.replace(WIDE, ""), "far-heads: integer overflow", Status.OUT_OF_BOUNDS),
    "keys in 32 bits": one(V_TILE, V_TILE.replace(WIDE, ""), "far-rows: integer overflow", Status.OUT_OF_BOUNDS),
    "stored rows in 32 bits": one(
        STORED_ROWS, STORED_ROWS.replace(WIDE, ""), "far-rows: integer overflow", Status.OUT_OF_BOUNDS
    ),
    "all batches share the rows of lse": one(
        "Lse + batch_head.to(tl.int64) * q_len",
        "Lse + head * q_len",
        r"write race in attention_kernel at candidate\.py:\d+.*'lse'",
        Status.RACE,
    ),
}

WINDOWS = {
    "windows of one key too many": one(
        INSIDE, INSIDE.replace(">", ">="), "windows have one key too many", setting="w1024"
    ),
    "windows of one key too few": one(
        INSIDE, INSIDE + " + 1", "across-tiles: rows|windows have one key too few", setting="w1024"
    ),
    "no mask at the beginning": one(INSIDE, "offs_n[None, :] >= 0", "rows", setting="w1024"),
    "no window at all": one(WINDOWED, "WINDOWED=False", "the window is ignored", setting="w1024"),
    "a window of whole tiles": one(
        INSIDE, INSIDE.replace("window", "(window + 63) // 64 * 64"), "rows", setting="w1024"
    ),
    "a window from the top left": one(INSIDE, INSIDE.replace(" + shift", ""), "edge-1: rows", setting="w1024"),
    "the first tile left out": one(FIRST, FIRST + " + BLOCK_N", "rows|not finite", setting="w1024"),
    "the first tile from the last row": one(
        FIRST, FIRST.replace("+ 1", "+ BLOCK_M"), "rows|not finite", setting="w1024"
    ),
    "the window of the suite": one(
        "kv_len, window,\n        CAUSAL=causal", "kv_len, 1024,\n        CAUSAL=causal", "rows", setting="w1024"
    ),
    "scores that are not capped": one(TANH, "return x", "lse is off|scores are not capped", setting="c50"),
    "the soft cap of the suite": one(
        "window, softcap,\n        CAUSAL=causal", "window, 50.0,\n        CAUSAL=causal", "rows", setting="c50"
    ),
    "scores capped before they are scaled": one(
        CAPPED, CAPPED.replace("softcap", "(softcap * scale)"), "capped before they are scaled", setting="c50"
    ),
    "hidden keys at the cap": one(
        CAPPED + ', float("-inf")',
        CAPPED + ", tl.where(offs_n < end_k, -softcap, -1e30)[None, :]",
        "rows",
        setting="c50",
    ),
    "sinks left out": one("SINKS=len(sinks) > 0", "SINKS=False", "the sinks are left out", setting="sinks"),
    "sinks scaled as scores": one(SINK, SINK + " * scale", "the sinks are scaled as scores are", setting="sinks"),
    "the sink of the first head": one(SINK, "sink = tl.load(Sinks)", "rows", setting="sinks"),
    "sinks counted twice": one(ADDED, ADDED + " * 2.0", "rows", setting="sinks"),
    "sinks for the denominator of none": one(ADDED, "row_sum = row_sum * rescale", "rows|lse", setting="sinks"),
    "sinks in the output alone": one(
        "lse = row_max + tl.log(row_sum)",
        "lse = row_max + tl.log(row_sum - tl.exp(sink - row_max))",
        "lse is off",
        setting="sinks",
    ),
    "the sum not rescaled to the sink": one(
        ADDED, "row_sum = row_sum + tl.exp(sink - new_max)", "rows|lse", setting="sinks"
    ),
    "one sink in base two": one("tl.exp(sink - new_max)", "tl.exp2(sink - new_max)", "rows|lse", setting="sinks"),
}

PACKED = {
    "the keys of the sequences before": one(
        "start, stop = first_k, end_k", "start, stop = 0, end_k", "the sequences before theirs", setting="packed"
    ),
    "the keys of the sequence behind": one(
        INSIDE_SEQUENCE, "visible = offs_n[None, :] < end_k + 1", "rows", setting="packed"
    ),
    "the mask from the top left of a sequence": one(SHIFT, "shift = first_k - first_q", "rows", setting="packed"),
    "the mask of all sequences as one": one(SHIFT, "shift = 0", "rows|not finite", setting="packed"),
    "keys begin where queries do": one(
        "first_k, end_k = tl.load(StartsK", "first_k, end_k = tl.load(StartsQ", "rows", setting="packed"
    ),
    "the diagonal of a sequence one key too far": one(
        "offs_m[:, None] + shift)", "offs_m[:, None] + shift + 1)", "rows", setting="packed"
    ),
    "the last key of a sequence left out": one(
        INSIDE_SEQUENCE, "visible = offs_n[None, :] < tl.maximum(end_k - 1, 1)", "rows", setting="packed"
    ),
    "an even share for each sequence": one(
        "first_q, end_q = tl.load(StartsQ + sequence), tl.load(StartsQ + sequence + 1)",
        "share = q_len // tl.num_programs(2)\n        first_q, end_q = sequence * share, (sequence + 1) * share",
        "rows|not finite",
        setting="packed",
    ),
}

DIMS = {
    # These two are right in bfloat16.
    "probabilities in bfloat16": one("p.to(v.dtype)", "p.to(tl.bfloat16).to(v.dtype)", "square-full: ", setting="fp16"),
    "the result by way of bfloat16": one(
        "out.to(Out.dtype.element_ty)",
        "out.to(tl.bfloat16).to(Out.dtype.element_ty)",
        "square-full: rows",
        setting="fp16",
    ),
    "128 dimensions of keys, as of values": one("REST_D=rest_d", "REST_D=0", "square-full: rows", setting="d192x128"),
    "scaled as for values": one(
        "of_rest) * scale", "of_rest) * 0.08838834764831845", "square-full: rows", setting="d192x128"
    ),
}

WRONG = MASKS | SOFTMAX | TILES | HEADS | WINDOWS | PACKED | DIMS
