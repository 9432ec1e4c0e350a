"""Tools: what they say, what they change, and what is answered to a call that is wrong."""

import json
import re
from dataclasses import replace
from typing import Any

import pytest

from avo.agents.briefing import opening
from avo.agents.prompts import tool_descriptions
from avo.agents.tools import Toolbox, Workbench
from avo.agents.tools.arguments import TOOLS, BadCall, tool_specs
from avo.agents.tools.editing import Passage, edited
from avo.agents.tools.tables import cut, short
from avo.agents.tools.toolbox import MOST_CHARS
from avo.evaluator.candidate import Candidate
from avo.evaluator.evaluation import CaseResult, Fault, Resources, Status
from avo.evaluator.inspection import Findings, Inspection, Look
from avo.evaluator.profile import Counted, Profile
from avo.evaluator.resolution import ALONE, Difference
from avo.evaluator.target import ScoreKind
from avo.lineage_db.decision import Lead
from avo.lineage_db.directions import Direction, Evidence
from avo.lineage_db.entries import Memory
from avo.lineage_db.records import Attempt, Run, RunState, RunSummary
from avo.seeds import seed_source
from tests.agents.world import UNRESOLVED, WHY, World, predicted
from tests.avo.fakes import NOW, SEED, correct
from tests.avo.report.test_timeline import LANES
from tests.avo.sample_profile import PROFILE as HAND_MADE
from tests.evaluator.serving.test_protocol import COUNTED, PROFILE

NAMES = [
    "read_lineage", "read_version", "diff_versions", "search_knowledge", "read_note", "sources", "view_source",
    "edit_source", "write_source", "try_variants", "explore_directions", "check", "evaluate", "collect", "profile",
    "run_python",
    "remember", "recall", "submit",
]  # fmt: skip


class Bench:
    def __init__(self, world: World | None = None, **brief: Any) -> None:
        self.world = world or World()
        self.box = Toolbox(self.world.brief(**brief))

    def call(self, name: str, /, **arguments: Any) -> str:
        return self.box.call(name, json.dumps(arguments))

    def evaluate(self, source: str, **more: Any) -> str:
        self.call("write_source", source=source)
        return self.call("evaluate", **{**WHY, **more})


def test_tools_have_these_names_and_descriptions_and_no_others() -> None:
    assert list(TOOLS) == NAMES
    assert set(tool_descriptions()) == set(NAMES)
    for name, told in tool_descriptions().items():
        assert set(told.get("arguments", {})) == set(TOOLS[name].model_fields)


def test_specs_are_plain_data_without_the_suite_that_nobody_is_shown() -> None:
    specs = {spec["function"]["name"]: spec["function"] for spec in Bench().box.specs}
    assert list(specs) == NAMES
    assert specs["evaluate"]["parameters"]["properties"]["suite"]["enum"] == ["quick", "paper"]
    assert specs["evaluate"]["parameters"]["required"] == ["hypothesis", "change", "expected"]
    assert specs["profile"]["parameters"]["properties"]["case"]["enum"] == ["8k-causal", "8k-full"]
    text = json.dumps(tool_specs(("quick",), ("a",)))
    assert "held_out" not in text
    assert "$ref" not in text
    assert "anyOf" not in text


@pytest.mark.parametrize(
    ("name", "arguments", "parts"),
    [
        ("nope", "{}", ["no tool 'nope'", "read_lineage"]),
        ("view_source", "{", ["not JSON", '"first": integer, optional']),
        ("view_source", "[1]", ["view_source was not called", "send {"]),
        ("evaluate", "{}", ["hypothesis: Field required", '"hypothesis": string', '"suite": string, optional']),
        ("evaluate", '{"hypothesis": "x", "change": "abc", "expected": "y"}', ["at least 15 characters"]),
        ("edit_source", '{"old": "x", "new": "y", "file": "z"}', ["file: Extra inputs"]),
        ("profile", '{"show": "all"}', ["show", '"show": pipes|timeline|sass|ptx|ttgir']),
        ("write_source", '{"source": "x", "version": 1}', ["give exactly one of source, version, attempt, variant"]),
        ("read_version", '{"version": 9}', ["no version 9", "choose one of 0"]),
        ("read_version", '{"attempt": 99}', ["no attempt 99"]),
        ("read_note", '{"id": "nope"}', ["unknown note 'nope'"]),
        ("submit", '{"attempt": 5, "change": "abc", "seen": "x"}', ["there is no attempt 5", "read_lineage lists"]),
    ],
)
def test_a_bad_call_is_told_what_to_send(name: str, arguments: str, parts: list[str]) -> None:
    said = Bench().box.call(name, arguments)
    assert said.startswith("error: ")
    assert [part for part in parts if part not in said] == []
    assert "\n" not in said


def test_the_lineage_shows_versions_and_failures_with_their_reasons() -> None:
    world = World()
    world.accept("tflops = 110.0", (0,))
    world.fail("nonsense")
    said = Bench(world).call("read_lineage")
    assert "predicted TFLOPS" in said
    assert "v1  v0       110  +10.0%  to tflops = 110.0" in said
    assert "parse error" in said
    assert "not a kernel: nonsense" in said
    assert "Latest attempts" not in Bench(world).call("read_lineage", attempts=0)


