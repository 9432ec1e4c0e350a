"""Replaying a run: the same lineage without a model, and a record that was changed is noticed."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from typer.testing import CliRunner, Result

from avo.agents.agentic import MOST_TURNS, Agentic
from avo.agents.errors import StepLeft
from avo.agents.model import Reply, ScriptedModel
from avo.agents.mutate import Mutate
from avo.agents.operator import Brief, Proposal, VariationOperator
from avo.agents.served import PendingCall, Served, Unattended
from avo.agents.settings import ModelSettings, Settings
from avo.cli.main import app
from avo.config import RunConfig
from avo.evaluator.candidate import Candidate, Incumbent
from avo.evaluator.evaluation import Comparison, Evaluation, Fault, Status, Verdict
from avo.evaluator.evaluators import Evaluator
from avo.evaluator.fake import FakeEvaluator
from avo.evaluator.inspection import Findings
from avo.evaluator.targets import get_target
from avo.knowledge_base.library import Library
from avo.lineage_db.decision import Ruling, failed
from avo.lineage_db.records import Attempt, Run, RunState, Version
from avo.lineage_db.seen import Seen
from avo.lineage_db.store import Store
from avo.search.budget import Allowance
from avo.search.recorded import RecordedJudge, RecordedRun
from avo.search.replay import replay
from avo.search.run import RunSession, Stop, utc_now
from avo.search.seeding import SeedOperator
from avo.search.workers import hire
from avo.seeds import seed_source
from tests.agents.test_agentic import EVALUATE, says, submit, write
from tests.agents.world import WHY
from tests.avo import fakes
from tests.avo.fakes import NOW, SEED, Scripted, correct, judge, make_run, make_work, proposing
from tests.avo.fakes import submit as evaluated
from tests.avo.interleaved import MEASURED, PREDICTED, Interleaved, World, any_kernel, few_moves
from tests.avo.measured import MeasuringEvaluator, kernel
from tests.corpus import soaked

CONFIG = RunConfig(workers=1, step_looks=5)


def recorded_judge(record: RecordedRun) -> RecordedJudge:
    return RecordedJudge(record, get_target("h100"))


class Recording:
    """A run whose steps a test performs, one second after the other."""

    def __init__(self, path: Path) -> None:
        self.store = Store.open(str(path))
        self.config = CONFIG
        self.run = make_run(self.store, CONFIG)
        self.now = NOW
        self.found = Findings()
        """What a check finds."""

    def clock(self) -> datetime:
        self.now += timedelta(seconds=1)
        return self.now

    def step(
        self, operator: VariationOperator, verdict: Callable[[Candidate], Evaluation] = judge, worker: str = "w0"
    ) -> None:
        config = self.config.model_copy(update={"supervisor": "off"})
        evaluator = FakeEvaluator(verdict)
        evaluator.findings = self.found
        work = make_work(
            self.store,
            self.run,
            evaluator,
            config,
            clock=self.clock,
            knowledge=Library.load(),
            allowance=Allowance.of(config),
        )
        work.perform(operator, worker)

    def agent(self, *replies: Reply | Exception | Callable[[object], Reply], worker: str = "w0") -> None:
        """Perform a step in which a model says this."""
        model = ScriptedModel(*replies)
        self.step(Agentic(Settings((ModelSettings(name="m"),)), lambda *_: model), worker=worker)

    def replayed(self, judge: FakeEvaluator | None = None) -> tuple[str, Run]:
        """Return how the replay differs, and the run that it made; by default verdicts are those of the record."""
        record = RecordedRun.read(self.store, self.run)
        made = make_run(self.store, self.config, name="again")
        found = replay(record, self.store, made, self.config, judge or recorded_judge(record), self.clock)
        return found, made

    def assert_replays_to(self, *sources: str) -> None:
        """Replay the run, and assert that its lineage has these sources again."""
        different, made = self.replayed()
        assert different == ""
        assert tuple(version.attempt.source for version in self.store.versions(made.id)) == sources

    def change(self, statement: str) -> None:
        """Change the record behind the store's back."""
        engine = create_engine(self.store.url)
        with engine.begin() as connection:
            assert connection.execute(text(statement)).rowcount
        engine.dispose()


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


def test_evaluations_that_went_on_are_waited_for_in_a_replay(recording: Recording) -> None:
    start = ("evaluate", {**WHY, "wait": False})
    recording.step(SeedOperator(SEED))
    recording.agent(
        says(write("tflops = 120.0"), start, write("tflops = 150.0"), start, submit(2)),
        says(submit(3)),
    )
    assert len(recording.store.attempts(recording.run.id)) == 3
    recording.assert_replays_to(SEED, "tflops = 150.0")


