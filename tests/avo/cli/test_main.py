"""The command as a whole: start-up, version, errors."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import Result

from avo.cli.main import app
from avo.config import RunConfig
from avo.evaluator import problems
from avo.evaluator.errors import EvaluatorUnavailable
from avo.evaluator.target import CARDS

COMMANDS = [command.name or command.callback.__name__ for command in app.registered_commands if command.callback]
COMMANDS += [str(group.name) for group in app.registered_groups]
HEAVY = [
    "torch", "triton", "ray", "sqlalchemy", "alembic", "textual", "libcst", "pydantic", "jinja2", "numpy", "openai",
]  # fmt: skip


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom typer.testing import CliRunner\nfrom avo.cli.main import app\n"
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0\n"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_help_names_every_command(avo: Callable[..., Result]) -> None:
    text = avo("--help").stdout
    assert [name for name in COMMANDS if f"\n  {name} " not in text] == []


def test_help_says_whole_sentences_of_commands(avo: Callable[..., Result]) -> None:
    lists = [avo(*arguments, "--help").stdout.partition("Options:")[2] for arguments in ([], ["kb"])]
    assert all(lists)
    assert not [text for text in lists if "...\n" in text]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_has_an_example(avo: Callable[..., Result], command: str) -> None:
    result = avo(command, "--help")
    assert result.exit_code == 0
    assert f"avo {command}" in result.stdout.split("Usage:", 1)[1].split("\n", 1)[1]


def test_target_is_called_a_card_by_every_command() -> None:
    def helps(command: Any) -> Iterator[str]:
        yield from (str(each.help) for each in command.params if "--target" in each.opts)
        for inner in getattr(command, "commands", {}).values():
            yield from helps(inner)

    found = [*helps(typer.main.get_command(app)), RunConfig.model_fields["target"].description or ""]
    assert len(found) == 4
    assert [text for text in found if not text.startswith("Card")] == []


def test_version_is_printed(avo: Callable[..., Result]) -> None:
    assert avo("--version").stdout.startswith("avo 0.")


PROBLEMS = ", ".join((*problems.PROBLEMS, "a setting like mha-d64-fp16", "a file PATH.py"))


@pytest.mark.parametrize("command", ["run", "evaluate"])
def test_the_help_of_problem_names_every_problem_and_a_setting(avo: Callable[..., Result], command: str) -> None:
    words = re.split(r"[^\w]+", avo(command, "--help").stdout)
    assert [name for name in (*problems.PROBLEMS, "d64") if name not in words] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lineage", "nope"], "avo: no run 'nope': choose one of mha-h100-2, mha-h100\n"),
        (["show", "mha-h100@77"], "avo: no version 77: choose one from 0 to 3\n"),
        (["runs", "--db", "/no/such.db"], "avo: no database at /no/such.db: start one with avo run\n"),
        (["evaluate", __file__, "--target", "tpu"], f"avo: unknown target 'tpu': choose one of {CARDS}, cuda\n"),
        (["evaluate", __file__, "--problem", "fft"], f"avo: unknown problem 'fft': choose one of {PROBLEMS}\n"),
        (
            ["evaluate", __file__, "--problem", "fsa-w1024"],
            "avo: problem 'fsa-w1024': fsa has no window: in sparse attention that is a separate branch with its "
            "own keys, see gqa-w1024\n",
        ),
        (["evaluate", __file__, "--suite", "slow"], "avo: unknown suite 'slow': choose one of quick, paper\n"),
        *(
            (
                [command, "mha-h100@1"],
                "avo: 'mha-h100@1' names a version, and this command is about a whole run: "
                "write mha-h100 without @VERSION\n",
            )
            for command in ("lineage", "attempts", "resume", "ui")
        ),
        *(
            (["evaluate", __file__, "--wall", wall], f"avo: --wall: {wall} should be 1 second or more\n")
            for wall in ("0", "-1", "nan", "inf")
        ),
        (["resume", "mha-h100", "--max-hours", "-1"], "avo: --max-hours: -1.0 should be greater than 0\n"),
        (["evaluate", "missing.py"], "avo: cannot read missing.py: No such file or directory\n"),
        *(
            (
                ["show", bad],
                f"avo: {bad!r} names neither a version nor an attempt: write RUN, RUN@VERSION or RUN#ATTEMPT, "
                "e.g. mha-h100@3 or mha-h100#38\n",
            )
            for bad in (
                "mha-h100@",
                "@3",
                "a@b@3",
                "mha-h100@-1",
                "mha-h100@best",
                "mha-h100@vv3",
                "a b",
                "a#",
                "a@1#2",
            )
        ),
        (["diff", "mha-h100", "mha-h100#99"], "avo: the run has no attempt 99: avo attempts lists those it has\n"),
        (
            ["lineage", "mha-h100#3"],
            "avo: 'mha-h100#3' names an attempt, and this command is about a whole run: "
            "write mha-h100 without #ATTEMPT\n",
        ),
        (["run", "--from", "mha-h100#3"], "avo: --from: attempt 3 of mha-h100 is no start: does not fit\n"),
    ],
)
def test_a_wrong_call_is_one_line_and_exit_code_2(
    avo: Callable[..., Result], arguments: list[str], message: str
) -> None:
    result = avo(*arguments)
    assert (result.exit_code, result.stderr, result.stdout) == (2, message, "")


@pytest.mark.parametrize("command", [["evaluate", __file__], ["profile", __file__], ["run"]])
def test_measuring_without_a_gpu_is_a_wrong_call(
    avo: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    def this_card() -> None:
        raise EvaluatorUnavailable("torch finds no GPU")

    monkeypatch.setattr("avo.evaluator.cuda.this_card", this_card)
    result = avo(*command, "--target", "cuda")
    assert (result.exit_code, result.stderr, result.stdout) == (2, "avo: torch finds no GPU\n", "")


@pytest.mark.parametrize(
    "arguments", [["runs", "--nonsense"], ["nonsense"], ["show"], ["attempts", "x", "--status", "y"]]
)
def test_a_bad_flag_is_exit_code_2_without_traceback(avo: Callable[..., Result], arguments: list[str]) -> None:
    result = avo(*arguments)
    assert result.exit_code == 2
    assert "Traceback" not in result.output


def test_python_m_avo_is_avo_and_db_comes_from_the_environment(sample_db: str) -> None:
    command = [sys.executable, "-m", "avo", "runs", "--json"]
    env = os.environ | {"AVO_DB": sample_db}
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=True)
    assert [record["name"] for record in json.loads(done.stdout)] == ["mha-h100-2", "mha-h100"]
    assert done.stderr == ""


def test_the_database_is_below_the_current_folder_by_default(
    avo: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AVO_DB")
    assert f"avo: no database at {tmp_path}/.avo/lineage.db" in avo("runs").stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
@pytest.mark.parametrize("command", [["attempts", "mha-h100"], ["show", "mha-h100", "--source"], ["runs", "--json"]])
def test_a_reader_that_goes_away_is_no_error(sample_db: str, command: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "avo", *command, "--db", sample_db], stdout=writing, stderr=subprocess.PIPE, text=True
    )
    os.close(writing)
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("run --nope", "avo: No such option: --nope"),
        ("--nope", "avo: No such option: --nope"),
        ("nosuch", "avo: No such command 'nosuch'"),
        ("runs --db", "avo: Option '--db' requires an argument"),
        ("status", "avo: Missing argument 'RUN'"),
        ("run --max-hours x", "avo: Invalid value for '--max-hours'"),
        ("report some --format pdf", "avo: Invalid value for '--format': 'pdf' is not one of 'html', 'md'"),
    ],
)
def test_a_wrong_call_is_one_line(avo: Callable[..., Result], call: str, message: str) -> None:
    result = avo(*call.split())
    assert result.exit_code == 2
    assert re.fullmatch(f"{message}.*: see avo.* --help\n", result.stderr)
