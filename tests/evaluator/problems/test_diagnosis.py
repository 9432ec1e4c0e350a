"""A mistake is named if it explains what came out, and no other is. The corpus of wrong kernels shows more of it."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from avo.evaluator.catalogue import get_problem
from avo.evaluator.problem import Case, Diagnosing, Wrong
from avo.evaluator.problems import PROBLEMS
from avo.evaluator.problems.dense import softmax_scale, views
from avo.evaluator.problems.diagnosis import diagnose

MHA = get_problem("mha")
CASES = {case.name: case for case in MHA.correctness_cases}
Tensor = torch.Tensor
Mistake = Callable[[Tensor, Tensor, Tensor, Tensor, float], tuple[Tensor, Tensor]]


def attend(scores: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    return torch.softmax(scores, 1) @ v, torch.logsumexp(scores, 1)


def hidden(scores: Tensor, seen: Tensor) -> Tensor:
    return scores.masked_fill(~seen, -math.inf)


def half_the_denominator(q: Tensor, k: Tensor, v: Tensor, seen: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    out, lse = attend(hidden(q @ k.T * scale, seen), v)
    return 2 * out, lse


def rounded(q: Tensor, k: Tensor, v: Tensor, seen: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    return attend(hidden((q @ k.T * scale).to(torch.float8_e4m3fn).double(), seen), v)


def rounded_on_the_way(*, q_by: float = 0.0, k_by: float = 0.0) -> Mistake:
    """Queries or keys are multiplied by this times the scale and rounded; without, the scores are rounded."""

    def attend_rounded(q: Tensor, k: Tensor, v: Tensor, seen: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        if not q_by + k_by:
            return attend(hidden((q @ k.T * scale).bfloat16().double(), seen), v)
        q, k = ((x * (scale * by if by else 1.0)).bfloat16().double() for x, by in ((q, q_by), (k, k_by)))
        return attend(hidden(q @ k.T / (q_by + k_by), seen), v)

    return attend_rounded


def sum_of_rounded(q: Tensor, k: Tensor, v: Tensor, seen: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    scores = hidden(q @ k.T * scale, seen)
    top = scores.amax(1, keepdim=True)
    return torch.softmax(scores, 1) @ v, (top + torch.exp(scores - top).bfloat16().double().sum(1, True).log())[:, 0]


def lse_in_base_2(q: Tensor, k: Tensor, v: Tensor, seen: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    out, lse = attend(hidden(q @ k.T * scale, seen), v)
    return out, lse / math.log(2)


def no_maximum(q: Tensor, k: Tensor, v: Tensor, seen: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    weights = torch.exp(hidden(q @ k.T * scale, seen).float()).double()
    return weights @ v / weights.sum(1, keepdim=True), weights.sum(1).log()


MISTAKES: dict[str, tuple[str, Mistake, str]] = {
    "no mask": ("padded-causal", lambda q, k, v, seen, scale: attend(q @ k.T * scale, v), "the causal mask is ignored"),
    "no scale": ("square-full", lambda q, k, v, seen, scale: attend(q @ k.T, v), "the scores are not scaled"),
    "a scale of its own": (
        "constant-causal",
        lambda q, k, v, seen, scale: attend(hidden(q @ k.T * scale * 1.1, seen), v),
        "",
    ),
    "a scale that is off": (
        "square-full",
        lambda q, k, v, seen, scale: attend(q @ k.T * scale * 1.13, v),
        "the scores are off by the factor 1.13",
    ),
    "twice the output": ("mixed-full", half_the_denominator, "the output is off by the factor 2"),
    "a tile left out": (
        "square-full",
        lambda q, k, v, seen, scale: attend(q @ k[64:].T * scale, v[64:]),
        "keys 0 to 63 are ignored",
    ),
    "one length for queries and keys": (
        "mixed-full",
        lambda q, k, v, seen, scale: attend(q @ k[: len(q)].T * scale, v[: len(q)]),
        "only the first q_len keys count, not all kv_len",
    ),
    "lse in base 2": ("square-full", lse_in_base_2, "lse is in base 2: multiply it by ln(2)"),
    "lse of 16 bits": (
        "square-full",
        lambda q, k, v, seen, scale: (attend(q @ k.T * scale, v)[0], attend(q @ k.T * scale, v)[1].bfloat16().double()),
        "lse is rounded to the type of the inputs",
    ),
    "queries scaled and rounded": (
        "square-full",
        rounded_on_the_way(q_by=1.0),
        "the queries are multiplied by the scale and rounded to bfloat16: multiply the scores instead",
    ),
    "queries scaled for powers of 2 and rounded": (
        "square-full",
        rounded_on_the_way(q_by=1 / math.log(2)),
        "the queries are multiplied by the scale times log2(e) and rounded to bfloat16: multiply the scores instead",
    ),
    "keys scaled and rounded": (
        "square-full",
        rounded_on_the_way(k_by=1.0),
        "the keys are multiplied by the scale and rounded to bfloat16: multiply the scores instead",
    ),
    "scores of 16 bits": ("square-full", rounded_on_the_way(), "the scores are rounded to bfloat16"),
    "probabilities rounded before their sum": (
        "padded-causal",
        sum_of_rounded,
        "the sum adds up probabilities after they are rounded",
    ),
    "no maximum": ("large-causal", no_maximum, "the maximum is not subtracted, and exponentials overflow"),
    "scores of 8 bits": ("square-full", rounded, ""),
}


def wrong(case: Case, mistake: Mistake, head: int = 0) -> tuple[dict[str, Tensor], Wrong]:
    inputs = MHA.make_inputs(case, 5)
    q, k, v = (view[1, head].double() for view in views(case, inputs).values())
    rows = torch.arange(case.q_len)
    seen = torch.ones(case.q_len, case.kv_len, dtype=torch.bool)
    if case.causal:
        seen = torch.arange(case.kv_len) <= rows[:, None] + case.kv_len - case.q_len
    out, lse = mistake(q, k, v, seen, softmax_scale(case))
    right, right_lse = attend(hidden(q @ k.T * softmax_scale(case), seen), v)
    near = ((out - right).norm(dim=1) < 0.01 * right.norm(dim=1)) & ((lse - right_lse).abs() < 3e-4)
    values = {"out": out[~near].bfloat16().double(), "lse": lse[~near].float().double()}
    return inputs, Wrong("queries", 1, head, rows[~near], values)


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_named_if_it_explains_what_came_out(name: str) -> None:
    case_name, mistake, expected = MISTAKES[name]
    case = CASES[case_name]
    assert diagnose(MHA, case, *wrong(case, mistake)) == expected


def test_few_rows_prove_no_number_that_was_found_from_them() -> None:
    case = CASES["square-full"]
    inputs, found = wrong(case, half_the_denominator)
    few = replace(found, rows=found.rows[:3], values={name: each[:3] for name, each in found.values.items()})
    assert diagnose(MHA, case, inputs, few) == ""


def test_dense_problems_know_these_mistakes() -> None:
    assert [name for name in ("decode", "fsa", "gqa", "mha") if isinstance(PROBLEMS[name], Diagnosing)] == [
        "gqa",
        "mha",
    ]
