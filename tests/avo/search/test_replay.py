"""Replaying a run: the same lineage without a model, and a record that was changed is noticed."""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from typer.testing import CliRunner, Result

from agents.agentic import MOST_TURNS, Agentic
from agents.model import ScriptedModel
from agents.mutate import Mutate
from agents.operator import VariationOperator
from agents.served import PendingCall, Served, Unattended
from agents.settings import ModelSettings, Settings
from agents.supervisor import REMEMBERED
from avo.cli.main import app
from avo.config import RunConfig
from avo.search.budget import Allowance
from avo.search.replay import RecordedJudge, RecordedRun, Unrecorded, replay, told
from avo.search.step import SeedOperator
from evaluator.candidate import Candidate, Incumbent
from evaluator.evaluation import Evaluation, Status
from evaluator.evaluators import FakeEvaluator
from evaluator.targets import get_target
from knowledge_base.library import Library
from lineage_db.records import Attempt, Intervention, Run
from lineage_db.store import Store
from seeds import seed_source
from tests.agents.test_agentic import EVALUATE, says, submit, write
from tests.avo.fakes import NOW, SEED, correct, judge, make_run, make_work
from tests.avo.measured import MeasuringEvaluator, kernel

CONFIG = RunConfig(workers=1, step_looks=5)


def any_kernel(candidate: Candidate) -> Evaluation:
    """Call every kernel correct, and as fast as its digest says; the seed is slow."""
    if "canary_kernel" in candidate.source:
        return Evaluation(Status.INCORRECT, "a wrong number", "h100", "quick", 0.1)
    number = int(hashlib.sha256(candidate.digest.encode()).hexdigest()[:6], 16) / 16**6
    slow = {seed_source("mha"): 50.0}.get(candidate.source, 100.0 + 50 * number)
    return correct(10.0 if "_canary_entry" in candidate.source else slow)


class Recording:
    """A run whose steps a test performs, one second after the other."""

    def __init__(self, path: Path) -> None:
        self.store = Store.open(str(path))
        self.run = make_run(self.store, CONFIG)
        self.now = NOW

    def clock(self) -> datetime:
        self.now += timedelta(seconds=1)
        return self.now

    def step(self, operator: VariationOperator, verdict: Callable[[Candidate], Evaluation] = judge) -> None:
        config = CONFIG.model_copy(update={"supervisor": "off"})
        work = make_work(
            self.store,
            self.run,
            FakeEvaluator(verdict),
            config,
            clock=self.clock,
            knowledge=Library.load(),
            allowance=Allowance.of(config),
        )
        work.perform(operator, "w0")

    def agent(self, *replies: object) -> None:
        """Perform a step in which a model says this."""
        model = ScriptedModel(*replies)  # type: ignore[arg-type]
        self.step(Agentic(Settings((ModelSettings(name="m"),)), lambda *_: model))

    def replayed(self, judge: FakeEvaluator | None = None) -> tuple[str, Run]:
        """Return how the replay differs, and the run that it made; by default verdicts are those of the record."""
        record = RecordedRun.read(self.store, self.run)
        made = make_run(self.store, CONFIG, name="again")
        found = replay(
            self.store, record, self.store, made, CONFIG, judge or RecordedJudge(record, get_target("h100")), self.clock
        )
        return found, made


@pytest.fixture
def recording(tmp_path: Path) -> Iterator[Recording]:
    made = Recording(tmp_path / "runs.db")
    yield made
    made.store.close()


@pytest.fixture
def of_an_agent(recording: Recording) -> Recording:
    """Two steps of an agent: a failure that is repaired within the step, then one that goes back to the seed."""
    recording.step(SeedOperator(SEED))
    recording.agent(says(write("nonsense"), EVALUATE), says(write("tflops = 120.0"), EVALUATE), says(submit(3)))
    recording.agent(says(write("tflops = 150.0"), EVALUATE), says(submit(4)))
    assert len(recording.store.versions(recording.run.id)) == 3
    return recording


@pytest.mark.parametrize("again", [None, FakeEvaluator(judge)], ids=["verdicts of the record", "judged again"])
def test_what_an_agent_did_leads_to_the_same_lineage(of_an_agent: Recording, again: FakeEvaluator | None) -> None:
    different, made = of_an_agent.replayed(again)
    assert different == ""
    old, new = (of_an_agent.store.versions(run.id) for run in (of_an_agent.run, made))
    assert [version.attempt.digest for version in new] == [version.attempt.digest for version in old]
    assert [version.attempt.hypothesis for version in new] == [version.attempt.hypothesis for version in old]
    assert of_an_agent.store.journal.spend(made.id).calls == 0


def test_a_session_of_another_agent_leads_to_the_same_lineage_however_long_it_was(recording: Recording) -> None:
    recording.step(SeedOperator(SEED))
    looks = [("view_source", {})] * (MOST_TURNS + 1)
    done = iter([*looks, write("tflops = 120.0"), EVALUATE, submit(2), None])
    recording.step(Served(None, lambda: (call := next(done)) and PendingCall(call[0], json.dumps(call[1]))))
    assert len(recording.store.versions(recording.run.id)) == 2
    assert recording.replayed()[0] == ""


