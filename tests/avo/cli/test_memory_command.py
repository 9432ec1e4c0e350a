"""``avo memory``: what a run has learnt, most useful first."""

import json
from pathlib import Path

from evaluator.candidate import Candidate
from lineage_db.store import Store
from tests.avo.cli.conftest import Avo
from tests.avo.fakes import NOW, correct, make_run


def test_notes_and_outcomes_are_shown_and_as_json(avo: Avo, tmp_path: Path) -> None:
    db = str(tmp_path / "m.db")
    with Store.open(db) as store:
        run = make_run(store)
        step = store.claims.claim(run.id, worker="w0", operator="agent", now=NOW)
        store.journal.remember(step.id, "tiles of 64 spill", now=NOW)
        candidate = Candidate("mha", "tflops = 1.0")
        store.results.record_attempt(
            step_id=step.id, candidate=candidate, change="a", parents=(), evaluation=correct(90.0), started=NOW,
            finished=NOW, hypothesis="smaller is faster",
        )  # fmt: skip
    shown = avo("memory", "fake", "--db", db)
    assert (shown.exit_code, shown.stdout.splitlines()) == (
        0,
        ["step 0, note: tiles of 64 spill", "step 0: attempt 1: smaller is faster [a] -> 90.0"],
    )
    assert json.loads(avo("memory", "fake", "--db", db, "--limit", "1", "--json").stdout) == [
        {"step": 0, "attempt": None, "text": "tiles of 64 spill"}
    ]


def test_a_run_without_memory_says_so_and_an_unknown_one_is_refused(avo: Avo) -> None:
    assert "mha-h100 remembers nothing" in avo("memory", "mha-h100").stdout
    assert avo("memory", "nope").exit_code == 2
