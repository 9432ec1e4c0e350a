"""Judges of one run take turns at a card, those of others are refused, and a dead one leaves nothing behind."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import astuple, replace
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import IO

import pytest

from avo.evaluator.candidate import Candidate
from avo.evaluator.cuda import holding
from avo.evaluator.cuda.holding import Place
from avo.evaluator.errors import EvaluatorUnavailable
from avo.evaluator.evaluation import Evaluation, Status
from avo.evaluator.evaluators import Progress
from avo.evaluator.serving.process import ProcessEvaluator
from avo.seeds import seed_source
from tests.evaluator.cuda.fake_device import CARD

MINE = replace(CARD, uuid=f"test-{os.getpid()}")
LIMIT_S = 600.0
PROGRAM = """
import sys
from avo.evaluator.cuda.cards import Card
from avo.evaluator.cuda.holding import Place
with Place(Card(*{card}), "run").turn(lambda before: print(before, flush=True)):
    sys.stdin.read()
"""


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holding, "_PATIENCE_S", 0.0)


@contextmanager
def judge_process() -> Iterator[tuple[subprocess.Popen[str], IO[str]]]:
    """A judge that waits for its turn, and has it until it is killed; its output is who is before it."""
    command = [sys.executable, "-c", PROGRAM.format(card=astuple(MINE))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, process.stdout
        finally:
            process.kill()


class Waiting:
    """A thread that waits for its turn, tells ``heard`` who is before it, and ``had`` its name in its turn."""

    def __init__(self, name: str, had: Callable[[str], object]) -> None:
        self.heard = SimpleQueue[int]()
        self._place = Place(MINE, "run")
        self._thread = Thread(target=self._wait, args=(name, had), daemon=True)
        self._thread.start()

    def _wait(self, name: str, had: Callable[[str], object]) -> None:
        with self._place, self._place.turn(self.heard.put):
            had(name)

    def before(self) -> int:
        """Return how many are before it as soon as that changes."""
        return self.heard.get(timeout=LIMIT_S)

    def end(self) -> None:
        self._thread.join(LIMIT_S)
        assert not self._thread.is_alive()


@pytest.mark.usefixtures("hasty")
def test_a_card_is_held_until_it_is_let_go() -> None:
    first = Place(MINE)
    with pytest.raises(EvaluatorUnavailable, match="another judge measures on this Fake H100: wait for its end"):
        Place(MINE)
    Place(replace(MINE, uuid=f"another-{MINE.uuid}")).close()
    first.close()
    Place(MINE).close()


@pytest.mark.usefixtures("hasty")
def test_judges_of_a_run_share_a_card_and_another_run_is_refused_until_the_last_of_them_ends() -> None:
    first, second = Place(MINE, "run"), Place(MINE, "run")
    first.close()
    for other in ("another", "ru", None):
        with pytest.raises(EvaluatorUnavailable, match="another judge measures"):
            Place(MINE, other)
    second.close()
    Place(MINE, "another").close()


def test_who_asked_first_has_the_card_first_and_has_it_alone() -> None:
    had: list[str] = []
    with Place(MINE, "run") as place:
        with place.turn(lambda before: None):
            waiting = []
            for number, name in enumerate("abcde", 1):
                waiting.append(Waiting(name, had.append))
                assert waiting[-1].before() == number
            assert had == []
        for each in waiting:
            each.end()
    assert had == list("abcde")
    assert [waiting[4].before() for _ in range(waiting[4].heard.qsize())][-1] == 0


@pytest.mark.usefixtures("hasty")
def test_one_judge_has_the_card_even_where_the_list_of_names_misses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    had: list[str] = []
    with Place(MINE, "run") as place, place.turn(lambda before: None):
        monkeypatch.setattr(holding.Place, "_names", lambda place, kind: [])
        waiting = Waiting("second", had.append)
        assert waiting.before() == 1
        waiting._thread.join(5 * holding._LOOK_S)
        assert had == []
    waiting.end()


def test_a_judge_that_is_killed_in_its_turn_or_while_it_waits_is_not_waited_for() -> None:
    had: list[str] = []
    with judge_process() as (holder, held), judge_process() as (waiter, waits):
        first = held.readline()
        if (second := waits.readline()) == "0\n":  # it was quicker
            (holder, held), (waiter, waits), first, second = (waiter, waits), (holder, held), second, first
        assert (first, second) == ("0\n", "1\n")
        third = Waiting("third", had.append)
        assert third.before() == 2
        waiter.kill()
        assert third.before() == 1
        assert had == []
        holder.kill()
        assert third.before() == 0
        third.end()
    assert had == ["third"]
    Place(MINE, "another").close()


TINY = str(Path(__file__).parent / "stub_card" / "tiny.py")


@pytest.mark.long
def test_judges_that_share_a_card_judge_side_by_side_and_time_in_turn(libcuda: Path, tmp_path: Path) -> None:
    paths = (f"{name}={libcuda.parent}" for name in ("LD_LIBRARY_PATH", "TRITON_LIBCUDA_PATH"))
    settings = f"env {' '.join(paths)} NVML_STUB_REASONS=4"
    command = f"{settings} {sys.executable} -m tests.evaluator.cuda.stub_card.evaluator"
    # Under a profiler's name, as the clocks of a busy machine may differ.
    options = ("--device", "0", "--run", "run", "--trace", str(tmp_path / "trace"), "--worker-prefix", "env")
    waiting = SimpleQueue[str]()

    def judge(evaluator: ProcessEvaluator) -> Evaluation:
        def hear(progress: Progress) -> None:
            if progress.waits:
                waiting.put(progress.words)

        try:
            return evaluator.evaluate(Candidate(TINY, seed_source("mha")), tell=hear)
        finally:
            waiting.put("it has ended")

    with ExitStack() as stack, ThreadPoolExecutor(2) as threads:
        judges = [ProcessEvaluator("cuda", "quick", command=command, options=options) for _ in range(2)]
        for each in judges:
            stack.callback(each.close)
        uuid = "00000000-0000-0000-0000-000000000000"
        with Place(replace(CARD, uuid=uuid), "run") as place, place.turn(lambda before: None):
            judged = [threads.submit(judge, each) for each in judges]
            heard = sorted(waiting.get(timeout=LIMIT_S) for _ in judges)
            assert heard == ["waiting for the card, 1 before it", "waiting for the card, 2 before it"]
            assert not (tmp_path / "trace").read_text()
        assert [each.result(LIMIT_S).status for each in judged] == [Status.CORRECT] * 2
    rows = [json.loads(line)["part"] for line in (tmp_path / "trace").read_text().splitlines()]
    half = len(rows) // 2
    assert rows[:half] == rows[half:] == ["evaluation", *["score"] * (half - 1)]