def test_directions_that_were_explored_are_explored_again(recording: Recording) -> None:
    asked = [
        {"name": "wide", "hypothesis": "larger tiles reuse more", "edits": [{"old": "100.0", "new": "120.0"}]},
        {"name": "later", "hypothesis": "needs to be written anew"},
    ]
    recording.step(SeedOperator(SEED))
    recording.agent(
        says(("explore_directions", {"directions": asked})),
        says(("write_source", {"variant": "wide"}), EVALUATE),
        says(submit(2)),
    )
    recording.assert_replays_to(SEED, "tflops = 120.0")
    changes = [
        [attempt.change for attempt in recording.store.attempt_summaries(recording.store.run(name).id)]
        for name in ("fake", "again")
    ]
    assert changes[0] == changes[1]
    assert changes[0][1].startswith("wide: ")


def test_calls_that_were_not_run_after_one_that_failed_are_not_run_again(recording: Recording) -> None:
    failing = ("edit_source", {"old": "no such passage", "new": ""})
    recording.step(SeedOperator(SEED))
    recording.agent(
        says(write("tflops = 120.0"), EVALUATE),
        says(failing, write("tflops = 90.0"), EVALUATE),
        says(failing, submit(2)),
        says(write("tflops = 130.0"), EVALUATE),
        says(submit(3)),
    )
    recording.assert_replays_to(SEED, "tflops = 130.0")


def test_what_was_not_run_after_a_faulty_check_is_not_run_again_though_no_check_is_repeated(
    recording: Recording,
) -> None:
    recording.step(SeedOperator(SEED))
    recording.found = Findings(Fault(Status.INCORRECT, "rows 1 to 2 are off"))
    recording.agent(
        says(write("tflops = 120.0"), ("check", {}), EVALUATE, submit(2)),
        says(write("tflops = 130.0"), EVALUATE),
        says(submit(2)),
    )
    recording.assert_replays_to(SEED, "tflops = 130.0")


def test_steps_are_replayed_in_the_order_in_which_they_added_to_the_lineage(recording: Recording) -> None:
    def overtaken(_: object) -> Reply:
        recording.agent(says(write("tflops = 150.0"), EVALUATE), says(submit(3)), worker="w1")
        return says(submit(2))

    recording.step(SeedOperator(SEED))
    recording.agent(says(write("tflops = 120.0"), EVALUATE), overtaken)
    assert [version.step_number for version in recording.store.versions(recording.run.id)] == [0, 2]
    assert recording.replayed(FakeEvaluator(judge))[0] == ""


def test_a_step_that_goes_on_where_another_was_left_submits_what_that_one_evaluated(recording: Recording) -> None:
    recording.step(SeedOperator(SEED))
    recording.agent(says(write("tflops = 120.0"), EVALUATE), StepLeft("killed"))
    recording.agent(says(submit(2)))
    assert [version.step_number for version in recording.store.versions(recording.run.id)] == [0, 2]
    assert recording.replayed()[0] == ""


def test_a_step_is_shown_attempts_as_they_were_then(recording: Recording) -> None:
    recording.step(SeedOperator(SEED))
    recording.agent(says(write("tflops = 120.0"), EVALUATE), says(submit(2)))
    record, then = RecordedRun.read(recording.store, recording.run), Seen(1, 2, 0, unresolved=(2,))
    _, accepted = record.history
    assert (accepted.version, accepted.decision and accepted.decision.ruling) == (1, Ruling.ACCEPTED)
    versions, (_, shown) = record.shown(then, record.steps[1])
    assert len(versions) == 1
    assert (shown.version, shown.decision and shown.decision.ruling) == (None, Ruling.UNRESOLVED)
    _, (seed,) = record.shown(replace(then, attempts=1), record.steps[1])
    assert seed is record.history[0], "what has not changed is not copied"


