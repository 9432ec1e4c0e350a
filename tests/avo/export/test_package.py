"""Exported packages: what they hold, and that they work."""

import ast
import json
import os
import subprocess
import sys
import tomllib
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avo.export.package import ExportError, lineage_of, package_name, render_package, write_package
from evaluator.problem import Problem, get_problem
from lineage_db.records import Run, Version
from lineage_db.store import Store
from tests.avo.sample_run import make_measured, make_sample_run

NOW = datetime(2026, 3, 2, tzinfo=UTC)
MHA = get_problem("mha")


@pytest.fixture(scope="module")
def run_and_versions(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, list[Version]]:
    url = str(tmp_path_factory.mktemp("export") / "lineage.db")
    name = make_sample_run(url)
    with Store.open(url) as store:
        run = store.run(name)
        return run, store.versions(run.id)


@pytest.fixture(scope="module")
def package(run_and_versions: tuple[Run, list[Version]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    run, versions = run_and_versions
    folder = tmp_path_factory.mktemp("package") / "out"
    write_package(render_package(run, MHA, versions, 3, NOW), folder)
    return folder


def changed(version: Version, **changes: Any) -> Version:
    return replace(version, attempt=replace(version.attempt, **changes))


def test_its_own_tests_pass_without_a_gpu(package: Path) -> None:
    env = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:asyncio", "-W", "error"]
    done = subprocess.run(command, cwd=package, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    cases = len(get_problem("mha").correctness_cases) - 1  # all but the long one, in two dtypes, and two refusals
    assert f"{2 * cases + 2} passed" in done.stdout


def test_its_own_tests_notice_a_wrong_kernel(run_and_versions: tuple[Run, list[Version]], tmp_path: Path) -> None:
    run, versions = run_and_versions
    source = versions[0].attempt.source
    wrong = source.replace("row_max + tl.log(row_sum)", "row_max + tl.log2(row_sum)")
    assert wrong != source
    write_package(render_package(run, MHA, [changed(versions[0], source=wrong)], 0, NOW), tmp_path)
    env = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:asyncio", "-k", "short or fit"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert "2 failed, 1 passed" in done.stdout


def test_the_wrapper_refuses_what_the_kernel_is_not_made_for(package: Path) -> None:
    code = """
import torch
from avo_kernel_mha_h100 import attention
def refuses(error, words, q, k=None, **options):
    try:
        attention(q, q if k is None else k, q if k is None else k, causal=True, **options)
    except error as refusal:
        assert words in str(refusal), refusal
    else:
        raise AssertionError(words)
x = torch.zeros(1, 2, 8, 128, dtype=torch.float16)
refuses(ValueError, "4 dimensions", x[0])
refuses(ValueError, "head dim 64", x[..., :64])
refuses(ValueError, "do not fit together", x, x[..., :64])
refuses(ValueError, "do not fit together", x, x.repeat(2, 1, 1, 1))
refuses(ValueError, "as many KV heads", x, x[:, :1])
refuses(ValueError, "without a key", x, x[:, :, :4])
refuses(ValueError, "scale must be positive", x, scale=-1.0)
refuses(TypeError, "share one of", x, x.float())
refuses(TypeError, "share one of", x.double())
refuses(TypeError, "forward only", x.clone().requires_grad_())
"""
    env = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": str(package / "src"), "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-W", "error", "-c", code], env=env, check=True)


def test_the_kernel_is_the_candidate_word_for_word(package: Path, run_and_versions: tuple[Run, list[Version]]) -> None:
    source = (package / "src/avo_kernel_mha_h100/kernel.py").read_bytes()
    assert source == run_and_versions[1][3].attempt.source.encode()


def test_provenance_tells_the_whole_story(package: Path, run_and_versions: tuple[Run, list[Version]]) -> None:
    story = json.loads((package / "src/avo_kernel_mha_h100/provenance.json").read_text())
    version = run_and_versions[1][3]
    assert (story["run"], story["problem"], story["target"], story["version"]) == ("mha-h100", "mha", "h100", 3)
    assert story["digest"] == version.attempt.digest
    assert story["score_kind"] == story["score"]["kind"] == "predicted"
    assert story["score"]["geomean_tflops"] == version.attempt.evaluation.geomean_tflops
    assert [step["version"] for step in story["lineage"]] == [0, 1, 2, 3]
    assert [step["change"] for step in story["lineage"]][1] == "BLOCK_M 64 -> 128, num_warps 4 -> 8"
    assert story["exported"] == NOW.isoformat()
    assert set(story["exported_with"]) == {"avo-kernels", "triton", "torch"}


def test_every_python_file_parses_and_the_metadata_names_the_package(package: Path) -> None:
    sources = sorted(package.rglob("*.py"))
    assert len(sources) == 3
    for source in sources:
        ast.parse(source.read_text())
    project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
    assert project["name"] == "avo-kernel-mha-h100"
    assert (project["license"], project["license-files"]) == ("Apache-2.0", ["LICENSE"])
    assert [text.split(">")[0] for text in project["dependencies"]] == ["torch", "triton"]


def test_the_licence_is_the_repository_s(package: Path) -> None:
    assert (package / "LICENSE").read_text() == Path(__file__).parents[3].joinpath("LICENSE").read_text()


def test_readme_says_predicted_or_measured(run_and_versions: tuple[Run, list[Version]]) -> None:
    run, versions = run_and_versions
    predicted = render_package(run, MHA, versions, 0, NOW)["README.md"]
    assert "predicted TFLOPS, h100" in predicted
    assert "not measured on a GPU" in predicted
    measured = render_package(run, MHA, [changed(versions[0], evaluation=make_measured(600.0))], 0, NOW)["README.md"]
    assert "**measured** on NVIDIA H100 80GB HBM3: driver 570.86, clocks 1590 to 1755 MHz." in measured
    assert "faster than the best so far: +2.0% in 2 rounds" in measured
    assert "| 8k-full | 600.0 | 595.0 to 605.0 | 1666.7 |  |" in measured
    assert "- 8k-full: attention_kernel: BLOCK_M=128, num_warps=8" in measured
    assert "predicted" not in measured


def test_the_words_of_an_operator_stay_in_their_cell(run_and_versions: tuple[Run, list[Version]]) -> None:
    run, versions = run_and_versions
    version = changed(versions[0], change="a | b\n\n# {{ run }}")
    assert "| 0 | 100.0 | a \\| b # {{ run }} |\n" in render_package(run, MHA, [version], 0, NOW)["README.md"]


def test_export_never_executes_the_candidate(run_and_versions: tuple[Run, list[Version]], tmp_path: Path) -> None:
    run, versions = run_and_versions
    mark = tmp_path / "mark"
    version = changed(versions[0], source=f"open({str(mark)!r}, 'w')")
    write_package(render_package(run, MHA, [version], 0, NOW), tmp_path / "out")
    assert not mark.exists()


def test_a_problem_with_another_entry_is_refused(run_and_versions: tuple[Run, list[Version]]) -> None:
    run, versions = run_and_versions
    other = cast(Problem, SimpleNamespace(name="fsa", entry="selected_attention"))
    with pytest.raises(ExportError, match="not selected_attention of the problem fsa"):
        render_package(run, other, versions, 0, NOW)


def test_lineage_has_all_ancestors_and_no_others(run_and_versions: tuple[Run, list[Version]]) -> None:
    seed = run_and_versions[1][0]
    parents: list[tuple[int, ...]] = [(), (0,), (0,), (1,), (1, 2), (4,)]
    versions = [replace(seed, number=number, parents=group) for number, group in enumerate(parents)]
    assert [version.number for version in lineage_of(versions, 5)] == [0, 1, 2, 4, 5]
    assert [version.number for version in lineage_of(versions, 3)] == [0, 1, 3]


@given(st.from_regex(r"[A-Za-z0-9._-]{1,80}", fullmatch=True))
def test_every_run_name_gives_a_package_name(run: str) -> None:
    name = package_name(run)
    assert name.isidentifier()
    assert not name.endswith("_")


def test_a_folder_with_something_in_it_is_refused_unless_forced(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ExportError, match="is not empty: choose another folder, or add --force"):
        write_package({"a/b.txt": "new"}, tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["mine.txt"]
    write_package({"a/b.txt": "new"}, tmp_path, force=True)
    assert (tmp_path / "a/b.txt").read_text() == "new"
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_a_file_in_the_way_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match="file is a file: name a folder"):
        write_package({"a.txt": ""}, tmp_path / "file")
    with pytest.raises(ExportError, match=r"cannot write .*: Not a directory"):
        write_package({"a.txt": ""}, tmp_path / "file" / "below")
