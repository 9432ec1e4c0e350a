"""What a run did since some moment, in words and as data, and once a day to the command of ``--notify``."""

import json
import re
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from avo.agents.supervisor import Level
from avo.evaluator.evaluation import Status
from avo.lineage_db.ending import Cause, Ending
from avo.lineage_db.records import RunState
from avo.lineage_db.store import Store
from avo.watch.digest import Digest, read_digest
from avo.watch.events import EventKind
from avo.watch.feed import Feed
from avo.watch.notify import Notifier
from tests.avo.recorded import Recorded
from tests.avo.sample_run import make_evaluation
from tests.avo.watch.test_feed import Collected

MOMENT = timedelta(hours=8)


@pytest.fixture
def run(store: Store) -> Recorded:
    """Return a run that is worked on: what it did in its first day, and in the eight hours after that."""
    made = Recorded(store)
    made.step(80.0, change="seed")
    made.step(100.0, (0,))
    call(made, 7000, 7.0)
    made.wait(86400)
    return made


def call(run: Recorded, tokens: int, usd: float) -> None:
    run.store.journal.add_call(
        run.run.id, None, model="m", input_tokens=tokens, cached_tokens=0, output_tokens=0, usd=usd, seconds=1.0,
        error="", now=run.now,
    )  # fmt: skip


def work(run: Recorded) -> Digest:
    """Return the digest of eight hours in which a run gained 25 percent and then nothing."""
    run.wait(3600)
    run.step(125.0, (1,), seconds=1800)
    for _ in range(2):
        run.step(Status.INCORRECT, (2,), seconds=900)
    call(run, 5000, 2.5)
    run.store.journal.intervene(
        run.run.id, level=Level.REDIRECT, after_step=4, reason="no news", directions=("tma: copies",), source="rules",
        restart_from=None, now=run.now, seen=0,
    )  # fmt: skip
    run.wait(MOMENT.total_seconds() - 7200)
    run.drive()
    return read_digest(run.store, "live", run.now - MOMENT, run.now)


def test_a_digest_tells_what_was_tried_gained_and_spent_since_and_nothing_earlier(run: Recorded) -> None:
    found = work(run)
    data = found.to_json()
    assert data["verdicts"] == {"incorrect": 2, "correct": 1}
    assert (data["steps"], data["versions"]) == (3, 1)
    assert (data["before"], data["best"], data["gain"]) == pytest.approx((100.0, 125.0, 0.25))
    costs = {"attempts": 3, "hours": 1.0, "tokens": 5000, "usd": 2.5}
    assert {name: data["spent"][name] for name in costs} == pytest.approx(costs)
    assert data["per_percent"] == pytest.approx({name: each / 25 for name, each in costs.items()})
    assert data["plateau"]["version"] == 2
    assert (data["plateau"]["seconds"], data["plateau"]["attempts"]) == (6.5 * 3600, 2)
    assert [each["reason"] for each in data["supervisor"]] == ["no news"]
    assert data["next"] == ["the supervisor's direction: tma: copies"]
    json.dumps(data, allow_nan=False)
    rows = dict(found.rows())
    assert rows["tried"] == "3 attempts in 3 steps: 1 correct, 2 incorrect"
    assert rows["gained"] == "+25%, 100 to 125 predicted TFLOPS, h100, 1 version"
    assert rows["spent"] == "1h 00m of work, 5.0k tokens, 2.50 USD, 1 call"
    assert rows["each +1%"] == "0.12 attempts, 2m 24s of work, 200 tokens, 0.10 USD"
    assert rows["plateau"] == "since version 2, 6h 30m ago: 2 attempts"
    assert rows["supervisor"] == "redirect, 6h 00m ago: no news"