def test_a_step_is_shown_no_refusal_that_came_while_it_worked(recording: Recording) -> None:
    """Another worker's attempt is examined for minutes; ``mutate`` goes on from none that was refused for that."""

    def examined_late(brief: Brief) -> Proposal:
        attempt = evaluated(brief, "tflops = 120.0")
        recording.step(Scripted(lambda brief: Proposal(None, "")), worker="w1")
        wrong = Evaluation(Status.INCORRECT, "wrong at 12 keys", "h100", "held_out", 0.1)
        refusal = failed(wrong.status, "")
        recording.store.results.record_examination(
            attempt.step_id, attempt.id, wrong, None, refusal, now=recording.clock()
        )
        return Proposal(None, "")

    recording.step(SeedOperator(SEED))
    recording.step(Scripted(examined_late))
    recording.step(Scripted(lambda brief: Proposal(None, "")))
    record = RecordedRun.read(recording.store, recording.run)
    found = []
    for number in (2, 3):
        seen = record.steps[number].seen
        assert seen is not None
        found.append(record.shown(seen, record.steps[number])[1][1].ruling)
    assert found == [None, Ruling.EXAMINED]
    assert seen is not None
    assert record.shown(replace(seen, examined=None), record.steps[3])[1][1].ruling is Ruling.EXAMINED, "older records"


@pytest.mark.long
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


@pytest.mark.long
@pytest.mark.parametrize("again", [None, FakeEvaluator(judge)], ids=["verdicts of the record", "judged again"])
def test_what_an_operator_of_another_package_did_leads_to_the_same_lineage(
    recording: Recording, again: FakeEvaluator | None
) -> None:
    def several(brief: Brief) -> Proposal:
        made = [fakes.submit(brief, f"tflops = {speed}") for speed in (90.0, 120.0, 110.0)]
        return Proposal(made[1], "the best of three")

    recording.step(SeedOperator(SEED))
    scripted = Scripted(several, proposing("nonsense"), proposing("tflops = 119.0"), proposing("tflops = 130.0"))
    for _ in scripted.script:
        recording.step(scripted)
    different, made = recording.replayed(again)
    assert different == ""
    old, new = (recording.store.attempt_summaries(run.id) for run in (recording.run, made))
    assert [attempt.digest for attempt in new] == [attempt.digest for attempt in old]
    assert [attempt.version for attempt in new] == [attempt.version for attempt in old]


def test_a_comparison_that_the_record_has_not_ends_as_the_lineage_says(store: Store) -> None:
    measured = MeasuringEvaluator()
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
    accepted = Version(run.id, 1, (0,), NOW, attempts[2])
    judge = recorded_judge(RecordedRun(run, {}, (accepted,), (), attempts, (), (), (), {}, ()))

    def against(tflops: float, rival: float) -> Comparison:
        score = judge.evaluate(Candidate("mha", kernel(tflops)), Incumbent(Candidate("mha", kernel(rival)), 0.02)).score
        assert score is not None
        assert score.comparison is not None
        return score.comparison

    recorded = scores[120.0].score
    assert recorded is not None
    assert recorded.comparison is not None
    assert against(120.0, 100.0) == replace(recorded.comparison, alpha=0.02)
    rivals = scores[110.0].plan_digest, scores[120.0].plan_digest
    won, lost = against(120.0, 110.0), against(110.0, 120.0)
    assert (won.verdict, lost.verdict) == (Verdict.FASTER, Verdict.UNDECIDED), "only the first is a version"
    assert (won.plan_digest, lost.plan_digest) == rivals


@pytest.mark.long
def test_a_transcript_that_was_changed_is_noticed(of_an_agent: Recording) -> None:
    of_an_agent.change("UPDATE messages SET content = replace(content, 'tflops = 150.0', 'tflops = 151.0')")
    assert of_an_agent.replayed()[0] == "step 2 makes a candidate that is not on record"


@pytest.mark.long
def test_a_transcript_that_was_cut_is_noticed(of_an_agent: Recording) -> None:
    last = of_an_agent.store.steps(of_an_agent.run.id)[-1].id
    of_an_agent.change(f"DELETE FROM messages WHERE step_id = {last}")
    assert of_an_agent.replayed()[0] == "version 2 is missing"


def test_a_judge_that_judges_otherwise_is_noticed(of_an_agent: Recording) -> None:
    def other(candidate: Candidate) -> Evaluation:
        found = judge(candidate)
        return replace(correct(118.0), plan_digest="p") if candidate.source == "tflops = 120.0" else found

    assert of_an_agent.replayed(FakeEvaluator(other))[0] == "version 1 has 118.0000 TFLOPS, not 120.0000"