def test_versions_can_be_read_and_compared_and_so_can_failed_attempts() -> None:
    world = World()
    world.accept("tflops = 110.0\nx = 1", (0,), "because of y")
    world.fail("nonsense")
    bench = Bench(world)
    assert "because of y" in bench.call("read_version", version=1)
    assert "nonsense" in bench.call("read_version", attempt=3)
    assert "-tflops = 100.0\n+tflops = 110.0\n+x = 1" in bench.call("diff_versions", old=0, new=1)
    assert bench.call("diff_versions", old=1) == "no difference"
    said = bench.call("diff_versions", old_attempt=3, new=0)
    assert said.startswith("--- attempt 3\n+++ version 0\n")
    assert "-nonsense\n" in bench.call("diff_versions", old_attempt=3)
    assert "give exactly one of old, old_attempt" in bench.call("diff_versions", old=1, old_attempt=3)
    assert "give at most one of new, new_attempt" in bench.call("diff_versions", old=1, new=0, new_attempt=3)


def test_the_knowledge_base_is_searched_for_this_target_and_problem() -> None:
    bench = Bench()
    found = bench.call("search_knowledge", query="exp2 scale")
    assert "exp2" in found
    described = bench.call("search_knowledge", query="triton.language.make_tensor_descriptor")
    assert re.search(r"  triton.language.make_tensor_descriptor\(base: .* \.\.\.  ", described), "signatures are cut"
    assert "Source:" in bench.call("read_note", id="exp2")
    assert "nothing found" in bench.call("search_knowledge", query="zzzz")


def test_seeds_best_known_kernels_and_versions_of_other_runs_are_read_by_name() -> None:
    world = World()
    other = Run(2, "night", "gqa", "h100", "quick", "mutate", 1, {}, RunState.FINISHED, NOW, NOW)
    best = {("night", None): world.versions[0], ("night", 1): world.accept("tflops = 612.3", (0,))}
    desk = replace(
        world.desk.desk,
        runs=lambda: [RunSummary(other, 5, 2, 612.34, 200.0)],
        version=lambda run, number: best[run, number],
    )
    bench = Bench(world, desk=desk)
    rows = {tuple(line.split("  ")[0].split()): line for line in bench.call("sources").splitlines()}
    assert "gqa, h100, suite quick: 612 TFLOPS" in rows["run", "night"]
    assert "mha/plain by specialise; side(4 heads)" in rows["known", "mha", "h100"]
    assert "FlashAttention" in rows["seed", "mha/hopper"]
    assert bench.call("sources", name="seed mha/plain") == seed_source("mha", "plain").rstrip("\n")
    assert bench.call("sources", name="run night@1") == "tflops = 612.3"
    assert bench.call("sources", name="run night") == SEED
    made = bench.call("sources", name="known fsa h100")
    assert made.startswith('"""')
    assert bench.call("sources", name="known fsa h100", first=3) == made.partition("\n")[2].partition("\n")[2]
    for wrong in ("seed mha/none", "known mha a100", "run none", "night", "run night@7"):
        assert bench.call("sources", name=wrong).startswith("error: ")


def test_the_working_source_starts_as_the_best_version_and_is_edited_exactly() -> None:
    bench = Bench()
    bench.call("write_source", source="a = 1\nb = 1\nc = 3")
    assert bench.call("view_source", first=2) == "   2 b = 1\n   3 c = 3"
    assert bench.call("edit_source", old="b = 1", new="b = 2") == "edited: line 2 (-1 +1)"
    assert "Nearest is line 2: 'b = 2'" in bench.call("edit_source", old="b =  2", new="")
    assert "See view_source" in bench.call("edit_source", old="qqqqqqqq", new="")
    assert "occurs 3 times" in bench.call("edit_source", old=" = ", new="=")
    bench.call("edit_source", old=" = ", new="=", everywhere=True)
    assert bench.box.bench.source == "a=1\nb=2\nc=3"


def test_what_is_nearest_to_a_passage_is_found_by_the_whole_of_it() -> None:
    """Its first line alone would lead to the first loop."""
    bench = Bench()
    bench.call("write_source", source="for i in x:\n    a = 1\n    b = 2\n\nfor i in x:\n    c = 3\n    d = 4")
    said = bench.call("edit_source", old="for i in x:\n    c = 3\n    d = 5\n", new="")
    assert said.endswith("Nearest are lines 5 to 7:\nfor i in x:\n    c = 3\n    d = 4")


def varied(**values: str) -> list[dict[str, Any]]:
    """Return variants of the seed that have these speeds."""
    return [{"name": name, "edits": [{"old": "100.0", "new": value}]} for name, value in values.items()]


def test_variants_are_compared_with_their_base_and_work_goes_on_with_one_of_them() -> None:
    bench = Bench(World(looks=7))
    variants = [
        *varied(small="90.0", large="130.0", alike="101.0"),
        {"name": "broken", "edits": [{"old": SEED, "new": f"nonsense {'x' * 300}"}]},
        {"name": "elsewhere", "edits": [{"old": "200.0", "new": "1"}]},
        {"name": "two", "edits": [{"old": "100.0", "new": "7"}, {"old": "= 7", "new": "= 129.0"}]},
    ]
    said = bench.call("try_variants", variants=variants)
    rows = [line.split("  ") for line in said.splitlines()]
    assert [(row[0], row[2].strip(), row[3].strip()) for row in map(joined, rows[1:6])] == [
        ("base", "100", ""),
        ("large", "130", "+30.0% ± 1.7%"),
        ("two", "129", "+29.0% ± 1.7%"),
        ("alike", "101", "tie, +1.0% ± 1.7%"),
        ("small", "90.0", "-10.0% ± 1.7%"),
    ]
    assert f"broken: parse error: not a kernel: nonsense {'x' * 300}" in said
    assert "elsewhere: not made: the passage does not occur" in said
    assert "Most ahead of the base is large, tied with two: go on with write_source variant: large" in said
    assert "1 looks are left" in said
    assert bench.box.bench.source == SEED
    assert [each.change for each in bench.world.looked[:2]] == ["the base of variants, working source", "variant small"]
    assert bench.world.tried == []
    bench.call("write_source", source="something = else")
    again = Workbench.from_json(json.loads(json.dumps(bench.box.bench.to_json())))
    assert again == bench.box.bench
    assert "variant two" in bench.call("write_source", variant="two")
    assert (bench.box.bench.source, bench.box.bench.parents) == ("tflops = 129.0", (0,))
    assert "no variant 'elsewhere': those of the last try_variants are small, large, alike, broken, two" in bench.call(
        "write_source", variant="elsewhere"
    )


