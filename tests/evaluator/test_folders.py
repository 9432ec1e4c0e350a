"""The processes that the evaluator starts run this code, and leave other names to others."""

import os
import subprocess
from pathlib import Path

from avo.evaluator.folders import ROOT, command


def test_a_module_of_this_code_finds_others_packages_of_any_name_but_avo(tmp_path: Path) -> None:
    for name in ("agents", "avo", "evaluator"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
    (tmp_path / "probe.py").write_text(
        "import sys, agents, avo.evaluator, evaluator\n"
        "print(__name__, *sys.argv[1:], *(module.__file__ for module in (agents, avo, avo.evaluator, evaluator)))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    arguments = [*command("probe"), "--target", "h100"]
    done = subprocess.run(arguments, cwd=ROOT, env=environment, capture_output=True, text=True)
    places = (tmp_path / "agents", ROOT / "avo", ROOT / "avo" / "evaluator", tmp_path / "evaluator")
    files = [str(place / "__init__.py") for place in places]
    assert done.stdout.split() == ["__main__", "--target", "h100", *files], done.stderr
