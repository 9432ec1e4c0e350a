"""docs/first-kernel.md, followed from the search to the model: each command and program, in the order of the page.

Attention is searched for shapes that are judged in seconds, from one seed; everything else is as the page has it.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.claims import made
from bench.known import TRITON
from tests.agents.endpoint import Endpoint, Line

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[2]
SMALL = ROOT / "tests" / "avo" / "export" / "small_problem.py"
SEED = ROOT / "seeds" / "mha" / "plain.py"
PAGE = (
    (ROOT / "docs" / "first-kernel.md").read_text().replace("mha --seed-kernel plain", f"{SMALL} --seed-kernel {SEED}")
)
BETTER = made(TRITON["mha", "h100"], "h100")
"""A kernel that a good model might write."""


def blocks(heading: str) -> list[tuple[str, str]]:
    """Return the blocks of code below a heading, each with its language."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return re.findall(r"^```(\w+)\n(.*?)^```", section, re.MULTILINE | re.DOTALL)


class Shell:
    """Runs what a reader would, in one folder; pip installs into another one in it, from what is here."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self._folder = folder
        own = {name: value for name, value in os.environ.items() if not name.startswith(("AVO_", "OPENAI_"))}
        self._environment = {
            **own,
            "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])),
            "PYTHONPATH": f"{folder / 'site'}:{ROOT}",
            "HF_HUB_OFFLINE": "1",
            "PIP_TARGET": str(folder / "site"),
            "PIP_NO_INDEX": "1",
            "PIP_NO_DEPS": "1",
            "PIP_NO_BUILD_ISOLATION": "0",  # which pip takes for: none
            **environment,
        }

    def follow(self, heading: str) -> str:
        """Do everything below a heading and return what was printed."""
        return "".join(self.run(language, text) for language, text in blocks(heading))

    def run(self, language: str, text: str) -> str:
        program = (
            ["bash", "-euc", text] if language == "sh" else [sys.executable, "-W", "error::SyntaxWarning", "-c", text]
        )
        done = subprocess.run(
            program, cwd=self._folder, env=self._environment, capture_output=True, text=True, check=False, timeout=3000
        )
        assert done.returncode == 0, (text, done.stdout[-3000:], done.stderr[-3000:])
        return done.stdout


def use(shell: Shell) -> None:
    """Follow the page after the search."""
    assert "predicted" in shell.follow("Look")
    assert re.search(r"\d passed", shell.follow("Take it home"))
    assert "the same as torch" in shell.follow("Use it in torch")
    assert "torch.Size([1, 68])" in shell.follow("Use it in a model of transformers")


def test_the_page_leads_from_moves_to_a_model(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    assert "Best: version" in shell.run(*blocks("Search")[0])
    use(shell)


def test_the_page_leads_from_a_models_kernel_to_a_model(tmp_path: Path) -> None:
    why = {"hypothesis": "it overlaps more", "change": "roles for the warps", "expected": "a third more"}

    def answer(request: dict[str, Any]) -> Line:
        results = [str(message["content"]) for message in request["messages"] if message["role"] == "tool"]
        tried = re.findall(r"attempt (\d+)\b.*?: correct", "\n".join(results))
        if len(request["messages"]) < 4 and not tried:
            return {"calls": [["write_source", {"source": BETTER}], ["evaluate", why]]}
        chosen = int(tried[-1]) if tried else None
        return {"calls": [["submit", {"attempt": chosen, "change": "roles for the warps", "seen": "as expected"}]]}

    with Endpoint([answer]) as endpoint:
        shell = Shell(tmp_path, OPENAI_BASE_URL=endpoint.url)
        said = shell.run(*blocks("Search")[1])
        assert "Best: version" in said
    lineage = json.loads(shell.run("sh", "avo lineage first --json"))
    assert "roles for the warps" in json.dumps(lineage)
    use(shell)
