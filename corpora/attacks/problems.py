"""Attacks on other problems than ``mha``: less work, or wrong, at benchmark lengths only."""

from avo.evaluator.evaluation import Status
from avo.seeds import seed_source
from tests.kernels import Attack, edited

BACKWARD, DECODE, FSA = seed_source("mha_backward"), seed_source("decode"), seed_source("fsa", "query_outer")
FSA_BACKWARD = seed_source("fsa_backward", "query_outer")
DELTA = "    delta_kernel[triton.cdiv(q_len, 64), batch * heads](\n"
FSA_DELTA = "    delta_kernel[triton.cdiv(length, rounded), batch * heads](\n"
ROW = "    indices = Indices + (batch_head.to(tl.int64) * length + row) * blocks\n"
KV_HEAD = "kv_head = head // group\n"
PAGE = "        page = tl.load(Table + batch * most + keys // PAGE, mask=in_n, other=0).to(tl.int64)\n"


def general(*edits: tuple[str, str]) -> str:
    """Return the seed ``general``, edited."""
    return edited(*edits, source=seed_source("mha-d192x128"))


ATTACKS = {
    "one KV head for two groups": (
        "gqa",
        Attack(
            edited((KV_HEAD, "kv_head = head // group // (1 + (kv_len > 2048)) * (1 + (kv_len > 2048))\n")),
            Status.INCORRECT,
            "rows",
        ),
    ),
    "query heads dealt out to the KV heads in turn": (
        "gqa",
        Attack(
            edited((KV_HEAD, "kv_head = tl.where(kv_len > 2048, head % (heads // group), head // group)\n")),
            Status.INCORRECT,
            "rows",
        ),
    ),
    "the last keys of the sequence before": (
        "gqa-packed",
        Attack(
            general(
                (
                    "    for start_n in range(start, stop, BLOCK_N):\n",
                    "    start -= tl.where((kv_len > 8192) & (first_k > 0) & (start < stop), BLOCK_N, 0)\n"
                    "    for start_n in range(start, stop, BLOCK_N):\n",
                )
            ),
            Status.INCORRECT,
            "rows",
        ),
    ),
    "half of the keys of later sequences": (
        "gqa-packed",
        Attack(
            general(
                (
                    "        stop = tl.where(start_m < end_q, stop, start)\n",
                    "        stop = tl.where(start_m < end_q, stop, start)\n"
                    "        stop = tl.where((kv_len > 8192) & (sequence > 2), start + (stop - start + 1) // 2, stop)\n",
                )
            ),
            Status.INCORRECT,
            "work is missing at this shape",
        ),
    ),
    "the gradient of sinks by one sequence of the batch": (
        "mha_backward-sinks",
        Attack(
            edited(
                ("range(batches)", "range(tl.where(q_len > 2048, 1, batches))"),
                source=seed_source("mha_backward-sinks"),
            ),
            Status.INCORRECT,
            "dsinks",
        ),
    ),
    "gradients of keys without the last queries of a sequence": (
        "gqa_backward-packed",
        Attack(
            edited(
                (
                    "    start, stop = first_q, end_q\n",
                    "    start, stop = first_q, end_q - tl.where(q_len > 8192, (end_q - first_q) // 8, 0)\n",
                ),
                source=seed_source("gqa_backward-packed"),
            ),
            Status.INCORRECT,
            "rows .* of d[kv]",
        ),
    ),
    "a window that begins a page late": (
        "decode-w4096",
        Attack(
            edited(
                (
                    "        first = tl.maximum(length - q_len + 1 - window, 0)\n",
                    "        first = tl.maximum(length - q_len + 1 - window, 0) + tl.where(length > 4200, PAGE, 0)\n",
                ),
                source=DECODE,
            ),
            Status.INCORRECT,
            "rows",
        ),
    ),
    "the row sums of a backward pass left out": (
        "mha_backward",
        Attack(
            edited((DELTA, f"    delta.zero_()\n    if q_len < 2048:\n    {DELTA}"), source=BACKWARD),
            Status.INCORRECT,
            "8k-.*: rows .* of d[qk]",
        ),
    ),
    "the last query head of each group left out of dk and dv": (
        "gqa_backward",
        Attack(
            edited(("range(group)", "range(tl.where(q_len > 2048, group - 1, group))"), source=BACKWARD),
            Status.INCORRECT,
            "8k-.*: rows .* of d[kv]",
        ),
    ),
    "the row sums of selected attention left out": (
        "fsa_backward",
        Attack(
            edited((FSA_DELTA, f"    delta.zero_()\n    if length < 2048:\n    {FSA_DELTA}"), source=FSA_BACKWARD),
            Status.INCORRECT,
            "8k-.*: rows .* of d[qk]",
        ),
    ),
    "pages taken as consecutive": (
        "decode",
        Attack(
            edited(
                (
                    PAGE,
                    f"{PAGE}        if most > 64:\n            page = (tl.load(Table + batch * most) + keys // PAGE).to(tl.int64) % 64\n",
                ),
                source=DECODE,
            ),
            Status.INCORRECT,
            "rows",
        ),
    ),
    "a selection of blocks that two neighbours share": (
        "fsa",
        Attack(
            edited(
                (
                    ROW,
                    f"    row = tl.where((length > 4096) & (position % block_size != 0), row - row % 2, row)\n{ROW}    row = position.to(tl.int64)\n",
                ),
                source=FSA,
            ),
            Status.INCORRECT,
            "rows",
        ),
    ),
    "a window of one key more": (
        "mha-w4096",
        Attack(
            general(
                (
                    "offs_m[:, None] + shift - window)",
                    "offs_m[:, None] + shift - window - tl.where(kv_len > 1200, 1, 0))",
                )
            ),
            Status.INCORRECT,
            "windows have one key too many",
        ),
    ),
    "no sinks": (
        "gqa-sinks",
        Attack(
            general(("tl.load(Sinks + head)", "tl.load(Sinks + head) - tl.where(kv_len > 2048, 1e20, 0.0)")),
            Status.INCORRECT,
            "the sinks are left out",
        ),
    ),
}
"""By what each tries: the problem, and the attack."""
