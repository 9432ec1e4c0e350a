"""Gluon candidates, which only a GPU can run: compiled, modelled, and without one never called correct."""

from collections.abc import Iterator
from dataclasses import replace
from importlib.resources import files

import pytest

from evaluator.candidate import Candidate
from evaluator.evaluation import Evaluation, Status
from evaluator.judging.judge import Judge
from evaluator.problems import PROBLEMS
from evaluator.problems.mha import MHA
from evaluator.sandbox.jobs import ForkServer
from evaluator.target import ScoreKind
from evaluator.targets import get_target

HOPPER = (files("seeds") / "mha" / "hopper.py").read_text(encoding="utf-8")
CASE = next(case for case in MHA.suites["quick"] if case.causal)
BRIEF = replace(MHA, correctness_cases=MHA.correctness_cases[:4], suites={"brief": (CASE,)})
"""Few cases: each test here goes through all of them."""

SHARED_DECIDES = """\
from triton.experimental import gluon
from triton.experimental.gluon import language as gl

@gluon.jit
def kernel(out):
    layout: gl.constexpr = gl.BlockedLayout([1], [32], [4], [0])
    shared = gl.allocate_shared_memory(gl.int32, [128], gl.SwizzledSharedLayout(1, 1, 1, [0]))
    shared.store(gl.arange(0, 128, layout))
    for i in range(gl.max(shared.load(layout), 0)):
        gl.store(out + gl.arange(0, 128, layout), gl.full([128], 1.0, gl.bfloat16, layout))

def attention(q, k, v, out, lse, *, causal, scale):
    kernel[(1,)](out, num_warps=4)
"""
PARTLY_TRITON = (
    "import triton.language as tl\n"
    + SHARED_DECIDES.replace("def attention", "def in_gluon")
    + """
import triton

@triton.jit
def nothing(out):
    tl.store(out, 0.0)

def attention(q, k, v, out, lse, *, causal, scale):
    if q.shape[2] > 1000:
        in_gluon(q, k, v, out, lse, causal=causal, scale=scale)
    else:
        nothing[(1,)](out)
"""
)


@pytest.fixture(scope="module")
def judge(fork_server: ForkServer) -> Iterator[Judge]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PROBLEMS, "brief", BRIEF)
        with Judge(get_target("h100"), "brief", server=fork_server) as judge:
            yield judge


def judged(judge: Judge, source: str) -> Evaluation:
    return judge.evaluate(Candidate("brief", source))


@pytest.fixture(scope="module")
def hopper(judge: Judge) -> Evaluation:
    return judged(judge, HOPPER)


def test_it_is_unverified_with_a_prediction_in_place_of_a_score(hopper: Evaluation) -> None:
    assert hopper.status is Status.UNVERIFIED, hopper.message
    assert "attention_kernel is in Gluon, which only a GPU runs" in hopper.message
    assert hopper.score is None
    assert hopper.geomean_tflops == 0
    assert hopper.predicted is not None
    assert hopper.predicted.kind is ScoreKind.PREDICTED
    (case,) = hopper.predicted.cases
    assert case.case == CASE.name
    assert case.utilisation["tensor"] > 0.2
    assert hopper.cases == ()
    assert hopper.resources[0].warps == 12


def test_where_its_work_cannot_be_counted_what_is_missing_is_said(judge: Judge) -> None:
    evaluation = judged(judge, SHARED_DECIDES)
    assert evaluation.status is Status.UNVERIFIED
    assert evaluation.predicted is None
    assert "a loop that depends on what shared memory holds" in evaluation.message


def test_what_it_does_in_triton_is_executed(judge: Judge) -> None:
    assert judged(judge, PARTLY_TRITON).status is Status.UNWRITTEN
