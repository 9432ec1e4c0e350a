"""Which edits carry a version."""

from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from avo.cli.ablating import render
from avo.errors import NotReproduced
from avo.evaluator.candidate import Candidate
from avo.evaluator.evaluation import CaseScore, Evaluation, Score, Status
from avo.evaluator.evaluators import AnyRequest, EvaluateRequest, Evaluator
from avo.evaluator.target import TARGETS, ScoreKind, Target
from avo.evaluator.units import TFLOPS
from avo.lineage_db.records import Version
from avo.lineage_db.store import Store
from avo.search.ablation import ablate, ablate_version
from tests.avo.recorded import Recorded

SEED = "a = 1\n#\nb = 1\n#\nc = 1\n#\nd = 1\n"
BEST = "a = 2\n#\nb = 2\n#\nc = 2\n#\nd = 2\n"


class Judge(Evaluator):
    """Knows what each line is worth: ``a`` 20%, ``b`` nothing, ``c`` is needed, ``d`` slows down by 5%."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    @property
    def target(self) -> Target:
        return TARGETS["h100"]

    def ask(self, request: AnyRequest) -> Any:
        assert isinstance(request, EvaluateRequest)
        source = request.candidate.source
        self.asked.append(source)
        if "c = 1" in source:
            return Evaluation(Status.INCORRECT, "row 1 is wrong\nat length", "h100", "quick", 0.1)
        tflops = 100 * (1.2 if "a = 2" in source else 1) * (1 / 1.05 if "d = 2" in source else 1)
        score = Score(ScoreKind.PREDICTED, "h100", (CaseScore("8k", tflops, 1.0, "tensor"),))
        return Evaluation(Status.CORRECT, "", "h100", "quick", 0.1, score)


def version(store: Store, source: str, number: int, change: str) -> Version:
    made = Recorded(store)
    made.step(100.0)
    found = store.version(made.run.id, 0)
    attempt = replace(found.attempt, source=source, change=change, digest=Candidate("mha", source).digest)
    return replace(found, number=number, parents=(number - 1,) if number else (), attempt=attempt)


def test_each_edit_is_taken_away_alone_and_useless_ones_go_together(store: Store) -> None:
    line = [version(store, SEED, 0, "")]
    line.append(replace(line[0], number=1, parents=(0,), attempt=replace(line[0].attempt, source=BEST, change="all")))
    judge = Judge()
    found = ablate("mine", line, "mha", judge)
    assert not found.moves
    assert [each.edit for each in found.edits] == [
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
    assert len(judge.asked) == 6, "the version, four edits, and the minimal kernel"


def test_a_seed_has_no_edits(store: Store) -> None:
    seed = version(store, SEED, 0, "")
    assert ablate_version(store.run("live"), [seed], 0, Judge()) is None


def test_a_version_that_is_not_correct_now_has_no_ablation(store: Store) -> None:
    line = [version(store, BEST, 0, "")]
    broken = replace(line[0].attempt, source=BEST.replace("c = 2", "c = 1"), change="all")
    line.append(replace(line[0], number=1, parents=(0,), attempt=broken))
    message = "mine@1 is not correct as judged now, incorrect: row 1 is wrong: its edits have no worth"
    with pytest.raises(NotReproduced, match=f"^{message}$"):
        ablate("mine", line, "mha", Judge())


def test_a_version_of_two_parents_says_which_line_it_follows(store: Store) -> None:
    seed = version(store, SEED, 0, "")
    other = replace(seed, number=1)
    both = replace(seed, number=2, parents=(1, 0), attempt=replace(seed.attempt, source=BEST, change="all"))
    found = ablate_version(store.run("live"), [seed, other, both], 2, Judge())
    assert found is not None
    assert (found.line, found.merged) == ((1, 2), True)
    console = Console(width=200)
    with console.capture() as capture:
        console.print(render(found, TFLOPS))
    words = " ".join(capture.get().split())
    assert "of the line v1, v2: other parents are not followed" in words
    assert "slows it down" in words
    with console.capture() as capture:
        console.print(render(replace(found, merged=False, dropped=()), TFLOPS))
    words = " ".join(capture.get().split())
    assert "of the line" not in words
    assert "No edit can go: the version is its own minimal kernel, though 1 edit alone made it slower" in words
