"""``avo evaluate``: exit codes and JSON that scripts can use."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import Result

from avo.cli.common import MAX_SOURCE_CHARS
from avo.cli.verdict import render
from avo.evaluator.candidate import Candidate
from avo.evaluator.catalogue import get_problem
from avo.evaluator.evaluation import CaseResult, Evaluation, Resources, Status
from avo.evaluator.evaluators import AnyRequest, Progress, Tell, VerifyRequest
from avo.evaluator.fake import FakeEvaluator
from avo.evaluator.units import figure, rooflines_us
from avo.lineage_db.store import Store
from avo.search import judging
from avo.seeds import seed_source
from tests.avo.export.sample import correct
from tests.avo.sample_run import make_evaluation, make_measured

Avo = Callable[..., Result]
SMALL = str(Path(__file__).parents[1] / "export" / "small_problem.py")
MINE = """
from dataclasses import replace
from avo.evaluator.catalogue import get_problem

PROBLEM = replace(get_problem("mha"), name="mine")
"""


def shown(evaluation: Evaluation) -> str:
    """Return what the command prints about an evaluation."""
    out = StringIO()
    Console(file=out, width=100).print(render(evaluation, get_problem("mha")))
    return out.getvalue()


@pytest.mark.long
@pytest.mark.parametrize(
    ("problem", "cases"),
    [(SMALL, {"600-causal", "300-full"}), pytest.param("mha", {"8k-causal", "8k-full"}, marks=pytest.mark.soak)],
    ids=["small", "mha"],
)
def test_a_correct_file_is_exit_code_0_with_a_predicted_score(
    avo: Avo, tmp_path: Path, problem: str, cases: set[str]
) -> None:
    file = tmp_path / "kernel.py"
    file.write_text(seed_source("mha"))
    result = avo("evaluate", str(file), "--problem", problem, "--json")
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    assert (record["status"], record["target"], record["suite"]) == ("correct", "h100", "quick")
    assert record["score"]["kind"] == "predicted"
    assert {case["case"] for case in record["score"]["cases"]} == cases
    assert 0.1 < record["score"]["geomean_tflops"] < 989


@pytest.mark.parametrize(
    ("tflops", "answer"), [(900.0, "mha-h100: would be accepted: yes, "), (90.0, "mha-h100: would be accepted: no, -")]
)
def test_a_file_is_held_against_the_lineage_of_a_run(
    avo: Avo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tflops: float, answer: str
) -> None:
    monkeypatch.setattr("avo.evaluator.serving.process.ProcessEvaluator.follow", lambda *_: make_evaluation(tflops))
    file = tmp_path / "kernel.py"
    file.write_text("x = 1\n")
    result = avo("evaluate", str(file), "--against", "mha-h100")
    assert result.exit_code == 0, result.output
    assert answer in result.stdout.splitlines()[-1]
    record = json.loads(avo("evaluate", str(file), "--against", "mha-h100", "--json").stdout)
    assert record["decision"]["ruling"] == ("acceptable" if tflops == 900.0 else "no_gain")
    assert "would be accepted" not in avo("evaluate", str(file)).stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["nothing"], "no run"),
        (["mha-h100", "--target", "b200"], "--target: mha-h100 has h100, not b200"),
        (["mha-h100", "--closely"], "--against is about the score on the run's suite"),
        (["mha-h100@3"], "this command is about a whole run"),
    ],
)
def test_what_cannot_be_held_against_a_run_is_exit_code_2(
    avo: Avo, tmp_path: Path, options: list[str], message: str
) -> None:
    file = tmp_path / "kernel.py"
    file.write_text("x = 1\n")
    result = avo("evaluate", str(file), "--against", *options)
    assert result.exit_code == 2
    assert message in result.output


def test_problems_from_files_and_runs_of_several_lineages_are_told_apart(
    avo: Avo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("avo.evaluator.serving.process.ProcessEvaluator.follow", lambda *_: make_evaluation(90.0))
    (tmp_path / "kernel.py").write_text("x = 1\n")
    mine = tmp_path / "mine.py"
    mine.write_text(MINE)
    with Store.open(str(tmp_path / "own.db")) as store:
        for name, config in (("one", {}), ("several", {"population": "islands"})):
            store.create_run(
                name=name, problem=str(mine), target="h100", suite="quick", operator="mutate", seed=0,
                config={"problem": str(mine), **config}, now=datetime(2026, 3, 1, tzinfo=UTC),
            )  # fmt: skip
    options = ("evaluate", "kernel.py", "--db", "own.db", "--problem", "mine.py", "--against")
    result = avo(*options, "one")
    assert result.exit_code == 0, result.output
    assert "one: would be accepted: yes" in result.stdout
    result = avo(*options, "several")
    assert result.exit_code == 2
    assert "versions of several have rivals of their own (islands)" in result.output


def test_a_faulty_file_is_exit_code_1_with_its_fault(avo: Avo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Evaluation(Status.PARSE_ERROR, "candidate.py, line 1: expected ':'", "h100", "quick", 0.1)
    monkeypatch.setattr("avo.evaluator.serving.process.ProcessEvaluator.follow", lambda *_: found)
    file = tmp_path / "kernel.py"
    file.write_text("def attention(q, k, v, out, lse, *, causal, scale)\n")
    result = avo("evaluate", str(file), "--json")
    assert result.exit_code == 1, result.output
    record = json.loads(result.stdout)
    assert (record["status"], record["score"]) == ("parse_error", None)
    assert "line 1" in record["message"]


def test_a_close_look_is_that_before_acceptance_and_tells_what_was_drawn(
    avo: Avo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = CaseResult("odd-full at batch 2, 3 heads, 91 queries, 103 keys", True, 1e-3, 1e-5)
    made = make_evaluation(200.0)
    assert made.score is not None
    neighbours = ((300.0,), (300.0,))  # of the suite that versions are ranked by
    found = replace(made, suite="held_out", cases=(drawn,), score=replace(made.score, neighbours=neighbours))
    asked: list[object] = []

    def answer(self: object, request: object, tell: object) -> Evaluation:
        asked.append(request)
        return found

    monkeypatch.setattr("avo.evaluator.serving.process.ProcessEvaluator.follow", answer)
    file = tmp_path / "kernel.py"
    file.write_text("x = 1\n")
    result = avo("evaluate", str(file), "--closely")
    assert asked == [VerifyRequest(Candidate("mha", "x = 1\n"))]
    assert result.exit_code == 0
    assert "200 predicted TFLOPS, h100, geomean of held_out" in result.stdout
    assert "odd-full at batch 2, 3 heads, 91 queries, 103 keys" in result.stdout


def test_a_case_of_many_configurations_is_shown_once_with_the_largest_errors_or_the_failure() -> None:
    passed = [CaseResult("odd", True, error, error / 10) for error in (1e-3, 3e-3, 2e-3)]
    failed = CaseResult("square", False, 0.5, 0.5, "rows are off")
    kernel = Resources("k", 128, 0, 1024, 0, 4, 4)
    found = replace(
        make_evaluation(200.0),
        cases=(*passed, replace(failed, passed=True, message=""), failed),
        resources=(kernel,) * 3,
    )
    lines = [" ".join(line.split()) for line in shown(found).splitlines()]
    assert "CORRECT 1/2 RELATIVE ERROR ABSOLUTE ERROR" in lines
    assert [line for line in lines if line.startswith("odd")] == ["odd 3.0e-03 3.0e-04 the largest of 3 configurations"]
    assert [line for line in lines if line.startswith("square")] == ["square 5.0e-01 5.0e-01 rows are off"]
    assert lines.count("k 128 0 1024 0 4 4") == 1


def test_a_fault_is_told_in_words_without_control_characters() -> None:
    evaluation = replace(make_evaluation(Status.INCORRECT), message="wrong\x1b[31m\nrows")
    text = shown(evaluation)
    assert text.startswith("incorrect: wrong [31m\nrows\n")
    assert "CORRECT 0/1" in text


def test_an_unverified_kernel_is_shown_with_a_prediction_that_is_called_so() -> None:
    score = make_evaluation(200.0).score
    evaluation = Evaluation(Status.UNVERIFIED, "f is Gluon", "h100", "quick", 1.0, predicted=score)
    text = shown(evaluation)
    assert text.startswith("unverified: f is Gluon\nunverified, 200 predicted TFLOPS, h100, geomean of quick\n")
    assert "unverified, predicted TFLOPS" in text
    assert "PUBLISHED" not in text
    assert "correct" not in text.lower()


@pytest.mark.parametrize(
    ("examined", "compiled", "told"),
    [
        (Status.RACE, "", "; race at other shapes or in a larger sample"),
        (Status.MISCOMPILED, "", "; miscompiled by one of Triton's passes (avo evaluate --closely names it)"),
        (Status.MISCOMPILED, "kernel k is compiled wrong", "; kernel k is compiled wrong"),
    ],
)
def test_what_a_closer_look_found_is_told(examined: Status, compiled: str, told: str) -> None:
    words = " ".join(shown(replace(make_evaluation(200.0), examined=examined, compiled=compiled)).split())
    assert f"geomean of quick{told}" in words
    assert words.count("compiled wrong") <= 1


def test_what_was_not_checked_of_what_the_compiler_made_is_told() -> None:
    unchecked = "Not all that the compiler made was checked: no time was left (3 of 20 cases)"
    assert unchecked in shown(replace(make_evaluation(200.0), compiled=unchecked)).splitlines()


def test_a_prediction_for_a_card_that_was_checked_by_nobody_says_so() -> None:
    evaluation = make_evaluation(200.0)
    assert evaluation.score is not None
    assert "held against" not in shown(evaluation)
    other = replace(evaluation, target="rtx4090", score=replace(evaluation.score, target="rtx4090"))
    assert "Predictions for rtx4090 were not held against anything." in shown(other).splitlines()


def test_a_measured_score_names_its_card_its_quartiles_and_how_it_was_compared() -> None:
    text = shown(make_measured(640.0))
    assert text.splitlines()[:3] == [
        "correct, 640 measured TFLOPS, NVIDIA H100 80GB HBM3, geomean of quick",
        "driver 570.86, clocks 1590 to 1755 MHz",
        "faster than the best so far: +2.0% in 2 rounds, chance of error 0.0025",
    ]
    head, figures = text.splitlines()[4:6]
    assert head.split() == ["CASE", "measured", "TFLOPS", "quartiles", "us", "ROOFLINE", "us"]
    assert figures.split() == ["8k-full", "640", "635", "to", "645", "1560", "2220"]
    assert "attention_kernel: BLOCK_M=128, num_warps=8" in text
    assert "predicted" not in text
    assert "BUSY" not in text


def test_a_prediction_is_shown_with_its_range() -> None:
    evaluation = make_evaluation(200.0)
    assert evaluation.score is not None
    cases = tuple(replace(case, low_tflops=150.0, high_tflops=260.5) for case in evaluation.score.cases)
    text = shown(replace(evaluation, score=replace(evaluation.score, cases=cases)))
    assert "150 to 260" in text
    assert "range" in text
    assert "measured" not in text


def test_a_command_that_starts_no_judge_is_a_wrong_call(avo: Avo, tmp_path: Path) -> None:
    (tmp_path / "kernel.py").write_text("pass")
    result = avo("evaluate", "kernel.py", "--evaluator-command", "sh -c 'echo no route to gpu-box >&2; exit 255'")
    line = "avo: the judge's process does not start: exit code 255; no route to gpu-box\n"
    assert (result.exit_code, result.stderr) == (2, line)


def test_a_file_that_is_no_text_is_a_wrong_call(avo: Avo, tmp_path: Path) -> None:
    (tmp_path / "kernel.py").write_bytes(b"\xff\xfe\x00")
    result = avo("evaluate", "kernel.py")
    assert (result.exit_code, result.stderr) == (2, "avo: cannot read kernel.py: not UTF-8 text\n")


def test_a_file_whose_name_no_file_can_have_is_a_wrong_call(avo: Avo) -> None:
    for name in ("a" * 300, "a" * 300 + ".json"):
        result = avo("evaluate", name)
        assert (result.exit_code, result.stderr) == (2, f"avo: cannot read {name}: File name too long\n")


@pytest.mark.parametrize("command", [["evaluate"], ["run", "--seed-kernel"]])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("#" * (MAX_SOURCE_CHARS + 1), "over 1 MB, too long for a kernel's source"),
        ("x = 1\0", "it holds NUL bytes, so it is not Python source"),
    ],
)
def test_what_can_be_no_kernel_is_refused_before_it_is_judged(
    avo: Avo, tmp_path: Path, command: list[str], content: str, message: str
) -> None:
    (tmp_path / "kernel.py").write_text(content)
    result = avo(*command, "kernel.py")
    assert (result.exit_code, result.stderr) == (2, f"avo: cannot read kernel.py: {message}\n")


def test_how_to_measure_is_passed_to_the_judge_and_its_progress_is_heard(
    avo: Avo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: dict[str, Any] = {}
    said: list[str] = []

    class Telling(FakeEvaluator):
        def follow(self, request: AnyRequest, tell: Tell) -> Any:
            tell(Progress(3, 256, "round 4"))
            return self.ask(request)

    def judge(*arguments: object, **settings: Any) -> FakeEvaluator:
        told.update(settings, wall=arguments[2])
        return Telling(lambda candidate: make_evaluation(100.0))

    monkeypatch.setattr("rich.status.Status.update", lambda status, text: said.append(text))

    monkeypatch.setattr(judging, "judge_process", judge)
    monkeypatch.setattr(judging, "get_target", lambda name: told.update(visible=os.environ["CUDA_VISIBLE_DEVICES"]))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "")
    (tmp_path / "kernel.py").write_text("pass")
    options = ["--device", "1", "--clock", "burst", "--trace", "runs.jsonl", "--worker-prefix", "ncu -o out"]
    result = avo("evaluate", str(tmp_path / "kernel.py"), "--target", "cuda", *options)
    assert result.exit_code == 0, result.output
    given = dict(zip(told["options"][::2], told["options"][1::2], strict=True))
    assert told["visible"] == given["--device"] == "1"
    assert (given["--clock"], given["--worker-prefix"]) == ("burst", "ncu -o out")
    assert told["wall"] > 1e5, "a profiler takes its time"
    assert said == [f"judging {tmp_path / 'kernel.py'} for cuda: round 4"]
    assert given["--trace"] == os.path.abspath("runs.jsonl")


@pytest.mark.parametrize(("problem", "head"), [("mha", "predicted TFLOPS range us"), ("decode", "range, GB/s us")])
def test_a_range_has_a_unit_where_it_is_not_that_of_its_column(problem: str, head: str) -> None:
    out = StringIO()
    Console(file=out, width=100).print(render(correct(problem, "quick", 2.0, "h100"), get_problem(problem)))
    assert head in " ".join(out.getvalue().split())


@pytest.mark.parametrize(("target", "shown_too"), [("h100", False), ("rtx5090", True)])
def test_a_roofline_stands_beside_the_score_where_nothing_was_published(target: str, shown_too: bool) -> None:
    text = shown(correct("mha", "quick", 100.0, target))
    assert ("PUBLISHED" in text, "ROOFLINE us" in text) == (not shown_too, shown_too)
    (row,) = (line.split() for line in text.splitlines() if line.startswith("8k-full") and "100" in line.split())
    assert (figure(rooflines_us("mha", "quick", target)["8k-full"]) in row) == shown_too


def test_json_that_is_no_models_configuration_is_not_judged(avo: Avo, tmp_path: Path) -> None:
    (file := tmp_path / "results.json").write_text("{}")
    refused = avo("evaluate", str(file))
    what = "neither a kernel's source nor a model's configuration that can be read: name a Python file"
    assert (refused.exit_code, refused.stderr) == (2, f"avo: {file} is {what}\n")


def test_a_models_configuration_in_place_of_a_kernel_is_answered_with_the_commands_that_take_it(
    avo: Avo, tmp_path: Path
) -> None:
    config = Path(__file__).parents[1] / "configs" / "Qwen3-8B.json"
    (tmp_path / "config.json").write_text(config.read_text())
    for file in (config, tmp_path):
        refused = avo("evaluate", str(file))
        assert (refused.exit_code, refused.stderr) == (
            2,
            f"avo: {file} is a model's configuration, not a kernel: avo run --for {file} makes a kernel for it; "
            "a kernel that you have is judged with --problem gqa-h32x8-8192x1\n",
        )
