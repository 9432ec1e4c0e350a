"""``avo tune``: what it prints, writes and refuses, with runs and rankings that are made up."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from typer.testing import Result

from avo.cli.common import console
from avo.evaluator.known import keep
from avo.evaluator.target import TARGETS, Target
from avo.evaluator.tune import Choice, CountedChoice, Outcome, Ran, Ranking, ScriptFailed, Subject, Time

Avo = Callable[..., Result]


def choice(block: int) -> Choice:
    return Choice((("BLOCK", str(block)), ("KIND", "'fast'")), (("num_warps", "4"),))


def time(us: float, low: float, high: float, spill_bytes: int = 0) -> Time:
    return Time(us, low, high, "hbm", ("what FOO takes",), 64, 128, spill_bytes, 4096, 2, 0.25)


MISFIT = "kernel scale needs 300000 bytes of shared memory per CTA, h100 has 232448: use smaller tiles or fewer stages"
OUTCOMES = (
    Outcome(choice(64), time(12.345678, 10, 15)),
    Outcome(choice(128), time(12.4, 12, 20, spill_bytes=24)),
    Outcome(choice(32), time(30, 25, 40)),
    Outcome(choice(4096), None, MISFIT),
    Outcome(choice(8192), None, MISFIT),
)
LISTED = tuple(map(choice, (32, 64, 128, 4096, 8192)))


def ranking(target: str, n: int, outcomes: tuple[Outcome, ...] = OUTCOMES) -> Ranking:
    return Ranking(
        Subject("scale", "/src/kernels.py:7", target, (("n", str(n)),), (("x", "torch.float16"),)), outcomes, LISTED
    )


@dataclass
class FakeTuner:
    """Stands in for what runs scripts and predicts."""

    asked: list[tuple[str, list[str], str]] = field(default_factory=list)
    said: tuple[str, ...] = ()
    refused: str = ""
    failed: str = ""
    raised: str = ""
    failure: ScriptFailed | None = None
    launches: bool = True
    rankings: tuple[Ranking, ...] = (ranking("h100", 1024),)

    def run_script(self, script: Path, arguments: Sequence[str], target: Target, said: Callable[[str], None]) -> Ran:
        self.asked.append((str(script), list(arguments), target.name))
        for line in self.said:
            said(line)
        if self.failure:
            raise self.failure
        subject = Subject("scale", "/src/kernels.py:7", target.name, (), ())
        tried = tuple(CountedChoice(subject, listed, None) for listed in LISTED if self.launches)
        return Ran(target.name, tried, "cache", self.refused, self.failed, self.raised)

    def rank(self, runs: Sequence[Ran], jobs: int, done: Callable[[], None]) -> tuple[Ranking, ...]:
        for _ in LISTED * len(runs):
            done()
        return self.rankings


@pytest.fixture
def tuner(monkeypatch: pytest.MonkeyPatch, avo: Avo, tmp_path: Path) -> FakeTuner:
    made = FakeTuner()
    monkeypatch.setattr("avo.evaluator.tuning.running.run_script", made.run_script)
    monkeypatch.setattr("avo.evaluator.tuning.prediction.rank", made.rank)
    (tmp_path / "script.py").write_text("")
    return made


def test_configurations_are_ranked_and_said_to_be_predicted(avo: Avo, tuner: FakeTuner) -> None:
    result = avo("tune", "script.py")
    assert result.exit_code == 0, result.output
    title, header, first, second, third, tied, doubts, failures, *_ = result.stdout.splitlines()
    assert title == "scale (kernels.py:7) on h100, n=1024: predicted, not measured"
    assert header.split() == [
        "#",
        "US",
        "RANGE",
        "LIMITER",
        "REGISTERS",
        "SPILLED",
        "CTAS/SM",
        "WARPS",
        "CONFIGURATION",
    ]
    assert first.split() == [
        "1", "12.3", "10.0", "to", "15.0", "hbm", "128", "0", "2", "25%", "BLOCK=64,", "KIND='fast',", "num_warps=4",
    ]  # fmt: skip
    assert "24 B" in second
    assert second.split()[1] == "~12.4"
    assert tied == "~ 1 cannot be told apart from the fastest"
    assert third.startswith("3")
    assert doubts == "not known to the model: what FOO takes"
    both = "BLOCK=4096, KIND='fast', num_warps=4; BLOCK=8192, KIND='fast', num_warps=4"
    assert failures == f"not possible: {both}: {MISFIT}"


def test_what_may_be_the_fastest_is_kept_in_the_order_of_the_decorator(avo: Avo, tuner: FakeTuner) -> None:
    other = (Outcome(choice(32), time(5, 4, 6)), Outcome(choice(64), time(9, 8, 10)))
    tuner.rankings = (ranking("h100", 1024), ranking("b200", 1024, other))
    printed = avo("tune", "script.py", "--target", "h100", "--target", "b200").stdout
    pasted = printed.partition("configs of scale (kernels.py:7) to paste, predicted to be the fastest:\n\n")[2]
    assert pasted.splitlines()[:5] == [
        "configs=[",
        "    triton.Config({'BLOCK': 32, 'KIND': 'fast'}, num_warps=4),",
        "    triton.Config({'BLOCK': 64, 'KIND': 'fast'}, num_warps=4),",
        "    triton.Config({'BLOCK': 128, 'KIND': 'fast'}, num_warps=4),",
        "],",
    ]
    fewer = avo("tune", "script.py", "--keep", "1").stdout.partition("to paste")[2]
    assert "'BLOCK': 128" not in fewer
    assert "'BLOCK': 64" in fewer


def test_rows_may_be_left_out(avo: Avo, tuner: FakeTuner) -> None:
    assert "and 2 slower ones\n" in avo("tune", "script.py", "--rows", "1").stdout
    assert "slower" not in avo("tune", "script.py", "--rows", "0").stdout


def test_configurations_stand_below_their_times_where_the_terminal_is_narrow(
    avo: Avo, tuner: FakeTuner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "width", 80)
    _, header, first, *_, below, last, _tied, doubts, _ = (
        avo("tune", "script.py").stdout.partition("not possible")[0].split("\n")
    )
    assert header.split()[-1] == "WARPS"
    assert first.split()[-1] == "25%"
    assert below == "2: BLOCK=128, KIND='fast', num_warps=4"
    assert last == "3: BLOCK=32, KIND='fast', num_warps=4"
    assert doubts.startswith("not known")


def test_long_times_are_written_out(avo: Avo, tuner: FakeTuner) -> None:
    tuner.rankings = (ranking("h100", 1024, (Outcome(choice(64), time(12345.6, 9876.54, 15432.1)),)),)
    assert "12300  9880 to 15400  hbm" in avo("tune", "script.py").stdout


def test_types_are_named_where_a_key_has_several(avo: Avo, tuner: FakeTuner) -> None:
    one = ranking("h100", 1024)
    subject = Subject("scale", "/src/kernels.py:7", "h100", one.subject.key, (("x", "torch.float32"),))
    tuner.rankings = (one, Ranking(subject, OUTCOMES, LISTED))
    printed = avo("tune", "script.py").stdout
    assert "on h100, n=1024; x float16: predicted" in printed
    assert "on h100, n=1024; x float32: predicted" in printed


def test_everything_is_written_as_json(avo: Avo, tuner: FakeTuner, tmp_path: Path) -> None:
    assert avo("tune", "script.py", "--json", "tuned.json").exit_code == 0
    record = json.loads((tmp_path / "tuned.json").read_text())
    assert (record["kind"], record["script"]) == ("predicted", "script.py")
    assert record["targets"] == [
        {"target": "h100", "held_against_measurements": True, "stopped": "", "raised": "", "failed_tests": ""}
    ]
    (found,) = record["rankings"]
    assert (found["kernel"], found["target"], found["key"]) == ("scale", "h100", {"n": "1024"})
    best = found["configurations"][0]
    assert (best["us"], best["kwargs"], best["options"]) == (12.345678, {"BLOCK": 64, "KIND": "fast"}, {"num_warps": 4})
    assert best["code"] == "triton.Config({'BLOCK': 64, 'KIND': 'fast'}, num_warps=4)"
    assert [each["reason"] for each in found["not_possible"]] == [MISFIT] * 2
    assert [each["kwargs"]["BLOCK"] for each in record["kept"][0]["configurations"]] == [64, 128]


def test_arguments_after_two_dashes_are_those_of_the_script(avo: Avo, tuner: FakeTuner) -> None:
    tuner.said = ("what the script prints",)
    result = avo("tune", "script.py", "--target", "a100", "--target", "h100", "--", "--size", "4", "--json")
    assert tuner.asked == [("script.py", ["--size", "4", "--json"], name) for name in ("a100", "h100")]
    assert "what the script prints" in result.stderr
    assert "what the script prints" not in result.stdout


def test_a_script_that_was_stopped_is_said_to_have_been(avo: Avo, tuner: FakeTuner) -> None:
    tuner.refused, tuner.failed = "script.py:3 reads contents", "1 test failed: test_it"
    result = avo("tune", "script.py")
    assert result.exit_code == 0
    assert [line for line in result.stderr.splitlines() if line.startswith("avo: ")] == [
        "avo: script.py was stopped for h100, later launches are missing: script.py:3 reads contents",
        "avo: for h100 1 test failed: test_it; no kernel computed, so comparisons of results fail",
    ]
    tuner.refused, tuner.failed, tuner.raised = "", "", "ValueError: too far off"
    assert avo("tune", "script.py").stderr.splitlines()[-1] == (
        "avo: script.py stopped for h100, later launches are missing: ValueError: too far off; no kernel computed, so "
        "comparisons of results fail"
    )


def test_a_script_without_autotuned_kernels_is_refused_in_one_line(avo: Avo, tuner: FakeTuner) -> None:
    tuner.launches = False
    result = avo("tune", "script.py")
    assert (result.exit_code, result.stderr) == (2, "avo: script.py launched no kernel with @triton.autotune\n")
    tuner.refused = "script.py:3 reads contents"
    refused = "avo: script.py launched no kernel with @triton.autotune: script.py:3 reads contents\n"
    assert avo("tune", "script.py").stderr == refused


def test_a_calibrated_card_is_a_target(
    avo: Avo, tuner: FakeTuner, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AVO_CARDS", str(tmp_path / "cards.json"))
    keep(replace(TARGETS["h100"], name="h100-lab"))
    result = avo("tune", "script.py", "--target", "h100-lab")
    assert result.exit_code == 0, result.stderr
    assert [target for *_, target in tuner.asked] == ["h100-lab"]
    assert "b300, rtx5090, h100-lab" in avo("tune", "script.py", "--target", "h100-lap").stderr


def test_a_script_that_raises_shows_its_own_traceback_and_one_line(avo: Avo, tuner: FakeTuner) -> None:
    tuner.failure = ScriptFailed("script.py does not run for h100: ValueError", "File script.py, line 3\nValueError")
    result = avo("tune", "script.py")
    assert result.exit_code == 2
    assert result.stderr.splitlines() == [
        "File script.py, line 3", "ValueError", "avo: script.py does not run for h100: ValueError",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.py"], "cannot read missing.py: no such file"),
        (["."], ". is a folder: give the script in it that launches the kernels, or a file of tests"),
        (["script.py", "--target", "cuda"], "--target: 'cuda' is not a card to predict for: choose one of"),
        (
            ["script.py", "--json", "nowhere/tuned.json"],
            "--json: nowhere/tuned.json is not a file in an existing folder",
        ),
        (["script.py", "--keep", "0"], "'--keep'"),
        (["script.py", "--size", "8"], "No such option: --size (those of the script stand behind --): see"),
        ([], "Missing argument 'SCRIPT.py'"),
    ],
)
def test_a_wrong_call_is_refused_in_one_line(avo: Avo, tuner: FakeTuner, arguments: list[str], message: str) -> None:
    result = avo("tune", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert tuner.asked == []
