"""Judging again before an export, with a fake judge."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from avo.evaluator.candidate import Candidate
from avo.evaluator.evaluation import Evaluation, Status
from avo.evaluator.evaluators import Evaluator
from avo.evaluator.fake import FakeEvaluator
from avo.export.choosing import choose
from avo.export.errors import NotExported
from avo.export.judging import OpenJudge, judge
from avo.seeds import seed_source
from tests.avo.export.sample import chosen, correct, sample

UNVERIFIED = Evaluation(Status.UNVERIFIED, "kernel is Gluon,\nwhich only a GPU runs", "h100", "quick", 1.0)


def judges(opened: list[tuple[str, str]], faults: dict[tuple[str, str], Evaluation] | None = None) -> OpenJudge:
    """Return a way to open judges that finds ``faults`` by suite and text of the source, and all else correct."""

    @contextmanager
    def open_judge(target: str, suite: str) -> Iterator[Evaluator]:
        def verdict(candidate: Candidate) -> Evaluation:
            for (where, text), fault in (faults or {}).items():
                if where == suite and text in candidate.source:
                    return fault
            return correct(candidate.problem, suite, 100.0, target)

        opened.append((target, suite))
        yield FakeEvaluator(verdict)

    def opener(target: str, suite: str) -> AbstractContextManager[Evaluator]:
        return open_judge(target, suite)

    return opener


def test_a_version_is_judged_on_its_suite_and_the_held_out_one() -> None:
    opened: list[tuple[str, str]] = []
    (judged,) = judge([chosen(*sample())], judges(opened))
    assert opened == [("h100", "quick"), ("h100", "held_out")]
    assert [evaluation.suite for evaluation in judged.evaluations] == ["quick", "held_out"]


def test_rivals_are_judged_on_the_same_suites_and_others_are_not() -> None:
    run, versions = sample()
    given = [
        chosen(run, versions, 1, name="a"),
        chosen(run, versions, 2, name="b", suite="paper"),
        chosen(run, versions, 3, name="c", target="b200"),
    ]
    first, second, third = judge(given, judges([]))
    assert [evaluation.suite for evaluation in first.evaluations] == ["quick", "paper", "held_out"]
    assert {evaluation.suite for evaluation in second.evaluations} == {"quick", "paper", "held_out"}
    assert [(each.target, each.suite) for each in third.evaluations] == [("b200", "quick"), ("b200", "held_out")]


def test_the_seed_is_judged_beside_its_versions_once() -> None:
    run, versions = sample()
    asked: list[tuple[str, str]] = []

    @contextmanager
    def open_judge(target: str, suite: str) -> Iterator[Evaluator]:
        def verdict(candidate: Candidate) -> Evaluation:
            asked.append((suite, candidate.source))
            return correct(candidate.problem, suite, 100.0, target)

        yield FakeEvaluator(verdict)

    given = [*(chosen(run, versions, number) for number in (1, 2)), chosen(run, versions, name="f", problem="fsa")]
    first, second, sparse = judge(given, open_judge)
    plain, nsa = seed_source("mha"), seed_source("fsa", "query_outer")
    assert [asked.count((suite, seed)) for seed in (plain, nsa) for suite in ("quick", "held_out")] == [1, 1, 1, 1]
    assert (first.seed, first.of_seed, sparse.seed) == ("plain", second.of_seed, "query_outer")
    assert [each.suite for each in first.of_seed] == ["quick", "held_out"]


def test_a_seed_is_not_shown_beside_itself() -> None:
    run, versions = sample()
    seed = seed_source("mha")
    attempt = replace(versions[0].attempt, source=seed, digest=Candidate("mha", seed).digest)
    (judged,) = judge([choose(run, [replace(versions[0], attempt=attempt)], attempt)], judges([]))
    assert judged.of_seed == ()


def test_a_problem_without_seeds_has_none_beside_its_versions() -> None:
    problem = str(Path(__file__).with_name("small_problem.py"))
    (judged,) = judge([chosen(*sample(), problem=problem)], judges([]))
    assert (judged.seed, judged.of_seed) == ("", ())


def test_every_version_that_fails_is_named_with_the_reason() -> None:
    run, versions = sample()
    wrong = Evaluation(Status.INCORRECT, "case ragged: 12 rows are wrong", "h100", "held_out", 1.0)
    faults = {("held_out", "num_stages=2"): wrong, ("quick", "= 64, 128"): UNVERIFIED}
    with pytest.raises(NotExported) as refused:
        judge([chosen(run, versions, number) for number in (1, 2, 3)], judges([], faults))
    assert sorted(str(refused.value).splitlines()) == [
        "mha-h100@2 is not exported: incorrect in suite held_out: case ragged: 12 rows are wrong",
        "mha-h100@3 is not exported: unverified in suite quick: kernel is Gluon, which only a GPU runs",
    ]
