"""The pool: evaluators are shared in turn, and one that fails costs nobody else anything."""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Barrier, Event
from typing import Any

import pytest

from avo.config import RunConfig, usable_cpus
from avo.evaluator.candidate import Candidate
from avo.evaluator.errors import EvaluatorUnavailable
from avo.evaluator.evaluators import AnyRequest, Evaluator
from avo.evaluator.fake import FakeEvaluator
from avo.evaluator.inspection import Inspection, Look
from avo.search import judging
from avo.search.evaluators import START_TRIES, Pool, SideBySide
from avo.search.judging import Judging
from tests.avo import fakes


@dataclass
class Judges:
    """Starts judges, numbered from 0; those in ``broken`` do not start."""

    broken: range = range(0)
    started: int = 0
    ended: list[int] = field(default_factory=list)

    async def start(self) -> int:
        self.started += 1
        if self.started - 1 in self.broken:
            raise EvaluatorUnavailable("no GPU")
        return self.started - 1

    def pool(self, count: int, spare: int = 0) -> Pool[int]:
        return Pool(self.start, self.ended.append, count, spare, pause_s=0.0)


def after(event: asyncio.Event, log: list[str], name: str) -> Callable[[int], Awaitable[int]]:
    async def question(judge: int) -> int:
        log.append(name)
        await event.wait()
        return judge

    return question


async def test_who_asked_first_is_answered_first_and_no_judge_is_asked_two_things() -> None:
    pool, go, log = Judges().pool(2), asyncio.Event(), []  # type: ignore[var-annotated]
    asked = [asyncio.ensure_future(pool.ask(after(go, log, f"{number}"))) for number in range(6)]
    await asyncio.sleep(0.01)
    assert log == ["0", "1"]
    go.set()
    answers = await asyncio.gather(*asked)
    assert log == [str(number) for number in range(6)]
    assert sorted(answers) == [0, 0, 0, 1, 1, 1]


async def test_a_judge_that_has_no_answer_is_replaced_and_the_others_go_on() -> None:
    judges = Judges()
    pool = judges.pool(1)

    async def dies(judge: int) -> int:
        raise EvaluatorUnavailable("the evaluator's process died")

    async def answers(judge: int) -> int:
        return judge

    with pytest.raises(EvaluatorUnavailable, match="process died"):
        await pool.ask(dies)
    assert await pool.ask(answers) == 1
    assert judges.ended == [0]


async def test_an_asker_that_has_gone_takes_no_judge_with_it() -> None:
    pool, go, log = Judges().pool(1), asyncio.Event(), []  # type: ignore[var-annotated]
    first = asyncio.ensure_future(pool.ask(after(go, log, "first")))
    await asyncio.sleep(0.01)
    gone = asyncio.ensure_future(pool.ask(after(go, log, "gone")))
    await asyncio.sleep(0.01)
    gone.cancel()
    last = asyncio.ensure_future(pool.ask(after(go, log, "last")))
    go.set()
    assert (await first, await last) == (0, 0)
    assert log == ["first", "last"]


async def test_a_judge_that_starts_at_last_serves_those_that_waited() -> None:
    async def answers(judge: int) -> int:
        return judge

    assert await Judges(broken=range(START_TRIES - 1)).pool(1).ask(answers) == START_TRIES - 1


async def test_askers_are_told_when_no_judge_starts_again_and_again() -> None:
    async def answers(judge: int) -> int:
        return judge

    pool = Judges(broken=range(10**9)).pool(2)
    for _ in range(2):
        with pytest.raises(EvaluatorUnavailable, match="no GPU"):
            await pool.ask(answers)
    pool.close()


async def test_a_spare_judge_is_started_for_one_who_would_wait_and_no_sooner() -> None:
    judges, go, log = Judges(), asyncio.Event(), list[str]()
    pool = judges.pool(3, spare=2)
    first = asyncio.ensure_future(pool.ask(after(go, log, "first")))
    await asyncio.sleep(0.01)
    assert judges.started == 1
    second = asyncio.ensure_future(pool.ask(after(go, log, "second")))
    await asyncio.sleep(0.01)
    assert judges.started == 2
    assert log == ["first", "second"]
    go.set()
    assert sorted(await asyncio.gather(first, second)) == [0, 1]
    assert await pool.ask(after(go, log, "third")) in (0, 1)
    assert judges.started == 2


async def test_spare_judges_that_are_not_started_do_not_hide_that_none_starts() -> None:
    async def answers(judge: int) -> int:
        return judge

    pool = Judges(broken=range(10**9)).pool(2, spare=1)
    with pytest.raises(EvaluatorUnavailable, match="no GPU"):
        await pool.ask(answers)
    pool.close()


class Meets(FakeEvaluator):
    """Sees a candidate only when as many as ``together`` do at the same time."""

    def __init__(self, together: Barrier) -> None:
        super().__init__(fakes.judge)
        self._together = together

    def ask(self, request: AnyRequest) -> Any:
        if isinstance(request, Inspection):
            self._together.wait(60)
        return super().ask(request)


def test_a_session_looks_at_several_candidates_side_by_side_with_judges_that_are_started_for_it() -> None:
    started: list[FakeEvaluator] = []

    def start() -> Evaluator:
        started.append(Meets(together))
        return started[-1]

    together = Barrier(3)
    looks = [Inspection(Look.SPEED, "mha", f"source {number}") for number in range(6)]
    with SideBySide(start, 3) as several:
        several.evaluate(Candidate("mha", "source"))
        assert len(started) == 1
        assert len(several.inspect_all(looks)) == 6
        assert len(started) == 3
        assert sorted(each.source for judge in started for each in judge.inspections) == [each.source for each in looks]