def test_a_gain_has_the_resolution_of_the_best_and_speeds_have_the_unit_of_the_run(run: Recorded) -> None:
    evaluation = make_evaluation(125.0)
    assert evaluation.score is not None
    score = replace(evaluation.score, neighbours=((124.0,), (126.0,)))
    run.wait(3600)
    run.step(replace(evaluation, score=score), (1,))
    found = read_digest(run.store, "live", run.now - timedelta(seconds=1800), run.now)
    gained = dict(found.rows())["gained"]
    assert re.match(r"\+2[45]% ±\d%, 100 to 12\d predicted TFLOPS, h100, 1 version$", gained), gained
    decode = replace(found, view=replace(found.view, run=replace(found.view.run, problem="decode")))
    gained = dict(decode.rows())["gained"]
    assert gained.count(" us, ") == 2
    assert "TFLOPS" not in gained


def test_only_what_of_a_step_lies_in_the_period_counts_as_work(run: Recorded) -> None:
    step = run.claim()
    run.drive()
    run.wait(3600)
    run.evaluate(step, Status.INCORRECT, (1,))
    found = read_digest(run.store, "live", run.now - timedelta(seconds=900), run.now)
    assert found.worked == timedelta(seconds=900)


def test_a_digest_knows_the_disk_and_how_much_of_it_the_run_wrote(run: Recorded) -> None:
    whole = read_digest(run.store, "live", run.run.created, run.now)
    assert 0 < whole.written < whole.size
    found = work(run)
    assert 0 < found.written < read_digest(run.store, "live", run.run.created, run.now).written
    assert found.free is None or found.free > 0
    written = found.written
    assert replace(found, free=3 * written).full_in_s == pytest.approx(24 * 3600)
    assert replace(found, free=3 * written).next[0] == "make room: the disk is full in 1d 00h at this rate"
    assert replace(found, free=None).full_in_s is None
    assert "free" not in dict(replace(found, free=None).rows())["disk"]


def test_a_digest_of_a_run_that_ended_says_why_and_how_it_goes_on(run: Recorded) -> None:
    ended_by = Ending(Cause.LIMIT, "has made 2 of 2 attempts", "max_attempts", enough=4)
    run.store.set_run_state(run.run.id, RunState.FINISHED, now=run.now, ended_by=ended_by)
    run.wait(60)
    found = read_digest(run.store, "live", run.now - timedelta(seconds=60), run.now)
    command = "avo resume live --max-attempts 4"
    assert dict(found.rows())["state"] == f"finished; it has made 2 of 2 attempts; continue with: {command}"
    assert (found.next, found.counts, found.per_percent) == ([command], {}, None)
    assert dict(found.rows())["gained"] == "nothing: 100 predicted TFLOPS, h100, 0 versions"


def test_where_nothing_is_left_to_try_the_result_is_taken_home(run: Recorded) -> None:
    for final, command in ((False, "avo resume live"), (True, "avo export live --out DIR")):
        ended_by = Ending(Cause.EXHAUSTED, "ended because there is nothing left to try", final=final)
        run.store.set_run_state(run.run.id, RunState.FINISHED, now=run.now, ended_by=ended_by)
        assert read_digest(run.store, "live", run.run.created, run.now).next == [command]


def test_a_run_without_versions_has_a_digest(store: Store) -> None:
    run = Recorded(store)
    run.drive()
    assert [name for name, _ in read_digest(store, "live", run.now, run.now).rows()] == [
        "state", "tried", "spent", "disk", "next",
    ]  # fmt: skip


def test_a_feed_tells_what_happened_in_a_day_once_a_day(run: Recorded, tmp_path: Path) -> None:
    collected, said, first = Collected(), list[str](), run.now
    command = f'printf "%s" "$AVO_EVENT: $AVO_TEXT" > {tmp_path}/told'
    with Notifier(command, said.append) as notifier:
        with Feed(run.store, "live", [collected, notifier], lambda: run.now, interval_s=0.01):
            work(run)
            run.wait(86400 - 1 - (run.now - first).total_seconds())
        assert EventKind.DIGEST not in {event.kind for event in collected.events}
        with Feed(run.store, "live", [collected, notifier], lambda: run.now, interval_s=0.01):
            run.wait(86400)
    (told,) = [event for event in collected.events if event.kind is EventKind.DIGEST]
    assert told.to_json()["verdicts"] == {}
    assert (tmp_path / "told").read_text() == f"daily: {told.text}"
    assert told.text.splitlines()[0] == "live in the last 1d 00h"
    assert said == []
