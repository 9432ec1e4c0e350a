"""``avo shortlist``: a folder of kernels to time, here or on another machine."""

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

Avo = Callable[..., Result]


def test_the_folder_is_written_and_its_kernels_are_told(avo: Avo, tmp_path: Path) -> None:
    result = avo("shortlist", "mha-h100", "--count", "3")
    assert result.exit_code == 0, result.output
    assert [line.split()[0] for line in result.stdout.splitlines()] == ["v0", "v3"]
    assert "the run began with it" in result.stdout
    assert "python shortlist-mha-h100/measure.py takes five minutes" in result.stderr
    assert {path.name for path in (tmp_path / "shortlist-mha-h100/kernels").iterdir()} == {"v0.py", "v3.py"}


def test_as_json_it_says_why_each_is_there(avo: Avo) -> None:
    data = json.loads(avo("shortlist", "mha-h100", "--count", "2", "--out", "here", "--json").stdout)
    assert data["folder"] == "here"
    assert data["kernels"][1] == {"name": "v3", "attempt": 8, "why": "the best version"}


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("none",), "run 'none'"),
        (("mha-h100", "--count", "1"), "--count"),
        (("mha-h100@3",), "this command is about a whole run"),
        (("mha-h100", "--out", "full"), "full is not empty"),
    ],
)
def test_a_wrong_call_is_one_line_and_writes_nothing(avo: Avo, arguments: tuple[str, ...], why: str) -> None:
    Path("full").mkdir()
    Path("full/file").write_text("")
    result = avo("shortlist", *arguments)
    assert result.exit_code == 2
    assert why in result.stderr
    assert result.stderr.count("\n") == 1
    assert [path.name for path in Path().iterdir()] == ["full"]


SSH = """#!/bin/sh
echo "$@" >> {log}
while [ "$1" != -- ]; do shift; done
[ "$2" = gone ] && exit 255
cd {home} && exec sh -c "$3"
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home folder of the machine that ``ssh`` reaches."""
    place = tmp_path / "home"
    (tmp_path / "bin").mkdir()
    place.mkdir()
    ssh = tmp_path / "bin/ssh"
    ssh.write_text(SSH.format(log=tmp_path / "log", home=place))
    ssh.chmod(ssh.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    return place


def test_a_host_that_cannot_be_reached_is_one_line_and_the_folder_stays(avo: Avo, home: Path) -> None:
    result = avo("shortlist", "mha-h100", "--count", "2", "--on", "gone")
    assert result.exit_code == 2
    assert "avo: --on gone: the folder cannot be copied there: ssh and tar ended with exit code 255" in result.stderr
    assert Path("shortlist-mha-h100/measure.py").exists()


def test_a_host_without_a_card_says_so(avo: Avo, home: Path) -> None:
    result = avo("shortlist", "mha-h100", "--count", "2", "--on", "box", "--python", "false")
    assert result.exit_code == 2
    assert "nothing was measured: measure.py ended with exit code 1" in result.stderr
    assert (home / "avo-shortlist/shortlist-mha-h100/kernels/v0.py").exists()
