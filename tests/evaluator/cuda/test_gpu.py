"""On a real GPU: the seed is measured, and what is wrong, hangs or strays is seen as such."""

import statistics

import pytest

from avo.evaluator.candidate import Candidate, Incumbent
from avo.evaluator.cuda.device import Timed
from avo.evaluator.cuda.measured import Measured
from avo.evaluator.cuda.protocol import LAG_S
from avo.evaluator.evaluation import CaseResult, Fault, Status, Verdict
from avo.evaluator.evaluators import EQUIVALENCE_MARGIN
from avo.evaluator.judging.judge import Judge
from avo.evaluator.target import ScoreKind, Target
from avo.evaluator.targets import get_target
from avo.seeds import seed_source
from tests.evaluator.cuda import gpu_attacks
from tests.evaluator.cuda.on_gpu import CASE, LIMIT_S, opened

pytestmark = pytest.mark.gpu
SEED = seed_source("mha")


@pytest.fixture(scope="module")
def target() -> Target:
    return get_target("cuda")


def test_the_seed_is_right_and_timed_above_its_roofline(target: Target) -> None:
    worker = opened(SEED, target, CASE)
    checked = worker.check(CASE.name, 11, LIMIT_S)
    assert isinstance(checked, CaseResult)
    assert checked.passed, checked.message
    timed = worker.time(CASE.name, range(8), LIMIT_S)
    assert isinstance(timed, Timed), timed
    assert len(timed.runs) == 8
    assert statistics.median(run.wall_s - run.seconds for run in timed.runs) < LAG_S
    worker.close()


def test_the_seed_is_judged_and_neither_faster_nor_slower_than_itself(target: Target) -> None:
    seed = Candidate("mha", SEED)
    with Judge(target, "quick", speed=Measured(target, cascade=None)) as judge:
        evaluation = judge.evaluate(seed, Incumbent(seed, 0.01))
    assert evaluation.status is Status.CORRECT, evaluation.message
    score = evaluation.score
    assert score is not None
    assert score.kind is ScoreKind.MEASURED
    assert score.card == target.product
    assert score.comparison is not None
    assert score.comparison.verdict in (Verdict.EQUIVALENT, Verdict.UNDECIDED)
    assert abs(statistics.fmean(score.comparison.log_ratios)) < EQUIVALENCE_MARGIN
    for case in score.cases:
        assert 0 < case.low_tflops <= case.tflops <= case.high_tflops


@pytest.mark.parametrize(
    ("source", "statuses"),
    [
        (gpu_attacks.HANGS, {Status.TIMED_OUT}),
        (gpu_attacks.SPOILS_ONE_ROW, {Status.INCORRECT}),
        (gpu_attacks.LEAVES_NAN, {Status.INCORRECT}),
        (gpu_attacks.WRITES_FAR_AWAY, {Status.CRASHED}),
        (gpu_attacks.READS_FAR_AWAY, {Status.CRASHED}),
    ],
    ids=["hangs", "one row", "nan", "far write", "far read"],
)
def test_a_wrong_kernel_is_its_own_fault_and_the_next_one_runs(
    source: str, statuses: set[Status], target: Target
) -> None:
    worker = opened(source, target, CASE)
    outcome = worker.check(CASE.name, 11, LIMIT_S)
    worker.close()
    assert isinstance(outcome, Fault)
    assert outcome.status in statuses, outcome.message
    healthy = opened(SEED, target, CASE)
    assert isinstance(healthy.check(CASE.name, 11, LIMIT_S), CaseResult)
    healthy.close()
