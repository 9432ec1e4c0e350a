"""Who imports a package of ours by the name that it had hears the new one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from avo.evaluator.renamed import with_new_name


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (("-c", "from evaluator.problem import Case"), "evaluator"),
        (("-c", "from agents import Brief"), "agents"),
        (("-c", "import agents.operator"), "agents.operator"),
        (("-c", "import agents; agents.operator"), "agents"),
        (("-m", "evaluator"), "evaluator"),
    ],
)
def test_an_old_name_that_python_does_not_find_is_told_with_the_new_one(
    arguments: tuple[str, str], name: str, tmp_path: Path
) -> None:
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "__init__.py").touch()  # as another distribution installs it
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    said = done.stderr.splitlines()[-1]
    assert with_new_name(said) == f"{said}: write avo.{name} if AVO's is meant"


@pytest.mark.parametrize(
    "message", ["No module named 'agents_of_mine'", "No module named avo.evaluator", "No module named 'my.agents'"]
)
def test_other_messages_stay_as_they_are(message: str) -> None:
    assert with_new_name(message) == message
