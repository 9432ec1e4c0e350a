"""``avo evaluate``: exit codes and JSON that scripts can use."""

import json
from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import Result

from avo.cli.common import MAX_SOURCE_CHARS
from avo.cli.verdict import render
from evaluator.evaluation import Status
from evaluator.problem import get_problem
from seeds import seed_source
from tests.avo.sample_run import make_evaluation

Avo = Callable[..., Result]


def test_a_correct_file_is_exit_code_0_with_a_predicted_score(avo: Avo, tmp_path: Path) -> None:
    file = tmp_path / "kernel.py"
    file.write_text(seed_source("mha"))
    result = avo("evaluate", str(file), "--json")
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    assert (record["status"], record["target"], record["suite"]) == ("correct", "h100", "quick")
    assert record["score"]["kind"] == "predicted"
    assert {case["case"] for case in record["score"]["cases"]} == {"8k-causal", "8k-full"}
    assert 10 < record["score"]["geomean_tflops"] < 989


def test_a_faulty_file_is_exit_code_1_with_its_fault(avo: Avo, tmp_path: Path) -> None:
    file = tmp_path / "kernel.py"
    file.write_text("def attention(q, k, v, out, lse, *, causal, scale)\n")
    result = avo("evaluate", str(file), "--json")
    assert result.exit_code == 1, result.output
    record = json.loads(result.stdout)
    assert (record["status"], record["score"]) == ("parse_error", None)
    assert "line 1" in record["message"]


def test_a_fault_is_told_in_words_without_control_characters() -> None:
    evaluation = replace(make_evaluation(Status.INCORRECT), message="wrong\x1b[31m\nrows")
    out = StringIO()
    Console(file=out, width=100).print(render(evaluation, get_problem("mha")))
    text = out.getvalue()
    assert text.startswith("incorrect: wrong [31m\nrows\n")
    assert "CORRECT 0/1" in text


def test_a_file_that_is_no_text_is_a_wrong_call(avo: Avo, tmp_path: Path) -> None:
    (tmp_path / "kernel.py").write_bytes(b"\xff\xfe\x00")
    result = avo("evaluate", "kernel.py")
    assert (result.exit_code, result.stderr) == (2, "avo: cannot read kernel.py: not UTF-8 text\n")


@pytest.mark.parametrize("command", [["evaluate"], ["run", "--seed-file"]])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("#" * (MAX_SOURCE_CHARS + 1), "over 1 MB, which is no kernel source"),
        ("x = 1\0", "it holds NUL bytes, so it is no Python source"),
    ],
)
def test_what_can_be_no_kernel_is_refused_before_it_is_judged(
    avo: Avo, tmp_path: Path, command: list[str], content: str, message: str
) -> None:
    (tmp_path / "kernel.py").write_text(content)
    result = avo(*command, "kernel.py")
    assert (result.exit_code, result.stderr) == (2, f"avo: cannot read kernel.py: {message}\n")
