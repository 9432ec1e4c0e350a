"""``avo kb``: search and show notes, API and the user's documents; add, list and remove these."""

import json
from pathlib import Path

import pytest

from tests.avo.cli.conftest import Avo


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AVO_KB", str(tmp_path / "kept"))
    return tmp_path / "kept"


def test_search_lists_passages_with_kind_and_source(avo: Avo) -> None:
    result = avo("kb", "search", "lazy", "rescaling", "--limit", "3")
    assert result.exit_code == 0
    head, first = result.stdout.splitlines()[:2]
    assert head.split() == ["ID", "KIND", "TITLE", "SOURCE"]
    assert first.split()[:2] == ["lazy", "note"]
    assert "avo kb show ID" in result.stderr
    assert "triton.language.dot_scaled" in avo("kb", "search", "tl.dot_scaled").stdout.splitlines()[1]


def test_target_and_problem_leave_out_what_is_about_others(avo: Avo) -> None:
    def found(*options: str) -> set[str]:
        told = avo("kb", "search", "tensor memory selected branch", "--limit", "300", "--json", *options).stdout
        return {note["id"] for note in json.loads(told)}

    everything = found()
    assert {"tensor-memory", "nsa"} <= everything
    assert "tensor-memory" not in found("--target", "a100")
    assert "nsa" not in found("--problem", "mha")
    assert found("--problem", "mha-d64-fp16") == found("--problem", "mha")


def test_show_prints_a_passage_whole(avo: Avo) -> None:
    text = avo("kb", "show", "lazy").stdout
    assert text.startswith("Lazy rescaling\nsource: FlashAttention-4")
    assert "for sm_100" in avo("kb", "show", "tensor-memory").stdout
    told = json.loads(avo("kb", "show", "triton.language.dot", "--json").stdout)
    assert (told["kind"], told["title"].partition("(")[0]) == ("api", "triton.language.dot")


def test_a_document_is_added_found_listed_and_removed(avo: Avo, tmp_path: Path, kept: Path) -> None:
    source = tmp_path / "frobnicate.md"
    source.write_text("# Frobnication\n\nAll about \x1b[31mfrobnicate.\n")
    assert "Added frobnicate.md: 1 texts, 1 passages." in avo("kb", "add", str(source)).stderr
    assert kept.is_dir()
    assert "document" in avo("kb", "search", "frobnicate").stdout
    shown = avo("kb", "show", "frobnicate.md#frobnication").stdout
    assert f"source: added from {source}" in shown
    assert "\x1b" not in shown
    (told,) = json.loads(avo("kb", "list", "--json").stdout)
    assert (told["name"], told["origin"], told["passages"]) == ("frobnicate.md", str(source), 1)
    assert "frobnicate.md" in avo("kb", "list").stdout
    assert "Removed frobnicate.md." in avo("kb", "remove", "frobnicate.md").stderr
    assert "Nothing was added" in avo("kb", "list").stderr
    assert "No passage shares a word" in avo("kb", "search", "frobnicate").stderr


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["show", "lasy"], "unknown note 'lasy': choose one of lazy"),
        (["search", "x", "--target", "tpu"], "unknown target 'tpu'"),
        (["search", "x", "--problem", "fft"], "unknown problem 'fft'"),
        (["search", "x", "--limit", "0"], "--limit: 0 should be 1 or more"),
        (["add", "nowhere"], "there is no such file or folder"),
        (["remove", "nothing"], "'nothing' was not added: nothing was"),
    ],
)
def test_a_wrong_call_is_one_line(avo: Avo, arguments: list[str], part: str) -> None:
    result = avo("kb", *arguments)
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert part in result.stderr
