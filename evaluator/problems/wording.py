"""What operators are told of a setting, besides what a problem says of itself."""

from avo.evaluator.setting import Setting


def meaning(
    setting: Setting,
    *,
    backward: bool = False,
    counted: str = "i, j, q_len and kv_len",
    keys: str = "at least as many as queries",
    window: str = "causal is True. {} j > i + kv_len - q_len - window.",
) -> str:
    """Return a line for each thing that a setting adds.

    ``counted`` is what is counted within a packed sequence, ``keys`` how many it has; ``window`` ends in what is seen.
    """
    said = []
    if setting.head_dim_v:
        of = "v, out, dout and dv" if backward else "v and out"
        said.append(f"The rows of {of} have {setting.head_dim_v} elements.")
    if setting.local:
        said.append("Only the block of t is always among those that t selects.")
    if setting.packed:
        said.append(
            "Sequences are packed one after another, and the batch is 1. cu_seqlens_q and cu_seqlens_k are int32 "
            "[sequences + 1], contiguous, from 0 to the number of all queries or keys: sequence s has the queries from "
            f"cu_seqlens_q[s] to cu_seqlens_q[s + 1] - 1 and the keys likewise, {keys}. It may have none. max_seqlen_q "
            "and max_seqlen_k are the longest of them. A query sees keys of its own sequence alone; in what is said "
            f"above and below, {counted} are counted within this sequence."
        )
    if setting.window:
        said.append(
            window.format("window is 1 or more, and may be longer than a sequence: query i sees key j only if also")
        )
    if setting.softcap:
        said.append(
            "softcap is above 0: a score s is softcap * tanh(s / softcap) after it is scaled and before it is masked; "
            "lse is that of these scores."
        )
    if setting.sinks:
        said.append(
            "sinks is float32 [heads], contiguous: one extra logit for each query head, besides its scaled scores; it "
            "is not scaled. It counts in the denominator of the softmax and in lse, and has no value."
        )
    if setting.sinks and backward:
        said.append(
            "dsinks, float32 [1, heads, 1], is the gradient of each head's sink: -sum(exp(sink - lse) * "
            "rowsum(dout * out)) over all queries of all sequences."
        )
    return "\n".join(said)
