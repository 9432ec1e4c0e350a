"""Waiting for processes ends by what they do, not by the clock."""

import subprocess
import sys
import time

import pytest

from avo.evaluator.sandbox import patience
from avo.evaluator.sandbox.patience import Patience, at_work, processor_s


class Waiting:
    """Waits two seconds by a clock that only ``over`` moves, for processes that work if ``busy``."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.now, self.busy, self.worked = 0.0, False, 5.0
        patch.setattr(patience.time, "monotonic", lambda: self.now)
        patch.setattr(patience, "at_work", lambda *_, **__: self.busy)
        patch.setattr(patience, "processor_s", lambda root: self.worked)
        self._patience = Patience(1, 2.0, itself=True)

    def count_work(self) -> None:
        self._patience = Patience(1, 2.0, itself=True, counting=True)

    def over(self, after_s: float, *, busy: bool, worked_s: float = 0.0) -> str:
        self.now, self.busy, self.worked = self.now + after_s, busy, self.worked + worked_s
        return self._patience.over()

    def leave_out(self, after_s: float, worked_s: float) -> None:
        self.now, self.worked = self.now + after_s, self.worked + worked_s
        self._patience.leave_out()


@pytest.fixture
def waiting(monkeypatch: pytest.MonkeyPatch) -> Waiting:
    return Waiting(monkeypatch)


def test_only_the_time_in_which_nothing_works_counts(waiting: Waiting) -> None:
    assert not waiting.over(1.5, busy=False)
    assert not waiting.over(9.0, busy=True)
    assert not waiting.over(9.0, busy=False), "it worked until the look before"
    assert waiting.over(0.6, busy=False) == "2 s in which it did nothing"


def test_processor_time_counts_where_it_is_asked_for_and_waiting_for_a_processor_does_not(waiting: Waiting) -> None:
    assert not waiting.over(9.0, busy=True, worked_s=2.5)
    waiting.count_work()
    assert not waiting.over(9.0, busy=True, worked_s=1.5)
    assert waiting.over(5.0, busy=True, worked_s=0.6) == "2 s"


def test_what_always_works_is_not_waited_for_without_end(waiting: Waiting) -> None:
    assert not waiting.over(19.9, busy=True)
    assert waiting.over(0.2, busy=True) == "20 s"


def test_what_is_left_out_counts_neither_as_time_nor_as_work_nor_in_all(waiting: Waiting) -> None:
    waiting.count_work()
    assert not waiting.over(1.5, busy=False)
    waiting.leave_out(900.0, worked_s=9.0)
    assert not waiting.over(0.6, busy=True, worked_s=0.1)
    assert waiting.over(0.6, busy=True, worked_s=0.5) == "2 s"


@pytest.mark.parametrize(("code", "works"), [("while True: pass", True), ("input()", False)])
def test_a_process_works_if_one_that_it_started_does(code: str, works: bool) -> None:
    shell = f"{sys.executable} -S -c '{code}'; true"
    with subprocess.Popen(["sh", "-c", shell], stdin=subprocess.PIPE, start_new_session=True) as process:
        try:
            deadline = time.monotonic() + 600
            while at_work(process.pid, itself=True) is not works:  # the interpreter starts by working
                assert time.monotonic() < deadline
        finally:
            subprocess.run(["kill", "-9", "--", f"-{process.pid}"], check=True)


def test_the_processor_time_of_what_a_process_started_is_its_own() -> None:
    spin = "import time\nwhile time.process_time() < 0.3: pass\nprint(flush=True)\ninput()"
    with subprocess.Popen(
        ["sh", "-c", '"$0" -S -c "$1"; true', sys.executable, spin], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert processor_s(process.pid) > 0.25
        process.communicate(b"\n")


def test_where_processes_cannot_be_seen_all_time_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(patience, "_CHILDREN", "/nowhere")
    monkeypatch.setattr(patience.time, "monotonic", lambda: now[0])
    waits = Patience(1, 2.0, itself=True, counting=True)
    now[0] = 1.9
    assert not waits.over()
    now[0] = 1e9
    assert waits.over() == "2 s"
    assert processor_s(1) < 1e9


def test_a_look_reads_nothing_of_other_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    monkeypatch.setattr(patience.os, "listdir", lambda path: [read.append(path)] and ["1"])
    monkeypatch.setattr(patience, "_read", lambda path: b"43 44" if path == "/proc/42/task/1/children" else b"")
    assert not at_work(42, itself=True)
    assert set(read) == {f"/proc/{pid}/task" for pid in (42, 43, 44)}
