"""Every command is in the README and every setting on some page, and what pages call can be called: nothing is gone."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.exceptions import TyperException
from typer.testing import CliRunner

from avo.agents.settings import ModelSettings
from avo.cli.main import app
from avo.config import RunConfig
from avo.lineage_db.store import Store
from tests.avo.fakes import make_run
from tests.avo.sample_run import make_sample_run
from tests.docs.test_references import PAGES

ROOT = Path(__file__).parents[2]
AVO = typer.main.get_command(app)
COMMANDS: dict[str, Any] = getattr(AVO, "commands", {})
SIGNS = ";&|<>"
QUICK = (
    "attempts", "compare", "diff", "git", "lineage", "log", "memory", "report", "runs", "service", "show",
    "status",
)  # fmt: skip
"""Commands that read a run and take a moment."""


def test_every_command_is_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    assert [name for name in COMMANDS if f"`avo {name}" not in readme] == []


def test_every_setting_is_on_a_page() -> None:
    pages = "\n".join(page.read_text() for page in (ROOT / "README.md", *ROOT.glob("docs/*.md")))

    def named(setting: str) -> bool:
        option = setting.replace("_", "-")
        return bool(re.search(rf"--{option}\b|`{setting}`|\b{setting} = |\[\[{setting}\]\]", pages))

    assert [setting for setting in (*RunConfig.model_fields, *ModelSettings.model_fields) if not named(setting)] == []


def calls(page: Path) -> tuple[list[list[str]], list[list[str]]]:
    """Return the arguments of each call of ``avo`` in a page's blocks of code, and of those in its sentences.

    1 is put in place of words such as RUN.
    """
    text = re.sub(r"\\\n\s*", "", page.read_text())
    fenced = "\n".join(re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    blocks = re.findall(r"^ {4}(.*\bavo .*)$", text, re.MULTILINE) + re.findall(r"^.*\bavo .*$", fenced, re.MULTILINE)
    return [each for line in blocks for each in _calls(line)], [
        each for span in re.findall(r"`(avo [^`]+)`", text) for each in _calls(span)
    ]


def _calls(line: str) -> Iterator[list[str]]:
    line = re.sub(r"(?:^|\s)#.*|\[(?=--)|(?<=\w)\](?=\s|$)|\.\.\.", "", line.replace("\\|", "/"))
    lexer = shlex.shlex(line, posix=True, punctuation_chars=SIGNS)
    lexer.whitespace_split, lexer.commenters = True, ""
    words = list(lexer)
    for place, word in enumerate(words[:-1]):
        if word == "avo" and words[place + 1] in COMMANDS:
            rest = words[place + 1 :]
            end = next((number for number, each in enumerate(rest) if set(each) <= set(SIGNS)), len(rest))
            yield ["1" if re.fullmatch("[A-Z]+", each) else each for each in rest[:end]]


def read(arguments: list[str]) -> None:
    """Read the arguments as ``avo`` does; raise what it would."""
    command, context = AVO, AVO.make_context("avo", list(arguments))
    while names := getattr(command, "commands", {}):
        name, *arguments = arguments
        command = names[name]
        context = command.make_context(name, list(arguments), parent=context)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_calls_of_a_page_are_ones_that_avo_takes(page: Path) -> None:
    blocks, sentences = calls(page)
    for arguments in blocks:
        read(arguments)
    for arguments in sentences:
        try:
            read(arguments)
        except TyperException as error:
            if type(error).__name__ != "MissingParameter":  # a sentence may leave out the run
                raise


def test_the_quick_calls_in_the_code_of_pages_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    db = str(tmp_path / "sample.db")
    make_sample_run(db)
    make_sample_run(db)
    with Store.open(db) as store:
        for name in ("week", "first"):
            make_run(store, name=name)
    monkeypatch.setenv("AVO_DB", db)
    monkeypatch.chdir(tmp_path)
    made = {tuple(arguments) for page in PAGES for arguments in calls(page)[0] if arguments[0] in QUICK}
    assert len({name for name, *_ in made}) > 4
    for arguments in sorted(made):
        runs = iter(("mha-h100", "mha-h100-2"))
        done = CliRunner().invoke(
            app, [re.sub("^1(?=$|@)", lambda _, runs=runs: next(runs), each) for each in arguments]
        )
        assert done.exit_code == 0, (arguments, done.output)


def test_calls_are_found_and_those_that_avo_does_not_take_are_refused(tmp_path: Path) -> None:
    (page := tmp_path / "page.md").write_text(
        "Say `avo show RUN#38` or\n\n    $ A=1 avo status mha-h100 --json  # a comment\n"
        "    x -- avo log RUN \\\n        --follow > file\n\n```sh\navo kb list | wc -l\n```\n"
    )
    blocks, sentences = calls(page)
    assert blocks == [["status", "mha-h100", "--json"], ["log", "1", "--follow"], ["kb", "list"]]
    assert sentences == [["show", "RUN#38"]]
    for wrong in (["status", "x", "--jsno"], ["run", "--workers", "many"], ["kb", "shwo", "x"]):
        with pytest.raises((TyperException, KeyError)):
            read(wrong)
