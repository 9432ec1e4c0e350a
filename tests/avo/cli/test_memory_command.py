"""``avo memory``: what a run has learnt, most useful first."""

import json
from pathlib import Path

from avo.evaluator.candidate import Candidate
from avo.lineage_db.directions import from_file
from avo.lineage_db.store import Store
from tests.avo.cli.conftest import Avo
from tests.avo.fakes import NOW, correct, make_run


def test_notes_and_outcomes_are_shown_and_as_json(avo: Avo, tmp_path: Path) -> None:
    db = str(tmp_path / "m.db")
    with Store.open(db) as store:
        run = make_run(store)
        step = store.claims.claim(run.id, worker="w0", operator="agent", now=NOW)
        store.journal.remember(step.id, "tiles of 64 spill", now=NOW)
        store.journal.remember(step.id, "tiles of 32 next", now=NOW, handover=True)
        candidate = Candidate("mha", "tflops = 1.0")
        store.results.record_attempt(
            step_id=step.id, candidate=candidate, change="a", parents=(), evaluation=correct(90.0), started=NOW,
            finished=NOW, hypothesis="smaller is faster",
        )  # fmt: skip
    shown = avo("memory", "fake", "--db", db)
    assert (shown.exit_code, shown.stdout.splitlines()) == (
        0,
        [
            "step 0, note: tiles of 64 spill",
            "step 0: attempt 1: 90.0 predicted TFLOPS. Changed: a. Hypothesis: smaller is faster.",
            "",
            "handed over by step 0, which made no version:",
            "tiles of 32 next",
        ],
    )
    told = json.loads(avo("memory", "fake", "--db", db, "--json").stdout)
    assert told["notes"] == [{"step": 0, "text": "tiles of 64 spill"}]
    assert told["handovers"] == [{"step": 0, "version": None, "text": "tiles of 32 next"}]
    assert {key: told[key] for key in ("format", "run", "problem", "target")} == {
        "format": "avo memory 1", "run": "fake", "problem": "mha", "target": "h100",
    }  # fmt: skip
    assert told["directions"] == [
        {
            "name": "a",
            "hypothesis": "smaller is faster",
            "evidence": [
                {
                    "step": 0, "kind": "predicted", "gain": None, "resolution": None, "resolved": False, "base": "",
                    "attempts": [1], "said": "", "digest": candidate.digest, "run": "fake", "problem": "mha",
                    "target": "h100",
                }
            ],
            "run": "fake",
        }
    ]  # fmt: skip
    (found,) = from_file(json.dumps(told))
    assert found.evidence[0].attempts == (1,)
    assert avo("memory", "fake", "--db", db, "--search", "spilling").stdout == "step 0, note: tiles of 64 spill\n"
    assert "nothing found" in avo("memory", "fake", "--db", db, "--search", "zyzzyva").stdout
    told = json.loads(avo("memory", "fake", "--db", db, "--search", "tiles", "--json").stdout)
    assert [len(told[key]) for key in ("directions", "notes", "handovers")] == [0, 1, 1]


def test_a_run_without_memory_says_so_and_an_unknown_one_is_refused(avo: Avo) -> None:
    assert "mha-h100 remembers nothing" in avo("memory", "mha-h100").stdout
    assert avo("memory", "nope").exit_code == 2
