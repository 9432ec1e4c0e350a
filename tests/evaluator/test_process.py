import os
import signal

import pytest

from evaluator.candidate import Candidate
from evaluator.errors import UnknownProblem, UnknownTarget
from evaluator.evaluation import Status
from evaluator.process import ProcessEvaluator

NO_PYTHON = Candidate("mha", "def attention(:")


def judge_pid(evaluator: ProcessEvaluator) -> int:
    assert evaluator._child is not None
    return evaluator._child._process.pid


def test_a_judge_serves_many_candidates_and_is_replaced_when_killed() -> None:
    with ProcessEvaluator("h100", "quick") as evaluator:
        assert evaluator.evaluate(NO_PYTHON).status is Status.PARSE_ERROR
        first = judge_pid(evaluator)
        assert evaluator.evaluate(NO_PYTHON).status is Status.PARSE_ERROR
        assert judge_pid(evaluator) == first
        os.kill(first, signal.SIGKILL)
        assert evaluator.evaluate(NO_PYTHON).status is Status.PARSE_ERROR
        second = judge_pid(evaluator)
        assert second != first
    with pytest.raises(ProcessLookupError):
        os.kill(second, 0)


def test_no_verdict_in_time_is_a_value() -> None:
    with ProcessEvaluator("h100", "quick", wall_s=1e-6) as evaluator:
        evaluation = evaluator.evaluate(NO_PYTHON)
    assert evaluation.status is Status.TIMED_OUT
    assert "no verdict within 1e-06 s" in evaluation.message


def test_names_that_are_none_are_refused_before_a_process_starts() -> None:
    with pytest.raises(UnknownTarget):
        ProcessEvaluator("v100", "quick")
    with pytest.raises(UnknownProblem), ProcessEvaluator("h100", "slow") as evaluator:
        evaluator.evaluate(NO_PYTHON)
