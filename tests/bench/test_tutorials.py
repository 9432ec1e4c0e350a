"""Triton's tutorials are run as they are, and a table says which pass."""

from pathlib import Path

import pytest

from bench.tables import put
from bench.tutorials import DOCUMENT, EXAMPLE, FOLDER, PLACE, Outcome, files, run, table, with_other_rows

TUTORIAL = """
import pytest
import torch

@pytest.mark.parametrize("n", [2, 3])
def test_on_a_card(n):
    assert torch.empty(n, device="cuda").is_cuda and n == 2

def test_wrong():
    assert torch.cuda.get_device_capability() == (10, 0), "another card"

@pytest.mark.skip
def test_elsewhere():
    pass
"""


@pytest.mark.long
def test_each_test_of_a_file_runs_once_on_the_card_that_is_asked_for(tmp_path: Path) -> None:
    file = FOLDER / "01-small.py"
    (tmp_path / FOLDER).mkdir(parents=True)
    (tmp_path / file).write_text(TUTORIAL)
    found = run(tmp_path, file, "h100", limit=300, every=False)
    assert [(each.test, each.how) for each in found] == [
        ("test_on_a_card[2]", "passed"),
        ("test_wrong", "failed"),
        ("test_elsewhere", "skipped"),
    ]
    assert "another card" in found[1].why
    assert {each.file for each in found} == {"01-small"}


@pytest.mark.long
def test_a_file_that_cannot_be_imported_says_why(tmp_path: Path) -> None:
    file = FOLDER / "01-small.py"
    (tmp_path / FOLDER).mkdir(parents=True)
    (tmp_path / file).write_text("import no_such_module")
    (only,) = run(tmp_path, file, "h100", limit=300, every=False)
    assert (only.test, only.how) == ("", "failed")
    assert "no_such_module" in only.why


def test_the_table_has_a_row_for_each_file_and_each_reason_once() -> None:
    found = {
        "h100": [Outcome("01-a", "test_x[1]", "passed"), Outcome("02-b", "test_y", "skipped")],
        "b200": [
            Outcome("01-a", "test_x[1]", "failed", "a | b"),
            Outcome("01-a", "test_x[2]", "failed", "a | b"),
            Outcome("02-b", "test_y", "passed"),
        ],
    }
    assert table(found).splitlines()[2:] == [
        "| 01-a | 1 of 1 | 0 of 2 | `test_x`: a \\| b |",
        "| 02-b | for other targets | 1 of 1 |  |",
    ]


def test_rows_of_files_that_did_not_run_stay() -> None:
    head = ["| file | h100 | b200 | what fails |", "| --- | ---: | ---: | --- |"]
    rows = ["| 01-a | 1 of 1 | 1 of 1 |  |", "| 02-b | 0 of 1 | not run | old |", "| 03-c | not run | 1 of 1 |  |"]
    document = put(DOCUMENT.read_text(), PLACE, "\n".join([*head, *rows]))
    new = "| 02-b | 1 of 1 | 1 of 1 |  |"
    assert with_other_rows("\n".join([*head, new]), document).splitlines() == [*head, rows[0], new, rows[2]]


def test_the_files_are_those_of_the_checkout(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="name a checkout of Triton"):
        files(tmp_path, [])
    for each in (FOLDER / "02-b.py", FOLDER / "01-a.py", FOLDER / "conftest.py", EXAMPLE):
        (tmp_path / each).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / each).touch()
    assert files(tmp_path, []) == [FOLDER / "01-a.py", FOLDER / "02-b.py", EXAMPLE]
    assert files(tmp_path, ["02-b"]) == [FOLDER / "02-b.py"]