@pytest.mark.long
@pytest.mark.parametrize(("looks", "steps"), [(CONFIG.step_looks, 3), (24, 1)])
def test_mutate_makes_the_same_candidates_again(recording: Recording, looks: int, steps: int) -> None:
    """Also where what some looks showed decides what the next ones of a step are."""
    recording.config = CONFIG.model_copy(update={"step_looks": looks})
    recording.step(SeedOperator(seed_source("mha")), any_kernel)
    for _ in range(steps):
        recording.step(Mutate(), any_kernel)
    different, made = recording.replayed()
    assert different == ""
    old, new = (recording.store.attempt_summaries(run.id) for run in (recording.run, made))
    assert [attempt.digest for attempt in new] == [attempt.digest for attempt in old]
    assert len(recording.store.versions(made.id)) > 1
    seen, again = (recording.store.history(run.id).looks for run in (recording.run, made))
    assert [look.digest for look in again] == [look.digest for look in seen]
    assert len(seen) == steps * looks


@pytest.mark.long
def test_a_step_that_had_time_for_few_looks_makes_as_many_again(
    recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("avo.search.replay.get_operator", lambda name: few_moves())
    recording.step(SeedOperator(seed_source("mha")), any_kernel)
    for minutes in (None, 0.25):
        recording.config = CONFIG.model_copy(update={"step_looks": 24, "step_minutes": minutes})
        recording.step(few_moves(), any_kernel)
    looks = recording.store.history(recording.run.id).looks
    first, second = ([look.digest for look in looks if look.step_number == number] for number in (1, 2))
    assert len(first) == 24
    assert 0 < len(second) < 24
    different, made = recording.replayed()
    assert different == ""
    assert [look.digest for look in recording.store.history(made.id).looks] == first + second


def test_a_step_that_could_make_no_more_attempts_makes_none_again(
    recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("avo.search.replay.get_operator", lambda name: few_moves())
    recording.config = CONFIG.model_copy(update={"max_attempts": 2})
    recording.step(SeedOperator(seed_source("mha")), any_kernel)
    for _ in range(2):
        recording.step(few_moves(), any_kernel)
    steps = recording.store.steps(recording.run.id)
    assert "no evaluations are left: the run has reached --max-attempts" in steps[-1].reason
    different, made = recording.replayed()
    assert different == ""
    again = recording.store.attempt_summaries(made.id)
    assert [attempt.step_number for attempt in again] == [0, 1]


def test_recorded_attempts_are_made_again_on_request_where_mutate_has_other_moves_by_now(
    recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mutate(speed: float) -> Scripted:
        made = Scripted(proposing(f"tflops = {speed}"))
        made.name = Mutate.name
        return made

    recording.step(SeedOperator(SEED))
    recording.step(mutate(120.0))
    monkeypatch.setattr("avo.search.replay.get_operator", lambda name: mutate(130.0))
    other, same = avo(recording.store), avo(recording.store, "--attempts")
    assert (
        "step 1 makes a candidate that is not on record: if mutate, or what is kept of its looks, has" in other.stdout
    )
    assert (same.exit_code, same.stdout) == (0, "fake: the same lineage, 2 versions\n")


AGENTS = ("agent", "mcp")
EVERY = ("mutate", "single_turn", *AGENTS)


@pytest.mark.long
@pytest.mark.parametrize(
    ("world", "population", "operators"),
    [
        (PREDICTED, "lineage", ("mutate",)),
        (PREDICTED, "islands", ("mutate", "agent")),
        (PREDICTED, "archive", EVERY),
        (MEASURED, "lineage", AGENTS),
    ],
    ids=["lineage", "islands", "archive", "measured"],
)
def test_a_run_of_several_workers_that_die_leads_to_the_same_lineage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, world: World, population: str, operators: tuple[str, ...]
) -> None:
    replays_exactly(tmp_path, monkeypatch, world, population, len(population), operators, steps=6)


@pytest.mark.long
# Of these seeds, 11 has all the operators.
@pytest.mark.parametrize("seed", soaked([11, 10, 12, 13], [10, 12, 13]))
@pytest.mark.parametrize("population", ["lineage", "islands", "archive"])
def test_longer_runs_of_several_workers_that_die_lead_to_the_same_lineage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, population: str, seed: int
) -> None:
    replays_exactly(tmp_path / "a", monkeypatch, PREDICTED, population, seed, EVERY[: 1 + seed % 4], steps=15)
    replays_exactly(tmp_path / "b", monkeypatch, MEASURED, population, seed, AGENTS, steps=15)


@pytest.mark.long
def test_a_run_of_several_processes_leads_to_the_same_lineage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("avo.search.replay.get_operator", lambda name: few_moves())
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))  # where Ray's workers find these tests
    config = RunConfig(workers=3, evaluators=3, max_attempts=40, patience_steps=3, step_looks=3)
    judge = partial(FakeEvaluator, any_kernel)
    with Store.open(str(tmp_path / "runs.db")) as store, Store.open(str(tmp_path / "replays.db")) as other:
        run = make_run(store, config, seeds=(seed_source("mha"), seed_source("mha", "tuned")))
        crew = partial(hire, store.url, run.name, config, make_operator=few_moves, make_evaluator=judge)
        RunSession(store, run, config, deadline=None, hire=crew, stop=Stop(), say=print).drive()
        record = RecordedRun.read(store, run)
        assert len({step.worker for step in record.concluded}) == 3
        assert len(record.versions) > 2
        assert replay(record, other, make_run(other, config), config, recorded_judge(record), utc_now) == ""