def joined(row: list[str]) -> list[str]:
    """Return the cells of a row of a table, the first without its blanks and an empty one behind it."""
    cells = [cell.strip() for cell in row if cell.strip()]
    return [cells[0], "", cells[1], cells[2] if "%" in cells[2] else ""]


def test_no_variant_is_recommended_that_is_not_told_apart_from_the_base() -> None:
    said = Bench().call("try_variants", variants=varied(slower="99.0", faster="101.5"))
    assert "None is told apart from the base as faster" in said
    assert "go on with" not in said


def test_variants_with_the_base_s_launch_plans_are_the_same_kernels() -> None:
    world = World()
    looked = [replace(each, plan_digest="p") for each in world.look([])]
    brief = world.brief(look=lambda variations: [replace(predicted(each), plan_digest="p") for each in variations])
    said = Toolbox(brief).call("try_variants", json.dumps({"variants": varied(other="120.0")}))
    assert looked == []
    assert "the same kernels" in said
    assert "None is told apart" in said


def test_variants_can_be_made_of_any_attempt_by_patch_without_edits_and_in_a_grid() -> None:
    world = World()
    world.fail("tflops = 50.0\nBLOCK_N = 64\nkernel(num_stages=2, BLOCK_N=BLOCK_N)")
    bench = Bench(world)
    grid = [{"name": "tflops", "values": [60, "70.0"]}, {"name": "num_stages", "values": [2, 3]}]
    patch = "--- a\n+++ b\n@@ -7,2 +7,2 @@\n-tflops = 50.0\n+tflops = 65.0\n BLOCK_N = 64\n"
    variants = [{"name": "patched", "patch": patch}, {"name": "as it is"}]
    said = bench.call("try_variants", attempt=2, variants=variants, grid=grid)
    assert [each.candidate.source.splitlines()[0] for each in bench.world.looked] == [
        "tflops = 50.0", "tflops = 65.0", "tflops = 50.0", *2 * ["tflops = 60"], *2 * ["tflops = 70.0"],
    ]  # fmt: skip
    assert "Most ahead of the base is tflops 70.0, num_stages 2, tied with tflops 70.0, num_stages 3" in said
    assert "tie, +0.0%" in said
    assert "variant tflops 70.0, num_stages 3" in bench.call("write_source", variant="tflops 70.0, num_stages 3")
    assert bench.box.bench.source == "tflops = 70.0\nBLOCK_N = 64\nkernel(num_stages=3, BLOCK_N=BLOCK_N)"
    assert "nothing sets num_warps to a literal" in bench.call(
        "try_variants", grid=[{"name": "num_warps", "values": [4]}]
    )


def test_two_parameters_that_one_variable_sets_are_for_edits_and_flags_are_values() -> None:
    bench = Bench()
    bench.call("write_source", source="n = 64\nf[g](M=n, N=n)\nCAUSAL = True")
    grid = [{"name": "M", "values": [32]}, {"name": "N", "values": [128, 32]}]
    said = bench.call("try_variants", grid=grid)
    assert "M 32, N 128: not made: N and another parameter are set by one variable: use edits" in said
    bench.call("try_variants", grid=[{"name": "CAUSAL", "values": [False]}])
    bench.call("write_source", variant="CAUSAL False")
    assert bench.box.bench.source.endswith("CAUSAL = False")


@pytest.mark.parametrize(
    ("source", "name", "made"),
    [
        ("é, n = 'é', 64\nkernel[grid](BLOCK_N=n)", "BLOCK_N", "é, n = 'é', 9\nkernel[grid](BLOCK_N=n)"),
        ("BLOCK_N: int = 64", "BLOCK_N", "BLOCK_N: int = 9"),
        ("if N == 64: x.N = 1\nO = {'N': 64, **more}", "N", "if N == 64: x.N = 1\nO = {'N': 9, **more}"),
        ("first(stages=2); second(stages=2)", "stages", "first(stages=9); second(stages=9)"),
        ("# a\x0cb\u2028c\nX = 64", "X", "# a\x0cb\u2028c\nX = 9"),
        ("X = '''a\nb'''; Y = 2", "X", "X = 9; Y = 2"),
    ],
)  # fmt: skip
def test_a_parameter_is_changed_wherever_it_is_set(source: str, name: str, made: str) -> None:
    assert edited(source, [Passage(name, "9", parameter=True)]) == made


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("first(stages=2)\nsecond(stages=3)", "stages is set to 2 and to 3: use edits"),
        ("first(stages=x)", "nothing sets stages to a literal: use edits"),
        ("first(", "the source does not parse: "),
        ("-" * 190_000, "the source does not parse: "),
    ],
)
def test_a_parameter_that_is_not_set_to_one_literal_is_for_edits(source: str, words: str) -> None:
    with pytest.raises(BadCall) as raised:
        edited(source, [Passage("stages", "4", parameter=True)])
    assert str(raised.value).startswith(words)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({}, "give variants, or a grid, or both"),
        (
            {"grid": [{"name": "A", "values": [1]}, {"name": "A", "values": [2]}]},
            "give each parameter of the grid once",
        ),
        ({"variants": [{"name": "base"}]}, "the first row is called base: choose another name"),
        ({"grid": [{"name": "A", "values": list(range(9))}, {"name": "B", "values": [1, 2]}]}, "18 variants are asked"),
        ({"variants": [{"name": "a"}], "version": 0, "attempt": 1}, "at most one of version, attempt"),
    ],
)
def test_a_call_for_variants_that_cannot_be_is_answered_in_a_sentence(asked: dict[str, Any], words: str) -> None:
    assert words in Bench().call("try_variants", **asked)


