"""``avo export``."""

import json
from collections.abc import Callable
from pathlib import Path

from typer.testing import Result

Avo = Callable[..., Result]


def test_export_names_the_files_it_wrote(avo: Avo, tmp_path: Path) -> None:
    result = avo("export", "mha-h100@1", "--out", "kernel")
    assert result.exit_code == 0
    assert {Path(line) for line in result.stdout.splitlines()} == {
        path.relative_to(tmp_path) for path in Path(tmp_path, "kernel").rglob("*") if path.is_file()
    }
    assert "mha-h100@1 is in kernel" in result.stderr


def test_export_of_a_run_is_its_best_version(avo: Avo) -> None:
    record = json.loads(avo("export", "mha-h100", "--out", "kernel", "--json").stdout)
    assert (record["run"], record["version"]) == ("mha-h100", 3)


def test_export_twice_into_one_folder_needs_force(avo: Avo) -> None:
    assert avo("export", "mha-h100", "--out", "kernel").exit_code == 0
    refused = avo("export", "mha-h100", "--out", "kernel")
    assert refused.exit_code == 2
    assert refused.stderr == "avo: kernel is not empty: choose another folder, or add --force to write into it\n"
    assert avo("export", "mha-h100", "--out", "kernel", "--force").exit_code == 0
