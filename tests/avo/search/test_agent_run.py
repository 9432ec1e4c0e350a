"""Steps and runs of operators with models: the real client, a scripted endpoint, the database, and real workers."""

import difflib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

from avo.agents.agentic import MOST_IDLE, Agentic
from avo.agents.command import PROGRAM, Command
from avo.agents.moves import MOVES
from avo.agents.operator import Variation
from avo.agents.settings import ModelSettings, Settings
from avo.agents.single_turn import SingleTurn
from avo.agents.tools import Toolbox
from avo.config import RunConfig
from avo.errors import NoAttempts, RunFailed
from avo.evaluator.fake import FakeEvaluator
from avo.evaluator.inspection import Findings, Inspection, Look
from avo.evaluator.resolution import ALONE
from avo.evaluator.targets import get_target
from avo.lineage_db.ending import Cause, Ending
from avo.lineage_db.records import PendingReply, RunState, StepState
from avo.lineage_db.store import Store
from avo.search.budget import Allowance
from avo.search.evaluators import SideBySide
from avo.search.judging import Judging
from avo.search.run import MODEL_PATIENCE, PATIENCE, RunSession, Stop
from avo.search.seeding import SeedOperator
from avo.search.step import StepOutcome
from avo.search.transfer import known_directions
from avo.seeds import seed_source
from tests.agents.endpoint import Endpoint, Line
from tests.agents.world import WHY, World
from tests.avo.fakes import NOW, SEED, InlineCrew, judge, make_run, make_work
from tests.avo.search.test_workers import command_line, family

PRICED = {"input_usd_per_mtok": 1000.0, "output_usd_per_mtok": 1000.0}
"""So that a call of the script, 1100 tokens, costs 1.10 USD."""


def write(tflops: float) -> list[Any]:
    return ["write_source", {"source": f"tflops = {tflops}"}]


def submit(attempt: int) -> list[Any]:
    return ["submit", {"attempt": attempt, "change": "faster", "seen": "as expected"}]


EVALUATE = ["evaluate", WHY]


def trying(tflops: float) -> Line:
    return {"calls": [write(tflops), EVALUATE]}


class Shop:
    """A seeded run, and steps on it whose model is at an endpoint."""

    def __init__(self, path: Path, config: RunConfig | None = None) -> None:
        self.config = config or RunConfig(operator="agent")
        self.store = Store.open(str(path))
        self.run = make_run(self.store, self.config)
        self.evaluator = FakeEvaluator(judge)
        self.said: list[str] = []
        self.step(SeedOperator(SEED))

    def step(self, operator: Any, allowance: Allowance = Allowance()) -> StepOutcome:  # noqa: B008
        work = make_work(self.store, self.run, self.evaluator, self.config, allowance=allowance)
        return work.perform(operator, "w0")

    def drive(self, operator: Any, config: RunConfig) -> RunState:
        crew = InlineCrew(self.store, self.run, operator, self.evaluator, allowance=Allowance.of(config))
        run = RunSession(
            self.store, self.run, config, deadline=None, hire=crew.hire, stop=Stop(),
            say=self.said.append, clock=lambda: NOW,
        ).drive()  # fmt: skip
        return run.state


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    made = Shop(tmp_path / "runs.db")
    yield made
    made.store.close()


def test_a_step_whose_program_fails_says_how_and_keeps_what_it_wrote(shop: Shop) -> None:
    outcome = shop.step(Command(Settings(command="echo hello; echo no login >&2; exit 3")))
    assert outcome.state is StepState.FAILED
    assert outcome.reason == "the program ended with exit code 3 before it submitted: no login"
    (_, step) = shop.store.steps(shop.run.id)
    assert step.operator == "command"
    kept = {entry.kind: entry.content for entry in shop.store.journal.messages(step.id)}
    assert (kept[PROGRAM]["stdout"], kept[PROGRAM]["stderr"]) == ("hello\n", "no login\n")


def agent(endpoint: Endpoint, kind: Any = Agentic, **settings: Any) -> Any:
    return kind(Settings((ModelSettings(name="m", base_url=endpoint.url, **settings),)))


