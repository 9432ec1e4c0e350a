"""Every promise of docs/trust.md has a test that exists, and every kind of attack a word."""

import re
from pathlib import Path

import pytest

from tests.kernels import CORPORA, stored

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "trust.md").read_text()
NAMED = sorted(set(re.findall(r"`([\w/]+\.py)::([^`]+)`", PAGE)))


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_the_test_that_holds_a_promise_exists(file: str, name: str) -> None:
    folders = {"tests": ROOT, "evaluator": ROOT, "attacks": ROOT / "corpora"}
    source = (folders.get(file.partition("/")[0], ROOT / "tests" / "evaluator") / file).read_text()
    assert re.search(rf"^def {re.escape(name)}\(|^    \"{re.escape(name)}\": ", source, re.MULTILINE)


@pytest.mark.parametrize("heading", ["What is promised", "What was found elsewhere"])
def test_no_promise_is_without_a_test(heading: str) -> None:
    section = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (?!---).*", section, re.MULTILINE)[1:]
    assert len(rows) > 10
    assert [row for row in rows if "::" not in row] == []


def test_the_readme_of_the_corpora_tells_every_module_of_attacks_and_what_is_harmless() -> None:
    readme = (CORPORA / "README.md").read_text()
    dictionaries = re.findall(r"^([A-Z_]+) = \{", stored("attacks/harmless"), re.MULTILINE)
    names = [*(path.name for path in CORPORA.glob("attacks/*.py")), *dictionaries]
    assert [name for name in names if f"`{name}`" not in readme] == []
