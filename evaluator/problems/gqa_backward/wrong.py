"""Wrong answers to ``gqa_backward``: mutants of its seeds, by what is wrong with them."""

from avo.evaluator.evaluation import Status
from avo.evaluator.problems.mutant import one

AT = "at = (batch * heads + head) * q_len\n        for"

WRONG = {
    "one head of each group": one("range(group)", "range(1)", "group-8-causal.* dk,"),
    "KV heads in 32 bits": one(
        "(tl.program_id(1) % kv_heads).to(tl.int64)",
        "tl.program_id(1) % kv_heads",
        "far-heads: integer overflow",
        Status.OUT_OF_BOUNDS,
    ),
    "lse of the first head of the group": one(AT, AT.replace("+ head)", "+ kv_head * group)"), "group-8-causal.* dk,"),
}
