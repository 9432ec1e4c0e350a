"""The picture of the architecture is that of the code, and the page describes every package in it."""

from docs.architecture import PICTURE, ROOT, picture


def test_the_picture_shows_the_imports_of_the_code() -> None:
    assert PICTURE.read_text() == picture(), "draw it again: python -m docs.architecture"


def test_the_page_describes_every_package() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    folders = [
        f"`{file.parent.relative_to(ROOT)}/`"
        for root in ("avo", "agents", "evaluator", "lineage_db", "knowledge_base")  # folders of seeds/ are problems
        for file in (ROOT / root).glob("*/__init__.py")
        if not file.parent.is_symlink()  # the other packages, as they are imported
    ]
    assert [folder for folder in folders if folder not in page] == []


def test_no_module_of_the_packages_has_more_than_400_lines() -> None:
    folders = ("avo", "agents", "evaluator", "lineage_db", "seeds", "knowledge_base", "bench")
    lines = {path: len(path.read_text().splitlines()) for folder in folders for path in (ROOT / folder).rglob("*.py")}
    assert {str(path): count for path, count in lines.items() if count > 400} == {}
