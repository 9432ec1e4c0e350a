"""Which edits carry a version."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from avo.errors import NotReproduced
from avo.evaluator.candidate import Candidate
from avo.evaluator.evaluation import CaseScore, Evaluation, Fault, Score, Status
from avo.evaluator.evaluators import AnyRequest, EvaluateRequest, Evaluator, Progress
from avo.evaluator.inspection import Findings, Inspection, Look
from avo.evaluator.target import TARGETS, ScoreKind, Target
from avo.evaluator.units import TFLOPS
from avo.lineage_db.ablated import Ablation
from avo.lineage_db.records import Version
from avo.lineage_db.store import Store
from avo.search.ablation import ablate, ablate_version, unablated
from avo.search.acceptance import Thresholds, decide
from avo.watch.tables import edits
from tests.avo.recorded import Recorded

SEED = "a = 1\n#\nb = 1\n#\nc = 1\n#\nd = 1\n"
BEST = "a = 2\n#\nb = 2\n#\nc = 2\n#\nd = 2\n"


SPREAD = (1.0, 0.99, 1.01, 0.995, 1.005, 1.0)
THRESHOLDS = Thresholds(min_gain=0.01, min_share=0.9)


class Judge(Evaluator):
    """Knows what each line is worth: ``a`` 20%, ``b`` nothing, ``c`` is needed, ``d`` slows down by 5%.

    The neighbours of a kernel are as fast but for their ``spread``; ``lucky`` kernels are faster than theirs.
    """

    def __init__(self, spread: Sequence[float] = SPREAD, lucky: str = "nothing", by: float = 1.0) -> None:
        self.asked: list[str] = []
        self.ranked: list[str] = []
        self.spread, self.lucky, self.by = spread, lucky, by

    @property
    def target(self) -> Target:
        return TARGETS["h100"]

    def score(self, source: str) -> Score:
        tflops = 100 * (1.2 if "a = 2" in source else 1) * (1 / 1.05 if "d = 2" in source else 1)
        tflops *= self.by if self.lucky in source else 1
        return Score(ScoreKind.PREDICTED, "h100", (CaseScore("8k", tflops, 1.0, "tensor"),))

    def ask(self, request: AnyRequest) -> Any:
        if isinstance(request, Inspection):
            assert request.look is Look.RANK
            self.ranked.append(request.source)
            score = self.score(request.source)
            mean = score.own_tflops / (self.by if self.lucky in request.source else 1)
            return Findings(score=replace(score, neighbours=tuple((mean * each,) for each in self.spread)))
        assert isinstance(request, EvaluateRequest)
        source = request.candidate.source
        self.asked.append(source)
        if "c = 1" in source:
            return Evaluation(Status.INCORRECT, "row 1 is wrong\nat length", "h100", "quick", 0.1)
        return Evaluation(Status.CORRECT, "", "h100", "quick", 0.1, self.score(source))


def version(store: Store, source: str, number: int, change: str) -> Version:
    made = Recorded(store, store.free_run_name("live"))
    made.step(100.0)
    found = store.version(made.run.id, 0)
    attempt = replace(found.attempt, source=source, change=change, digest=Candidate("mha", source).digest)
    return replace(found, number=number, parents=(number - 1,) if number else (), attempt=attempt)


def line_of(store: Store, *neighbours: float) -> list[Version]:
    """Return a seed and a version, which was accepted by these neighbours, if any."""
    seed = version(store, SEED, 0, "")
    evaluation = seed.attempt.evaluation
    assert evaluation.score is not None
    evaluation = replace(evaluation, score=replace(evaluation.score, neighbours=tuple((each,) for each in neighbours)))
    best = replace(seed.attempt, source=BEST, change="all", evaluation=evaluation)
    return [seed, replace(seed, number=1, parents=(0,), attempt=best)]


def ablation(line: Sequence[Version], judge: Judge, heard: list[Progress] | None = None) -> Ablation:
    return ablate("mine", line, "mha", judge, THRESHOLDS, (heard if heard is not None else []).append)


def test_each_edit_is_taken_away_alone_and_useless_ones_go_together(store: Store) -> None:
    judge, heard = Judge(), list[Progress]()
    found = ablation(line_of(store), judge, heard)
    assert not found.moves
    assert [each.name for each in found.edits] == [
        "line 1: + a = 2", "line 3: + b = 2", "line 5: + c = 2", "line 7: + d = 2",
    ]  # fmt: skip
    assert [each.worth for each in found.edits] == [
        pytest.approx(0.2),
        pytest.approx(0.0),
        None,
        pytest.approx(-0.0476, abs=1e-3),
    ]
    assert found.edits[2].why == "incorrect: row 1 is wrong"
    assert found.dropped == ("line 3: + b = 2", "line 7: + d = 2")
    assert found.minimal == BEST.replace("b = 2", "b = 1").replace("d = 2", "d = 1")
    assert (found.tflops, found.minimal_tflops) == (pytest.approx(120 / 1.05), pytest.approx(120))
    assert [each.useless for each in found.edits] == [False, True, False, True]
    assert [each.words for each in found.edits] == [
        "", "worth nothing, within the resolution", "incorrect: row 1 is wrong", "slows it down",
    ]  # fmt: skip
    assert len(judge.asked) == 6, "the version, four edits, and the minimal kernel"
    assert (found.ranked, judge.ranked) == (False, []), "it was accepted by a single prediction"
    assert heard[0].words == "1 of about 6, the version itself"
    assert heard[-1].words == "6 of about 6, without 2 useless edits"
    assert "triton 3." in found.releases


def test_where_a_version_was_accepted_by_its_neighbours_the_means_over_them_are_compared(store: Store) -> None:
    judge = Judge(lucky="b = 2", by=1.04)
    alone = ablation(line_of(store), judge).edits[1]
    assert (alone.worth, alone.useless) == (pytest.approx(0.04), False), "a single prediction is taken in by luck"
    found = ablation(line_of(store, 100.0, 101.0), judge)
    assert found.ranked
    assert (found.edits[1].worth, found.edits[1].useless) == (pytest.approx(0.0, abs=1e-9), True)
    assert found.tflops == pytest.approx(120 / 1.05, rel=1e-3)
    assert sorted(judge.ranked) == sorted(source for source in judge.asked[-6:] if "c = 1" not in source)


@pytest.mark.parametrize("spread", [(1.0, 1.0), SPREAD, (0.5, 1.0, 1.5), (0.8, 1.0, 1.2)])
def test_an_edit_is_useless_where_acceptance_would_not_take_the_version_over_the_kernel_without_it(
    store: Store, spread: tuple[float, ...]
) -> None:
    line, judge = line_of(store, 100.0, 101.0), Judge(spread)

    def ranked(source: str, plan: str) -> Evaluation:
        found = judge.inspect(Inspection(Look.RANK, "mha", source))
        return Evaluation(Status.CORRECT, "", "h100", "quick", 0.1, found.score, plan_digest=plan)

    for edit, name in zip(ablation(line, judge).edits, "abcd", strict=True):
        if name != "c":
            without = replace(line[0].attempt, evaluation=ranked(BEST.replace(f"{name} = 2", f"{name} = 1"), "without"))
            decision = decide([replace(line[0], attempt=without)], ranked(BEST, "whole"), THRESHOLDS)
            assert decision is not None
            assert (edit.useless, edit.worth) == (decision.refused, decision.gain), name
            assert edit.worth is not None
            assert edit.useless is (edit.worth < edit.width)


def test_a_kernel_whose_neighbours_cannot_be_predicted_has_no_worth(store: Store) -> None:
    class Failing(Judge):
        def ask(self, request: AnyRequest) -> Any:
            if isinstance(request, Inspection) and "a = 1" in request.source:
                return Findings(Fault(Status.TIMED_OUT, "compiling took 300 s"))
            return super().ask(request)

    found = ablation(line_of(store, 100.0, 101.0), Failing()).edits[0]
    assert (found.worth, found.useless, found.words) == (None, False, "timed out: compiling took 300 s")


def test_a_seed_and_a_measured_run_have_no_ablation(store: Store) -> None:
    seed, best = line_of(store)
    run = store.run("live")
    assert unablated(run, best) == ""
    assert unablated(run, seed) == "live@0 is a seed, which has no edits: name a later version"
    assert "'live' was measured, and edits are predicted" in unablated(replace(run, target="cuda"), best)


def test_a_version_that_is_not_correct_now_has_no_ablation(store: Store) -> None:
    line = line_of(store)
    broken = replace(line[0].attempt, source=BEST.replace("c = 2", "c = 1"), change="all")
    line[1] = replace(line[1], attempt=broken)
    message = "mine@1 is not correct as judged now, incorrect: row 1 is wrong: its edits have no worth"
    with pytest.raises(NotReproduced, match=f"^{message}$"):
        ablation(line, Judge())


def test_a_version_of_two_parents_says_which_line_it_follows(store: Store) -> None:
    seed = version(store, SEED, 0, "")
    other = replace(seed, number=1)
    both = replace(seed, number=2, parents=(1, 0), attempt=replace(seed.attempt, source=BEST, change="all"))
    found = ablate_version(store.run("live"), [seed, other, both], 2, Judge(), lambda progress: None)
    assert (found.line, found.merged) == ((1, 2), True)
    console = Console(width=200)
    with console.capture() as capture:
        console.print(edits(found, TFLOPS))
    words = " ".join(capture.get().split())
    assert "of the line v1, v2: other parents are not followed" in words
    assert "slows it down" in words
    with console.capture() as capture:
        console.print(edits(replace(found, merged=False, dropped=()), TFLOPS))
    words = " ".join(capture.get().split())
    assert "of the line" not in words
    assert "No edit can go: the version is its own minimal kernel, though 1 edit alone made it slower" in words
