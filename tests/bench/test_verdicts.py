"""The verdicts on all seeds: what is judged, that a later call goes on where one was stopped, and the table."""

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from avo.evaluator.candidate import Candidate
from avo.evaluator.catalogue import read as read_setting
from avo.evaluator.problems import PROBLEMS
from avo.evaluator.setting import Setting
from avo.seeds import KINDS, claimed, seed_source
from bench import verdicts
from bench.verdicts import SETTINGS, Verdict, read, table, wanted


def verdict(problem: str, seed: str, target: str, closely: bool, status: str = "correct") -> Verdict:
    digest = Candidate(problem, seed_source(problem, seed)).digest
    return Verdict(problem, seed, digest, target, closely, status, "", 12.34)


def test_every_seed_of_every_problem_is_judged_and_then_closely() -> None:
    asked = [*wanted([*PROBLEMS], ["h100", "b200"])]
    halves = asked[: len(asked) // 2], asked[len(asked) // 2 :]
    assert [each[:3] for each in halves[0]] == [each[:3] for each in halves[1]]
    assert {each[3] for each in halves[0]} == {False}
    found = {(problem, seed) for problem, seed, _, _ in asked}
    plain = Setting()
    assert found == {(kind, seed.name) for kind in KINDS for seed in claimed(kind) if seed.serves(plain)}


def test_settings_have_every_part_with_every_kind_of_function() -> None:
    found = [parts for name in SETTINGS if (parts := read_setting(name))]
    for passes in (("mha", "gqa"), ("mha_backward", "gqa_backward"), ("decode",)):
        those = [setting for kind, setting in found if kind in passes]
        assert any(setting.head_dim_v for setting in those)
        assert any(setting.window and setting.sinks and setting.everywhere for setting in those)
        assert any(setting.packed for setting in those) or passes == ("decode",)
    for kind in ("fsa", "fsa_backward"):
        assert any(setting.sinks and setting.packed for name, setting in found if name == kind)
        assert any(setting.head_dim_v for name, setting in found if name == kind)
    assert all([*wanted([name], ["h100"])] for name in SETTINGS)


def test_what_is_in_the_file_is_not_judged_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, asked = tmp_path / "verdicts.jsonl", [*wanted(["decode"], ["h100"])]
    path.write_text("".join(json.dumps(asdict(verdict(*each))) + "\n" for each in asked))
    monkeypatch.setattr(sys, "argv", ["verdicts", "--targets", "h100", "--problems", "decode", "--out", str(path)])
    monkeypatch.setattr(verdicts, "judged", None)
    assert verdicts.main() == 0
    assert len(read(path)) == 2
    path.write_text(json.dumps(asdict(verdict("decode", "split", "h100", False, "race"))) + "\n" + path.read_text())
    assert verdicts.main() == 1


def test_a_verdict_on_a_seed_that_has_changed_since_does_not_count(tmp_path: Path) -> None:
    path, of_another = tmp_path / "verdicts.jsonl", replace(verdict("decode", "split", "h100", False), digest="another")
    path.write_text(json.dumps(asdict(of_another)) + "\n")
    assert read(path) == []


def test_a_row_has_both_verdicts_on_a_seed() -> None:
    _, _, row = table([verdict("decode", "split", "h100", False), verdict("decode", "split", "h100", True)])
    assert row == "| `decode` | `split` | h100 | correct | 12 | 12 |"
