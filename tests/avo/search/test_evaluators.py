"""The pool: evaluators are shared in turn, and one that fails costs nobody else anything."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest

from avo.search.evaluators import START_TRIES, Pool
from evaluator.errors import EvaluatorUnavailable


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

    def pool(self, count: int) -> Pool[int]:
        return Pool(self.start, self.ended.append, count, pause_s=0.0)


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
