"""The feed of a session: each event to the file and the command, and nothing that goes wrong there ends the run."""

import json
from pathlib import Path
from queue import SimpleQueue

import pytest

from avo.evaluator.evaluation import Status
from avo.lineage_db.store import Store
from avo.watch.events import Event, EventKind
from avo.watch.feed import Feed, LogFile
from avo.watch.notify import Notifier, reason
from tests.avo.recorded import Recorded


@pytest.fixture
def run(store: Store) -> Recorded:
    made = Recorded(store)
    made.store.driving.take(made.run.id, "box:7", now=made.now)
    made.step(100.0)
    return made


class Collected:
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def take(self, event: Event) -> None:
        """Keep it."""
        self.events.append(event)


def test_a_feed_gives_what_happens_while_it_lasts(run: Recorded) -> None:
    collected = Collected()
    with Feed(run.store, "live", [collected], lambda: run.now, interval_s=0.01):
        run.step(Status.INCORRECT, (0,))
        run.finish()
    assert [event.kind for event in collected.events] == [
        EventKind.STEP_STARTED, EventKind.ATTEMPT, EventKind.STEP_ENDED, EventKind.RUN,
    ]  # fmt: skip


def test_the_log_of_a_session_is_appended_as_lines_of_json(run: Recorded, tmp_path: Path) -> None:
    path, said = tmp_path / "run.jsonl", list[str]()
    path.write_text('{"event": "earlier"}\n')
    with Feed(run.store, "live", [LogFile(path, said.append)], lambda: run.now, interval_s=0.01) as feed:
        run.step(150.0, (0,))
        feed.fail("workers died")
    events = [json.loads(line) for line in path.read_text().splitlines()]
    assert {event["event"] for event in events} == {
        "earlier", "step_started", "attempt", "version", "step_ended", "failure",
    }  # fmt: skip
    assert said == []


def test_a_log_that_cannot_be_written_is_one_warning_and_goes_on_when_it_can(run: Recorded, tmp_path: Path) -> None:
    said: list[str] = []
    log = LogFile(tmp_path / "later" / "run.jsonl", said.append)
    event = Event(EventKind.RUN, run.now, "live", "run live: running")
    log.take(event)
    log.take(event)
    assert len(said) == 1
    assert "No such file or directory: avo log live --json prints all events" in said[0]
    (tmp_path / "later").mkdir()
    log.take(event)
    assert [line for line in (tmp_path / "later" / "run.jsonl").read_text().splitlines() if line] == [
        json.dumps(event.to_json())
    ]


def test_a_log_that_has_grown_long_is_put_aside_once_and_a_new_one_begun(run: Recorded, tmp_path: Path) -> None:
    path, event = tmp_path / "run.jsonl", Event(EventKind.RUN, run.now, "live", "run live: running")
    line = json.dumps(event.to_json()) + "\n"
    log = LogFile(path, print, most_bytes=2 * len(line))
    for _ in range(5):
        log.take(event)
    assert {file.name: file.read_text() for file in tmp_path.glob("run.jsonl*")} == {
        "run.jsonl": line, "run.jsonl.1": 2 * line,
    }  # fmt: skip


def test_a_log_that_is_a_link_is_not_renamed(run: Recorded, tmp_path: Path) -> None:
    link, file = tmp_path / "link", tmp_path / "file"
    link.symlink_to(file)
    log = LogFile(link, print, most_bytes=200)
    for _ in range(5):
        log.take(Event(EventKind.RUN, run.now, "live", "run live: running"))
    assert link.is_symlink()
    assert len(file.read_text().splitlines()) == 5


def test_a_full_disk_is_a_warning(run: Recorded) -> None:
    said: list[str] = []
    LogFile(Path("/dev/full"), said.append).take(Event(EventKind.RUN, run.now, "live", ""))
    assert "No space left on device" in said[0]


@pytest.mark.parametrize(
    ("kind", "data", "expected"),
    [
        (EventKind.VERSION, {"best": True, "version": 3}, "best"),
        (EventKind.VERSION, {"best": False, "version": 3}, ""),
        (EventKind.VERSION, {"best": True, "version": 0}, ""),
        (EventKind.SUPERVISOR, {"level": "nudge"}, ""),
        (EventKind.SUPERVISOR, {"level": "redirect"}, "stall"),
        (EventKind.SUPERVISOR, {"level": "restart"}, "stall"),
        (EventKind.RUN, {"state": "stopped"}, "stop"),
        (EventKind.RUN, {"state": "finished"}, "stop"),
        (EventKind.RUN, {"state": "paused"}, ""),
        (EventKind.FAILURE, {}, "failure"),
        (EventKind.ATTEMPT, {}, ""),
    ],
)
def test_somebody_is_told_of_a_best_a_stall_a_stop_and_a_failure(
    run: Recorded, kind: EventKind, data: dict[str, object], expected: str
) -> None:
    assert reason(Event(kind, run.now, "live", "", data=data)) == expected


def best(run: Recorded) -> Event:
    return Event(EventKind.VERSION, run.now, "live", "version 1 $(x)", data={"best": True, "version": 1})


def test_the_command_has_the_event_on_its_input_and_in_its_environment(run: Recorded, tmp_path: Path) -> None:
    said: list[str] = []
    command = f'cat > {tmp_path}/input; echo "$AVO_EVENT|$AVO_RUN|$AVO_TEXT" > {tmp_path}/environment'
    with Notifier(command, said.append) as notifier:
        notifier.take(best(run))
    (line,) = (tmp_path / "input").read_text().splitlines(keepends=True)
    assert json.loads(line)["event"] == "version"
    assert line.endswith("\n")  # a shell's read would take nothing without it
    assert (tmp_path / "environment").read_text() == "best|live|version 1 $(x)\n"
    assert said == []


@pytest.mark.parametrize(
    ("command", "trouble"),
    [("echo no network >&2; exit 3", "exit code 3: no network"), ("sleep 60", "it took longer than 0.05 s")],
)
def test_a_command_that_fails_or_hangs_is_one_warning(run: Recorded, command: str, trouble: str) -> None:
    said: SimpleQueue[str] = SimpleQueue()
    with Notifier(command, said.put, timeout_s=0.05 if "sleep" in command else 600.0) as notifier:
        notifier.take(best(run))
    assert said.get(timeout=600) == f"the notification of best failed: {trouble}"
    assert said.empty()


def test_a_stall_is_told_once_until_there_is_a_new_version(run: Recorded, tmp_path: Path) -> None:
    def stall(level: str) -> Event:
        return Event(EventKind.SUPERVISOR, run.now, "live", "", data={"level": level})

    with Notifier(f"echo $AVO_EVENT >> {tmp_path}/told", print) as notifier:
        for event in (stall("nudge"), stall("redirect"), stall("restart"), best(run), stall("redirect")):
            notifier.take(event)
    assert (tmp_path / "told").read_text().split() == ["stall", "best", "stall"]
