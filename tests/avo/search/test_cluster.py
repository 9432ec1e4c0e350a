"""A run on a cluster: operators and evaluators on two nodes, of which one is killed."""

import subprocess
import sys
from pathlib import Path

import pytest

from avo.lineage_db.records import StepState
from avo.lineage_db.store import Store
from tests.postgresql import Cluster

pytestmark = pytest.mark.long


@pytest.mark.postgresql
def test_a_run_on_two_nodes_outlives_one_of_them(cluster: Cluster, tmp_path: Path) -> None:
    script = Path(__file__).parents[1] / "nodes.py"
    with cluster.database() as url:
        done = subprocess.run(
            [sys.executable, str(script), url, str(tmp_path / "lineage.db")],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        with Store.open(url, create=False) as store:
            run = store.run("fake")
            attempts, steps = store.attempt_summaries(run.id), store.steps(run.id)
    refusal = next(line for line in done.stdout.splitlines() if line.startswith("refused"))
    assert "an SQLite file serves one machine" in refusal
    assert "has 2 nodes: use PostgreSQL" in refusal
    *_, state, judged_on = done.stdout.splitlines()
    assert (state, judged_on) == ("finished", "2 1")
    assert len(attempts) == len({attempt.digest for attempt in attempts}) == 10
    assert {step.state for step in steps} <= {StepState.DONE, StepState.ABANDONED}
    assert all(step.reason for step in steps)
