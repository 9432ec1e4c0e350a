"""What a model's owner gains: the share of attention in the time of a layer and of a token, and the gain per token.

All but attention is a roofline of its matrix products on the card (Williams et al., CACM 52(4), 2009): the longer of
their operations at the dense bf16 peak and of their weights at the peak bandwidth. Norms, activations, communication
and sampling are left out, so true shares of attention are smaller. The products are those of a transformer with gated
MLPs (Llama, arXiv 2302.13971, 2307.09288): queries, keys, values, output, and three of the MLP, of each active expert
in a mixture (Mixtral, arXiv 2401.04088); per token, the output head once more.
"""

import re
from collections.abc import Mapping
from typing import Any

from avo.evaluator.catalogue import get_problem, get_suite
from avo.evaluator.errors import EvaluatorError
from avo.evaluator.evaluation import Score
from avo.evaluator.known import known
from avo.evaluator.problem import Case
from avo.evaluator.target import Target
from avo.evaluator.units import percent
from avo.lineage_db.records import Run
from avo.subject import FOR

LAYER = "layer"
"""Where what is kept of a run's model has ``sizes_of``."""
_COUNTED = re.compile(r"([\d,]+) layers? of ")
_BYTES = 2
"""Of a weight in bfloat16 or float16."""


def sizes_of(whole: Mapping[str, Any]) -> dict[str, int]:
    """Return the sizes of a model's matrix products; empty where its configuration does not say them all."""
    within = whole.get("text_config")
    config = {**whole, **(within if isinstance(within, dict) else {})}
    if config.get("n_routed_experts") or config.get("first_k_dense_replace"):
        return {}  # experts that every token shares, and first layers that are dense: other products
    experts = config.get("num_experts_per_tok") or config.get("experts_per_token") or 1
    several = config.get("num_local_experts") or config.get("num_experts") or 1
    if type(several) is not int:
        return {}
    inner = (config.get("moe_intermediate_size") if several > 1 else None) or config.get("intermediate_size")
    found: dict[str, Any] = {
        "hidden": config.get("hidden_size"), "inner": inner, "layers": config.get("num_hidden_layers"),
        "vocabulary": config.get("vocab_size"), "experts": several, "active": experts if several > 1 else 1,
    }  # fmt: skip
    return found if all(type(size) is int and size > 0 for size in found.values()) else {}


def owner_words(run: Run, best: Score | None, seed: Score | None) -> str:
    """Return what attention takes of a layer's and of a token's time at each length, and the gain per token over the
    seed, in words; empty for a run without a model, or on a card that is not known.
    """
    kept: Mapping[str, Any] = run.config.get(FOR) or {}
    sizes, card = kept.get(LAYER) or {}, known(run.target)
    if not sizes or card is None or best is None or seed is None:
        return ""
    try:
        cases = {case.name: case for case in get_suite(get_problem(run.problem), run.suite)}
    except EvaluatorError:
        return ""
    attending = sum(int(m[1].replace(",", "")) for words in kept["read"] if (m := _COUNTED.match(words)))
    times = {each.case: each.time_us for each in seed.cases}
    parts = []
    whole = "the whole backward pass's" if kept["phase"] == "train" else "a token's"
    gained = "speed of that pass" if kept["phase"] == "train" else "tokens/s"
    for each in best.cases:
        if each.case not in cases or each.case not in times or not attending:
            continue
        layer, head = _others_us(cases[each.case], sizes, card, backward=kept["phase"] == "train")
        now, before = (attending * us + sizes["layers"] * layer + head for us in (each.time_us, times[each.case]))
        grown = "" if now == before else f", {percent(before / now - 1)} {gained} over the seed"
        parts.append(
            f"{each.case}: {each.time_us / (each.time_us + layer):.0%} of a layer's and "
            f"{attending * each.time_us / now:.0%} of {whole} time{grown}"
        )
    words = f"{best.kind.capitalize()}, attention takes of {kept['model']} in {kept['phase']} at "
    return f"{words}{'; '.join(parts)} (all else a roofline of its matrix products)." if parts else ""


def _others_us(case: Case, sizes: Mapping[str, int], card: Target, *, backward: bool) -> tuple[float, float]:
    """Return the microseconds of a layer's other products, and of the output head, for all tokens of a case.

    A backward pass has two products for each of the forward pass. In prefill only the last token has an output.
    """
    tokens, hidden, of_values = case.batch * case.q_len, sizes["hidden"], case.head_dim_v or case.head_dim
    attention = hidden * (case.heads * (case.head_dim + of_values) + case.kv_heads * (case.head_dim + of_values))
    expert = 3 * hidden * sizes["inner"]
    touched = min(sizes["experts"], sizes["active"] * tokens)
    times = 2 if backward else 1
    layer = _roofline_us(tokens * (attention + sizes["active"] * expert), attention + touched * expert, card)
    outputs = tokens if backward or case.q_len <= 8 else case.batch
    head = sizes["vocabulary"] * hidden
    return times * layer, times * _roofline_us(outputs * head, head, card)


def _roofline_us(multiplied: float, weights: float, card: Target) -> float:
    return 1e6 * card.roofline_s(2 * multiplied, _BYTES * weights)
