"""Moves see the setting: what a move makes of a seed of a setting is right there, or the move is not offered."""

import pytest

from avo.agents.moves import MOVES
from avo.evaluator.candidate import Candidate
from avo.evaluator.evaluators import EvaluateRequest
from avo.evaluator.inspection import Inspection, Look
from avo.evaluator.judging.judge import Judge
from avo.evaluator.sandbox.jobs import ForkServer
from avo.evaluator.targets import get_target
from avo.seeds import fitting, seed_source
from bench.verdicts import SETTINGS

B200 = get_target("b200")
FAR = next(move for move in MOVES if move.name == "far")
KV_OUTER = seed_source("fsa", "kv_outer")
GENERAL = seed_source("fsa-d192x128", "general")
BY_SELECTION = {"kv-outer", "far", "forced", "query-union"}
"""Moves that count on what queries select: one small case need not show that they may not."""
TOO_LARGE = {"fsa_backward-sinks-packed": {"stages"}, "fsa-h64x4-b128x16-local-8192x1": {"gluon-ring"}}
"""What is refused at the seed's tiles: 576 columns of tensor memory, where b200 has 512, and a third stage of keys and
values. Smaller tiles come first.
"""


def complaint(judge: Judge, problem: str, source: str, wholly: bool) -> str:
    """Return what is wrong with a source, by a verdict or by a look at one small case; empty where nothing is."""
    if wholly:
        evaluation = judge.ask(EvaluateRequest(Candidate(problem, source), None))
        return "" if evaluation.status == "correct" else evaluation.message
    found = judge.ask(Inspection(Look.CHECK, problem, source))
    return found.fault.message if found.fault else ""


def labels(problem: str, source: str) -> list[str]:
    return [variant.label for variant in FAR.variants(source, B200, problem)]


def test_far_has_a_form_for_each_rule_of_what_is_always_selected() -> None:
    paper = ["far blocks by lists, near ones with partial outputs"]
    assert [labels(name, KV_OUTER) for name in ("", "fsa", "fsa-d64", "fsa-h64x4-b128x16-4096x1")] == [paper] * 4
    local = ["far blocks by lists, a query's own with partial outputs"]
    assert [labels(name, KV_OUTER) for name in ("fsa-local", "fsa-h64x4-b128x16-local-4096x1")] == [local] * 2


def test_far_is_not_offered_where_it_has_no_form() -> None:
    assert labels("fsa-d192x128", GENERAL) == []
    assert labels("fsa-d96", KV_OUTER) == []


@pytest.mark.parametrize(
    ("problem", "gluon"),
    [
        pytest.param("fsa-h64x4-b128x16-local-8192x1", False, marks=pytest.mark.long),
        *(pytest.param(name, True, marks=pytest.mark.soak) for name in SETTINGS if name.startswith("fsa")),
    ],
)
def test_no_move_is_always_refused_in_a_setting(problem: str, gluon: bool, fork_server: ForkServer) -> None:
    refused: dict[str, list[str]] = {}
    accepted: set[str] = set()
    with Judge(B200, "quick", server=fork_server) as judge:
        for seed in fitting(problem, B200, gluon=gluon):
            for move in MOVES:
                variants = move.variants(seed_source(problem, seed), B200, problem)
                for variant in variants[:4] if move.name not in accepted else ():
                    if not (wrong := complaint(judge, problem, variant.source, move.name in BY_SELECTION)):
                        accepted.add(move.name)
                        break
                    refused.setdefault(move.name, []).append(f"{variant.label} of {seed}: {wrong}")
    always = {name: found for name, found in refused.items() if name not in accepted | TOO_LARGE.get(problem, set())}
    assert always == {}
    assert "query-union" in accepted or "_backward" in problem