def test_a_source_is_edited_in_several_places_or_by_a_patch_and_wholly_or_not_at_all() -> None:
    bench = Bench()
    bench.call("write_source", source="a = 1\nb = 1\n\nc = 3\n")
    said = bench.call("edit_source", edits=[{"old": "a = 1", "new": "a = 2"}, {"old": "q", "new": "r"}])
    assert "the passage does not occur" in said
    assert bench.box.bench.source == "a = 1\nb = 1\n\nc = 3\n"
    bench.call("edit_source", edits=[{"old": "a = 1", "new": "a = 2"}, {"old": "c = 3", "new": "c = 4"}])
    patch = "@@ -1 +1 @@\n-a = 2\n+a = 5\n b = 1\n@@\n \n-c = 4\n+c = 6\n\\ No newline at end of file"
    bench.call("edit_source", patch=patch)
    assert bench.box.bench.source == "a = 5\nb = 1\n\nc = 6\n"
    bench.call("edit_source", patch="@@\n-b = 1\n")
    assert bench.box.bench.source == "a = 5\n\nc = 6\n"
    assert "does not occur" in bench.call("edit_source", patch="@@\n-a = \n+b = \n"), "a part of a line"
    bench.call("write_source", source="x = 10\nx = 1")
    bench.call("edit_source", patch="@@\n-x = 1\n+x = 2")
    assert bench.box.bench.source == "x = 10\nx = 2"
    for wrong, words in (("x", "has no hunk"), ("@@\n+x", "no line of the source"), ("@@\nx", "begins with none of")):
        assert words in bench.call("edit_source", patch=wrong)
    assert "give exactly one of old and new, edits, patch" in bench.call("edit_source", patch=patch, old="a", new="b")
    assert "old and new belong together" in bench.call("edit_source", old="a")


def test_hot_loops_of_two_sources_are_set_beside_each_other_and_a_timeline_is_text() -> None:
    world, asked = World(), list[str]()

    def explain(candidate: Candidate, case: str | None = None) -> tuple[Profile, ...]:
        asked.append(candidate.source)
        return (replace(PROFILE, timeline=LANES),)

    bench = Bench(world, explain=explain)
    bench.call("try_variants", variants=varied(large="130.0"))
    said = bench.call("profile", show="sass", variant="large", against="base")
    assert "- the base of the variants, 8k-full" in said
    assert "+ variant large, 8k-full" in said
    assert asked == ["tflops = 130.0", SEED]
    for name in ("v0", "version 0", "#1", "large", "working source"):
        assert bench.call("profile", show="sass", against=name).startswith("- ")
    assert "names no source: give v3, #38" in bench.call("profile", show="sass", against="other")
    assert "against compares machine code" in bench.call("profile", against="v0")
    assert "warps run or wait for:" in bench.call("profile", show="timeline")


def listed(name: str, value: str | None = None, **more: Any) -> dict[str, Any]:
    """Return a direction whose test sets the speed, or one without a test."""
    test = {} if value is None else {"edits": [{"old": "100.0", "new": value}]}
    return {"name": name, "hypothesis": f"{name} relieves the tensor pipe", **test, **more}


def test_directions_are_tested_together_and_kept_with_what_was_seen_and_one_is_followed() -> None:
    bench = Bench(World(looks=9))
    asked = [
        listed("pages", "103.0"), listed("alike", "101.0"), listed("worse", "80.0"), listed("ideas"),
        listed("broken", edits=[{"old": SEED, "new": "nonsense"}]),
        listed("elsewhere", edits=[{"old": "7", "new": "8"}]),
    ]  # fmt: skip
    said = bench.call("explore_directions", directions=asked)
    assert [line.split()[0] for line in said.splitlines()[1:5]] == ["base", "pages", "alike", "worse"]
    assert "Most ahead of the base is pages: go on with write_source variant: pages" in said
    assert "elsewhere: not made: the passage does not occur" in said
    assert said.endswith(
        "4 looks are left.\nKept without a test: ideas, elsewhere.\n6 directions are in memory. "
        "In this step, follow those that pay."
    )
    kept = {each.name: each for each in bench.world.desk.explored}
    assert [kept[each["name"]].hypothesis for each in asked] == [each["hypothesis"] for each in asked]
    found = {name: each.evidence[0] for name, each in kept.items() if each.evidence}
    assert {name: (round(each.gain or 0, 3), each.resolution, each.resolved) for name, each in found.items()} == {
        "pages": (0.03, ALONE, True), "alike": (0.01, ALONE, False), "worse": (-0.2, ALONE, True),
        "broken": (0, None, False),
    }  # fmt: skip
    assert found["broken"].said == "parse error: not a kernel: nonsense"
    assert {each.base for each in found.values()} == {"the working source from version 0"}
    assert found["pages"].digest == Candidate("mha", "tflops = 103.0").digest
    assert bench.box.bench.results["explore_directions"] == said
    bench.call("write_source", variant="pages")
    bench.call("edit_source", old="103.0", new="103.5")
    bench.call("evaluate", **WHY)
    assert bench.world.desk.attempts[2].change == f"pages: {WHY['change']}"
    bench.call("edit_source", old="103.5", new="104.0")
    bench.call("evaluate", **WHY | {"change": "Pages: again"})
    assert bench.world.desk.attempts[3].change == "Pages: again"
    again = Workbench.from_json(json.loads(json.dumps(bench.box.bench.to_json())))
    assert (again, again.direction) == (bench.box.bench, "pages")
    bench.call("try_variants", variants=[{"name": "other", "edits": [{"old": "104.0", "new": "105.0"}]}])
    bench.call("write_source", variant="other")
    assert bench.box.bench.direction == "pages", "variants of the source that follows it"
    bench.call("try_variants", variants=varied(other="1.0"), version=0)
    bench.call("write_source", variant="other")
    assert bench.box.bench.direction == "", "variants of one that does not"
    bench.call("write_source", version=0)
    bench.evaluate("tflops = 99.0")
    assert bench.world.desk.attempts[4].change == WHY["change"]


