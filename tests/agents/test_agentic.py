"""The agent's loop: a whole step, a repair, a compaction, what a model may do wrong, and a step that is continued."""

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from threading import Barrier
from typing import Any

import pytest

from avo.agents.agentic import LAST_TURNS, MOST_FAILED, MOST_IDLE, MOST_TURNS, Agentic, choose
from avo.agents.conversation import MESSAGE, RESUMED, STATE, SUMMARY
from avo.agents.errors import BudgetSpent, ContextOverflow, ModelRefused
from avo.agents.model import ChatMessage, Reply, ScriptedModel, ToolCall, Usage
from avo.agents.operator import Proposal
from avo.agents.settings import ModelSettings, Settings
from avo.evaluator.candidate import Candidate
from avo.evaluator.errors import EvaluatorUnavailable
from avo.evaluator.evaluation import Fault, Status
from avo.evaluator.inspection import Findings
from avo.lineage_db.entries import Intervention, Memory, Message
from avo.lineage_db.records import Run, RunState
from tests.agents.world import WHY, World
from tests.avo.fakes import NOW, SEED

MODEL = ModelSettings(name="m")


def says(*calls: tuple[str, dict[str, Any] | str], text: str = "", finish: str = "") -> Reply:
    made = tuple(
        ToolCall(f"c{number}", name, given if isinstance(given, str) else json.dumps(given))
        for number, (name, given) in enumerate(calls)
    )
    return Reply(text, made, finish, Usage(500, 0, 50))


def write(source: str) -> tuple[str, dict[str, Any]]:
    return "write_source", {"source": source}


EVALUATE = ("evaluate", WHY)


def submit(attempt: int | None) -> tuple[str, dict[str, Any]]:
    return "submit", {"attempt": attempt, "change": "100 -> 120", "seen": "+20% as expected"}


def run(world: World, model: ScriptedModel, settings: ModelSettings = MODEL, **brief: Any) -> Proposal:
    return Agentic(Settings((settings,)), lambda *_: model).vary(world.brief(**brief))


def told(model: ScriptedModel, asked: int = -1) -> str:
    """What the model read last when it was asked."""
    return str(model.asked[asked][-1]["content"])


@pytest.mark.long
def test_a_step_looks_edits_checks_evaluates_and_submits() -> None:
    world = World()
    model = ScriptedModel(
        says(("read_lineage", {}), ("profile", {}), text="Let me look."),
        says(write("tflops = 120.0"), ("check", {}), EVALUATE),
        says(submit(2)),
    )
    proposal = run(world, model)
    assert proposal.attempt == world.desk.attempts[2]
    assert proposal.reason == "100 -> 120: +20% as expected"
    assert proposal.submission is not None
    assert proposal.submission.hypothesis == WHY["hypothesis"]
    assert [message["role"] for message in model.asked[1]] == ["system", "user", "assistant", "tool", "tool"]
    first = model.asked[0][1]["content"]
    assert SEED in first
    assert "No limit is set" in first


def test_a_failed_evaluation_is_repaired_within_the_step() -> None:
    world = World()
    model = ScriptedModel(
        says(write("nonsense"), EVALUATE),
        says(("edit_source", {"old": "nonsense", "new": "tflops = 130.0"}), EVALUATE),
        says(submit(3)),
    )
    proposal = run(world, model)
    assert "parse error: not a kernel: nonsense" in told(model, 1)
    assert proposal.attempt is not None
    assert proposal.attempt.source == "tflops = 130.0"
    assert world.tried == ["nonsense", "tflops = 130.0"]


def test_all_is_recorded_as_it_happens() -> None:
    world = World()
    run(world, ScriptedModel(says(write("tflops = 120.0"), EVALUATE), says(submit(2))))
    assert world.kinds() == [*[MESSAGE] * 3, STATE, MESSAGE, STATE, MESSAGE, MESSAGE, STATE, MESSAGE]
    assert world.desk.entries[-2][1]["done"]


