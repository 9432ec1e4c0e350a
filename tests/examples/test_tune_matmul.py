"""The example of ``avo tune`` is ranked, from its script to what is to be pasted."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from avo.cli.main import app

pytestmark = pytest.mark.long


def test_its_configurations_are_ranked(examples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    tuned = tmp_path / "tuned.json"
    result = CliRunner().invoke(app, ["tune", str(examples / "tune_matmul.py"), "--jobs", "1", "--json", str(tuned)])
    assert result.exit_code == 0, result.output
    small, large = json.loads(tuned.read_text())["rankings"]
    assert (small["key"], large["key"]["m"]) == ({"m": "512", "n": "4096", "k": "4096"}, "8192")
    for found in (small, large):
        times = [each["us"] for each in found["configurations"]]
        assert times == sorted(times)
        assert len(times) == 5
        (misfit,) = found["not_possible"]
        assert "bytes of shared memory per CTA, h100 has 232448" in misfit["reason"]
    best = large["configurations"][0]
    assert best["kwargs"]["BLOCK_M"] == 128  # as CUTLASS takes for such a product
    assert large["configurations"][-1]["kwargs"]["BLOCK_M"] == 64
    assert best["us"] > 2 * 8192**3 / 989e12 * 1e6  # no faster than an H100's peak
    assert "configs of matmul_kernel (tune_matmul.py:" in result.stdout
