"""A run that is killed wherever it writes loses nothing, on either kind of database."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.postgresql import Cluster


def crash(url: str, workers: int, stride: int, folder: Path) -> int:
    """Kill runs at every ``stride``-th point; return how many points there are."""
    script = Path(__file__).parents[1] / "crashes.py"
    done = subprocess.run(
        [sys.executable, str(script), url, str(workers), str(stride), str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return int(done.stdout.split()[-1])


@pytest.mark.parametrize("stride", [pytest.param(1, marks=pytest.mark.long), 29])
def test_a_run_killed_at_any_write_goes_on_as_if_it_had_not_been(tmp_path: Path, stride: int) -> None:
    assert crash(str(tmp_path / "lineage.db"), 1, stride, tmp_path) > 30


@pytest.mark.postgresql
def test_a_run_on_a_server_killed_where_it_writes_loses_nothing(cluster: Cluster, tmp_path: Path) -> None:
    with cluster.database() as url:
        assert crash(url, 2, 5, tmp_path) > 30
