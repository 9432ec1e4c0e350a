"""``avo baselines``: published figures with their sources, predictions and measurements that say what they are."""

import json
import os
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from avo.cli.baselines import Line
from avo.cli.common import console
from avo.evaluator.cuda import holding, libraries
from avo.evaluator.cuda.baselines import Found
from avo.evaluator.cuda.holding import Place
from avo.evaluator.errors import EvaluatorUnavailable
from avo.evaluator.evaluation import CaseScore, Evaluation, Status
from avo.evaluator.evaluators import Progress
from avo.evaluator.target import ScoreKind
from avo.evaluator.targets import get_target
from tests.avo.cli.conftest import Avo
from tests.avo.fakes import correct


def test_published_figures_stand_with_their_source_and_their_mean(avo: Avo) -> None:
    lines = json.loads(avo("baselines", "--target", "b200", "--suite", "paper", "--json").stdout)
    assert [line["name"] for line in lines] == ["cuDNN 9.19", "FlashAttention-4", "AVO"]
    assert {(line["kind"], line["place"]) for line in lines} == {("published", "b200")}
    assert lines[1]["tflops"]["16k-causal"] == 1502
    assert all("2603.24517" in line["source"] for line in lines)
    text = avo("baselines", "--target", "b200").stdout
    assert "AVO, published: AVO, arXiv 2603.24517" in text
    assert "8k-causal" in text
    assert "16k-causal" not in text
    assert avo("baselines", "--target", "h100").stdout.count("arXiv 2407.08608") == 1, "one source of four baselines"


@pytest.mark.parametrize(
    "arguments",
    [["--problem", "gqa"], ["--problem", "fsa"], ["--target", "a100"]],
)
def test_none_is_said_in_one_line(avo: Avo, arguments: list[str]) -> None:
    result = avo("baselines", *arguments, "--published")
    assert (result.exit_code, result.stdout.count("\n")) == (0, 1)
    assert "We know of no baselines of" in result.stdout


def test_where_nothing_was_published_the_cards_peaks_stand_and_are_called_no_kernel(avo: Avo) -> None:
    (line,) = json.loads(avo("baselines", "--problem", "gqa", "--json").stdout)
    assert (line["kind"], line["place"]) == ("roofline", "h100")
    assert line["source"].startswith("no kernel: ")
    assert line["geomean"] == pytest.approx(get_target("h100").dense_flops_per_s / 1e12)


def test_a_ratio_is_shown_as_one_with_its_source_and_no_figures(avo: Avo) -> None:
    arguments = ("baselines", "--problem", "fsa", "--target", "h200", "--published")
    (line,) = json.loads(avo(*arguments, "--json").stdout)
    assert (line["kind"], line["tflops"], line["geomean"]) == ("published", {}, None)
    text = avo(*arguments).stdout
    assert "a ratio alone: its kernels take 1.6 times less time" in text
    assert "arXiv 2508.18224" in text


def test_a_baseline_without_figures_for_some_cases_has_no_mean_beside_those_that_have_all(avo: Avo) -> None:
    lines = avo("baselines", "--target", "h100", "--suite", "paper").stdout.splitlines()
    (row,) = (line.split() for line in lines if line.startswith("FlashAttention-2  "))
    assert row == ["FlashAttention-2", "published", "h100", "319", "333", "335", "368", "370", "370"]


def test_cases_that_do_not_fit_side_by_side_stand_below(avo: Avo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "_width", 80)
    printed = avo("baselines", "--target", "h100", "--suite", "paper").stdout
    tables = [line.split() for line in printed.splitlines() if line.startswith(("BASELINE", "FlashAttention-2  "))]
    assert tables == [
        ["BASELINE", "KIND", "FOR", "4k-causal", "8k-causal", "16k-causal", "32k-causal"],
        ["FlashAttention-2", "published", "h100", "319", "333", "335"],
        ["BASELINE", "KIND", "FOR", "4k-full", "8k-full", "16k-full", "32k-full", "GEOMEAN"],
        ["FlashAttention-2", "published", "h100", "368", "370", "370"],
    ]


@pytest.mark.parametrize(
    "evaluation", [correct(150.0), Evaluation(Status.UNSUPPORTED, "not today", "h100", "quick", 0.1)]
)
def test_for_fsa_the_seed_of_earlier_work_is_judged(
    avo: Avo, monkeypatch: pytest.MonkeyPatch, evaluation: Evaluation
) -> None:
    monkeypatch.setattr(
        "avo.evaluator.serving.process.ProcessEvaluator.evaluate", lambda self, candidate, tell: evaluation
    )
    peaks, line = json.loads(avo("baselines", "--problem", "fsa", "--json").stdout)
    assert peaks["kind"] == "roofline"
    assert (line["name"], line["kind"]) == ("seed query_outer", "predicted")
    if evaluation.correct:
        assert line["tflops"] == {"one": 150.0}
    else:
        assert (line["tflops"], line["trouble"]) == ({}, "unsupported: not today")


def test_on_a_gpu_libraries_are_measured_next_to_what_was_published_for_its_architecture(
    avo: Avo, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = replace(get_target("h100"), name="cuda", product="NVIDIA H100 PCIe", kind=ScoreKind.MEASURED)
    monkeypatch.setattr("avo.evaluator.cuda.this_card", lambda: card)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "")
    said: list[str] = []
    monkeypatch.setattr("rich.status.Status.update", lambda status, text: said.append(text))
    place = SimpleNamespace(name=card.product, uuid=f"none, tests of {os.getpid()}")
    monkeypatch.setattr("avo.evaluator.cuda.card", lambda: place)
    monkeypatch.setattr(libraries, "LIBRARIES", libraries.LIBRARIES[:2])

    monkeypatch.setattr(holding, "_PATIENCE_S", 0.0)
    asked: dict[str, Any] = {}

    def measure(
        start: object, problem: object, cases: object, library: libraries.Library, *_: object, **how: Any
    ) -> Found:
        asked.update(how, visible=os.environ["CUDA_VISIBLE_DEVICES"])
        how["tell"](Progress(0, 2, "SDPA, 8k-full"))
        with pytest.raises(EvaluatorUnavailable, match="another judge measures"):
            Place(place)
        score = CaseScore("8k-full", 512.0, 1.0, "")
        if library is libraries.LIBRARIES[0]:
            return Found("SDPA", "2.11", (score,), "1590 MHz")
        return Found("FlexAttention", "2.11", trouble="none today")

    monkeypatch.setattr("avo.evaluator.cuda.baselines.measure", measure)
    result = avo("baselines", "--target", "cuda", "--json", "--clock", "burst", "--device", "1")
    lines = [Line(**{key: value for key, value in line.items() if key != "geomean"})
             for line in json.loads(result.stdout)]  # fmt: skip
    assert (asked["sustained"], asked["visible"], said) == (False, "1", 2 * ["timing libraries: SDPA, 8k-full"])
    measured = [line for line in lines if line.kind == "measured"]
    assert {(line.kind, line.place) for line in lines} == {("published", "h100"), ("measured", "NVIDIA H100 PCIe")}
    assert (measured[0].name, measured[0].tflops, measured[0].source) == ("SDPA 2.11", {"8k-full": 512.0}, "1590 MHz")
    assert [line.trouble for line in measured] == ["", "none today"]
