"""What a shell completes, asked as bash does."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer._completion_shared import get_completion_script
from typer.testing import CliRunner

from avo.cli.main import GROUPS, app


def completed(db: str, line: str) -> list[str]:
    words = line.split(" ")
    asked = {"_AVO_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1), "AVO_DB": db}
    program = [sys.executable, "-c", "import sys; sys.argv[0] = 'avo'; from avo.cli.main import main; main()"]
    done = subprocess.run(program, env={**os.environ, **asked}, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("avo show mha-h100@", ["mha-h100@3", "mha-h100@2", "mha-h100@1"]),
        pytest.param("avo lineage mha", ["mha-h100-2", "mha-h100"], marks=pytest.mark.long),
        pytest.param("avo diff mha-h100#", ["mha-h100#8", "mha-h100#7"], marks=pytest.mark.long),
        pytest.param("avo git mha-h100#3", ["mha-h100#3"], marks=pytest.mark.long),
        pytest.param("avo git mha-h100@", [], marks=pytest.mark.long),
        pytest.param("avo run --target h", ["h100", "h200", "h20"], marks=pytest.mark.long),
        pytest.param("avo tune bench.py --target ", ["a100"], marks=pytest.mark.long),
        pytest.param("avo run --operator m", ["mutate"], marks=pytest.mark.long),
        pytest.param("avo evaluate kernel.py --problem ", ["decode", "fsa", "fsa_backward"], marks=pytest.mark.long),
        pytest.param("avo evaluate kernel.py --suite ", ["quick", "paper", "held_out"], marks=pytest.mark.long),
    ],
)
def test_names_are_completed(sample_db: str, line: str, found: list[str]) -> None:
    assert completed(sample_db, line)[: len(found)] == found


@pytest.mark.long
def test_a_search_is_not_offered_the_suite_that_it_must_not_see(sample_db: str) -> None:
    assert completed(sample_db, "avo run --suite ") == ["quick", "paper"]


@pytest.mark.long
def test_without_a_database_nothing_is_completed(tmp_path: Path) -> None:
    assert completed(str(tmp_path / "none.db"), "avo show ") == []


def test_the_help_has_every_command_once_with_its_whole_first_sentence() -> None:
    said = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "100"}).stdout
    _, _, listed = said.partition("Run a search:")
    names = [function.__name__ for functions in GROUPS.values() for function in functions]
    assert sorted(re.findall(r"^  (\w+)", listed, re.MULTILINE)) == sorted([*names, "kb"])
    assert "..." not in listed


def test_bash_completes_a_version_as_one_word_with_its_run() -> None:
    script = get_completion_script(prog_name="avo", complete_var="_AVO_COMPLETE", shell="bash")
    told = subprocess.run(["bash", "-c", f"{script}\nshopt hostcomplete"], capture_output=True, text=True, check=False)
    assert (told.stdout.split(), told.stderr) == (["hostcomplete", "off"], ""), "it makes @ the beginning of a word"
