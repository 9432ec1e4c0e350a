"""The task as a model is told it: figures to beat, versions, launch options, and what the prediction leaves out."""

import re
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest

from avo.agents.prompts import render
from avo.agents.task import meaning, published, task
from avo.evaluator.catalogue import get_problem, get_suite
from avo.evaluator.compiling.compiler import COMPILE_OPTIONS
from avo.evaluator.problems import PROBLEMS
from avo.evaluator.target import ScoreKind
from avo.evaluator.targets import get_target
from avo.evaluator.units import figure, rooflines_us

DOCUMENT = Path(__file__).parents[2] / "docs" / "performance-model.md"


def said(problem: str = "mha", target: str = "h100", suite: str = "quick") -> str:
    return render("system", **task(get_problem(problem), get_target(target), suite, ""))


def test_published_figures_stand_beside_their_cases_with_their_source() -> None:
    lines = [line.split() for line in said().splitlines()]
    assert ["TFLOPS", "card", "8k-causal", "8k-full"] in lines
    assert ["FlashAttention-3", "h100", "602", "646"] in lines
    assert "Source: FlashAttention-3, arXiv 2407.08608, figure 5" in said()
    long = published(get_problem("mha"), get_target("h100"), get_suite(get_problem("mha"), "paper"))
    assert "32k-full" in long.splitlines()[0]
    assert long.splitlines()[1].split()[-1] == "-", "nothing was published for 32k"
    assert "b200" in published(get_problem("mha"), get_target("b200"), get_suite(get_problem("mha"), "quick"))


@pytest.mark.parametrize(("problem", "target"), [("gqa", "h100"), ("fsa", "b200"), ("mha", "rtx5090")])
def test_where_nothing_was_published_that_is_said(problem: str, target: str) -> None:
    assert "Nothing was published for these cases on this card." in said(problem, target)


def test_where_nothing_was_published_the_roofline_stands_in_its_place() -> None:
    (line,) = (line for line in said("mha", "rtx5090").splitlines() if line.startswith("Nothing was published"))
    bounds = rooflines_us("mha", "quick", "rtx5090")
    assert line.endswith(
        f"they take 8k-causal {figure(bounds['8k-causal'])} us, 8k-full {figure(bounds['8k-full'])} us."
    )
    assert "At its peaks" not in said("mha", "h100")


def test_a_ratio_that_was_published_in_the_place_of_figures_is_told_in_words() -> None:
    assert "Published:\nFlash Sparse Attention, h200: a ratio alone: its kernels take 1.6 times" in said("fsa", "h200")


def test_each_case_is_told_with_its_shapes_and_scalars() -> None:
    told = said("fsa")
    assert (
        "  8k-b128-g8: q, out [1, 32, 8192, 128]; k, v [1, 4, 8192, 128]; block_indices [1, 4, 8192, 8]; "
        "lse [1, 32, 8192]; block_size 128; scale 0.08839\n"
    ) in told
    assert [case.name for case in get_suite(get_problem("fsa"), "quick") if f"\n  {case.name}: q" not in told] == []


def test_a_candidate_is_told_triton_its_launch_options_and_that_queries_are_no_more_than_keys() -> None:
    assert f"for Triton {version('triton')}." in said()
    assert [name for name in COMPILE_OPTIONS if name not in said()] == []
    assert "q_len <= kv_len" in said()
    for name in ("mha", "gqa", "fsa"):
        assert all(case.q_len <= case.kv_len for case in get_problem(name).correctness_cases)


def test_what_is_approximated_is_what_a_model_is_told_of() -> None:
    _, _, section = DOCUMENT.read_text(encoding="utf-8").partition("## What is approximated")
    subjects = re.findall(r"^- \*\*([^*]+?)s?\*\*", section, re.M)
    _, _, told = said().partition("# What the prediction does not see")
    assert len(subjects) >= 10
    assert [subject for subject in subjects if subject.lower() not in told.lower()] == []
    measured = replace(get_target("h100"), kind=ScoreKind.MEASURED)
    assert "does not see" not in render("system", **task(get_problem("mha"), measured, "quick", ""))


def test_a_problem_says_itself_what_is_to_be_computed() -> None:
    assert "lse is float32 [batch, heads, q_len], contiguous, the natural logarithm" in said()
    assert "they may be of more\nkeys than k has" in said("mha_backward")
    assert "def attention_backward(" not in said("mha_backward")
    assert [name for name, problem in PROBLEMS.items() if "``." in meaning(problem).partition("\n")[0]] == []


@pytest.mark.parametrize(
    "name",
    [*PROBLEMS, "mha-w1024-global-sinks-packed", "gqa_backward-w1024-sinks-packed", "decode-d192x128-w1024-sinks"],
)
def test_every_argument_is_explained_and_none_that_a_problem_has_not(name: str) -> None:
    problem = get_problem(name)
    call, told = problem.call(problem.suites["quick"][0]), meaning(problem)
    arguments = {each.name for each in call.tensors} | {argument for argument, _ in call.scalars}
    words = set(re.findall(r"\w+", told))
    assert arguments - words <= {"scale"}
    others = {"cu_seqlens_q", "max_seqlen_k", "sinks", "dsinks", "window", "causal", "block_indices", "block_table"}
    assert words & others <= arguments
    assert "evaluator." not in told, "operators do not see the code of AVO"
    assert ("128 elements" in told) == ("d192x128" in name)