def test_a_model_that_says_nothing_or_calls_nothing_is_reminded_and_in_the_end_given_up() -> None:
    world = World()
    lines = [says(), says(text="I think."), says(finish="content_filter"), says(text="half", finish="length")]
    model = ScriptedModel(*lines)
    proposal = run(world, model)
    assert proposal == Proposal(None, f"{MOST_IDLE} replies in a row without a call of a tool")
    assert "Your reply was empty." in told(model, 1)
    assert "You called no tool." in told(model, 2)
    assert "withheld by the content filter" in told(model, 3)
    assert "cut off at the limit of output tokens" in told(model, 4)
    assert "" not in [message["content"] for message in model.asked[-1]]


TEXT_CALL = '<tool_call>{"name": "view_source", "arguments": {}}</tool_call>'


def test_a_step_whose_calls_come_as_text_fails_and_says_which_option_the_server_lacks() -> None:
    model = ScriptedModel(says(text=TEXT_CALL))
    with pytest.raises(ModelRefused, match=r"5 replies in a row .* --enable-auto-tool-choice --tool-call-parser"):
        run(World(), model)
    assert len(model.asked) == MOST_IDLE
    assert "Your call came as text" in told(model, 1)


def test_calls_as_text_after_an_attempt_leave_the_attempt() -> None:
    proposal = run(World(), ScriptedModel(says(write("tflops = 120.0"), EVALUATE), says(text=TEXT_CALL)))
    assert proposal.attempt is not None
    assert "--tool-call-parser" in proposal.reason


def test_one_invalid_call_over_and_over_ends_the_step() -> None:
    model = ScriptedModel(says(("fly", "{}")))
    proposal = run(World(), model)
    assert proposal.reason.startswith(f"{MOST_FAILED} calls in a row could not be performed, the last: fly: ")
    assert len(model.asked) == MOST_FAILED


def test_failed_calls_with_one_between_that_works_do_not_end_the_step() -> None:
    wrong, right = says(("fly", "{}"), ("fly", "{}")), says(("view_source", "{}"))
    script = [wrong] * (MOST_FAILED - 1) + [right] + [wrong] * (MOST_FAILED - 1) + [says(submit(None))]
    assert "nothing submitted" in run(World(), ScriptedModel(*script)).reason


def test_calls_that_are_wrong_are_answered_and_the_step_goes_on() -> None:
    world = World()
    model = ScriptedModel(
        says(("evaluate", '{"hypothesis": '), ("fly", "{}"), ("view_source", "{}"), finish="length"),
        says(("fly", "{}")),
        says(("view_source", '{"first": "two"}')),
        says(write("tflops = 120.0"), EVALUATE, submit(2), ("view_source", {})),
    )
    assert run(world, model).attempt is not None
    answers = [message["content"] for message in model.asked[-1] if message["role"] == "tool"]
    assert [answer[:30] for answer in answers] == [
        "error: the arguments of evalua", *["not run: the call before faile"] * 2,
        "error: there is no tool 'fly':", "error: view_source was not cal",
    ]  # fmt: skip
    assert "cut off" in str(model.asked[1][-1]["content"])


def test_the_calls_after_one_that_fails_are_not_performed() -> None:
    world = World()
    edit = ("edit_source", {"old": "no such passage", "new": ""})
    model = ScriptedModel(
        says(write("tflops = 120.0"), edit, ("profile", {}), EVALUATE), says(("view_source", {})), says(submit(None))
    )
    run(world, model)
    answers = [str(message["content"]) for message in model.asked[1] if message["role"] == "tool"]
    assert answers[1].startswith("error: the passage does not occur")
    assert answers[2:] == ["not run: the call before failed"] * 2
    assert world.tried == []
    assert told(model) == "   1 tflops = 120.0"


def test_the_calls_after_a_check_that_finds_a_fault_are_not_performed() -> None:
    world = World()
    world.desk.findings = Findings(Fault(Status.INCORRECT, "rows 1 to 2 are off"))
    calls = [("view_source", {}), ("check", {}), ("profile", {}), EVALUATE]
    model = ScriptedModel(says(write("tflops = 120.0"), *calls), says(EVALUATE))
    run(world, model, explain=lambda candidate, case=None: pytest.fail("profiled all the same"))
    answers = [str(message["content"]) for message in model.asked[1] if message["role"] == "tool"]
    assert answers[1:] == [
        "   1 tflops = 120.0",
        "incorrect: rows 1 to 2 are off",
        *["not run: the call before failed"] * 2,
    ]
    assert world.tried == ["tflops = 120.0"], "a model that insists is heard"


