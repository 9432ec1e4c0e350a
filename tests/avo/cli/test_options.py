"""Options that are made from the settings of a run."""

import subprocess
import sys

import pytest

from avo.config import RunConfig
from avo.flags import Flag, flag_of
from tests.avo.cli.conftest import Avo

FLAGS = {setting: flag for setting, field in RunConfig.model_fields.items() if (flag := flag_of(field)) is not None}


@pytest.mark.parametrize("command", ["run", "resume", "mcp", "evaluate", "export"])
def test_a_command_has_the_options_of_the_settings_that_name_it(avo: Avo, command: str) -> None:
    text = avo(command, "--help").stdout

    def shown(setting: str, flag: Flag) -> bool:
        return f"\n  --{(flag.name or setting).replace('_', '-')} " in text

    made = {setting for setting, flag in FLAGS.items() if command in flag.commands}
    listed = {setting for setting, flag in FLAGS.items() if shown(setting, flag)}
    assert made <= listed
    assert command not in ("run", "resume") or made == listed  # the others have some options of the same names
    for heading in {flag.group for flag in FLAGS.values() if command in flag.commands}:
        assert f"\n{heading}:\n" in text


def test_the_help_has_the_default_of_a_new_run_and_none_for_a_stored_one(avo: Avo) -> None:
    run, resume = (" ".join(avo(command, "--help").stdout.split()) for command in ("run", "resume"))
    words = "New candidates that an operator with models may evaluate in one step."
    assert f"--step-evaluations N {words} Default: 12." in run
    assert "Default: one per CPU, at most 8." in run
    assert f"--step-evaluations N {words} --step-looks N" in resume


def test_every_option_has_help() -> None:
    assert [setting for setting in FLAGS if not RunConfig.model_fields[setting].description] == []


@pytest.mark.long
def test_the_help_of_a_run_imports_nothing_heavy_but_pydantic() -> None:
    code = (
        "import sys\nfrom typer.testing import CliRunner\nfrom avo.cli.main import app\n"
        "assert CliRunner().invoke(app, ['run', '--help']).exit_code == 0\n"
        "print([name for name in ('torch', 'triton', 'ray', 'sqlalchemy', 'libcst', 'numpy') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
