"""What packages hold, and how they are written."""

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib.util import module_from_spec, spec_from_file_location
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from avo.config import START
from avo.evaluator.evaluation import Evaluation, Status
from avo.evaluator.problem import Baseline
from avo.evaluator.resolution import Difference
from avo.evaluator.target import TARGETS
from avo.export.choosing import choose, lineage_of
from avo.export.errors import ExportError
from avo.export.hub import HUB_VARIANT
from avo.export.judging import Passed
from avo.export.package import check_place, package_name, render_package, write_package
from avo.lineage_db.decision import Lead
from avo.lineage_db.records import Run, Version
from avo.seeds import seed_source
from tests.avo.export.sample import chosen, correct, passed, sample
from tests.avo.sample_run import ABLATION, make_measured

NOW = datetime(2026, 3, 2, tzinfo=UTC)
INSIDE = "build/torch-universal/mine"


@pytest.fixture(scope="module")
def run_and_versions() -> tuple[Run, Sequence[Version]]:
    return sample()


@pytest.fixture(scope="module")
def both(run_and_versions: tuple[Run, Sequence[Version]]) -> list[Passed]:
    """A version for dense attention, and one for selected attention on another target."""
    run, versions = run_and_versions
    sparse = passed(chosen(run, versions, problem="fsa", target="b200", name="fsa"), 50.0, 40.0, target="b200")
    return [passed(chosen(run, versions), 300.0, 250.0), sparse]


@pytest.fixture
def decoding(run_and_versions: tuple[Run, Sequence[Version]]) -> Passed:
    """A version for decoding."""
    return passed(chosen(*run_and_versions, problem="decode", name="decode"), 1.0, 1.0)


def readme(versions: Sequence[Passed]) -> str:
    return render_package("mine", versions, NOW)["README.md"]


@pytest.mark.long
def test_all_of_it_is_formatted_and_clean(both: list[Passed], decoding: Passed, tmp_path: Path) -> None:
    for number, versions in enumerate(([*both, decoding], both[:1], both[1:])):
        write_package(render_package("m" * 40 if number == 1 else "a1", versions, NOW), tmp_path / str(number))
    ruff = [sys.executable, "-m", "ruff"]
    for command in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [*ruff, *command, "--no-cache", "0", "1", "2"], cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout
    for source in tmp_path.rglob("*.py"):
        ast.parse(source.read_text())


