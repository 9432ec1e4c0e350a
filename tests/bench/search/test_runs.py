"""Runs of the benchmark of searches: they end at their goal, leave a record, and ask the judge nothing twice."""

import subprocess
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from avo.evaluator.candidate import Candidate
from avo.evaluator.evaluation import Evaluation
from avo.evaluator.evaluators import VerifyRequest
from avo.evaluator.fake import FakeEvaluator
from bench.known import GLUON, TRITON
from bench.search import runs
from bench.search.remembering import RememberingJudge
from bench.search.runs import Place, best_known, make, read
from tests.avo.fakes import Climber, Scripted, correct, judge, proposing

PLACE = Place("mha", "h100", "mutate", 0)
CELL = PLACE.cell
KNOWN = {"best known": 120.0}


class Counted:
    """Judges of a world without kernels, by the number of their questions."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[Any] = []

    def __call__(self, target: str, suite: str, folder: Path, closely_from: float = 0.0) -> RememberingJudge:
        made, inner = RememberingJudge(target, suite, self.folder, closely_from), FakeEvaluator(self.verdict)
        ask = inner.ask
        inner.ask = lambda request: (self.asked.append(request), ask(request))[1]  # type: ignore[method-assign,func-returns-value]
        inner._server = SimpleNamespace(pid=None)  # type: ignore[attr-defined]
        vars(made)["_judge"] = inner
        return made

    def verdict(self, candidate: Candidate) -> Evaluation:
        """Return what the world says; the seed is a line of it, and the kernels that are known have these TFLOPS."""
        return correct(KNOWN[candidate.source]) if candidate.source in KNOWN else judge(candidate)


@pytest.fixture
def judges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Counted:
    made = Counted(tmp_path / "answers")
    monkeypatch.setattr(runs, "RememberingJudge", made)
    monkeypatch.setattr(runs, "made", lambda steps, target: {TRITON["mha", target]: "best known"}[steps])
    monkeypatch.setattr(runs, "seed_source", lambda problem, name: "tflops = 100.0")
    monkeypatch.setattr(runs, "fitting", lambda problem, arch, gluon: ["plain", "in Gluon"] if gluon else ["plain"])
    return made


def test_a_run_ends_at_its_goal_and_its_record_has_every_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, judges: Counted
) -> None:
    script = [proposing(f"tflops = {speed}") for speed in (105.0, 104.0, 118.0, 119.0)]
    monkeypatch.setattr(runs, "operator_of", lambda place: Scripted(*script))
    record = make(PLACE, 120.0, 60, tmp_path / "records", judges.folder)
    assert [(point.attempts, round(point.tflops)) for point in record.points] == [
        (0, 100),
        (1, 105),
        (2, 105),
        (3, 118),
    ]
    assert read(tmp_path / "records", {CELL: 120.0}) == [record]


def test_a_run_ends_after_the_attempts_that_it_may_make(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, judges: Counted
) -> None:
    monkeypatch.setattr(runs, "operator_of", lambda place: Climber())
    record = make(PLACE, 1e6, 4, tmp_path / "records", judges.folder)
    assert (record.points[-1].attempts, record.allowed) == (4, 4)


def test_a_run_without_a_seed_that_is_right_is_no_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, judges: Counted
) -> None:
    monkeypatch.setattr(runs, "seed_source", lambda problem, name: "no kernel")
    with pytest.raises(SystemExit, match="mha-h100-mutate-0: no seed is a version: parse error"):
        make(PLACE, 120.0, 60, tmp_path / "records", judges.folder)
    assert not (tmp_path / "records").exists()


def test_only_what_ends_a_run_is_examined_closely(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, judges: Counted
) -> None:
    script = [proposing(f"tflops = {speed}") for speed in (105.0, 110.0, 118.0)]
    monkeypatch.setattr(runs, "operator_of", lambda place: Scripted(*script))
    make(PLACE, 120.0, 60, tmp_path / "records", judges.folder)
    verified = [each.candidate.source for each in judges.asked if isinstance(each, VerifyRequest)]
    assert verified == ["tflops = 118.0"]


def test_what_is_asked_again_costs_nothing(judges: Counted) -> None:
    with judges("h100", "quick", judges.folder) as asked:
        for _ in range(2):
            asked.evaluate(Candidate("mha", "tflops = 110.0"))
        spent = asked.spent
    with judges("h100", "quick", judges.folder) as another:
        another.evaluate(Candidate("mha", "tflops = 110.0"))
        assert another.spent == spent > 0, "what it took when it was first given"
    assert len(judges.asked) == 1


def test_an_attempt_that_is_no_version_counts_once_it_was_examined_closely(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, judges: Counted
) -> None:
    script = [proposing(f"tflops = {speed}") for speed in (117.0, 118.0, 119.0)]
    monkeypatch.setattr(runs, "operator_of", lambda place: Scripted(*script))
    record = make(PLACE, 120.0, 60, tmp_path / "records", judges.folder)
    assert [(point.attempts, round(point.tflops)) for point in record.points] == [(0, 100), (1, 117), (2, 118)]
    verified = [each.candidate.source for each in judges.asked if isinstance(each, VerifyRequest)]
    assert verified == ["tflops = 118.0"]


def test_a_run_that_is_done_again_asks_the_judge_nothing_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, judges: Counted
) -> None:
    monkeypatch.setattr(runs, "operator_of", lambda place: Climber())
    first = make(PLACE, 120.0, 60, tmp_path / "one", judges.folder)
    asked = len(judges.asked)
    again = make(PLACE, 120.0, 60, tmp_path / "two", judges.folder)
    assert len(judges.asked) == asked
    assert [point.tflops for point in again.points] == [point.tflops for point in first.points]


def test_a_record_does_not_count_once_the_best_score_known_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, judges: Counted
) -> None:
    monkeypatch.setattr(runs, "operator_of", lambda place: Climber())
    record = make(PLACE, 120.0, 2, tmp_path, judges.folder)
    assert read(tmp_path, {CELL: best_known(CELL, judges.folder)}) == [record]
    assert read(tmp_path, {CELL: 121.0}) == read(tmp_path, {}) == []


def test_a_known_kernel_that_is_refused_ends_the_benchmark(monkeypatch: pytest.MonkeyPatch, judges: Counted) -> None:
    monkeypatch.setattr(runs, "made", lambda steps, target: "no kernel")
    with pytest.raises(SystemExit, match="best kernel known for mha on h100 is parse error: not a kernel"):
        best_known(CELL, judges.folder)


def test_a_run_with_gluon_starts_from_its_seeds_too_and_is_held_against_the_best_of_any_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, judges: Counted
) -> None:
    speeds = {"plain": "tflops = 100.0", "in Gluon": "tflops = 110.0"}
    monkeypatch.setattr(runs, "seed_source", lambda problem, name: speeds[name])
    monkeypatch.setattr(runs, "operator_of", lambda place: Scripted(proposing("tflops = 118.0")))
    monkeypatch.setattr(runs, "made", lambda steps, target: {GLUON["mha", target]: "best known"}[steps])
    place = replace(PLACE, gluon=True)
    known = best_known(place.cell, judges.folder)
    record = make(place, known, 60, tmp_path, judges.folder)
    assert [round(point.tflops) for point in record.points] == [110, 118]
    assert [path.stem for path in tmp_path.glob("*.json")] == ["mha-h100-gluon-mutate-0"]
    assert read(tmp_path, {place.cell: known}) == [record]
    assert read(tmp_path, {CELL: known}) == []


def test_a_run_ends_where_its_operator_has_nothing_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, judges: Counted
) -> None:
    monkeypatch.setattr(runs, "operator_of", lambda place: Scripted(proposing("tflops = 100.0")))
    record = make(PLACE, 120.0, 60, tmp_path / "records", judges.folder)
    assert [point.attempts for point in record.points] == [0, 0, 0, 0]


def test_a_record_names_the_commit_of_the_code_and_says_whether_that_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*arguments: str) -> str:
        who = ("-c", "user.name=a", "-c", "user.email=a@example.org")
        return subprocess.run(
            ["git", *who, *arguments], cwd=tmp_path, capture_output=True, text=True, check=True
        ).stdout

    for name in ("bench/search/records/old.json", "docs/search.md", "code.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("as it was")
    git("init", "-q")
    git("add", "-A")
    git("commit", "-qm", "all")
    monkeypatch.setattr(runs, "ROOT", tmp_path)
    commit = git("rev-parse", "--short", "HEAD").strip()
    (tmp_path / "bench/search/records/new.json").write_text("a record")
    (tmp_path / "docs/search.md").write_text("its table")
    assert runs._commit() == commit
    (tmp_path / "a_new_move.py").write_text("")
    assert runs._commit() == f"{commit}-dirty"