def test_directions_may_be_tested_on_any_version_or_attempt_and_listed_without_any_test() -> None:
    world = World()
    world.fail("tflops = 50.0")
    bench = Bench(world)
    said = bench.call("explore_directions", attempt=2, directions=[listed("x", edits=[{"old": "50", "new": "60"}])])
    assert "+20.0%" in said
    assert bench.world.desk.explored[0].evidence[0].base == "attempt 2"
    looks = len(world.looked)
    said = bench.call("explore_directions", directions=[listed("y")])
    assert said == "Kept without a test: y.\n1 directions are in memory. In this step, follow those that pay."
    assert len(world.looked) == looks
    assert "x" in (bench.box.bench.varied.passages if bench.box.bench.varied else {})


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ([], "give directions, each a name of its own other than base"),
        (["Roles", "roles"], "give directions, each a name of its own other than base"),
        (["base"], "give directions, each a name of its own other than base"),
        ([f"number {number}" for number in range(21)], "at most 20 items"),
    ],
)
def test_a_list_of_directions_that_cannot_be_is_answered_in_a_sentence(names: list[str], words: str) -> None:
    bench = Bench()
    said = bench.call("explore_directions", directions=[listed(name) for name in names])
    assert said.startswith("error: explore_directions was not called: ")
    assert words in said
    assert bench.world.desk.explored == []


def test_directions_that_cannot_be_looked_at_are_not_kept() -> None:
    bench = Bench(World(looks=2))
    said = bench.call("explore_directions", directions=[listed("a", "101.0"), listed("b", "102.0")])
    assert said.startswith("error: ")
    assert bench.world.desk.explored == []


def test_variants_are_not_looked_at_beyond_the_budget_or_where_nothing_can_be_looked_at() -> None:
    bench = Bench(World(looks=1))
    said = bench.call("try_variants", variants=varied(a="1.0", b="2.0"))
    assert said == "error: 3 candidates to look at, and 1 looks are left: look at fewer"
    assert bench.box.bench.varied is None
    assert "no variant 'a'" in bench.call("write_source", variant="a")
    assert "cannot be looked at here" in Bench(look=None).call("try_variants", variants=varied(a="1.0"))
    twice = [*varied(a="1.0"), *varied(a="2.0")]
    assert "give each variant a name of its own" in bench.call("try_variants", variants=twice)


def test_work_can_go_back_to_any_version_or_attempt() -> None:
    world = World()
    world.accept("tflops = 110.0", (0,))
    bench = Bench(world)
    assert (bench.box.bench.source, bench.box.bench.parents) == ("tflops = 110.0", (1,))
    bench.evaluate("tflops = 120.0")
    bench.call("write_source", version=0)
    assert (bench.box.bench.source, bench.box.bench.parents) == (SEED, (0,))
    bench.call("write_source", attempt=3)
    assert (bench.box.bench.source, bench.box.bench.parents) == ("tflops = 120.0", (1,))


def test_an_edit_is_compared_with_what_was_edited_and_recorded_with_it() -> None:
    world = World()
    bench = Bench(world)
    bench.evaluate("tflops = 110.0")
    said = bench.evaluate("tflops = 121.0", change="fewer barriers")
    assert "attempt 3: correct, 121 predicted TFLOPS; attempt 2 has 110 (+10.0%); version 0 has 100 " in said
    bench.evaluate("nonsense")
    said = bench.evaluate("tflops = 133.1", change="mended")
    assert "; attempt 3 has 121 (+10.0%)" in said, "a faulty attempt is passed over"
    bench.call("write_source", attempt=2)
    bench.call("edit_source", old="110", new="99")
    assert "; attempt 2 has 110 (-10.0%)" in bench.call("evaluate", **WHY)
    bench.call("write_source", version=0)
    bench.call("edit_source", old="100", new="98")
    assert "TFLOPS; version 0 has 100 (-2.0%)\n" in bench.call("evaluate", **WHY)
    assert [world.desk.attempts[number].built_on for number in range(2, 8)] == [None, 2, 3, 4, 2, None]
    of_the_best = next(each for each in bench.box.bench.attempts if each.attempt_id == 5)
    assert bench.box.bench.whole_change(of_the_best) == "a number; then fewer barriers; then a number; then mended"


def test_tables_name_what_an_attempt_was_edited_from_and_its_gain_over_that() -> None:
    world = World()
    world.fail("tflops = 110.0")
    world.fail("tflops = 121.0", built_on=2)
    said = Bench(world).call("read_lineage", attempts=1)
    assert said.splitlines()[-1].split()[:4] == ["3", "#2", "121", "+10.0%"]


