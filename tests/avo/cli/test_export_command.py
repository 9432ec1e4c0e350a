"""``avo export``, with a judge that finds what it is told."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

Avo = Callable[..., Result]

JUDGE = Path(__file__).parents[1] / "export" / "judge_command.py"


def judge(wrong: str) -> tuple[str, str]:
    """Return options for a judge to which sources that hold ``wrong`` are incorrect."""
    return "--evaluator-command", f"{sys.executable} {JUDGE} '{wrong}'"


def test_export_names_the_files_it_wrote(avo: Avo, tmp_path: Path) -> None:
    result = avo("export", "mha-h100@1", "--out", "kernel", *judge("none"))
    assert result.exit_code == 0, result.output
    assert {Path(line) for line in result.stdout.splitlines()} == {
        path.relative_to(tmp_path) for path in Path(tmp_path, "kernel").rglob("*") if path.is_file()
    }
    assert "mha-h100@1: package avo_kernel_mha_h100 is in kernel; next: pip install ./kernel\n" in result.stderr


@pytest.mark.long
def test_several_versions_become_one_package_and_a_version_given_twice_counts_once(avo: Avo, tmp_path: Path) -> None:
    given = ("mha-h100", "mha-h100@3", "mha-h100-2@1")
    result = avo("export", *given, "--out", "kernel", "--name", "my-kernels", "--json", *judge("none"))
    record = json.loads(result.stdout)
    assert (record["package"], record["folder"]) == ("my_kernels", "kernel")
    exported = [(kernel["run"], kernel["version"]) for kernel in record["kernels"]]
    assert exported == [("mha-h100", 3), ("mha-h100-2", 1)]
    table = json.loads((tmp_path / "kernel/build/torch-universal/my_kernels/dispatch.json").read_text())
    assert [kernel["version"] for kernel in table["kernels"]] == ["mha-h100@3", "mha-h100-2@1"]


@pytest.mark.long
def test_attempts_of_two_runs_with_the_same_number_are_two(avo: Avo, tmp_path: Path) -> None:
    result = avo("export", "mha-h100@1", "mha-h100-2@1", "--out", "kernel", "--json", *judge("none"))
    exported = [(kernel["run"], kernel["attempt"]) for kernel in json.loads(result.stdout)["kernels"]]
    assert exported[0][1] == exported[1][1]
    assert [run for run, _ in exported] == ["mha-h100", "mha-h100-2"]


@pytest.mark.long
def test_the_layout_of_the_hub_is_written_on_request(avo: Avo, tmp_path: Path) -> None:
    result = avo("export", "mha-h100@1", "--out", "kernel", "--hub-layout", *judge("none"))
    assert result.exit_code == 0, result.output
    assert "next: kernel-builder upload kernel" in result.stderr
    assert {path.name for path in Path(tmp_path, "kernel").iterdir()} == {"README.md", "LICENSE", "speed.svg", "build"}


@pytest.mark.long
def test_a_version_that_fails_is_not_exported_and_nothing_is_written(avo: Avo, tmp_path: Path) -> None:
    result = avo("export", "mha-h100@1", "mha-h100@2", "--out", "kernel", *judge("num_stages=2"))
    assert result.exit_code == 1
    assert result.stderr.strip() == (
        "avo: mha-h100@2 is not exported: incorrect in suite quick: case ragged: 12 of 77 rows are wrong"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["nothing"], "no run 'nothing'"),
        (["mha-h100@99"], "99"),
        (["mha-h100", "--name", "Mine"], "--name: 'Mine' should be small letters"),
        (["mha-h100", "--wall", "0"], "--wall: 0 should be 1 second or more"),
        (["mha-h100", "--sandbox", "no"], "--sandbox: 'no' should be 'auto' or 'require'"),
        (["mha-h100", "--evaluator-command", "false"], "the judge's process does not start"),
    ],
)
def test_a_wrong_call_is_one_line_and_writes_nothing(avo: Avo, tmp_path: Path, arguments: list[str], line: str) -> None:
    result = avo("export", *arguments, "--out", "kernel")
    assert (result.exit_code, result.stdout) == (2, "")
    assert line in result.stderr
    assert result.stderr.startswith("avo: ")
    assert len(result.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_empty_is_refused_before_anything_is_judged(avo: Avo, tmp_path: Path) -> None:
    (tmp_path / "kernel").mkdir()
    (tmp_path / "kernel" / "mine.txt").write_text("mine")
    result = avo("export", "mha-h100", "--out", "kernel", "--evaluator-command", "false")
    assert result.exit_code == 2
    assert result.stderr == "avo: kernel is not empty: choose another folder, or empty it\n"
    assert [path.name for path in (tmp_path / "kernel").iterdir()] == ["mine.txt"]
