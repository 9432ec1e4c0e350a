"""docs/executor.md says what is: its script prints what it says, and its tests pass."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from triton.experimental.gluon.language.nvidia.hopper import mbarrier

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "executor.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def run(folder: Path, *command: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    outcome = subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True, timeout=600
    )
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    return outcome.stdout


@pytest.mark.long
@pytest.mark.parametrize(("name", "place"), [("softmax.py", 0), ("early.py", 2)])
def test_a_script_prints_what_the_page_says(tmp_path: Path, name: str, place: int) -> None:
    if name == "early.py" and not hasattr(mbarrier, "allocate_mbarrier"):
        pytest.skip("this version of Triton has other names in Gluon")
    (tmp_path / name).write_text(blocks("python")[place])
    assert run(tmp_path, name) == blocks("text")[place // 2]


@pytest.mark.long
def test_the_tests_on_the_page_pass(tmp_path: Path) -> None:
    _, tests, _ = blocks("python")
    (tmp_path / "test_scale.py").write_text(tests)
    plugin = ("-p", "avo.evaluator.pytest_plugin")
    output = run(tmp_path, "-m", "pytest", "-q", "-p", "no:cacheprovider", *plugin)
    assert "2 passed" in output
    assert "1 launch of 1 kernel; tests with faults: 0" in output


def test_every_option_is_on_the_page() -> None:
    from inspect import signature

    from avo.evaluator.offline import offline

    assert [name for name in signature(offline).parameters if f"`{name}`" not in PAGE] == []