def test_a_version_is_read_in_the_words_of_its_submission() -> None:
    world = World()
    world.fail("tflops = 110.0")
    version = world.accept("tflops = 121.0", (0,), "why")
    attempt = replace(version.attempt, built_on=2)
    world.versions[1] = replace(version, attempt=attempt, whole_change="all of it", seen="as expected")
    bench = Bench(world)
    said = bench.call("read_version", version=1)
    assert said.startswith(
        "version 1 (attempt 3), from #2: all of it\nseen: as expected\n"
        "its last edit, made to attempt 2: to tflops = 121.0\nhypothesis: why\n"
    )
    assert "+21.0%  seen: as expected -- all of it" in bench.call("read_lineage")
    world.versions[1] = replace(world.versions[1], whole_change="another word " * 100)
    assert "+21.0%  seen: as expected -- another word another" in Bench(world).call("read_lineage")


def test_all_that_steps_left_is_found_by_words_each_in_full_and_the_outcome_first() -> None:
    world = World()
    long = "Two barriers a pass are left. " + "Every warp waits for the slowest. " * 30
    memories = (Memory(1, 1, 3, "spills begin at 255 registers", NOW), Memory(2, 1, 4, long, NOW, handover=True))
    world.fail("tflops = 110.0", "fewer barriers for the warps")
    bench = Bench(world, memories=memories)
    assert bench.call("recall", query="spilling registers") == "step 3, note: spills begin at 255 registers"
    first, second = bench.call("recall", query="barrier").split("\n\n")
    assert {first.partition(":")[0], second.partition(":")[0]} == {
        "step 2", "handed over by step 4, which made no version",
    }  # fmt: skip
    assert long in (first + second)
    assert "step 2: attempt 2: 100 -> 110 predicted TFLOPS (+10.0%) over version 0. Changed:" in (first + second)
    assert "\n\n" not in bench.call("recall", query="barrier", limit=1)
    assert bench.call("recall", query="zyzzyva").startswith("nothing found")
    few = Toolbox(world.brief(memories=memories), most_chars=1300)
    found = few.call("recall", json.dumps({"query": "barrier"}))
    assert found.endswith("\n\n(1 more did not fit: ask with other words, or more)")
    assert "cut" not in found


def test_directions_of_other_runs_are_in_the_brief_and_found_by_words_with_where_they_come_from() -> None:
    there = Evidence(2, ScoreKind.PREDICTED, 0.03, 0.01, resolved=True, run="old", problem="gqa", target="a100")
    brief = World().brief(directions=[Direction("roles", "loads wait for products", (there,))])
    words = "roles: +3.0% ± 1.0%, predicted (run old, gqa on a100, not executed). Hypothesis: loads wait for products."
    assert f"- {words}\n" in opening(brief, "x")
    assert Toolbox(brief).call("recall", '{"query": "product"}') == f"step 0, taken over: {words}"


def test_an_evaluation_keeps_hypothesis_and_outcome_together() -> None:
    world = World(evaluations=2)
    world.accept("tflops = 110.0", (0,))
    bench = Bench(world)
    said = bench.evaluate("tflops = 121.0", also_from=[0, 1])
    assert "attempt 3: correct, 121 predicted TFLOPS; version 1 has 110 (+10.0%)" in said
    assert "1 evaluations are left" in said
    attempt = world.desk.attempts[3]
    assert attempt.hypothesis == f"{WHY['hypothesis']} (expected: +10%)"
    assert (attempt.change, attempt.parents) == ("a number", (1, 0))
    assert bench.box.bench.best == bench.box.bench.attempts[0]
    assert "evaluated before" in bench.call("evaluate", **WHY)
    assert len(bench.box.bench.attempts) == 1


def test_a_fault_is_told_with_what_an_author_needs() -> None:
    world = World()
    bench = Bench(world)
    failed = CaseResult("odd-causal", False, 0.3, 0.1, "rows 1 to 2 are off")
    kernel = Resources("kernel", 255, 16, 1024, 0, 4, 1)
    verdict = replace(
        correct(1.0), status=Status.INCORRECT, message="wrong", score=None, cases=(failed,), resources=(kernel,)
    )
    attempt = replace(world.desk.attempts[1], id=2, evaluation=verdict)
    box = Toolbox(world.brief(evaluate=lambda *_, **__: attempt))
    said = box.call("evaluate", json.dumps(WHY))
    assert "attempt 2: incorrect: wrong" in said
    assert "odd-causal     0.3             0.1  rows 1 to 2 are off" in said
    assert "kernel      4        255       16" in said
    assert "attempt 2 is not correct" in box.call("submit", json.dumps({"attempt": 2, "change": "abc", "seen": "x"}))
    assert bench.box.bench.best is None


def test_no_evaluation_is_made_beyond_the_budget_or_of_what_another_worker_has() -> None:
    bench = Bench(World(evaluations=0))
    assert "no evaluations are left" in bench.evaluate("tflops = 120.0")
    assert bench.world.tried == []
    assert "another worker" in Bench(World(taken=True)).evaluate("tflops = 120.0")


def test_another_suite_is_looked_at_and_not_recorded_and_the_hidden_one_is_refused() -> None:
    bench = Bench()
    bench.world.desk.findings = Findings(evaluation=correct(77.0, suite="paper"))
    said = bench.evaluate("tflops = 120.0", suite="paper")
    assert "on suite paper, not recorded: correct, 77.0 predicted TFLOPS" in said
    assert bench.world.desk.inspections == [Inspection(Look.SCORE, "mha", "tflops = 120.0", "paper")]
    assert bench.world.tried == []
    assert "there is no suite 'held_out': choose one of quick, paper" in bench.evaluate(
        "tflops = 1.0", suite="held_out"
    )


