"""One answer a step: sampled by the seed, applied exactly, evaluated as it is."""

import random
from dataclasses import replace

import pytest

from avo.agents.errors import BudgetSpent, ModelRefused
from avo.agents.model import Reply, ScriptedModel
from avo.agents.settings import ModelSettings, Settings
from avo.agents.single_turn import BadAnswer, SingleTurn, read_answer, sample
from avo.agents.tools.sources import exemplars, named
from avo.knowledge_base.note import Kind
from avo.lineage_db.records import Run, RunState, RunSummary
from tests.agents.world import UNRESOLVED, World
from tests.avo.fakes import NOW

SAID = "**Hypothesis:** fewer instructions\nChange: 100 -> 120\nExpected: +20%\n\n"
PARENT = "import triton\n\ndef attention(q):\n    return 1\n"


def block(old: str, new: str) -> str:
    return f"<<<<<<< SEARCH\n{old}\n=======\n{new}\n>>>>>>> REPLACE\n"


def answer(text: str, world: World | None = None) -> tuple[World, ScriptedModel, object]:
    world, model = world or World(), ScriptedModel(Reply(text))
    return world, model, SingleTurn(Settings((ModelSettings(name="m"),)), lambda *_: model).vary(world.brief())


def test_an_answer_is_applied_and_evaluated_and_submitted_with_what_it_said() -> None:
    world, model, proposal = answer(SAID + block("100.0", "120.0"))
    attempt = world.desk.attempts[2]
    assert (attempt.source, attempt.parents, attempt.change) == ("tflops = 120.0", (0,), "100 -> 120")
    assert attempt.hypothesis == "fewer instructions (expected: +20%)"
    assert proposal.attempt == attempt  # type: ignore[attr-defined]
    submission = proposal.submission  # type: ignore[attr-defined]
    assert (submission.expected, submission.seen) == (
        "+20%", "correct, 120 predicted TFLOPS; version 0 has 100 (+20.0%)",
    )  # fmt: skip
    assert world.kinds() == ["message"] * 3
    assert len(model.asked) == 1


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (SAID + block("tflops", "oops"), "100 -> 120: parse error"),
        (SAID + block("7.0", "8.0"), "the passage of block 1 occurs 0 times in the parent"),
        (SAID, "neither SEARCH/REPLACE blocks nor a source that defines attention"),
        (block("100.0", "120.0"), "the answer does not say its hypothesis, change, expected"),
        (SAID + block("100.0", "100.0"), "the answer changes nothing"),
        ("", "does not say its hypothesis, change, expected (it was empty)"),
    ],
)
def test_what_cannot_be_used_or_is_faulty_is_not_repaired(text: str, reason: str) -> None:
    _, model, proposal = answer(text)
    assert proposal.attempt is None  # type: ignore[attr-defined]
    assert reason in proposal.reason  # type: ignore[attr-defined]
    assert len(model.asked) == 1


def test_a_whole_source_and_several_blocks_will_do() -> None:
    whole = "import triton\n\ndef attention(q):\n    return 2\n"
    assert read_answer(f"{SAID}```python\n{whole}```", PARENT, "attention").source == whole
    blocks = block("return 1", "return 2") + block("import triton\n", "import triton as t\n")
    assert read_answer(SAID + blocks, PARENT, "attention").source == whole.replace("triton", "triton as t")
    assert read_answer(SAID + block("    return 1", ""), PARENT, "attention").source.endswith("(q):\n\n")
    with pytest.raises(BadAnswer, match="block 1 occurs 2 times"):
        read_answer(SAID + block("n", "m"), "n n", "attention")


def test_parents_are_mostly_new_and_the_seed_decides() -> None:
    world = World()
    for number in range(1, 6):
        world.accept(f"tflops = {100 + number}.0", (number - 1,))
    drawn = [sample(world.versions, None, random.Random(seed)) for seed in range(300)]
    assert drawn == [sample(world.versions, None, random.Random(seed)) for seed in range(300)]
    counts = [sum(parent.number == number for parent, _ in drawn) for number in range(6)]
    assert counts[5] > counts[4] > counts[2] > 0
    for parent, inspirations in drawn:
        assert len({parent.number, *(version.number for version in inspirations)}) == 3
    assert sample(world.versions[:1], None, random.Random(0)) == (world.versions[0], [])


