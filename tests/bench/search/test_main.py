"""The benchmark of searches as a whole: its runs are processes, one that fails does not hold up the others."""

from pathlib import Path

import msgspec
import pytest

from bench.search import __main__ as search
from bench.search.__main__ import perform
from bench.search.runs import Place, Point, Record
from bench.search.schedule import places


def arrives(place: Place, known: float, allowed: int, records: Path, answers: Path) -> Record:
    """Leave the record of a run that arrives at once, but for random search, which fails."""
    if place.operator == "random":
        raise SystemExit(1)
    record = Record(place, known, "abc", allowed, (Point(0, 0, 0.0, known),))
    (records / f"{place.name}.json").write_bytes(msgspec.json.encode(record))
    return record


@pytest.mark.long
def test_runs_are_made_until_none_is_missing_and_one_that_fails_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = places(["mha"], ["h100"], ["mutate", "random", "tpe"], 1)
    perform(wanted, {("mha", "h100", False): 200.0}, tmp_path, tmp_path, 2, arrives)
    assert sorted(path.stem for path in tmp_path.glob("*.json")) == ["mha-h100-mutate-0", "mha-h100-tpe-0"]
    told = capsys.readouterr().out
    assert "mha-h100-random-0: failed, and is left out" in told
    assert "2 of 3 runs are in, about" in told
    assert told.splitlines()[-1].endswith("failed: mha-h100-random-0")


def test_a_machine_without_optuna_is_told_before_anything_is_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(search, "find_spec", lambda name: None)
    monkeypatch.setattr("sys.argv", ["bench.search", "--problem", "mha"])
    with pytest.raises(SystemExit) as ended:
        search.main()
    assert ended.value.code == 2
    assert "tpe and random need optuna: pip install" in capsys.readouterr().err


def test_fsa_cannot_be_searched_from_seeds_in_gluon(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["bench.search", "--problem", "fsa", "--gluon"])
    with pytest.raises(SystemExit) as ended:
        search.main()
    assert ended.value.code == 2
    assert "fsa has no seed in Gluon: leave out --gluon" in capsys.readouterr().err