def test_a_step_ends_with_a_version_and_all_that_was_said_of_it(shop: Shop) -> None:
    with Endpoint([{"calls": [*trying(120.0)["calls"], ["remember", {"note": "numbers may be larger"}]]},
                   {"calls": [submit(2)]}]) as endpoint:  # fmt: skip
        assert shop.step(agent(endpoint, **PRICED)) == StepOutcome(1, StepState.DONE, 1, 1, "faster: as expected")
    version = shop.store.version(shop.run.id)
    assert version.attempt.hypothesis == f"{WHY['hypothesis']} (expected: +10%)"
    step = shop.store.steps(shop.run.id)[1]
    assert step.submission is not None
    assert (step.submission.attempt_id, step.submission.expected, step.submission.seen) == (2, "+10%", "as expected")
    spend = shop.store.journal.spend(shop.run.id)
    assert (spend.calls, spend.tokens, spend.usd) == (2, 2200, pytest.approx(2.2))
    assert [call.step_id for call in shop.store.journal.calls(shop.run.id)] == [step.id, step.id]
    note, handover = shop.store.journal.memories(shop.run.id)
    assert (note.text, note.handover, handover.handover) == ("numbers may be larger", False, True)
    assert (version.change, version.seen, version.attempt.change) == ("faster", "as expected", "a number")
    assert len(shop.store.journal.messages(step.id)) > 5