@pytest.mark.long
def test_all_of_it_is_typed_strictly(both: list[Passed], decoding: Passed, tmp_path: Path) -> None:
    write_package(render_package("mine", [*both, decoding], NOW), tmp_path / "out")
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache")]
    done = subprocess.run(command, cwd=tmp_path / "out", capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no issues found in 26 source files" in done.stdout


def test_the_metadata_names_the_package_and_what_it_needs(both: list[Passed]) -> None:
    files = render_package("mine", both, NOW)
    project = tomllib.loads(files["pyproject.toml"])["project"]
    assert project["name"] == "mine"
    assert (project["license"], project["license-files"]) == ("Apache-2.0", ["LICENSE"])
    assert [text.split(">")[0] for text in project["dependencies"]] == ["torch", "triton"]
    assert set(project["optional-dependencies"]) == {"transformers", "test"}
    metadata = json.loads(files["build/torch-universal/metadata.json"])
    assert metadata["name"] == "mine"
    assert metadata["id"].startswith("_mine_")
    assert f"{INSIDE}/py.typed" in files


def test_the_licence_is_the_repository_s(both: list[Passed]) -> None:
    licence = render_package("mine", both, NOW)["LICENSE"]
    assert licence == Path(__file__).parents[3].joinpath("LICENSE").read_text()


def test_what_selected_attention_alone_does_not_need_stays_out(both: list[Passed]) -> None:
    files = render_package("mine", both[1:], NOW)
    assert not {
        path for path in files if "transformers" in path or path.endswith(("/_attention.py", "test_attention.py"))
    }
    assert "transformers" not in files["README.md"]
    assert set(tomllib.loads(files["pyproject.toml"])["project"]["optional-dependencies"]) == {"test"}


def test_a_kernel_is_the_judged_source_below_a_header(both: list[Passed]) -> None:
    kernel = render_package("mine", both, NOW)[f"{INSIDE}/kernels/mha_h100_v3.py"]
    assert kernel.endswith(f"\n\n{both[0].chosen.source}")
    assert kernel.startswith("# SPDX-License-Identifier: Apache-2.0\n# mha-h100@3: see")


def test_a_docstring_that_is_still_the_seeds_says_what_was_changed(
    run_and_versions: tuple[Run, Sequence[Version]],
) -> None:
    run, (seed, first, *_) = run_and_versions
    source = seed_source("mha")
    versions = [
        replace(each, parents=parents, attempt=replace(each.attempt, source=text))
        for each, parents, text in ((seed, (), source), (first, (0,), source.replace("64, 64", "128, 64")))
    ]
    plain, changed = (choose(run, versions, each.attempt).source for each in versions)
    assert "deliberately not fast" in plain
    assert "not fast" not in changed
    assert "v1 of the run mha-h100" in changed
    assert f"- {first.change}" in changed
    config = {**run.config, START: [{"origin": "mha-h100@7", "source": source}]}
    taken = choose(replace(run, config=config), versions[:1], versions[0].attempt).source
    assert "not fast" not in taken
    assert "That run started from mha-h100@7." in taken
    own = replace(versions[1].attempt, source='"""Mine."""\n\nX = 1\n')
    assert choose(run, [versions[0], replace(versions[1], attempt=own)], own).source.startswith('"""Mine."""')


def test_the_model_card_has_what_was_published_at_the_same_shapes(both: list[Passed]) -> None:
    passed_on_h100 = replace(both[0], target=TARGETS["h100"])
    text = readme([passed_on_h100])
    rows = {line.split(" | ")[1]: line for line in text.splitlines() if line.startswith(("| quick |", "| held_out |"))}
    assert "cuDNN 600; FlashAttention-3 646 |" in rows["8k-full"]
    assert rows["6k-causal"].endswith(" | none known |")
    assert "arXiv 2407.08608" in text
    assert "seed `" not in text
    assert "torch: we know of no figures of its own at these shapes." in text


def test_the_model_card_has_what_libraries_were_measured_at_the_same_shapes(both: list[Passed]) -> None:
    torchs = Baseline("cuDNN by torch", "H100 SXM", {"8k-full": 612.34}, "the clock was sustained")
    text = readme([replace(both[0], libraries=(torchs,))])
    rows = {line.split(" | ")[1]: line for line in text.splitlines() if line.startswith(("| quick |", "| held_out |"))}
    assert rows["8k-full"].endswith("; cuDNN by torch 612, measured |")
    assert rows["6k-causal"].endswith(" | none known |")
    assert "- cuDNN by torch: the clock was sustained\n" in text
    assert "torch: we know of no figures" not in text


def test_the_model_card_has_the_seed_at_the_same_shapes(both: list[Passed]) -> None:
    wrong = Evaluation(Status.INCORRECT, "it is wrong", "h100", "held_out", 1.0)
    beside = replace(both[0], seed="plain", of_seed=(correct("mha", "quick", 170.5, "h100"), wrong))
    lines = readme([beside]).splitlines()
    head = next(line for line in lines if line.startswith("| suite |"))
    rows = [line.split(" | ") for line in lines if line.startswith(("| quick |", "| held_out |"))]
    assert all(above.startswith("| ") for above, line in pairwise(lines) if line.startswith("|--")), "else no table"
    place = head.split(" | ").index("seed `plain`, predicted")
    assert [row[place] for row in rows if row[1] in ("8k-full", "6k-causal")] == ["170", "none known"]
    assert {
        line.count("|") for line in lines if line.startswith(("| quick", "| held_out", "| suite", "|---|---|-"))
    } == {head.count("|")}


MINIMAL = replace(ABLATION, minimal=seed_source("mha").replace("num_stages=1", "num_stages=2"))


@pytest.mark.parametrize("hub", [False, True])
def test_what_edits_are_worth_is_a_picture_and_a_table_of_the_model_card(
    run_and_versions: tuple[Run, Sequence[Version]], both: list[Passed], hub: bool
) -> None:
    run, versions = run_and_versions
    whole = passed(choose(run, versions, versions[3].attempt, None, MINIMAL), 1.0, 1.0)
    files = render_package("mine", [whole], NOW, hub=hub)
    text, figure = files["README.md"], ElementTree.fromstring(files["edits-mha_h100_v3.svg"])
    assert "![What each edit of mha_h100_v3 is worth](edits-mha_h100_v3.svg)" in text
    assert "mha-h100@3: what each of its moves is worth in it: how much slower the kernel is without it" in text
    assert "| +30% ±2% | BLOCK_N 64 -> 128 |  |" in text
    assert "Without 2 of them the minimal kernel is predicted at 273 TFLOPS, the version at 260 TFLOPS: `avo" in text
    bars = [each for each in figure.iter("{http://www.w3.org/2000/svg}rect") if each.get("class")]
    assert [each.get("class") for each in bars] == ["bar best", "bar seed", "bar seed"]
    assert "edits" not in "".join(render_package("mine", both[:1], NOW))
    (kernel,) = json.loads(next(text for path, text in files.items() if path.endswith("provenance.json")))["kernels"]
    assert (kernel["without"], kernel["edits"]["minimal"]) == ([], MINIMAL.minimal)


def test_the_minimal_kernel_is_exported_in_the_place_of_the_version(
    run_and_versions: tuple[Run, Sequence[Version]],
) -> None:
    run, versions = run_and_versions
    told: Any = "what a card measured of the version"
    small = choose(run, versions, versions[3].attempt, told, MINIMAL, minimal=True)
    assert small.measured is None, "that was another kernel"
    files = render_package("mine", [passed(small, 1.0, 1.0)], NOW)
    source = files[f"{INSIDE}/kernels/mha_h100_v3.py"]
    assert ("num_stages=2" in source, "block_m, block_n = 64, 64" in source) == (True, True)
    assert "Of that, what made it no faster was taken away:\n- num_stages 1 -> 2\n- exp -> exp2\n" in source
    text = files["README.md"]
    assert "version 3 without 2 useless edits of the run" in text
    assert "The minimal kernel is the one in this package." in text
    (kernel,) = json.loads(files[f"{INSIDE}/provenance.json"])["kernels"]
    assert kernel["without"] == ["num_stages 1 -> 2", "exp -> exp2"]
    nothing = replace(MINIMAL, dropped=())
    whole = choose(run, versions, versions[3].attempt, told, nothing, minimal=True)
    assert (whole.measured, whole.words) == (told, "version 3")


@pytest.mark.long
def test_the_layout_of_the_hub_is_what_the_kernels_library_checks_and_loads(
    both: list[Passed], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.version, "cuda", "13.0")  # the library does not load kernels for CUDA without it
    kernels, info = pytest.importorskip("kernels"), pytest.importorskip("kernels.cli.info")
    rust = pytest.importorskip("kernels._rust")
    files = render_package("mine_on_hub", both, NOW, hub=True)
    write_package(files, tmp_path / "mine-on-hub")
    assert {path.partition("/")[0] for path in files} == {"README.md", "LICENSE", "speed.svg", "build"}
    variant = tmp_path / "mine-on-hub" / HUB_VARIANT
    metadata = rust.Metadata.read_from_file(variant / "metadata.json")
    assert metadata.digest.files == rust.Digest.hash_variant(metadata.digest.algorithm, variant).files
    info.print_kernel_info(str(tmp_path / "mine-on-hub"))
    assert "mine-on-hub" in capsys.readouterr().out
    loaded = kernels.get_local_kernel(tmp_path / "mine-on-hub")
    assert (loaded.__name__, loaded.attention.__module__) == (metadata.id, f"{metadata.id}._attention")
    q = torch.randn(1, 2, 8, 16)
    with pytest.raises(loaded.UnsupportedCall, match="has no kernel for"):
        loaded.attention(q, q, q, on_unsupported="raise")
    spec = spec_from_file_location("mine_on_hub", variant / "mine_on_hub" / "__init__.py")
    assert spec is not None
    assert spec.loader is not None
    older = module_from_spec(spec)
    spec.loader.exec_module(older)
    assert set(older.__all__) == set(loaded.__all__) <= set(vars(older))
    card = files["README.md"]
    assert "pip install" not in card
    assert "benchmark.py" not in card
    assert "register = importlib.import_module" in card


def test_the_tests_know_a_card_for_each_kernel(both: list[Passed]) -> None:
    where = render_package("mine", both, NOW)["tests/where.py"]
    assert dict(re.findall(r"\((\d+, \d)\): \"(\w+)\"", where)) == {"9, 0": "h100", "10, 0": "b200"}


def test_the_judge_s_inputs_and_reference_are_in_the_tests(both: list[Passed]) -> None:
    files = render_package("mine", both, NOW)
    cases = json.loads(files["tests/cases.json"])
    names = [case["name"] for case in cases["mha_h100_v3"]]
    assert {"odd-causal", "long-causal", "held-out-ragged-causal"} <= set(names)
    assert all(case["q_len"] <= 1024 for case in cases["mha_h100_v3"])
    assert "def _edge(case: Case" in files["tests/inputs.py"]
    assert "evaluator" not in files["tests/inputs.py"] + files["tests/selection.py"]


def test_provenance_tells_the_whole_story(both: list[Passed], run_and_versions: tuple[Run, Sequence[Version]]) -> None:
    story = json.loads(render_package("mine", both, NOW)[f"{INSIDE}/provenance.json"])
    kernel = story["kernels"][0]
    assert (kernel["run"], kernel["problem"], kernel["target"], kernel["version"]) == ("mha-h100", "mha", "h100", 3)
    assert kernel["digest"] == run_and_versions[1][3].attempt.digest
    assert [judged["suite"] for judged in kernel["judged"]] == ["quick", "held_out"]
    assert {judged["score"]["kind"] for judged in kernel["judged"]} == {"predicted"}
    assert [step["version"] for step in kernel["lineage"]] == [0, 1, 2, 3]
    assert kernel["lineage"][1]["change"] == "BLOCK_M 64 -> 128, num_warps 4 -> 8"
    assert kernel["lineage"][1]["score"] == {
        "kind": "predicted", "target": "h100", "card": "", "geomean_tflops": pytest.approx(150.0),
    }  # fmt: skip
    assert story["exported"] == NOW.isoformat()
    assert set(story["exported_with"]) == {"python", "avo-kernels", "triton", "torch"}


def test_readme_says_predicted_or_measured_and_gives_each_case(both: list[Passed]) -> None:
    predicted = readme(both)
    assert predicted.startswith("---\nlicense: apache-2.0\n")
    assert "these figures are **predicted** from the compiled kernel for NVIDIA B200" in predicted
    assert "| held_out | ragged-causal | 250 |" in predicted
    evaluation = make_measured(600.0)
    measured = readme([replace(both[0], evaluations=(evaluation,))])
    assert "**measured** on NVIDIA H100 80GB HBM3: driver 570.86, clocks 1590 to 1755 MHz." in measured
    assert "| quick | 8k-full | 600 | 595 to 605 | 1670 |  |" in measured
    assert "- 8k-full: attention_kernel: BLOCK_M=128, num_warps=8" in measured
    assert "not measured on a GPU" not in measured


def test_the_model_card_names_kernels_whose_sums_differ_from_run_to_run(both: list[Passed]) -> None:
    dense, sparse = both
    evaluations = tuple(replace(each, traits={"sums": "atomic"}) for each in sparse.evaluations)
    said = readme([dense, replace(sparse, evaluations=evaluations)])
    assert said.count("adds by atomics") == said.count("`fsa_v3` adds by atomics: what it computes differs") == 1
    assert "atomics" not in readme(both)


def test_the_examples_are_calls_that_the_kernels_take(run_and_versions: tuple[Run, Sequence[Version]]) -> None:
    problems = ("mha", "gqa-h64x8-d64-w128-global-sinks-1024x1", "decode-h64x8-d64-w128-global-sinks-32768x1")
    card = readme([passed(chosen(*run_and_versions, problem=problem), 1.0, 1.0) for problem in problems])
    assert "q = torch.randn(1, 16, 4096, 128, " in card
    assert "out = attention(q, k, v, is_causal=True)  # as torch" in card
    assert "q = torch.randn(1, 64, 2048, 64, " in card
    assert "up to 2,048 keys" in card
    assert "out = attention(q, k, v, is_causal=True, enable_gqa=True, window=128, sinks=torch.zeros(64, " in card
    assert "lengths, max_seqlen_k=longest, window=128, sinks=torch.zeros(64, " in card


def test_only_functions_with_gradients_say_where_they_come_from(both: list[Passed], decoding: Passed) -> None:
    assert "- **Gradients**: " in readme(both)
    assert "- **Gradients**: " not in readme([decoding])


def test_a_seed_that_nothing_was_changed_in_is_called_one(run_and_versions: tuple[Run, Sequence[Version]]) -> None:
    assert "version 0 (a seed, as it was) of the run" in readme([passed(chosen(*run_and_versions, number=0), 1.0, 1.0)])
    assert "a seed, as it was" not in readme([passed(chosen(*run_and_versions), 1.0, 1.0)])


def test_what_is_said_of_all_kernels_holds_for_one_in_gluon_from_another_seed(
    run_and_versions: tuple[Run, Sequence[Version]],
) -> None:
    run, (seed, *_) = run_and_versions
    version = replace(seed, attempt=replace(seed.attempt, source=seed_source("mha", "hopper")))
    files = render_package("mine", [passed(choose(run, [version], version.attempt), 1.0, 1.0)], NOW)
    assert "gluon" in files[f"{INSIDE}/kernels/mha_h100_v0.py"]
    assert "\nAttention kernels that Triton compiles for h100, found by a search (AVO)" in files["README.md"]
    assert 'description = "Attention kernels for h100, found by a search."' in files["pyproject.toml"]


def test_the_figure_has_a_bar_for_each_case(both: list[Passed]) -> None:
    figure = render_package("mine", both, NOW)["speed.svg"]
    assert figure.count("<rect") == 1 + sum(len(score.cases) for each in both for score in each.scores)


def test_speeds_far_below_one_teraflop_are_told_and_drawn(run_and_versions: tuple[Run, Sequence[Version]]) -> None:
    files = render_package("mine", [passed(chosen(*run_and_versions, problem="decode"), 0.00123456, 0.02)], NOW)
    assert json.loads(files[f"{INSIDE}/dispatch.json"])["cases"][0]["tflops"] == 0.001235
    for place in ("README.md", "speed.svg"):
        assert re.search(r"\d us, 0\.0\d+ GB/s, 0%", files[place]), place


def test_the_words_of_an_operator_stay_in_their_cell(run_and_versions: tuple[Run, Sequence[Version]]) -> None:
    run, versions = run_and_versions
    attempt = replace(versions[0].attempt, change="a | b\n\n# {{ run }}", hypothesis="less | traffic")
    text = readme([passed(choose(run, [replace(versions[0], attempt=attempt)], attempt), 1.0, 1.0)])
    assert "TFLOPS, h100 | a \\| b # {{ run }} | less \\| traffic |\n" in text


def test_a_problem_that_packages_do_not_know_is_refused(run_and_versions: tuple[Run, Sequence[Version]]) -> None:
    run, versions = run_and_versions
    problem = str(Path(__file__).parents[3] / "examples" / "sliding_window.py")
    with pytest.raises(ExportError, match="sliding-window, which no exported package knows"):
        choose(replace(run, problem=problem), versions, versions[3].attempt)


def test_lineage_has_all_ancestors_and_no_others(run_and_versions: tuple[Run, Sequence[Version]]) -> None:
    seed = run_and_versions[1][0]
    parents: list[tuple[int, ...]] = [(), (0,), (0,), (1,), (1, 2), (4,)]
    versions = [replace(seed, number=number, parents=group) for number, group in enumerate(parents)]
    assert [version.number for version in lineage_of(versions, 5)] == [0, 1, 2, 4, 5]
    assert [version.number for version in lineage_of(versions, 3)] == [0, 1, 3]


@pytest.mark.long
@given(st.from_regex(r"[A-Za-z0-9._-]{1,80}", fullmatch=True))
def test_every_run_name_gives_a_package_name(run: str) -> None:
    name = package_name(None, [run])
    assert package_name(name, [run]) == name
    assert package_name(None, [run, "other"]) == "avo_kernels"


@pytest.mark.parametrize("name", ["", "a", "Mine", "my attention", "../mine", "1st", "a--b", "mine-", "x" * 41])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(ExportError, match="--name: "):
        package_name(name, ["run"])


@pytest.mark.parametrize("name", ["torch", "transformers", "json", "class", "judged", "xformers"])
def test_a_name_that_is_taken_is_refused(name: str) -> None:
    with pytest.raises(ExportError, match=f"--name: '{name}' is taken"):
        package_name(name, ["run"])


def test_a_folder_with_something_in_it_is_refused_and_not_touched(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(ExportError, match="is not empty: choose another folder, or empty it"):
        write_package({"a/b.txt": "new"}, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["mine.txt", "out"]


def test_a_package_is_written_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    broken: dict[str, Any] = {"a.txt": "new", "b.txt": "\ud800"}
    with pytest.raises(UnicodeEncodeError):
        write_package(broken, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "out").mkdir()
    write_package({"a/b.txt": "new"}, tmp_path / "out")
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.txt")] == ["out/a/b.txt"]
    assert (tmp_path / "out").stat().st_mode & 0o777 == (tmp_path / "out" / "a").stat().st_mode & 0o777


def test_a_file_in_the_way_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match="file is a file: name a folder"):
        check_place(tmp_path / "file")
    with pytest.raises(ExportError, match=r"cannot write .*there: .*file is a file"):
        check_place(tmp_path / "file" / "below" / "there")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_is_not_the_user_s_is_one_line(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    with pytest.raises(ExportError, match="is not yours to write in"):
        check_place(tmp_path / "out")
    tmp_path.chmod(0)
    with pytest.raises(ExportError, match="Permission denied"):
        check_place(tmp_path / "out")
    tmp_path.chmod(0o755)


def test_an_attempt_that_is_no_version_is_exported_as_such(run_and_versions: tuple[Run, Sequence[Version]]) -> None:
    run, versions = run_and_versions
    why = Lead(1, Difference(0.056, 0.71)).decide(0.01, 0.9)
    attempt = replace(versions[1].attempt, id=38, parents=(1,), decision=why)
    made = choose(run, versions, attempt)
    assert (made.label, made.version, [each.number for each in made.line]) == ("mha-h100#38", None, [0, 1])
    package = render_package("mine", [passed(made, 1.0, 1.0)], NOW)
    text = next(content for path, content in package.items() if path.endswith("README.md"))
    assert f"attempt 38, which is no version ({why.told}), of the run `mha-h100`" in text
    (kernel,) = json.loads(next(text for path, text in package.items() if path.endswith("provenance.json")))["kernels"]
    assert (kernel["version"], kernel["attempt"], kernel["accepted"]) == (None, 38, None)
    assert kernel["decision"] == why.told
    assert [step["version"] for step in kernel["lineage"]] == [0, 1, None]
    assert kernel["name"].endswith("_a38")
