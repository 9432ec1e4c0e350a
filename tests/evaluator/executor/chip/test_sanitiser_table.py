"""``consan_cases.csv`` says of each kernel of Triton's tests of ConSan how the executor judges it, and which tests of
ours have the same fault in kernels of ours."""

import csv
import importlib
import re
from collections import Counter
from pathlib import Path

HERE = Path(__file__).parent
PAGE = (Path(__file__).parents[4] / "docs/executor.md").read_text()
ROWS = tuple(csv.DictReader((HERE / "consan_cases.csv").read_text().splitlines()))
THEIRS = "ConSan itself"
"""What a case is about that no other sanitiser has; the table says what in place of a test."""


def names(file: str) -> set[str]:
    """Return the names of a file's tests, and of what each runs for."""
    found = set()
    for name, test in vars(importlib.import_module(f"tests.evaluator.executor.chip.{Path(file).stem}")).items():
        if name.startswith("test_"):
            found.add(name)
            for mark in getattr(test, "pytestmark", ()):
                if mark.name == "parametrize":
                    found.update(each[0] if isinstance(each, tuple) else each for each in mark.args[1])
    return found


def test_every_case_is_judged_in_one_way_and_the_page_counts_them() -> None:
    judged = {(row["case"], row["judged"]) for row in ROWS}
    assert len(judged) == len({case for case, _ in judged}) == 87
    counted = re.findall(r"^\| `([\w ]+)` \| (\d+) \|", PAGE, re.MULTILINE)
    assert Counter(judgement for _, judgement in judged) == {judgement: int(number) for judgement, number in counted}


def test_every_case_is_held_by_a_test_that_exists() -> None:
    for row in ROWS:
        assert (row["judged"] == THEIRS) == (row["file"] == ""), row
        assert row["judged"] == THEIRS or row["test"] in names(row["file"]), row


def test_every_kernel_of_ours_is_held_against_a_case() -> None:
    held = {(row["file"], row["test"]) for row in ROWS}
    for path in HERE.glob("test_sanitiser_*.py"):
        module = importlib.import_module(f"tests.evaluator.executor.chip.{path.stem}")
        missing = [what for what in getattr(module, "CASES", ()) if (path.name, what) not in held]
        assert missing == [], path.name