async def test_a_spare_judge_that_does_not_start_is_given_up_and_the_others_answer() -> None:
    judges, go = Judges(broken=range(1, 10**9)), asyncio.Event()
    pool = judges.pool(2, spare=1)
    asked = [asyncio.ensure_future(pool.ask(after(go, [], "either"))) for _ in range(2)]
    await asyncio.sleep(0.05)
    assert judges.started == 1 + START_TRIES
    go.set()
    assert await asyncio.gather(*asked) == [0, 0]


@pytest.mark.parametrize("starts", [True, False])
def test_a_session_does_without_a_judge_that_has_no_answer_and_never_without_the_first(starts: bool) -> None:
    tried, first = Event(), iter([True])

    def start() -> Evaluator:
        if next(first, False):
            return Busy(tried)
        tried.set()
        if not starts:
            raise EvaluatorUnavailable("no sandbox")
        return Broken(fakes.judge)

    with SideBySide(start, 3) as several:
        assert len(several.inspect_all([Inspection(Look.SPEED, "mha", f"source {i}") for i in range(6)])) == 6
    with SideBySide(lambda: Broken(fakes.judge), 3) as several, pytest.raises(EvaluatorUnavailable, match="no memory"):
        several.inspect(Inspection(Look.SPEED, "mha", "source"))


class Broken(FakeEvaluator):
    """Has no answer."""

    def ask(self, request: AnyRequest) -> Any:
        raise EvaluatorUnavailable("no memory")


class Busy(FakeEvaluator):
    """Has its answers once another has been called for."""

    def __init__(self, tried: Event) -> None:
        super().__init__(fakes.judge)
        self._tried = tried

    def ask(self, request: AnyRequest) -> Any:
        self._tried.wait(60)
        return super().ask(request)


class Slow(FakeEvaluator):
    """Answers once it is closed, as a judge's process that is ended."""

    def __init__(self, asked: Event) -> None:
        super().__init__(fakes.judge)
        self._asked, self._closed = asked, Event()

    def ask(self, request: AnyRequest) -> Any:
        self._asked.set()
        self._closed.wait(60)
        raise EvaluatorUnavailable("closed")

    def close(self) -> None:
        self._closed.set()


def test_a_session_that_ends_leaves_no_looks_behind() -> None:
    asked, started = Event(), list[Evaluator]()

    def start() -> Evaluator:
        started.append(Slow(asked))
        return started[-1]

    several = SideBySide(start, 2)
    looks = [Inspection(Look.SPEED, "mha", f"source {number}") for number in range(16)]
    with ThreadPoolExecutor(1) as aside:
        answer = aside.submit(several.inspect_all, looks)
        assert asked.wait(60)
        several.close()
        with pytest.raises(EvaluatorUnavailable, match="closed"):
            answer.result(60)
    assert len(started) <= 2


@pytest.mark.parametrize(
    ("given", "workers", "evaluators", "share"),
    [
        ({}, 6, 6, 0.3333),
        ({"workers": 1}, 1, 1, None),
        ({"workers": 5}, 5, 4, 0.5),
        ({"workers": 2, "evaluators": 9}, 2, 8, 0.25),
        ({"workers": 8, "evaluators": 1, "evaluator_resources": {"GPU": 0.5, "A": 1}}, 8, 1, None),
        ({"evaluator_command": "ssh gpu-box evaluate"}, 1, None, None),
        ({"workers": 8, "evaluator_command": "ssh gpu-box evaluate"}, 8, None, None),
        ({"workers": 8, "ray_address": "auto", "evaluator_resources": {"GPU": 0.5}}, 8, None, 0.5),
        ({"workers": 8, "target": "h100"}, 8, None, None),
    ],
)
def test_each_gpu_that_is_measured_on_gets_as_many_judges(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], workers: int, evaluators: int | None, share: float | None
) -> None:
    monkeypatch.setattr(judging, "usable_cpus", lambda: 7)
    monkeypatch.setattr(judging.os, "sysconf", lambda name: 2**20)
    config = judging.on_gpus(RunConfig(**{"target": "cuda", **given}), lambda: 2)
    assert (config.workers, config.evaluators, config.evaluator_resources.get("GPU")) == (workers, evaluators, share)
    assert config.evaluator_resources.get("A") == given.get("evaluator_resources", {}).get("A")
    assert Judging.of(config).alone <= 4


@pytest.mark.parametrize(
    ("cores", "gib", "gpus", "judges"),
    [(16, 512, 8, 2), (4, 512, 8, 1), (128, 2048, 8, 4), (16, 33, 8, 1), (24, 512, 8, 3), (1, 3, 1, 1)],
)
def test_judges_of_a_gpu_have_a_core_and_memory_each(cores: int, gib: int, gpus: int, judges: int) -> None:
    assert judging.per_gpu(cores, gib * 2**30, gpus) == judges


@pytest.mark.parametrize(
    ("settings", "judges"),
    [
        ({"workers": 1}, min(usable_cpus(), 4)),
        ({"workers": 6}, 6),
        ({"workers": 2, "evaluators": 1}, 1),
        ({"workers": 1, "target": "cuda"}, 1),
        ({"workers": 1, "evaluator_command": "ssh gpu-box python -m avo.evaluator"}, 1),
        ({"workers": 1, "ray_address": "auto"}, 1),
    ],
)
def test_one_worker_has_several_judges_where_this_machine_predicts(settings: dict[str, Any], judges: int) -> None:
    assert Judging.of(RunConfig(**settings)).count == judges
