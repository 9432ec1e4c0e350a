"""The cheapest check comes first: what a faulty or known candidate makes the judge do, in jobs and in launches."""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from avo.evaluator.candidate import Candidate
from avo.evaluator.catalogue import get_problem
from avo.evaluator.compiling.compiler import Compiler
from avo.evaluator.evaluation import Evaluation, Status
from avo.evaluator.judging import execution
from avo.evaluator.judging.examination import Examination
from avo.evaluator.judging.execution import PlanRun
from avo.evaluator.judging.judge import Judge
from avo.evaluator.sandbox.jobs import ForkServer
from avo.evaluator.targets import get_target
from avo.seeds import seed_source

SEED = seed_source("mha")
CASES = get_problem("mha").correctness_cases


@pytest.fixture(scope="module")
def judge(fork_server: ForkServer) -> Iterator[Judge]:
    with Judge(get_target("h100"), "quick", server=fork_server) as judge:
        yield judge


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """What was done: sandboxed jobs, compilations, executed launches, benchmark cases looked at."""
    counted: Counter[str] = Counter()

    def count(owner: object, attribute: str, name: str) -> None:
        work: Callable[..., Any] = getattr(owner, attribute)

        def counting(*arguments: Any, **options: Any) -> Any:
            counted[name] += 1
            return work(*arguments, **options)

        monkeypatch.setattr(owner, attribute, counting)

    count(ForkServer, "run", "jobs")
    count(Compiler, "compile", "compilations")
    count(PlanRun, "run", "launches")
    count(Examination, "_check_large", "benchmarks")
    return counted


def judged(judge: Judge, source: str) -> Evaluation:
    return judge.evaluate(Candidate("mha", source))


@pytest.mark.parametrize("source", ["def attention(:\n", "import nowhere\n", "x = 1\n"])
def test_what_is_no_candidate_costs_one_job_and_nothing_else(judge: Judge, done: Counter[str], source: str) -> None:
    assert judged(judge, source).status in (Status.PARSE_ERROR, Status.NO_ENTRY)
    assert done == {"jobs": 1}


def test_wrong_numbers_end_at_the_first_case_before_anything_is_compiled(judge: Judge, done: Counter[str]) -> None:
    wrong = SEED.replace("tl.exp(", "tl.exp2(")
    assert wrong.count("tl.exp2(") > SEED.count("tl.exp2(")
    evaluation = judged(judge, wrong)
    assert evaluation.status is Status.INCORRECT
    assert [case.passed for case in evaluation.cases] == [False]
    assert done == {"jobs": 2, "launches": 1}  # capture, and reading what it captured


@pytest.mark.long
def test_a_kernel_that_does_not_fit_is_not_scored(judge: Judge, done: Counter[str]) -> None:
    large = SEED.replace("num_stages=1", "num_stages=9")
    assert judged(judge, large).status is Status.DOES_NOT_FIT
    assert done == {"jobs": 3, "launches": len(CASES), "compilations": 1}


@pytest.mark.long
def test_a_plan_seen_before_is_not_run_again(judge: Judge, done: Counter[str]) -> None:
    first = judged(judge, SEED)
    assert done["benchmarks"] == 2
    done.clear()
    second = judged(judge, f"# the same, said otherwise\n{SEED}")
    assert done == {"jobs": 4}  # captured, and captured again
    assert (second.score, second.cases, second.plan_digest) == (first.score, first.cases, first.plan_digest)


@pytest.mark.long
def test_a_verdict_that_a_busy_machine_may_have_brought_about_is_not_kept(
    judge: Judge, done: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execution, "EXECUTION_S", -1.0)
    other = SEED.replace("num_warps=4", "num_warps=2")
    for launches in (1, 2):
        evaluation = judged(judge, other)
        assert evaluation.status is Status.TIMED_OUT
        assert "-1 s of processor time for all cases" in evaluation.message
        assert done["launches"] == launches