def test_a_failed_evaluation_is_repaired_and_a_long_conversation_compacted(shop: Shop) -> None:
    def respond(request: Mapping[str, Any]) -> Line:
        messages = request["messages"]
        usage = {"prompt_tokens": len(json.dumps(messages)) // 4, "completion_tokens": 10}
        if "You compress the record" in messages[0]["content"]:
            return {"text": "the numbers were read often", "usage": usage}
        if "the numbers were read often" in str(messages[1]["content"]):
            return {"calls": [submit(3)], "usage": usage}
        return {"calls": [["run_python", {"code": "print()"}]], "usage": usage}

    repair = {"calls": [["edit_source", {"old": "nonsense", "new": "tflops = 120.0"}], EVALUATE]}
    shop.evaluator.findings = Findings(text="x" * 9000)
    script = [{"calls": [["write_source", {"source": "nonsense"}], EVALUATE]}, repair, respond]
    with Endpoint(script) as endpoint:  # type: ignore[arg-type]
        outcome = shop.step(agent(endpoint, context_tokens=12_000))
    assert outcome.version == 1
    assert "parse error: not a kernel: nonsense" in endpoint.requests[1]["messages"][-1]["content"]
    step = shop.store.steps(shop.run.id)[1]
    assert [message.kind for message in shop.store.journal.messages(step.id)].count("summary") == 1
    compacted = endpoint.requests[-1]["messages"][1]["content"]
    assert "tflops = 120.0" in compacted
    assert "attempt 2: parse error: not a kernel: nonsense [a number]" in compacted


def test_what_one_step_learnt_the_next_is_told(shop: Shop) -> None:
    with Endpoint([{"calls": [*trying(90.0)["calls"], ["remember", {"note": "smaller is slower"}]]},
                   {"calls": [submit(2)]}, {"calls": [["submit", {"attempt": None, "change": "none", "seen": "-"}]]}]
                  ) as endpoint:  # fmt: skip
        shop.step(agent(endpoint))
        shop.step(agent(endpoint))
    first = endpoint.requests[2]["messages"][1]["content"]
    assert "smaller is slower" in first
    assert "attempt 2: 100 -> 90.0 predicted TFLOPS (-10.0%) over version 0" in first
    assert "# Handed over by step 1, which made no version\n(From the record" in first


def test_a_step_begins_with_twenty_directions_on_two_evaluators(shop: Shop) -> None:
    two_at_a_time = Barrier(2, timeout=60)

    class Meeting(FakeEvaluator):
        """One of two: a look ends when the other is asked too."""

        def ask(self, request: Any) -> Any:
            if isinstance(request, Inspection) and "tflops = 1" in request.source:
                two_at_a_time.wait()
            return super().ask(request)

    speeds = {f"direction {number}": 101.0 + number for number in range(19)}
    asked = [
        {"name": name, "hypothesis": f"{name} relieves a pipe", "edits": [{"old": "100.0", "new": str(tflops)}]}
        for name, tflops in speeds.items()
    ]
    asked.append({"name": "later", "hypothesis": "needs to be written anew"})
    follow = {"calls": [["write_source", {"variant": "direction 18"}], EVALUATE]}
    end = {"calls": [["submit", {"attempt": None, "change": "none", "seen": "-"}]]}
    script = [{"calls": [["explore_directions", {"directions": asked}]]}, follow, {"calls": [submit(2)]}, end]
    shop.evaluator = SideBySide(lambda: Meeting(judge), 2)  # type: ignore[assignment]
    with Endpoint(script) as endpoint:  # type: ignore[arg-type]
        outcome = shop.step(agent(endpoint), Allowance(step_looks=20))
        shop.step(agent(endpoint))
    assert (outcome.state, outcome.version) == (StepState.DONE, 1)
    table = endpoint.requests[1]["messages"][-1]["content"]
    assert [line.split("  ")[0] for line in table.splitlines()[1:4]] == ["base", "direction 18", "direction 17"]
    assert "Kept without a test: later." in table
    step = shop.store.steps(shop.run.id)[1]
    assert step.looks == 20
    memories = [each for each in shop.store.journal.memories(shop.run.id) if each.direction]
    assert [(each.direction.name if each.direction else "", each.step_number) for each in memories] == [
        (each["name"], 1) for each in asked
    ]
    found = {each.name: each for each in known_directions(shop.store, shop.run)}
    assert list(found) == [each["name"] for each in asked]
    assert [(one.step, one.attempts, round(one.gain or 0, 2)) for one in found["direction 18"].evidence] == [
        (1, (), 0.19), (1, (2,), 0.19),
    ]  # fmt: skip
    told = endpoint.requests[3]["messages"][1]["content"]
    assert "- direction 17: +18.0% ± 1.7% over the working source from version 0, predicted (step 1, not" in told


@pytest.mark.soak
def test_two_judges_predict_what_a_dozen_directions_gain_over_the_plain_seed() -> None:
    source, asked = seed_source("mha", "plain"), list[dict[str, str]]()
    for move in MOVES:
        for variant in move.variants(source, get_target("h100"), "mha")[:1]:
            lines = difflib.unified_diff(source.splitlines(), variant.source.splitlines(), lineterm="")
            name = f"{move.name} {len(asked)}"
            asked.append({"name": name, "hypothesis": f"{move.name} makes it faster", "patch": "\n".join(lines)})
    world = World()
    with Judging.of(RunConfig(suite="quick", target="h100", evaluators=2)).start_alone() as judges:
        assert judges.at_once == 2

        def look(variations: Sequence[Variation]) -> Sequence[Findings]:
            sources = (each.candidate.source for each in variations)
            return judges.inspect_all([Inspection(Look.SPEED, "mha", each) for each in sources])

        box = Toolbox(world.brief(look=look))
        box.call("write_source", json.dumps({"source": source}))
        said = box.call("explore_directions", json.dumps({"directions": asked[:13]}))
    found = {each.name: each.evidence[0] for each in world.desk.explored}
    assert list(found) == [each["name"] for each in asked[:13]], said
    assert all(each.gain is not None and (each.resolution or 0) >= ALONE for each in found.values())
    gains = {name.split()[0]: each.gain or 0.0 for name, each in found.items() if each.resolved}
    assert gains["skip"] > gains["exp2"] > 0 > gains["warps"]


def test_a_worker_may_keep_one_conversation_over_several_steps(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "runs.db", RunConfig(operator="agent", continue_steps=2))
    script = [trying(120.0), {"calls": [submit(2)]}, trying(110.0), {"calls": [submit(3)]}, {"calls": [submit(9)]}]
    with Endpoint(script) as endpoint:
        operator = Agentic(Settings((ModelSettings(name="m", base_url=endpoint.url),), continue_steps=2))
        assert [shop.step(operator, Allowance(step_tokens=2200)).version for _ in range(3)] == [1, None, None]
    lengths = [len(request["messages"]) for request in endpoint.requests]
    assert lengths == [2, 5, 8, 11, 2, 4], "the third step begins anew"
    assert endpoint.requests[2]["messages"][:5] == endpoint.requests[1]["messages"]
    said = endpoint.requests[2]["messages"][-1]["content"]
    assert "Step 1 of yours has ended: attempt 2 was accepted as version 1." in said
    shop.store.close()


def test_a_wrong_key_fails_the_step_in_one_line(shop: Shop) -> None:
    with Endpoint([{"status": 401, "body": '{"error": {"message": "Incorrect API key"}}'}]) as endpoint:
        outcome = shop.step(agent(endpoint))
    assert outcome.state is StepState.FAILED
    assert "HTTP 401: Incorrect API key: is the key right?" in outcome.reason
    (call,) = shop.store.journal.calls(shop.run.id)
    assert "401" in call.error


@pytest.mark.parametrize(
    ("limits", "spent", "calls"),
    [
        ({"step_tokens": 1500}, "the step has used 2200 of 1500 tokens", 2),
        ({"step_usd": 3.0}, "the step has used 3.3000 of 3 USD", 3),
        ({"max_tokens": 1000}, "the run has used 1100 of 1000 tokens", 1),
        ({"max_usd": 2.1}, "the run has used 2.2000 of 2.1 USD", 2),
    ],
)
def test_a_step_ends_in_order_within_one_call_of_its_limit(
    shop: Shop, limits: Mapping[str, Any], spent: str, calls: int
) -> None:
    script = [trying(120.0), trying(110.0), trying(105.0), {"calls": [submit(2)]}]
    with Endpoint(script) as endpoint:
        outcome = shop.step(agent(endpoint, **PRICED), replace(Allowance(), **limits))
    assert len(endpoint.requests) == calls
    assert outcome.reason.startswith(f"{spent}; submitted is the best attempt: a number: correct, 120 ")
    assert outcome.version == 1


def test_what_an_interrupted_step_has_used_counts_for_the_one_that_takes_it_up(shop: Shop) -> None:
    def interrupt(request: Mapping[str, Any]) -> Line:
        shop.store.claims.abandon_running(shop.run.id, reason="killed", now=NOW)
        return {"text": "too late"}

    allowance = Allowance(step_tokens=4000, step_evaluations=1)
    script = [trying(120.0), interrupt, interrupt, trying(130.0)]
    with Endpoint(script) as endpoint:  # type: ignore[arg-type]
        operator = agent(endpoint)
        assert shop.step(operator, allowance).state is StepState.ABANDONED
        assert shop.step(operator, allowance).state is StepState.ABANDONED
        outcome = shop.step(operator, allowance)
    assert outcome.reason.startswith("the step has used 4400 of 4000 tokens; submitted is the best attempt")
    assert len(endpoint.requests) == 4
    assert json.dumps(endpoint.requests[3]).count("Your process was interrupted") == 2
    assert outcome.version == 1
    assert len(shop.store.attempts(shop.run.id)) == 2


def test_a_step_that_is_taken_up_hands_the_models_reasoning_back(shop: Shop) -> None:
    def interrupt(request: Mapping[str, Any]) -> Line:
        shop.store.claims.abandon_running(shop.run.id, reason="killed", now=NOW)
        return {"text": "too late"}

    thinking = {**trying(120.0), "thought": [{"id": "r1", "summary": [], "encrypted_content": "secret"}]}
    script = [thinking, interrupt, {"calls": [submit(2)]}]
    with Endpoint(script, apis=("responses",)) as endpoint:  # type: ignore[arg-type]
        assert shop.step(agent(endpoint)).state is StepState.ABANDONED
        assert shop.step(agent(endpoint)).version == 1
    before, after = endpoint.requests[1:]
    kinds = [item.get("type", item.get("role")) for item in after["input"]]
    assert kinds == [
        "user", "reasoning", *["function_call"] * 2, *["function_call_output"] * 2, "user",
    ]  # fmt: skip
    assert after["input"][:6] == before["input"], "and what the endpoint may have cached is the same"
    assert all(tool["strict"] for tool in after["tools"])


def test_a_display_can_see_how_much_of_a_reply_has_come(shop: Shop) -> None:
    def watched(request: Mapping[str, Any]) -> Line:
        seen.append(shop.store.steps(shop.run.id)[-1].reply)
        return {"calls": [["submit", {"attempt": None, "change": "none", "seen": "-"}]]}

    seen: list[PendingReply | None] = []
    with Endpoint([watched]) as endpoint:  # type: ignore[list-item]
        shop.step(agent(endpoint))
    (reply,) = seen
    assert reply is not None
    assert (reply.model, reply.heard) == ("m", None)
    assert shop.store.steps(shop.run.id)[-1].reply is None


def test_evaluations_are_limited_by_step_and_by_run(shop: Shop) -> None:
    script = [{"calls": [write(120.0), EVALUATE, write(130.0), EVALUATE, submit(2)]}]
    for limits in (Allowance(step_evaluations=1), Allowance(max_attempts=3)):
        with Endpoint(script) as endpoint:
            shop.step(agent(endpoint), limits)
    assert [attempt.source for attempt in shop.store.attempts(shop.run.id)] == [
        SEED,
        "tflops = 120.0",
        "tflops = 130.0",
    ]


def test_a_run_stops_within_a_call_of_its_limit_and_goes_on_with_a_larger_one(shop: Shop) -> None:
    config = RunConfig(operator="agent", workers=1, max_tokens=5000)
    with Endpoint([{"text": "thinking"}]) as endpoint:
        operator = agent(endpoint)
        assert shop.drive(operator, config) is RunState.FINISHED
        assert len(endpoint.requests) == 5
        ended_by = shop.store.run(shop.run.name).ended_by
        assert ended_by == Ending(Cause.LIMIT, "has used 5500 of 5000 tokens", "max_tokens", enough=11000)
        assert ended_by.goes_on("r") == "avo resume r --max-tokens 11000"
        assert shop.drive(operator, config.model_copy(update={"max_tokens": 7000})) is RunState.FINISHED
        assert len(endpoint.requests) == 7


def test_steps_are_limited_and_repeated_ones_count_once(shop: Shop) -> None:
    config = RunConfig(operator="agent", workers=1, max_steps=2)
    shop.store.claims.claim(shop.run.id, worker="w9", operator="agent", now=NOW)
    with Endpoint([{"calls": [["submit", {"attempt": None, "change": "none", "seen": "-"}]]}]) as endpoint:
        shop.drive(agent(endpoint), config)
    assert [step.state for step in shop.store.steps(shop.run.id)][1:] == [
        StepState.ABANDONED, StepState.DONE, StepState.DONE,
    ]  # fmt: skip
    assert shop.store.run(shop.run.name).ended_by == Ending(Cause.LIMIT, "has made 2 of 2 steps", "max_steps", enough=4)


def test_no_more_steps_are_started_at_once_than_may_be_made(shop: Shop) -> None:
    config = RunConfig(operator="agent", workers=3, max_steps=2)
    with Endpoint([{"calls": [["submit", {"attempt": None, "change": "none", "seen": "-"}]]}]) as endpoint:
        shop.drive(agent(endpoint), config)
    assert len(endpoint.requests) == 2


def test_a_model_without_luck_is_asked_more_often_than_an_operator_that_is_exhausted(shop: Shop) -> None:
    with Endpoint([{"text": "no idea"}]) as endpoint, pytest.raises(NoAttempts) as ended:
        shop.drive(agent(endpoint, SingleTurn), RunConfig(operator="single_turn", workers=1))
    assert len(endpoint.requests) == MODEL_PATIENCE
    why = "the answer does not say its hypothesis, change, expected"
    assert f"'single_turn' made no attempt in 10 steps in a row of each worker, the last: {why}" in str(ended.value)
    assert shop.said[-MODEL_PATIENCE:] == [f"step {number} made no attempt: {why}" for number in range(1, 11)]
    run = shop.store.run(shop.run.name)
    assert run.state is RunState.STOPPED
    assert run.ended_by is not None
    assert (run.ended_by.cause, run.ended_by.goes_on("r")) == (Cause.BARREN, "avo resume r")
    assert why in run.ended_by.why


def test_a_run_whose_server_has_no_parser_of_calls_fails_with_the_option_to_add(shop: Shop) -> None:
    text = '<tool_call>{"name": "view_source", "arguments": {}}</tool_call>'
    with Endpoint([{"text": text}]) as endpoint, pytest.raises(RunFailed, match="--tool-call-parser"):
        shop.drive(agent(endpoint), RunConfig(operator="agent", workers=1))
    assert len(endpoint.requests) == MOST_IDLE * PATIENCE


def test_an_operator_that_answers_once_is_recorded_like_the_other(shop: Shop) -> None:
    text = (
        "Hypothesis: more is faster\nChange: 100 -> 120\nExpected: +20%\n"
        "<<<<<<< SEARCH\n100.0\n=======\n120.0\n>>>>>>> REPLACE"
    )
    with Endpoint([{"text": text}]) as endpoint:
        outcome = shop.step(agent(endpoint, SingleTurn))
    assert outcome.version == 1
    assert len(shop.store.journal.messages(shop.store.steps(shop.run.id)[1].id)) == 3
    assert shop.store.journal.spend(shop.run.id).calls == 1


@pytest.mark.long
def test_a_run_whose_worker_is_killed_goes_on_from_the_transcript(tmp_path: Path) -> None:
    """The whole of it: ``avo run`` with real workers, one of which dies while its model is thinking."""
    (tmp_path / "seed.py").write_text(SEED)
    (tmp_path / "run.toml").write_text(
        'operator = "agent"\nworkers = 1\nmax_steps = 1\nmax_usd = 50.0\n'
        '[[models]]\nname = "m"\ninput_usd_per_mtok = 1000.0\noutput_usd_per_mtok = 1000.0\n'
    )
    judging = f"{sys.executable} {Path(__file__).parents[1] / 'fake_judge.py'}"
    avo = [sys.executable, "-m", "avo"]
    child: list[subprocess.Popen[str]] = []

    def kill(request: Mapping[str, Any]) -> Line:
        for pid in family(child[0].pid):
            if "OperatorWorker" in command_line(pid):
                os.kill(pid, signal.SIGKILL)
        return {"text": "too late"}

    script = [trying(120.0), kill, {"calls": [submit(2)]}]
    with Endpoint(script) as endpoint:  # type: ignore[arg-type]
        environment = {**os.environ, "OPENAI_BASE_URL": endpoint.url, "AVO_DB": str(tmp_path / "runs.db")}
        environment.pop("OPENAI_API_KEY", None)
        command = [*avo, "run", "--config", "run.toml", "--seed-kernel", "seed.py", "--evaluator-command", judging]
        child.append(
            subprocess.Popen(
                [*command, "--name", "one", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                cwd=tmp_path, env=environment,
            )
        )  # fmt: skip
        output, errors = child[0].communicate(timeout=600)
    assert child[0].returncode == 0, errors
    assert "the operator's process died: its step is abandoned, a new worker takes over" in errors
    assert "version 1 accepted: 120 predicted TFLOPS, +20% [faster]" in errors
    summary = json.loads(output[output.index("{\n") :])
    assert summary["versions"] == 2
    assert summary["spend"]["calls"] == 4, "the request before the run and the one that was under way have rows too"
    assert summary["spend"]["usd"] == pytest.approx(3.3, abs=1e-9), "what is known of the cost is exact"
    resumed = endpoint.requests[2]["messages"]
    assert resumed[:5] == endpoint.requests[1]["messages"][:5]
    assert "Your process was interrupted" in resumed[-1]["content"]
    with Store.open(str(tmp_path / "runs.db")) as store:
        run = store.run("one")
        assert [step.state for step in store.steps(run.id)] == [StepState.DONE, StepState.ABANDONED, StepState.DONE]
        assert len(store.attempts(run.id)) == 2
        assert "OPENAI" not in json.dumps({**run.config, "models": []})
