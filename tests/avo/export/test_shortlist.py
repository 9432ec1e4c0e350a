"""A shortlist has what is worth timing, in a folder that runs where nothing of AVO is installed."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import distribution
from pathlib import Path

import pytest

from avo.evaluator.candidate import Candidate
from avo.evaluator.evaluation import Evaluation, Status
from avo.evaluator.measurement import Measurement
from avo.export.errors import ExportError
from avo.export.package import write_package
from avo.export.shortlist import Listed, choose, render
from avo.lineage_db.decision import Decision, Ruling
from avo.lineage_db.store import Store
from avo.seeds import seed_source
from tests.avo.recorded import Recorded
from tests.avo.sample_run import make_evaluation, make_measured

UNRESOLVED = Decision(Ruling.UNRESOLVED, "+0.2% in the mean")


def kernel(tflops: float, reach: float = 1.2, **traits: str) -> Evaluation:
    """Return a correct evaluation whose range is a factor of ``reach`` wide on both sides."""
    made = make_evaluation(tflops)
    assert made.score is not None
    cases = tuple(
        replace(case, low_tflops=case.tflops / reach, high_tflops=case.tflops * reach) for case in made.score.cases
    )
    return replace(made, score=replace(made.score, cases=cases), traits=traits)


@pytest.fixture
def recorded(tmp_path: Path) -> Iterator[Recorded]:
    """A run whose first version is a seed of 300 TFLOPS."""
    with Store.open(str(tmp_path / "lineage.db")) as store:
        run = Recorded(store)
        run.step(kernel(300.0, tile="64x64"), source=seed_source("mha"))
        yield run


def names(recorded: Recorded, count: int = 12) -> list[str]:
    """Return the names on the shortlist, in order."""
    return [each.name for each in choose(recorded.store, recorded.run, count)]


def test_it_begins_with_the_start_and_the_best(recorded: Recorded) -> None:
    recorded.step(kernel(400.0), (0,))
    recorded.step(kernel(350.0), (1,))
    assert names(recorded, 2) == ["v0", "v1"]


def test_what_ties_with_the_best_comes_before_what_differs(recorded: Recorded) -> None:
    recorded.step(kernel(400.0, tile="128x64"), (0,))
    recorded.step(kernel(380.0, tile="256x64"), (1,), accept=False)
    recorded.step(kernel(401.0, tile="128x64"), (1,), accept=False, decision=UNRESOLVED)
    assert names(recorded, 3) == ["v0", "v1", "a4"]
    assert names(recorded, 4) == ["v0", "v1", "a4", "a3"]


def test_the_most_different_structure_comes_first(recorded: Recorded) -> None:
    recorded.step(kernel(400.0, tile="128x64", warps="4"), (0,))
    recorded.step(kernel(399.0, tile="128x64", warps="4"), (1,), accept=False)
    recorded.step(kernel(370.0, tile="128x128", warps="8"), (1,), accept=False)
    listed = choose(recorded.store, recorded.run, 3)
    assert listed[2].name == "a4"
    assert listed[2].why == "unlike the best in tile, warps"


def test_what_cannot_be_the_fastest_is_left_out(recorded: Recorded) -> None:
    recorded.step(kernel(400.0), (0,))
    recorded.step(kernel(250.0, tile="16x16"), (1,), accept=False)
    assert names(recorded) == ["v0", "v1"]


def test_what_a_closer_look_refused_is_left_out(recorded: Recorded) -> None:
    recorded.step(kernel(400.0), (0,))
    refused = replace(kernel(390.0, tile="16x16"), examined=Status.RACE)
    recorded.step(refused, (1,), accept=False)
    assert names(recorded) == ["v0", "v1"]


def test_kernels_with_the_same_plans_are_one(recorded: Recorded) -> None:
    recorded.step(kernel(400.0), (0,))
    recorded.step(kernel(400.0, tile="other"), (0,), accept=False, source="# the same\n")
    assert names(recorded) == ["v0", "v1"]


def test_a_run_without_a_version_has_none(tmp_path: Path) -> None:
    with Store.open(str(tmp_path / "other.db")) as store, pytest.raises(ExportError, match="has no version yet"):
        choose(store, Recorded(store).run, 3)


def test_a_measured_run_has_none(tmp_path: Path) -> None:
    with Store.open(str(tmp_path / "other.db")) as store:
        run = Recorded(store, target="cuda")
        run.step(make_measured(400.0))
        with pytest.raises(ExportError, match="was measured itself"):
            choose(store, run.run, 3)


@pytest.fixture
def folder(recorded: Recorded, tmp_path: Path) -> Path:
    """A shortlist of one kernel, written."""
    listed: list[Listed] = choose(recorded.store, recorded.run, 2)
    write_package(render(recorded.run, listed), tmp_path / "list")
    return tmp_path / "list"


def test_the_folder_has_kernels_with_what_was_predicted_of_them(recorded: Recorded, folder: Path) -> None:
    begun = Measurement.begun((folder / "shortlist.json").read_text())
    (seed,) = begun.kernels
    assert (seed.name, seed.attempt, begun.run, begun.start) == ("v0", 1, recorded.run.name, "v0")
    assert seed.digest == Candidate("mha", seed_source("mha")).digest
    assert seed.predicted is not None
    assert {low < middle < high for low, middle, high in seed.predicted.values()} == {True}
    assert (folder / "kernels/v0.py").read_text() == seed.source
    assert "| [v0](kernels/v0.py) | 300 | the run began with it |" in (folder / "README.md").read_text()


def required(*names: str) -> set[str]:
    """Return the distributions that these need, themselves included, without what their extras need."""
    found = set[str]()
    left = list(names)
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            needed = (each for each in distribution(name).requires or () if ";" not in each)
            left += [re.split("[^A-Za-z0-9_-]", each)[0] for each in needed]
    return found


def bare(folder: Path, place: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    """Run Python in a folder, where of all packages only torch and triton are there, with what these need."""
    place.mkdir()
    for name in required("torch", "triton"):
        files = distribution(name).files or ()
        for top in {Path(str(file)).parts[0] for file in files} - {"..", "__pycache__"}:
            if not (place / top).is_symlink():
                (place / top).symlink_to(distribution(name).locate_file(top))
    command = [sys.executable, "-S", *words]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(place), "HOME": str(place)}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600, check=False
    )


def test_its_own_tests_pass_where_only_torch_and_triton_are(folder: Path, tmp_path: Path) -> None:
    done = bare(folder, tmp_path / "bare", "-m", "unittest", "-v")
    assert done.returncode == 0, done.stderr
    assert "Ran 4 tests" in done.stderr
    assert "skipped" not in done.stderr


def test_every_module_in_it_is_as_the_judge_has_it(folder: Path) -> None:
    ours = sorted((folder / "judge/avo").rglob("*.py"))
    assert folder / "judge/avo/evaluator/cuda/triton_device.py" in ours
    root = Path(__file__).parents[3]
    for each in ours:
        assert each.read_text() == (root / each.relative_to(folder / "judge")).read_text()


@pytest.mark.long
def test_without_a_card_the_command_says_so(folder: Path, tmp_path: Path) -> None:
    done = bare(folder, tmp_path / "bare", "measure.py")
    assert done.returncode == 2, done.stderr
    assert "torch finds no CUDA GPU" in done.stderr
    absent = bare(folder, tmp_path / "other", "-c", "import msgspec")
    assert "No module named 'msgspec'" in absent.stderr, "otherwise nothing is shown"
