"""The document of results: made of what runs recorded, whatever there is of them; runs go on where they stopped."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from avo.evaluator.catalogue import kind_and_setting
from avo.evaluator.evaluation import Status
from avo.evaluator.problems import PROBLEMS
from avo.lineage_db.store import Store
from bench import results
from bench.results import SETTINGS, Conditions, document, main, search
from tests.avo.recorded import Recorded

CONDITIONS = Conditions("avo run --problem mha", "abc1234", "3.9.0", "2 x86_64 cores, no GPU used")


class Done:
    """What ``subprocess.run`` returns."""

    returncode = 0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two minutes of a run on mha for h100: a seed, two versions, one slower attempt and one at fault."""
    with Store.open(str(tmp_path / "mha-h100.db")) as store:
        run = Recorded(store, "mha-h100")
        run.step(100.0, seconds=30, change="seed")
        run.step(200.0, (0,), "skip: fully masked blocks", seconds=30)
        run.step(Status.INCORRECT, (1,), "tile: BLOCK_N 64 -> 128", seconds=30)
        run.step(150.0, (1,), "warps: num_warps 4 -> 8", accept=False, seconds=15)
        run.step(220.0, (0,), "exp2: folded in; warps: num_warps 4 -> 2", seconds=15)
        run.finish()
    (tmp_path / "mha-h100.json").write_text(json.dumps([asdict(CONDITIONS)]))
    return tmp_path


def test_the_document_has_what_was_found_and_how(folder: Path) -> None:
    text = "\n".join(document(folder)).splitlines()
    assert "| mha-h100 | abc1234 | 2.0 | 5 | 3 | 100 | 220 | +120% |" in text
    assert "`avo run --problem mha`, commit abc1234, triton 3.9.0, 2 x86_64 cores, no GPU used." in text
    assert "| 2 | 1.0 | v1 | 200 |  | +100% | skip: fully masked blocks |" in text
    assert "| 5 | 2.0 | v2 | 220 |  | +10% | exp2: folded in; warps: num_warps 4 -> 2 |" in text
    assert [line for line in text if line.startswith(("| skip", "| exp2", "| warps", "| tile"))] == [
        "| skip | 1 | 1 | +100% |",
        "| exp2 | 1 | 1 | +10% |",
        "| warps | 2 | 1 | +10% |",
        "| tile | 1 | 0 |  |",
    ]
    assert any("Attempts: 4 correct, 1 incorrect." in line for line in text)
    assert any("FlashAttention-3" in line and line.startswith("Published") for line in text)
    assert any("Every speed on this page is predicted" in line for line in text)


def test_every_problem_and_each_part_of_a_setting_is_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started: list[str] = []
    monkeypatch.setattr(
        results, "search", lambda folder, problem, target, *_: started.append(f"{problem} {target}") or 0
    )
    monkeypatch.setattr("sys.argv", ["results", "--out", str(tmp_path / "out.md"), "--folder", str(tmp_path / "runs")])
    assert main() == 0
    assert started == [f"{problem} {target}" for problem in (*PROBLEMS, *SETTINGS) for target in ("h100", "b200")]
    settings = [setting for _, setting in map(kind_and_setting, SETTINGS) if setting]
    for part in ("head_dim_v", "window", "everywhere", "sinks", "packed", "heads"):
        assert any(getattr(setting, part) for setting in settings), part
    monkeypatch.setattr("sys.argv", ["results", "--problems", "mha-d80"])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert "head dim 80 is not served" in capsys.readouterr().err


def test_a_document_of_no_runs_has_no_rows(tmp_path: Path) -> None:
    assert list(document(tmp_path))[-1].startswith("|---")


def test_runs_without_a_database_stay_as_the_document_has_them(folder: Path, tmp_path: Path) -> None:
    with Store.open(str(folder / "gqa-b200.db")) as store:
        run = Recorded(store, "gqa-b200")
        run.step(300.0, change="seed")
    both = "\n".join(document(folder)) + "\n"
    older = both.replace("220.0", "210.0")
    assert "\n".join(document(folder, before=older, anew={"gqa-b200"})) + "\n" == older
    assert "\n".join(document(folder, before=older, anew={"mha-h100"})) + "\n" == both
    (folder / "mha-h100.db").unlink()
    assert "\n".join(document(folder, before=both)) + "\n" == both
    assert "mha-h100" not in "\n".join(document(folder))
    assert "mha-h100" in "\n".join(document(folder, ("gqa",), both))


@pytest.mark.parametrize(
    ("minutes", "started"), [(2.2, []), (5.0, ["resume", "mha-h100", "--workers", "2", "--max-hours", "0.0500"])]
)
def test_a_run_goes_on_for_what_is_left_of_its_time(
    folder: Path, monkeypatch: pytest.MonkeyPatch, minutes: float, started: Sequence[str]
) -> None:
    calls: list[list[str]] = []
    monkeypatch.setattr(results, "conditions", lambda command, note: Conditions(command, "def", "3.9.0", "here"))
    monkeypatch.setattr(results.subprocess, "run", lambda command, **_: calls.append(command) or Done())
    assert search(folder, "mha", "h100", minutes, 2) == 0
    assert [call[3:-2] for call in calls] == ([started] if started else [])
    assert len(json.loads((folder / "mha-h100.json").read_text())) == 1 + len(calls)


def test_a_run_that_is_none_yet_is_started_in_a_database_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(results, "conditions", lambda command, note: Conditions(command, "def", "3.9.0", "here"))
    monkeypatch.setattr(results.subprocess, "run", lambda command, **_: calls.append(command) or Done())
    search(tmp_path, "fsa", "b200", 15.0, 2)
    ((_, _, *command),) = calls
    assert command[:9] == [
        "avo", "run", "--problem", "fsa", "--target", "b200", "--operator", "mutate", "--name",
    ]  # fmt: skip
    assert command[-3:] == ["0.2500", "--db", str(tmp_path / "fsa-b200.db")]


def test_a_run_starts_from_the_plain_seed_where_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[str]] = []
    monkeypatch.setattr(results, "conditions", lambda command, note: Conditions(command, "def", "3.9.0", "here"))
    monkeypatch.setattr(results.subprocess, "run", lambda command, **_: calls.append(command) or Done())
    for problem in ("mha", "fsa"):
        search(tmp_path, problem, "h100", 15.0, 2)
    mha, fsa = calls
    assert mha[mha.index("--seed-kernel") + 1] == "plain"
    assert "--seed-kernel" not in fsa
