"""What a run has written, on every kind of database."""

import json
from datetime import timedelta
from typing import Any

from avo.lineage_db.store import Store


def test_what_a_run_has_written_is_counted_in_bytes(store: Store, make: Any) -> None:
    run = make.run(store)
    step = make.step(store, run)
    before = store.upkeep.written(run.id, make.now)
    content, source = {"content": "é🙂\0"}, "# é🙂\nx = 1\n"
    store.journal.add_message(step.id, "message", content, now=make.now)
    assert store.upkeep.written(run.id, make.now) - before == len(json.dumps(content).encode())
    first = store.upkeep.written(run.id, make.now)
    evaluation = make.evaluation(message="é")
    for each in (source, source.replace("é🙂", "")):
        make.attempt(store, step, source=each, evaluation=evaluation)
    both = store.upkeep.written(run.id, make.now) - first
    kept = len(json.dumps(evaluation.to_json()).encode())
    assert both == 2 * kept + 2 * len(source.encode()) - len("é🙂".encode())
    assert store.upkeep.written(run.id, make.now + timedelta(days=1)) == 0
