"""Every command is in the README, and every setting on some page."""

import re
from pathlib import Path

from agents.settings import ModelSettings
from avo.cli.main import app
from avo.config import RunConfig

ROOT = Path(__file__).parents[2]


def test_every_command_is_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    names = [command.name or command.callback.__name__ for command in app.registered_commands if command.callback]
    names += [str(group.name) for group in app.registered_groups]
    assert [name for name in names if f"`avo {name}" not in readme] == []


def test_every_setting_is_on_a_page() -> None:
    pages = "\n".join(page.read_text() for page in (ROOT / "README.md", *ROOT.glob("docs/*.md")))

    def named(setting: str) -> bool:
        option = setting.replace("_", "-")
        return bool(re.search(rf"--{option}\b|`{setting}`|\b{setting} = |\[\[{setting}\]\]", pages))

    assert [setting for setting in (*RunConfig.model_fields, *ModelSettings.model_fields) if not named(setting)] == []
