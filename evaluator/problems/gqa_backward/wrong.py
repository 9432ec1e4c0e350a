"""Wrong answers to ``gqa_backward``: mutants of its seeds, by what is wrong with them."""

from avo.evaluator.problems.mutant import one

AT = "at = (batch * heads + head) * q_len\n        for"

WRONG = {
    "one head of each group": one("range(group)", "range(1)", "group-8-causal.* dk,"),
    "lse of the first head of the group": one(AT, AT.replace("+ head)", "+ kv_head * group)"), "group-8-causal.* dk,"),
}
