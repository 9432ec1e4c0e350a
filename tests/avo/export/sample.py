"""Judged versions to make packages of; no judge takes part."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from tempfile import TemporaryDirectory
from typing import Any

from avo.evaluator.catalogue import get_problem, get_suite
from avo.evaluator.evaluation import CaseScore, Evaluation, Score, Status
from avo.evaluator.target import ScoreKind
from avo.evaluator.targets import get_target
from avo.export.choosing import Chosen, choose
from avo.export.judging import Passed
from avo.lineage_db.records import Run, Version
from avo.lineage_db.store import Store
from tests.avo.sample_run import make_sample_run


@cache
def sample() -> tuple[Run, Sequence[Version]]:
    """Return the run mha-h100 and its four versions."""
    with TemporaryDirectory() as folder:
        url = f"{folder}/lineage.db"
        name = make_sample_run(url)
        with Store.open(url) as store:
            run = store.run(name)
            return run, tuple(store.versions(run.id))


def chosen(run: Run, versions: Sequence[Version], number: int = 3, told: Any = None, **changes: str) -> Chosen:
    """Return a version of ``run``, as if it were the run that ``changes`` make of it."""
    return choose(replace(run, **changes), versions, versions[number].attempt, told)  # type: ignore[arg-type]


def passed(version: Chosen, *tflops: float, target: str = "h100") -> Passed:
    """Return ``version`` as judged on its run's suite and the held-out one, with these speeds on all cases of each."""
    suites = (version.run.suite, "held_out")
    found = [correct(version.run.problem, suite, speed, target) for suite, speed in zip(suites, tflops, strict=True)]
    return Passed(version, get_target(target), tuple(found))


def correct(problem: str, suite: str, tflops: float, target: str) -> Evaluation:
    """Return a correct evaluation, predicted, with this speed on all cases."""
    cases = tuple(CaseScore(case.name, tflops, 1.0, "exp") for case in get_suite(get_problem(problem), suite))
    return Evaluation(Status.CORRECT, "", target, suite, 1.0, Score(ScoreKind.PREDICTED, target, cases))
