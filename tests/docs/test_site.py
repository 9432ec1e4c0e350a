"""The documentation as a site has every page, and is not built where a link leads nowhere."""

import re
from pathlib import Path

import pytest

from docs import site
from tests.docs.test_references import PAGES

ROOT = Path(__file__).parents[2]


def test_every_page_has_one_place_in_the_navigation() -> None:
    pages = [page for listed in site.navigation().values() for page in listed]
    assert len(pages) == len(set(pages))
    assert {str(page.relative_to(ROOT)) for page in PAGES} <= set(pages)
    assert [page for page in pages if not (ROOT / page).exists()] == [site.COMMANDS]


def test_a_note_of_the_knowledge_base_is_a_page_with_a_title() -> None:
    text = site.note("---\ntitle: Stages\nproblems: mha\nclaim: stages h100\n---\nMore of them.\n")
    assert text == "# Stages\n\n*problems: mha*\n\nMore of them.\n"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_code_after_a_list_is_not_taken_for_text_of_its_last_item(page: Path) -> None:
    assert re.findall(r"^(?:- |\d+\. ).*\n(?:  +\S.*\n)*\n {4,5}\S.*", page.read_text(), re.MULTILINE) == []


@pytest.mark.long
def test_the_site_is_built_unless_a_link_leads_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("material")
    monkeypatch.setattr(site, "BUILD", tmp_path)
    built = site.build()
    for name, words in (("index", "five minutes"), ("docs/commands", "avo kb search"), ("docs/cluster", "Slurm")):
        assert words in (built / f"{name}.html").read_text()
    monkeypatch.setattr(site, "commands", lambda: "# Commands\n\n[more](cluster.md#no-such-heading)\n")
    with pytest.raises(SystemExit, match="no-such-heading"):
        site.build()
