"""``avo profile``: what it names, prints and refuses; once with the judge, else with one that is handed its answer."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from xml.etree import ElementTree

import pytest
from typer.testing import Result

from avo.cli.common import console
from avo.evaluator.candidate import Candidate
from avo.evaluator.evaluation import Fault, Status
from avo.evaluator.inspection import Findings, Inspection, Look
from avo.evaluator.profile import Profile
from avo.evaluator.target import Target
from avo.evaluator.units import units_of
from avo.seeds import seed_source
from tests.avo.sample_profile import PROFILE

Avo = Callable[..., Result]


class FakeJudge:
    """A judge that knows its answer."""

    answer: "tuple[Profile, ...] | Fault" = (PROFILE,)
    findings = Findings(text="long " * 100 + "line")
    asked: "list[tuple[str, str, Candidate, str | None] | Inspection]"

    def __init__(self, target: Target, suite: str) -> None:
        self.target, self.suite = target, suite

    def __enter__(self) -> "FakeJudge":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        pass

    def profile(self, candidate: Candidate, case: str | None) -> "tuple[Profile, ...] | Fault":
        self.asked.append((self.target.name, self.suite, candidate, case))
        return self.answer

    def inspect(self, inspection: Inspection) -> Findings:
        self.asked.append(inspection)
        return self.findings


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> type[FakeJudge]:
    monkeypatch.setattr("avo.evaluator.judging.judge.Judge", FakeJudge)
    monkeypatch.setattr(FakeJudge, "asked", [], raising=False)
    return FakeJudge


@pytest.mark.long
def test_the_seed_is_explained_in_its_own_lines(avo: Avo, tmp_path: Path) -> None:
    source = seed_source("mha")
    (tmp_path / "kernel.py").write_text(source)
    result = avo("profile", "kernel.py", "--case", "8k-full", "--json", "--svg", "timeline.svg")
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    assert [record[key] for key in ("kernel", "kind", "problem", "target", "suite")] == [
        "kernel.py", "predicted", "mha", "h100", "quick",
    ]  # fmt: skip
    (case,) = record["cases"]
    assert sum(part["time_us"] for part in case["parts"]) == pytest.approx(case["score"]["time_us"])
    loop = max(case["launches"][0]["sections"], key=lambda section: section["time_us"])
    lines = source.splitlines()
    assert lines[loop["line"] - 1].strip().startswith("for start_n in range(")
    costs = loop["roles"][0]["lines"]
    assert "k = tl.load(" in {cost["source"] for cost in costs[:3]}
    assert all(cost["source"] == lines[cost["line"] - 1].strip() for cost in costs if cost["line"])
    picture = ElementTree.parse(tmp_path / "timeline.svg")
    assert any("predicted TFLOPS" in (element.text or "") for element in picture.iter())


def test_the_text_fits_80_columns_and_says_predicted(
    avo: Avo, judge: type[FakeJudge], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "width", 80)
    (tmp_path / "kernel.py").write_text("pass")
    result = avo("profile", "kernel.py")
    assert result.exit_code == 0, result.output
    text = result.stdout
    assert max(map(len, text.splitlines())) <= 80
    for words in (
        "kernel.py on h100, predicted",
        "8k-full: 217 (190 to 240) predicted TFLOPS, 200 us",
        "not known to the model: what FOO takes",
        "PREDICTED TIME",
        "174       0 1.48",
        "critical  latency: a quarter less of it makes passes 11.8 ±2.5% shorter",
        "then      tensor not resolved (±1.5%)",
        "busiest   tensor 29%, exp 15%",
        "scoreboard, LDG",
        "76     40  1.0% pipe      0x1580 8 HGMMA",
        "one more CTA per SM         +100.0%  12.3%     434  registers 174 to 168",
        "loads free             not resolved   0.8%",
    ):
        assert words in text, text


def test_a_case_that_memory_bounds_is_explained_in_its_unit(
    avo: Avo, judge: type[FakeJudge], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (bounding, *_) = units_of("decode", "quick", "h100")
    score = replace(PROFILE.score, case=bounding, tflops=1.0, low_tflops=0.9, high_tflops=1.1)
    monkeypatch.setattr(FakeJudge, "profile", lambda judge, candidate, case=None: (replace(PROFILE, score=score),))
    (tmp_path / "kernel.py").write_text("pass")
    text = avo("profile", "kernel.py", "--problem", "decode").stdout
    assert re.search(rf"{bounding}: \d+ us, \d+ \(\d+ to \d+\) predicted GB/s, \d+% of the peak\n", text)
    assert "GB/S" in text.upper().partition("WHAT IF")[2]
    assert "TFLOPS" not in text


def test_a_file_is_profiled_for_what_the_options_name(avo: Avo, judge: type[FakeJudge], tmp_path: Path) -> None:
    (tmp_path / "kernel.py").write_text("x = 1")
    avo("profile", "kernel.py", "--target", "b200", "--suite", "paper", "--case", "16k-full")
    assert judge.asked == [("b200", "paper", Candidate("mha", "x = 1"), "16k-full")]


def test_a_version_is_profiled_for_what_its_run_is_about(avo: Avo, judge: type[FakeJudge]) -> None:
    assert avo("profile", "mha-h100@0").exit_code == 0
    assert avo("profile", "mha-h100", "--target", "a100", "--problem", "mha").exit_code == 0
    (target, suite, candidate, case), (other, _, best, _) = judge.asked
    assert (target, suite, case, candidate) == ("h100", "quick", None, Candidate("mha", seed_source("mha")))
    assert other == "a100"
    assert best.source != candidate.source


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.py"], "cannot read missing.py: No such file or directory"),
        (["no-such-run@3"], "no run"),
        (["mha-h100@99"], "99"),
        (["mha h100"], "names neither a version nor an attempt"),
        (["mha-h100", "--problem", "gqa"], "--problem: mha-h100 is about mha, not gqa"),
        (["kernel.py", "--target", "h300"], "unknown target 'h300'"),
        (["kernel.py", "--suite", "slow"], "unknown suite 'slow'"),
        (["kernel.py", "--case", "1k"], "unknown case '1k': choose one of 8k-causal, 8k-full"),
        (["kernel.py", "--svg", "nowhere/timeline.svg"], "nowhere/timeline.svg is not a file in an existing folder"),
    ],
)
def test_a_wrong_call_is_one_line_and_exit_code_2(
    avo: Avo, judge: type[FakeJudge], tmp_path: Path, arguments: list[str], message: str
) -> None:
    (tmp_path / "kernel.py").write_text("pass")
    result = avo("profile", *arguments)
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("avo: ")
    assert result.stderr.count("\n") == 1
    assert message in result.stderr
    assert judge.asked == []


def test_a_kernel_at_fault_is_exit_code_1_with_its_fault(
    avo: Avo, judge: type[FakeJudge], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeJudge, "answer", Fault(Status.PARSE_ERROR, "line 1: invalid\x1b syntax"))
    (tmp_path / "kernel.py").write_text("def")
    words = avo("profile", "kernel.py")
    assert (words.exit_code, words.stdout) == (1, "parse error: line 1: invalid  syntax\n")
    data = avo("profile", "kernel.py", "--json")
    assert data.exit_code == 1
    assert json.loads(data.stdout) == {"status": "parse_error", "message": "line 1: invalid\x1b syntax"}


def test_code_is_printed_in_place_of_the_tables(avo: Avo, tmp_path: Path, judge: type[FakeJudge]) -> None:
    (tmp_path / "kernel.py").write_text("x = 1")
    said = avo("profile", "kernel.py", "--show", "ir", "--before", "tritongpu-coalesce", "--case", "8k-full")
    assert (said.exit_code, said.stdout) == (0, f"{'long ' * 100}line\n")
    assert judge.asked == [Inspection(Look.IR, "mha", "x = 1", None, "8k-full", "tritongpu-coalesce")]
    judge.findings = Findings(Fault(Status.PARSE_ERROR, "line 1"))
    said = avo("profile", "kernel.py", "--show", "ptx")
    assert (said.exit_code, said.stdout) == (1, "parse error: line 1\n")


def test_two_kernels_hot_loops_stand_beside_each_other(avo: Avo, tmp_path: Path, judge: type[FakeJudge]) -> None:
    (tmp_path / "kernel.py").write_text("x = 1")
    (tmp_path / "other.py").write_text("x = 2")
    said = avo("profile", "kernel.py", "--show", "sass", "--against", "other.py", "--case", "8k-full")
    assert said.exit_code == 0, said.output
    assert judge.asked == [("h100", "quick", Candidate("mha", f"x = {n}"), "8k-full") for n in (1, 2)]
    assert [line[:10] for line in said.stdout.splitlines()[:2]] == ["- kernel.p", "+ other.py"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--before", "x"), "--before is for --show ir"),
        (("--show", "ptx", "--before", "x"), "--before is for --show ir"),
        (("--show", "ptx", "--json"), "--show ptx prints text: leave --json out"),
        (("--show", "ir", "--svg", "a.svg"), "--show ir prints text: leave --svg out"),
        (("--against", "kernel.py"), "--against is for --show sass"),
    ],
)
def test_options_that_do_not_go_together_are_a_wrong_call(
    avo: Avo, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    (tmp_path / "kernel.py").write_text("x = 1")
    result = avo("profile", "kernel.py", *options)
    assert result.exit_code == 2
    assert message in result.output
