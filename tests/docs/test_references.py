"""What the documentation names exists: files, folders, modules and what is in them, links, headings."""

import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted({*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/*.md")} - {ROOT / "CHANGELOG.md"})
"""All but the changelog, which may name what is gone."""
FOLDERS = "avo|agents|evaluator|lineage_db|seeds|knowledge_base|tests|corpora|bench|docs|examples"
GROUPS = {"avo.problems", "avo.operators"}
"""Names of entry points, not of modules."""


def anchors(page: Path) -> set[str]:
    """Return the fragments by which headings of a page are linked to, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(page: Path) -> Iterator[tuple[str, str]]:
    """Yield path and fragment of each link to another page or place of the project."""
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" not in target:
            path, _, fragment = target.partition("#")
            yield path, fragment


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for path, fragment in links(page):
        target = page.parent / path if path else page
        assert target.exists(), path
        assert not fragment or fragment in anchors(target), f"{path}#{fragment}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_and_folders_exist(page: Path) -> None:
    names = re.findall(rf"(?<![\w/.~-])(?:{FOLDERS})/[\w./*-]*[\w/*]", page.read_text())
    assert [name for name in names if not any(ROOT.glob(name.rstrip("/")))] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_modules_and_what_is_in_them_exist(page: Path) -> None:
    for name in set(re.findall(rf"(?<![\w/.@~-])(?:{FOLDERS})(?:\.[A-Za-z_]\w*)+(?![\w/])", page.read_text())) - GROUPS:
        pkgutil.resolve_name(name)


def test_the_index_leads_to_every_page() -> None:
    index = ROOT / "docs" / "index.md"
    assert {path for path, _ in links(index)} >= {page.name for page in ROOT.glob("docs/*.md")} - {index.name}
