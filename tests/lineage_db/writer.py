"""A process of its own that writes to a lineage database: ``writer.py URL MODE``; prints what it did as JSON."""

import json
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime

from avo.evaluator.candidate import Candidate
from avo.evaluator.evaluation import Evaluation, Status
from avo.lineage_db.decision import Decision, Ruling
from avo.lineage_db.records import Attempt, Version
from avo.lineage_db.store import Store

NOW = datetime(2030, 1, 1, tzinfo=UTC)
FAULT = Evaluation(Status.INCORRECT, "wrong", "h100", "paper", 1.0)


def die(versions: Sequence[Version], attempt: Attempt) -> Decision | None:
    """Die as a killed process does, in the middle of a transaction."""
    os._exit(9)


def no_more_than_five(versions: Sequence[Version], attempt: Attempt) -> Decision | None:
    """Accept while the lineage is short, even what is faulty."""
    return Decision(Ruling.ACCEPTED, "there is room") if len(versions) < 5 else None


def main(url: str, mode: str) -> None:
    """Record attempts in the run ``shared``: 50 in 10 steps, or one and die on its conclusion."""
    print(os.getpid(), flush=True)
    sys.stdin.readline()  # all writers are let go together
    written: list[tuple[int, int]] = []
    accepted: list[int] = []
    with Store.open(url) as store:
        run = store.run("shared")
        for _ in range(10):
            step = store.claims.claim(run.id, worker=str(os.getpid()), operator="o", now=NOW)
            for number in range(5):
                source = f"x = {os.getpid()}, {step.number}, {number}\n"
                attempt = store.results.record_attempt(
                    step_id=step.id,
                    candidate=Candidate("mha", source),
                    change="",
                    parents=(),
                    evaluation=FAULT,
                    started=NOW,
                    finished=NOW,
                )
                written.append((step.number, attempt.id))
            version = store.results.conclude(
                step.id,
                attempt_id=attempt.id,
                parents=(),
                reason="",
                now=NOW,
                decide=die if mode == "die" else no_more_than_five,
            )
            if version:
                accepted.append(version.number)
    print(json.dumps({"written": written, "accepted": accepted}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
