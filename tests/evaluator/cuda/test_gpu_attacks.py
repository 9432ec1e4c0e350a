"""Attacks that only a GPU can carry out are seen there, or gain nothing."""

import statistics

import pytest

from avo.evaluator.cuda.device import Timed
from avo.evaluator.evaluation import Fault, Status
from avo.evaluator.target import Target
from avo.evaluator.targets import get_target
from tests.evaluator.cuda import gpu_attacks
from tests.evaluator.cuda.on_gpu import CASE, LIMIT_S, opened

pytestmark = pytest.mark.gpu
GAIN = 0.05
"""What a trick would have to gain, far above the noise of a median of many runs."""


@pytest.fixture(scope="module")
def target() -> Target:
    return get_target("cuda")


@pytest.mark.parametrize(
    ("source", "status", "message"),
    [
        (gpu_attacks.WRITES_JUST_BESIDE, Status.OUT_OF_BOUNDS, "writes outside 'out'"),
        (gpu_attacks.WRITES_AN_INPUT, Status.FORBIDDEN, "writes to the input 'q'"),
    ],
    ids=["beside a buffer", "an input"],
)
def test_memory_that_is_not_to_be_written_is_looked_after(
    source: str, status: Status, message: str, target: Target
) -> None:
    worker = opened(source, target, CASE)
    outcome = worker.time(CASE.name, [1, 2], LIMIT_S)
    worker.close()
    assert isinstance(outcome, Fault)
    assert outcome.status is status, outcome.message
    assert message in outcome.message


def test_a_kernel_that_counts_its_calls_gains_nothing_by_it(target: Target) -> None:
    worker = opened(gpu_attacks.COUNTS_ITS_CALLS, target, CASE)
    outcome = worker.time(CASE.name, range(200), LIMIT_S)
    worker.close()
    assert isinstance(outcome, Fault)
    # What lies behind the guards, where it counts, is chance.
    assert outcome.status in (Status.INCORRECT, Status.CRASHED), outcome.message


@pytest.mark.parametrize("source", [gpu_attacks.KEEPS_IN_L2, gpu_attacks.STARTS_EARLY], ids=["evict last", "pdl"])
def test_no_run_gains_from_the_run_before_it(source: str, target: Target) -> None:
    medians = []
    for each in (gpu_attacks.SEED, source):
        worker = opened(each, target, gpu_attacks.FITS_IN_L2)
        timed = worker.time(gpu_attacks.FITS_IN_L2.name, range(60), LIMIT_S)
        worker.close()
        assert isinstance(timed, Timed), timed
        medians.append(statistics.median(run.seconds for run in timed.runs))
    assert medians[1] > medians[0] * (1 - GAIN)