def test_a_program_that_left_before_it_submitted_leads_to_the_same_lineage(recording: Recording) -> None:
    recording.step(SeedOperator(SEED))
    done = iter([write("tflops = 120.0"), EVALUATE, None])
    recording.step(Unattended(lambda: (call := next(done)) and PendingCall(call[0], json.dumps(call[1]))))
    assert len(recording.store.versions(recording.run.id)) == 2
    assert recording.replayed()[0] == ""


def test_a_comparison_that_the_record_has_not_is_no_verdict(tmp_path: Path) -> None:
    measured, target = MeasuringEvaluator(), get_target("h100")
    with Store.open(str(tmp_path / "runs.db")) as store:
        run = make_run(store, CONFIG)
        scores = {}
        for tflops in (100.0, 110.0, 120.0):
            candidate = Candidate("mha", kernel(tflops))
            incumbent = Incumbent(Candidate("mha", kernel(100.0)), 0.01) if scores else None
            scores[tflops] = measured.evaluate(candidate, incumbent)
        attempts = {
            number: Attempt(
                number, run.id, 1, Candidate("mha", kernel(tflops)).digest, kernel(tflops), "", (), found, NOW, NOW
            )
            for number, (tflops, found) in enumerate(scores.items())
        }
        judge = RecordedJudge(RecordedRun(run, {}, (), attempts, {}), target)
        fastest = Candidate("mha", kernel(120.0))
        again = judge.evaluate(fastest, Incumbent(Candidate("mha", kernel(100.0)), 0.02)).score
        assert again is not None
        assert again.comparison is not None
        assert again.comparison.alpha == 0.02
        with pytest.raises(Unrecorded, match="compares a candidate with another version than in the record"):
            judge.evaluate(fastest, Incumbent(Candidate("mha", kernel(110.0)), 0.02))


def test_a_step_early_on_a_long_plateau_is_told_what_it_was_told_then(of_an_agent: Recording) -> None:
    version, step = of_an_agent.store.versions(of_an_agent.run.id)[-1], of_an_agent.store.steps(of_an_agent.run.id)[-1]
    later = version.accepted + timedelta(hours=1)
    made = [
        Intervention(number, step.run_id, 10 + 3 * number, "nudge", "", (), "", None, later)
        for number in range(2 * REMEMBERED)
    ]
    early, late = (replace(step, number=number, started=later) for number in (20, 1000))
    assert [each.id for each in told(early, made, [version])] == [0, 1, 2, 3]
    assert told(late, made, [version]) == tuple(made[-REMEMBERED:])


def test_a_transcript_that_was_changed_is_noticed(of_an_agent: Recording) -> None:
    engine = create_engine(of_an_agent.store.url)
    with engine.begin() as connection:
        change = "UPDATE messages SET content = replace(content, 'tflops = 150.0', 'tflops = 151.0')"
        assert connection.execute(text(change)).rowcount
    engine.dispose()
    assert of_an_agent.replayed()[0] == "step 2 makes a candidate that is not on record"


def test_a_transcript_that_was_cut_is_noticed(of_an_agent: Recording) -> None:
    engine = create_engine(of_an_agent.store.url)
    with engine.begin() as connection:
        last = of_an_agent.store.steps(of_an_agent.run.id)[-1].id
        connection.execute(text(f"DELETE FROM messages WHERE step_id = {last}"))
    engine.dispose()
    assert of_an_agent.replayed()[0] == "version 2 is missing"


def test_a_judge_that_judges_otherwise_is_noticed(of_an_agent: Recording) -> None:
    def other(candidate: Candidate) -> Evaluation:
        found = judge(candidate)
        return replace(correct(118.0), plan_digest="p") if candidate.source == "tflops = 120.0" else found

    assert of_an_agent.replayed(FakeEvaluator(other))[0] == "version 1 has 118.0000 TFLOPS, not 120.0000"


def test_mutate_makes_the_same_candidates_again(recording: Recording) -> None:
    recording.step(SeedOperator(seed_source("mha")), any_kernel)
    for _ in range(5):
        recording.step(Mutate(), any_kernel)
    different, made = recording.replayed()
    assert different == ""
    old, new = (recording.store.attempt_summaries(run.id) for run in (recording.run, made))
    assert [attempt.digest for attempt in new] == [attempt.digest for attempt in old]
    assert len(recording.store.versions(made.id)) > 1
    looks, again = (recording.store.history(run.id).looks for run in (recording.run, made))
    assert [look.digest for look in again] == [look.digest for look in looks]
    assert len(looks) == 5 * CONFIG.step_looks


def test_the_command_says_whether_the_lineage_is_the_same(of_an_agent: Recording) -> None:
    def avo(*arguments: str) -> Result:
        return CliRunner().invoke(app, ["replay", *arguments, "--db", of_an_agent.store.url])

    same = avo("fake", "--recorded")
    assert (same.exit_code, same.stdout) == (0, "fake-replay: the same lineage, 3 versions\n")
    engine = create_engine(of_an_agent.store.url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE messages SET content = replace(content, '120.0', '121.0') WHERE step_id = 2"))
    engine.dispose()
    other = avo("fake", "--recorded", "--name", "changed")
    assert other.exit_code == 1
    assert other.stdout == "changed: step 1 makes a candidate that is not on record\n"
    unknown = avo("nothing", "--recorded")
    assert (unknown.exit_code, len(unknown.stderr.splitlines())) == (2, 1)