def test_calls_after_one_that_cannot_be_performed_are_not_answered_though_they_only_read() -> None:
    model = ScriptedModel(says(("read_note", {"id": "none such"}), ("view_source", {})), says(submit(None)))
    run(World(), model)
    _, second = (str(message["content"]) for message in model.asked[1] if message["role"] == "tool")
    assert second == "not run: the call before failed"


def test_calls_that_only_read_are_performed_side_by_side_and_answered_in_order() -> None:
    together = Barrier(2, timeout=600)

    def explain(candidate: Candidate, case: str | None = None) -> Fault:
        together.wait()  # an error, unless two are here at a time
        return Fault(Status.UNSUPPORTED, f"case {case}")

    cases = [("profile", {"case": case}) for case in ("8k-full", "8k-causal")]
    model = ScriptedModel(says(write("tflops = 120.0"), *cases, ("view_source", {})), says(submit(None)))
    run(World(), model, explain=explain)
    answers = [str(message["content"]) for message in model.asked[1] if message["role"] == "tool"]
    assert answers[1:] == ["unsupported: case 8k-full", "unsupported: case 8k-causal", "   1 tflops = 120.0"]


def test_the_best_attempt_is_submitted_when_a_budget_ends_the_step() -> None:
    world = World()
    model = ScriptedModel(
        says(write("tflops = 120.0"), EVALUATE, write("tflops = 140.0"), EVALUATE, write("tflops = 90.0"), EVALUATE),
        BudgetSpent("the step has used 10 of 10 tokens"),
    )
    proposal = run(world, model)
    assert proposal.attempt is not None
    assert proposal.attempt.source == "tflops = 140.0"
    assert proposal.reason.startswith("the step has used 10 of 10 tokens; submitted is the best attempt: a number; ")
    assert proposal.submission is not None
    assert (proposal.submission.change, proposal.submission.expected) == ("a number; then a number", "+10%")
    (said,) = world.desk.handovers
    assert "The step ended: the step has used 10 of 10 tokens." in said
    assert said.count("- attempt ") == 3
    nothing = run(World(), ScriptedModel(BudgetSpent("all is used")))
    assert nothing == Proposal(None, "all is used")


def test_what_is_under_way_when_a_budget_ends_the_step_is_waited_for() -> None:
    world = World()
    start = ("evaluate", {**WHY, "wait": False})
    model = ScriptedModel(says(write("tflops = 120.0"), start, write("tflops = 140.0"), start), BudgetSpent("no more"))
    proposal = run(world, model, at_once=1)
    assert proposal.attempt is not None
    assert proposal.attempt.source == "tflops = 140.0"
    assert (world.desk.handovers[0].count("- attempt "), sorted(world.tried)) == (
        2,
        ["tflops = 120.0", "tflops = 140.0"],
    )
    model = ScriptedModel(says(write("tflops = 150.0"), start), ModelRefused("quota"))
    assert run(world, model, at_once=1).reason.startswith("quota; submitted is the best attempt")


def test_a_model_that_refuses_fails_the_step_unless_there_is_something_to_submit() -> None:
    with pytest.raises(ModelRefused, match="wrong key"):
        run(World(), ScriptedModel(ModelRefused("wrong key")))
    proposal = run(World(), ScriptedModel(says(write("tflops = 120.0"), EVALUATE), ModelRefused("quota")))
    assert proposal.attempt is not None
    assert proposal.reason.startswith("quota; submitted is the best attempt")


def test_after_the_last_evaluation_there_are_a_few_turns_to_submit() -> None:
    world = World(evaluations=1)
    model = ScriptedModel(says(write("tflops = 120.0"), EVALUATE), says(("view_source", {})))
    proposal = run(world, model)
    assert proposal.reason.startswith("no evaluations are left; submitted is the best attempt")
    assert len(model.asked) == 1 + LAST_TURNS
    assert "No evaluations are left" in told(model, 1)


