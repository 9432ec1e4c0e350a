"""Supervision of a run: what is due is written down once, and reaches the briefs of operators."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from avo.agents.review import Advice
from avo.agents.supervisor import REMEMBERED, Diagnosis, Patience, SearchTrajectory
from avo.config import RunConfig
from avo.evaluator.fake import FakeEvaluator
from avo.evaluator.targets import get_target
from avo.knowledge_base.library import Library
from avo.lineage_db.records import Step
from avo.lineage_db.store import Store
from avo.search.seeding import SeedOperator
from avo.search.supervision import supervise
from tests.avo.fakes import NOW, SEED, UNSUPERVISED, Scripted, judge, make_run, make_work, proposing

PATIENCE = Patience(steps=3, hours=5.0, repeats=9)
SUPERVISED = RunConfig(min_gain=0.002, patience_steps=3, patience_hours=5.0, patience_repeats=9)


class Desk:
    """A run that a supervisor watches."""

    def __init__(self, path: Path) -> None:
        self.store = Store.open(str(path))
        self.run = make_run(self.store)
        self.operator = Scripted(proposing("tflops = 90.0"))
        self.now = NOW
        self.step(SeedOperator(SEED))

    def tick(self) -> datetime:
        self.now += timedelta(seconds=1)
        return self.now

    def step(self, operator: Scripted | SeedOperator, patience: Patience | None = PATIENCE) -> None:
        config = SUPERVISED if patience else UNSUPERVISED
        work = make_work(self.store, self.run, FakeEvaluator(judge), config, clock=self.tick, knowledge=Library.load())
        work.perform(operator, "w0")

    def stall(self, steps: int, patience: Patience | None = PATIENCE) -> list[list[str]]:
        """Perform steps without a gain and return the levels that each brief was told of."""
        for _ in range(steps):
            self.step(self.operator, patience)
        return [[made.level for made in brief.interventions] for brief in self.operator.briefs]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path / "run.db")
    yield desk
    desk.store.close()


def test_a_stall_is_written_down_and_told_until_the_lineage_grows(desk: Desk) -> None:
    assert desk.stall(4) == [[], [], [], ["nudge"]]
    (made,) = desk.store.journal.interventions(desk.run.id)
    assert (made.after_step, made.directions, made.source) == (3, (), "")
    desk.operator.script = (proposing("tflops = 130.0"),)
    assert desk.stall(1)[-1] == ["nudge"]
    assert desk.stall(1)[-1] == []


@pytest.mark.long
def test_a_plateau_of_any_length_costs_each_step_the_same(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    steps = desk.store.steps

    def counted(run_id: int, *, after: int = -1) -> list[Step]:
        found = steps(run_id, after=after)
        read.append(len(found))
        return found

    monkeypatch.setattr(desk.store, "steps", counted)
    told = desk.stall(3 * (REMEMBERED + 5))
    assert len(desk.store.journal.interventions(desk.run.id)) > REMEMBERED
    assert max(map(len, told)) == REMEMBERED
    assert max(read) <= PATIENCE.steps + 1


def test_a_redirection_brings_directions_from_the_knowledge_base(desk: Desk) -> None:
    assert desk.stall(7)[-1] == ["nudge", "redirect"]
    redirected = desk.store.journal.interventions(desk.run.id)[-1]
    assert redirected.directions
    assert redirected.source == "knowledge base"


def test_a_run_without_supervisor_is_never_told_anything(desk: Desk) -> None:
    assert desk.stall(8, RunConfig(supervisor="off").patience)[-1] == []
    assert RunConfig().patience is not None


def test_a_models_directions_take_the_place_of_the_knowledge_bases(desk: Desk) -> None:
    desk.stall(6)
    asked = []

    def advise(trajectory: SearchTrajectory, found: Diagnosis) -> Advice | None:
        asked.append(found.level)
        return Advice("m", ("persist: one program an SM",)) if len(asked) > 1 else None

    run, target = desk.run, get_target("h100")
    for steps in (0, 3):
        desk.stall(steps, None)
        supervise(desk.store, run, target, PATIENCE, Library.load(), lambda: NOW, advise)
    nudge, first, second = desk.store.journal.interventions(run.id)
    assert (nudge.level, asked) == ("nudge", ["redirect", "redirect"])
    assert first.source == "knowledge base"
    assert (second.source, second.directions) == ("m", ("persist: one program an SM",))