def test_a_check_is_of_the_working_source_and_says_what_it_needs() -> None:
    bench = Bench()
    kernel = Resources("kernel", 128, 0, 1024, 0, 4, 4)
    bench.world.desk.findings = Findings(resources=(kernel, kernel), cases=(CaseResult("one", True, 0.0, 0.0),) * 2)
    assert bench.call("check").splitlines()[:3] == [
        "ok: compiles, fits, and is right on these cases",
        "case one passed",
        "kernel  warps  registers  spill B  shared B  tmem columns  CTAs/SM",
    ]
    bench.world.desk.findings = Findings(Fault(Status.RACE, "two programs store"))
    assert bench.call("check") == "race: two programs store"
    assert bench.world.desk.inspections[0] == Inspection(Look.CHECK, "mha", SEED)


def test_a_profile_has_pipes_or_code_page_by_page() -> None:
    bench = Bench(explain=lambda candidate, case=None: (PROFILE,))
    said = bench.call("profile")
    assert "at 1.48 GHz under this load" in said
    assert "latency 9.0 +-2.0%" in said
    assert "8k-full: 200 (190 to 210) predicted TFLOPS" in said
    tuned = replace(PROFILE, score=replace(PROFILE.score, configurations=("k: BLOCK_M=64",)))
    assert "\n\nwith k: BLOCK_M=64\n\n" in Bench(explain=lambda candidate, case=None: (tuned,)).call("profile")
    assert "critical: latency" in said
    assert "k = tl.load(" in said
    measured = Bench(explain=lambda candidate, case=None: (COUNTED,)).call("profile").partition("by ncu on H100")[2]
    assert "tensor pipe busy, %       3.00     51.00" in measured
    assert "3      50.0%     70.0%  long sb 86%  k = tl.load(" in measured
    absent = replace(PROFILE, counted=Counted(why="no ncu on this machine"))
    assert Bench(explain=lambda candidate, case=None: (absent,)).call("profile").endswith("no ncu on this machine")
    bench.world.desk.findings = Findings(text="\n".join(f"line {n} " + "x" * 40 for n in range(1, 1001)))
    first = bench.call("profile", show="ptx", case="8k-full")
    assert bench.world.desk.inspections == [Inspection(Look.PTX, "mha", SEED, None, "8k-full")]
    assert len(first) < MOST_CHARS
    last = int(first.splitlines()[-1].partition("first: ")[2].rstrip("]"))
    assert bench.call("profile", show="ptx", first=last).startswith(f"line {last} ")
    bench.world.desk.findings = Findings(Fault(Status.LOWERING_ERROR, "no such function"))
    assert bench.call("profile", show="sass") == "lowering error: no such function"
    faulty = Bench(explain=lambda candidate, case=None: Fault(Status.PARSE_ERROR, "line 1"))
    assert faulty.call("profile", version=0) == "parse error: line 1"


def test_a_profile_shows_what_matters_once() -> None:
    launch = HAND_MADE.launches[0]
    section = launch.sections[0]
    role = section.roles[0]
    line = replace(role.lines[0], source="k = tl.load(")
    lines = (line, replace(line, line=72, source="v = tl.load(", share=0.004))
    roles = (
        replace(role, lines=lines),
        replace(role, lines=(replace(line, share=line.share + 0.02), lines[1])),
        replace(role, lines=(replace(line, share=line.share + 0.2), lines[1])),
    )
    shown = replace(HAND_MADE, launches=(replace(launch, sections=(replace(section, roles=roles),)),))
    said = Bench(explain=lambda candidate, case=None: (shown,)).call("profile")
    assert said.count("k = tl.load(") == 2
    assert "\non the lines of role 0, alike\nrole 2" in said
    assert "v = tl.load(" not in said, "it has less than a hundredth"
    assert "one more CTA per SM  +100.0%" in said
    assert said.endswith("what if, less than 0.5%: no spills")
    assert "what if, not resolved: loads free\n" in said


def test_attempts_of_earlier_steps_are_profiled_without_becoming_the_working_source() -> None:
    bench = Bench()
    bench.world.fail("nonsense")
    bench.call("profile", show="ir", attempt=2, before="tritongpu-coalesce")
    asked = bench.world.desk.inspections[-1]
    assert (asked.look, asked.source, asked.before) == (Look.IR, "nonsense", "tritongpu-coalesce")
    assert bench.box.bench.source == SEED
    assert "give at most one of version, attempt" in bench.call("profile", version=0, attempt=2)


def test_code_can_be_read_from_its_main_loop_on() -> None:
    bench = Bench()
    bench.world.desk.findings = Findings(text="module {\n  scf.for %i {\n    ttng.warp_group_dot\n  }\n}")
    assert bench.call("profile", show="ttgir", loop=True).startswith("  scf.for %i {\n")
    bench.world.desk.findings = Findings(text="module {\n}")
    assert bench.call("profile", show="ttgir", loop=True).startswith("module {\n")


def test_a_script_says_what_it_printed_and_how_it_failed() -> None:
    bench = Bench()
    bench.world.desk.findings = Findings(Fault(Status.CRASHED, "Traceback"), "1\n")
    assert bench.call("run_python", code="print(1); 1/0") == "1\nTraceback"
    bench.world.desk.findings = Findings()
    assert bench.call("run_python", code="pass") == "(nothing was printed)"


def test_notes_are_kept_and_a_submission_ends_the_step() -> None:
    bench = Bench()
    assert bench.call("remember", note="tiles of 64 spill on this target") == "kept"
    assert bench.world.desk.notes == ["tiles of 64 spill on this target"]
    bench.evaluate("tflops = 120.0")
    assert "submitted" in bench.call("submit", attempt=2, change="100 -> 120", seen="+20%")
    submission = bench.box.bench.submission
    assert submission is not None
    assert (submission.hypothesis, submission.expected) == (WHY["hypothesis"], "+10%")
    assert (submission.change, submission.seen) == ("100 -> 120", "+20%")
    assert bench.call("view_source") == "error: the step has ended with its submission"