def test_a_step_of_endless_reading_ends() -> None:
    model = ScriptedModel(says(("view_source", {"first": 1})))
    assert run(World(), model) == Proposal(None, f"no submission in {MOST_TURNS} replies")


def test_a_step_may_submit_nothing() -> None:
    proposal = run(World(), ScriptedModel(says(submit(None))))
    assert proposal == Proposal(None, "nothing submitted: +20% as expected")


def small(*script: Any) -> tuple[World, ScriptedModel, ModelSettings]:
    world = World()
    world.desk.findings = Findings(text="x" * 9000)
    return world, ScriptedModel(*script), ModelSettings(name="m", context_tokens=12_000)


def test_a_full_conversation_is_compacted_and_what_matters_stays_exact() -> None:
    look = says(("run_python", {"code": "print('x')"}))
    begin = says(write("tflops = 120.0\n# exact"), EVALUATE, ("check", {}))

    def at_the_end(messages: Sequence[ChatMessage]) -> Reply:
        if any("learnt a lot" in str(message["content"]) for message in messages):
            return says(submit(2))
        return replace(look, usage=Usage(len(json.dumps(messages)) // 4, 0, 50))

    def script(messages: Sequence[ChatMessage]) -> Reply:
        compressing = "You compress the record" in str(messages[0]["content"])
        return Reply("learnt a lot", usage=Usage(9, 0, 9)) if compressing else at_the_end(messages)

    world, model, settings = small(begin, script)
    world.desk.findings = Findings(text="x" * 9000)
    proposal = run(world, model, settings)
    assert proposal.attempt == world.desk.attempts[2]
    assert SUMMARY in world.kinds()
    compacted = model.asked[-1][2]["content"]
    assert "learnt a lot" in compacted
    assert "tflops = 120.0\n# exact" in compacted
    assert "attempt 2: correct, 120 predicted TFLOPS; version 0 has 100 (+20.0%) [a number]" in compacted
    assert f"hypothesis: {WHY['hypothesis']} (expected +10%)" in compacted
    assert "# Last result of check" in compacted
    assert "# Last result of evaluate\nattempt 2: correct" in compacted


def test_a_model_whose_context_is_smaller_than_configured_gets_a_shorter_conversation() -> None:
    turn = says(("run_python", {"code": "print('x')"}))
    world, model, settings = small(turn, turn, turn, ContextOverflow("too long"), Reply("short"), says(submit(None)))
    assert run(world, model, replace_context(settings, 30_000)).reason.startswith("nothing submitted")
    assert world.kinds().count(SUMMARY) == 1
    with pytest.raises(ContextOverflow):
        run(World(), ScriptedModel(ContextOverflow("too long")))


def test_where_a_model_with_a_smaller_context_takes_over_the_conversation_is_made_to_fit() -> None:
    turns = (says(("run_python", {"code": code})) for code in ("print('x')", "print('x' * 1)"))
    turn, other = (replace(each, usage=Usage(20_000, 0, 50)) for each in turns)
    world, model, settings = small(turn, other, ContextOverflow("smaller", 2000), Reply("short"), says(submit(None)))
    assert run(world, model, replace_context(settings, 30_000)).reason.startswith("nothing submitted")
    assert len(model.asked[-1]) == 3, "no turn fits beside the summary"


def replace_context(settings: ModelSettings, tokens: int) -> ModelSettings:
    return settings.model_copy(update={"context_tokens": tokens})


def test_a_step_that_was_killed_continues_from_its_transcript() -> None:
    world = World()
    world.desk.findings = None  # nobody is there to look: the judge is gone
    with pytest.raises(EvaluatorUnavailable):
        run(world, ScriptedModel(says(write("tflops = 120.0"), EVALUATE), says(write("tflops = 7.0"), ("check", {}))))
    transcript = [Message(5, n, kind, json.loads(json.dumps(c)), NOW) for n, (kind, c) in enumerate(world.desk.entries)]
    world.desk.entries.clear()
    world.desk.findings = Findings()
    model = ScriptedModel(says(submit(2)))
    proposal = run(world, model, transcript=transcript)
    assert proposal.attempt == world.desk.attempts[2]
    (asked,) = model.asked
    assert [m["role"] for m in asked] == [
        "system", "user", "assistant", "tool", "tool", "assistant", "tool", "tool", "user",
    ]  # fmt: skip
    assert asked[7]["content"] == "error: interrupted before there was a result"
    assert "Your process was interrupted" in asked[8]["content"]
    kind, entry = world.desk.entries[0]
    assert (kind, entry["step"], entry["state"]["source"]) == (RESUMED, 5, "tflops = 7.0")
    assert world.tried == ["tflops = 120.0"]


def test_a_step_that_was_killed_after_its_submission_only_concludes() -> None:
    world = World()
    run(world, ScriptedModel(says(write("tflops = 120.0"), EVALUATE), says(submit(2))))
    transcript = [Message(5, n, kind, content, NOW) for n, (kind, content) in enumerate(world.desk.entries)]
    model = ScriptedModel(says(("view_source", {})))
    assert run(world, model, transcript=transcript).attempt == world.desk.attempts[2]
    assert model.asked == []


def test_a_step_is_told_of_memory_directions_and_what_was_taken_over() -> None:
    world = World()
    world.accept("tflops = 110.0", (0,), "larger tiles reuse more")
    world.fail("nonsense", "shorter is faster")
    run_ = Run(9, "old", "fsa", "h100", "quick", "agent", 0, {}, RunState.FINISHED, NOW, NOW)
    from avo.agents.operator import Transferred

    taken = Transferred(run_, tuple(world.versions[:1]))
    model = ScriptedModel(says(submit(None)))
    said = Intervention(1, 1, 4, "redirect", "five steps without a version", ("persistence",), "", None, NOW)
    left = Memory(1, 1, 3, "tiles of 64 are next", NOW, handover=True)
    run(world, model, interventions=(said,), transferred=taken, memories=(left,))
    first = model.asked[0][1]["content"]
    assert "- attempt 3: parse error: not a kernel: nonsense. Changed: to nonsense. Hypothesis: shorter is fa" in first
    assert "v1  v0       110  +10.0%  to tflops = 110.0" in first
    assert "Hypothesis: larger tiles reuse more." not in first, "the version is in the lineage"
    assert "- five steps without a version\n  - try persistence\n" in first
    assert "has another signature" in first
    assert "# Handed over by step 3, which made no version\ntiles of 64 are next\n" in first
    model = ScriptedModel(says(submit(None)))
    run(world, model, transferred=replace(taken, run=replace(run_, problem="gqa")))
    assert "The first version of this run is its kernel as it is" in model.asked[0][1]["content"]


def test_models_are_chosen_by_weight_and_by_the_seed_of_the_step() -> None:
    models = (ModelSettings(name="often", weight=3.0), ModelSettings(name="seldom", weight=1.0))
    names = [choose(models, random.Random(seed), ()).name for seed in range(400)]
    assert names == [choose(models, random.Random(seed), ()).name for seed in range(400)]
    assert 70 <= names.count("seldom") <= 130


def test_a_fault_of_a_check_is_only_said() -> None:
    world = World()
    world.desk.findings = Findings(Fault(Status.RACE, "two programs store"))
    model = ScriptedModel(says(("check", {})), says(submit(None)))
    run(world, model)
    assert told(model) == "race: two programs store"


def test_the_model_hands_over_in_its_own_words() -> None:
    world = World()
    call, given = submit(None)
    run(world, ScriptedModel(says((call, {**given, "handover": "Exponentials are next."}))))
    assert world.desk.handovers == ["Exponentials are next."]


def test_a_step_whose_model_refuses_hands_over_what_it_said() -> None:
    world = World()
    with pytest.raises(ModelRefused):
        run(world, ScriptedModel(says(("view_source", {}), text="Barriers are dear."), ModelRefused("quota")))
    (said,) = world.desk.handovers
    assert "The step ended: quota." in said
    assert "Last said: Barriers are dear." in said