def test_the_question_shows_parent_inspirations_failures_and_memory() -> None:
    world = World()
    world.accept("tflops = 110.0", (0,), "larger tiles")
    world.fail("nonsense")
    _, model, _ = answer(SAID, world)
    question = model.asked[0][1]["content"]
    assert "# Inspiration: version" in question
    assert "not a kernel: nonsense" in question
    assert "larger tiles" in question
    assert "SEARCH" in question
    assert "attention" in model.asked[0][0]["content"]


def test_a_spent_budget_ends_the_step_in_order_and_a_refusal_fails_it() -> None:
    def vary(error: Exception) -> object:
        operator = SingleTurn(Settings((ModelSettings(name="m"),)), lambda *_: ScriptedModel(error))
        return operator.vary(World().brief())

    assert vary(BudgetSpent("all used")).reason == "all used"  # type: ignore[attr-defined]
    with pytest.raises(ModelRefused):
        vary(ModelRefused("wrong key"))


def test_a_candidate_that_another_worker_has_is_left_to_it() -> None:
    _, _, proposal = answer(SAID + block("100.0", "120.0"), World(taken=True))
    assert "another worker" in proposal.reason  # type: ignore[attr-defined]


def test_unresolved_attempts_are_inspirations() -> None:
    world = World()
    world.fail("tflops = 105.6", decision=UNRESOLVED)
    _, model, _ = answer(SAID + block("100.0", "120.0"), world)
    question = model.asked[0][1]["content"]
    assert f"# Inspiration: attempt 2, 106 predicted TFLOPS, {UNRESOLVED.told}" in question
    assert "+tflops = 105.6" in question


def test_the_question_has_notes_of_the_knowledge_base_and_a_kernel_that_the_agent_could_read() -> None:
    world = World()
    world.accept("tflops = 110.0", (0,), "two waves of programs, the last half empty")
    world.fail("tl.make_tensor_descriptor")
    drawn = set()
    for seed in range(12):
        model = ScriptedModel(Reply(SAID))
        brief = world.brief(seed=seed)
        SingleTurn(Settings((ModelSettings(name="m"),)), lambda *_, model=model: model).vary(brief)  # type: ignore[misc]
        question = model.asked[0][1]["content"]
        name, _, source = question.partition("# A kernel to learn from: ")[2].partition("\n```python\n")
        assert named(brief, name).strip() in source
        drawn.add(name)
    assert drawn >= {"known mha h100", "known mha h100 gluon"}
    notes = question.partition("# From the knowledge base\n")[2].partition("\n# Answer")[0]
    found = [note for note in brief.knowledge.passages if note.whole in notes]
    assert len(found) == 4
    assert {note.kind for note in found} == {Kind.NOTE}
    assert all(note.concerns(brief.target.arch, "mha") for note in found)


def test_versions_and_what_a_small_context_does_not_hold_are_no_exemplars() -> None:
    world = World()
    model = ScriptedModel(Reply(SAID))
    small = ModelSettings(name="m", context_tokens=8_000)
    SingleTurn(Settings((small,)), lambda *_: model).vary(world.brief())
    question = model.asked[0][1]["content"]
    assert "# A kernel to learn from" not in question
    notes = question.partition("# From the knowledge base\n")[2].partition("\n# Answer")[0]
    assert 1000 < len(notes) <= 3200
    names = exemplars(world.brief())
    assert {"seed mha/plain", "known mha h100"} <= {*names}
    for name in names:
        world.accept(named(world.brief(), name))
    model = ScriptedModel(Reply(SAID))
    SingleTurn(Settings((ModelSettings(name="m"),)), lambda *_: model).vary(world.brief())
    assert "# A kernel to learn from" not in model.asked[0][1]["content"]


def test_the_best_of_other_runs_for_the_card_are_exemplars() -> None:
    brief, world = World().brief(), World()
    others = []
    for name, target in (("mine", "h100"), ("elsewhere", "b200")):
        run = Run(1, name, "gqa", target, "quick", "agent", 0, {}, RunState.RUNNING, NOW, NOW)
        others.append(RunSummary(run, 1, 1, 100.0, 100.0))
    desk = replace(brief.desk, runs=lambda: others, version=lambda run, number: world.versions[0])
    names = exemplars(replace(brief, desk=desk))
    assert [name for name in names if name.startswith("run ")] == ["run mine"]