def test_a_correct_attempt_of_an_earlier_step_can_be_submitted_as_it_is_on_record() -> None:
    world = World()
    stated = f"{WHY['hypothesis']} (expected: +10% (or more))"
    earlier = world.evaluate(Candidate("mha", "tflops = 120.0"), change="a number", parents=(0,), hypothesis=stated)
    bench = Bench(world)
    assert "attempt 1 is version 0 already" in bench.call("submit", attempt=1, change="nothing", seen="nothing")
    assert "submitted" in bench.call("submit", attempt=earlier.id, change="100 -> 120", seen="+20%")
    submission = bench.box.bench.submission
    assert submission is not None
    assert (submission.hypothesis, submission.expected) == (WHY["hypothesis"], "+10% (or more)")
    world.fail("nonsense")
    assert "attempt 3 is not correct" in Bench(world).call("submit", attempt=3, change="nothing", seen="nothing")


def test_a_step_may_end_with_nothing() -> None:
    bench = Bench()
    bench.call("submit", attempt=None, change="nothing", seen="all was slower")
    assert (bench.box.bench.done, bench.box.bench.submission) == (True, None)


def test_what_is_long_is_cut_and_says_so() -> None:
    bench = Bench()
    bench.world.desk.findings = Findings(text="a" * 50_000 + "\ud800end")
    said = bench.call("run_python", code="pass")
    assert len(said) < MOST_CHARS + 100
    assert "34004 of 50004 characters left out here" in said
    assert said.endswith("?end")
    assert cut("short", 10) == "short"


def test_nothing_is_cut_within_a_word_or_a_line() -> None:
    assert short("It gained 283.7 percent. Then it lost 12.25 percent of that.", 50) == "It gained 283.7 percent. ..."
    assert short("one sentence of 283.7 and 12.25 that does not end", 28) == "one sentence of 283.7 ..."
    lines = "\n".join(f"line {number} has {number}.25" for number in range(100))
    assert set(cut(lines, 600).splitlines()) - set(lines.splitlines()) == {
        "[... 1189 of 1779 characters left out here ...]"
    }


def test_a_workbench_survives_json() -> None:
    bench = Bench()
    bench.evaluate("tflops = 120.0")
    bench.call("submit", attempt=2, change="100 -> 120", seen="+20%")
    again = Workbench.from_json(json.loads(json.dumps(bench.box.bench.to_json())))
    assert again == bench.box.bench


def test_an_attempt_whose_parents_are_not_shown_to_the_step_is_evaluated_all_the_same() -> None:
    world = World()
    world.accept("tflops = 110.0", (0,))
    world.accept("tflops = 115.0", (1,))
    box = Toolbox(world.brief(versions=tuple(world.versions[1:])))
    box.call("write_source", '{"attempt": 2}')
    box.call("edit_source", '{"old": "110", "new": "120"}')
    said = box.call("evaluate", json.dumps(WHY))
    assert "attempt 4: correct, 120 predicted TFLOPS; version 1 has 110 (+9.1%); version 2 has 115 " in said
    assert box.bench.best is not None


def test_an_evaluation_says_whether_the_attempt_would_be_accepted_and_why_not() -> None:
    world = World()
    refused = Lead(0, Difference(0.056, 0.71)).decide(0.01, 0.9)

    def evaluate(candidate: Candidate, **about: Any) -> Attempt:
        return replace(world.evaluate(candidate, **about), decision=refused)

    bench = Bench(world, evaluate=evaluate)
    said = bench.evaluate("tflops = 105.6")
    words = "+5.6% in the mean over version 0, faster in 71% of draws, 90% are needed"
    assert f"; would be accepted: no, {words}\n" in said
    assert words in bench.box.bench.attempts[0].line


def test_the_lineage_lists_what_is_unresolved_the_fastest_first_and_only_while_it_is_better_than_the_best() -> None:
    world = World()
    for tflops in (102.0, 108.0, 104.0):
        world.fail(f"tflops = {tflops}", decision=UNRESOLVED)
    world.accept("tflops = 103.0", (0,))
    said = Bench(world).call("read_lineage", attempts=0)
    _, _, listed = said.partition("Unresolved attempts, which may be built on:\n")
    assert [line.split()[:3] for line in listed.splitlines()[1:]] == [["3", "v0", "108"], ["4", "v0", "104"]]
    assert UNRESOLVED.told in listed
    assert Bench(world).call("read_lineage").count("to tflops = 108.0") == 1, "what is listed apart is not repeated"
    assert UNRESOLVED.told in opening(world.brief(), "x")
    world.accept("tflops = 120.0", (0,))
    assert "Unresolved" not in Bench(world).call("read_lineage", attempts=0)
    assert UNRESOLVED.told in Bench(world).call("read_lineage"), "it is still an attempt that was not accepted"


def test_the_best_of_a_step_is_the_fastest_that_would_be_accepted_else_the_fastest() -> None:
    bench, world = Workbench("x", (0,)), World()
    for tflops, decision in (
        (110.0, UNRESOLVED),
        (105.0, Lead(0, Difference(0.05, 1.0)).decide(0.01, 0.9)),
        (90.0, None),
    ):
        world.fail(f"tflops = {tflops}", decision=decision)
    for number in (2, 4):
        bench.add(world.desk.attempts[number], "", "", "")
    assert bench.best
    assert bench.best.attempt_id == 2
    bench.add(world.desk.attempts[3], "", "", "")
    assert bench.best.attempt_id == 3
    assert Workbench.from_json(bench.to_json()).best == bench.best