def replays_exactly(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    world: World,
    population: str,
    seed: int,
    operators: tuple[str, ...],
    steps: int,
) -> None:
    """Record a run, and assert that it replays to the same lineage, where speed is predicted also if judged again."""
    monkeypatch.setattr("avo.search.replay.get_operator", lambda name: few_moves())
    for module in ("step", "replay"):  # workers with equal seeds meet on the same candidates
        monkeypatch.setattr(f"avo.search.{module}.step_seed", lambda seed, worker, turn: seed + turn)
    folder.mkdir(exist_ok=True)
    config = RunConfig(
        seed=seed, population=population, islands=2, migrate_every=3, restart_after=4, archive_by=("limiter",),
        patience_steps=3, target=world.target, step_looks=3,
    )  # fmt: skip
    with Store.open(str(folder / "runs.db")) as store, Store.open(str(folder / "replays.db")) as other:
        made = Interleaved(store, config, world, deaths=0.05)
        made.make(steps, operators)
        record = RecordedRun.read(store, made.run)
        judges: list[Evaluator] = [recorded_judge(record)]
        if world is PREDICTED:
            judges.append(world.judge(lambda: None))
        for number, judge in enumerate(judges):
            run = make_run(other, config, name=f"replay-{number}")
            assert replay(record, other, run, config, judge, made.clock) == ""
            old, new = store.versions(made.run.id), other.versions(run.id)
            assert [(v.attempt.digest, v.parents, v.niche) for v in new] == [
                (v.attempt.digest, v.parents, v.niche) for v in old
            ]


def avo(store: Store, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["replay", "fake", "--recorded", *arguments, "--db", store.url])


@pytest.mark.long
def test_the_command_says_whether_the_lineage_is_the_same(of_an_agent: Recording) -> None:
    store = of_an_agent.store
    same = avo(store)
    assert (same.exit_code, same.stdout) == (0, "fake: the same lineage, 3 versions\n")
    of_an_agent.change("UPDATE messages SET content = replace(content, '120.0', '121.0') WHERE step_id = 2")
    other = avo(store)
    assert (other.exit_code, other.stdout) == (1, "fake: step 1 makes a candidate that is not on record\n")
    unknown = CliRunner().invoke(app, ["replay", "nothing", "--db", store.url])
    assert (unknown.exit_code, len(unknown.stderr.splitlines())) == (2, 1)
    assert [summary.run.name for summary in store.runs()] == ["fake"], "a replay is kept where that is asked for"


@pytest.mark.long
def test_a_replay_that_is_kept_is_finished_if_it_came_to_the_end(of_an_agent: Recording, tmp_path: Path) -> None:
    kept = str(tmp_path / "kept.db")
    assert avo(of_an_agent.store, "--into", kept).stdout.endswith("3 versions, kept as fake-replay\n")
    of_an_agent.change("UPDATE messages SET content = replace(content, '120.0', '121.0') WHERE step_id = 2")
    assert avo(of_an_agent.store, "--into", kept, "--name", "other").exit_code == 1
    with Store.open(kept) as store:
        assert [(summary.run.name, summary.run.state) for summary in store.runs()] == [
            ("other", RunState.STOPPED),
            ("fake-replay", RunState.FINISHED),
        ]
    assert "give --into" in avo(of_an_agent.store, "--name", "other").stderr


def test_a_run_that_cannot_be_replayed_is_refused_before_anything_is_done(
    of_an_agent: Recording, tmp_path: Path
) -> None:
    of_an_agent.change("UPDATE steps SET seen = NULL WHERE number = 1")
    refused = avo(of_an_agent.store, "--into", str(tmp_path / "kept.db"))
    assert (refused.exit_code, len(refused.stderr.splitlines())) == (2, 1)
    assert "run 'fake' cannot be replayed: step 1 was recorded by an earlier release" in refused.stderr
    assert not (tmp_path / "kept.db").exists()
