"""Gluon candidates are judged like others; what only a GPU can do is compiled, modelled, and never called correct."""

import re
from collections.abc import Iterator
from dataclasses import replace

import pytest

from avo.evaluator.candidate import Candidate
from avo.evaluator.evaluation import Evaluation, Status
from avo.evaluator.judging.judge import Judge
from avo.evaluator.problems import PROBLEMS
from avo.evaluator.problems.mha import MHA
from avo.evaluator.sandbox.jobs import ForkServer
from avo.evaluator.target import ScoreKind
from avo.evaluator.targets import get_target
from tests.corpus import sample
from tests.kernels import edited, stored
from tests.oldest_triton import newer_triton

HOPPER = stored("gluon/hopper_attention")
TICKETS = stored("gluon/hopper_tickets")
LAUNCH_CONTROL = stored("gluon/blackwell_launch_control")
CASE = next(case for case in MHA.suites["quick"] if case.causal)
BRIEF = replace(MHA, correctness_cases=MHA.correctness_cases[:4], suites={"brief": (CASE,)})
"""Few cases: each test here goes through all of them."""

TILES = "gl.cdiv(last, block_n)"
LOOP = f"        for tile in range({TILES}):\n"
PRODUCT = "        acc = warpgroup_mma(gl.convert_layout(p.to(gl.bfloat16), p_layout), v, acc)\n"
FREED = "        mbarrier.arrive(v_free.index(stage), count=1)\n"
CLOCK = """\
from triton.experimental import gluon
from triton.experimental.gluon import language as gl

@gluon.jit
def clock(out):
    now = gl.inline_asm_elementwise("mov.u32 $0, %clock; // $1", "=r,r", [gl.program_id(0)], gl.int32, False, 1)
    gl.store(out, now.to(gl.bfloat16))
"""
ONLY_A_GPU = f"""{HOPPER}
{CLOCK}
judged = attention

def attention(q, k, v, out, lse, *, causal, scale):
    clock[(1,)](out)
    judged(q, k, v, out, lse, causal=causal, scale=scale)
"""
PARTLY_TRITON = f"""{CLOCK}
import triton
import triton.language as tl

@triton.jit
def nothing(out):
    tl.store(out, 0.0)

def attention(q, k, v, out, lse, *, causal, scale):
    if q.shape[2] > 1000:
        clock[(1,)](out)
    else:
        nothing[(1,)](out)
"""
BY_ROWS = ("[16, block_n, 16])", "[16, block_n, 16], [[1, 0]])"), ("[16, dim, 16])", "[16, dim, 16], [[1, 0]])")
OF_TWO_CTAS = (
    *BY_ROWS,
    ("gl.int64, [1], mbarrier.MBarrierLayout()", "gl.int64, [2], mbarrier.MBarrierLayout.multicta(2)"),
    ("gl.int64, [STAGES, 1], mbarrier.MBarrierLayout()", "gl.int64, [STAGES, 2], mbarrier.MBarrierLayout.multicta(2)"),
    ("_desc.block_type.nbytes", "_desc.nbytes_per_cta"),
    ("block_m, block_n = 128, 128", "block_m, block_n = 256, 128"),
    ("element_bitwidth=16, rank=4", "element_bitwidth=16, rank=4, cga_layout=[[0, 0, int(rows == 256), 0]]"),
    ("num_warps=8,", "num_warps=8, num_ctas=2,"),
)
"""What makes a program of two CTAs, each of which has half of the rows and loads all keys and values."""


@pytest.fixture(scope="module")
def judge(fork_server: ForkServer) -> Iterator[Judge]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PROBLEMS, "brief", BRIEF)
        with Judge(get_target("h100"), "brief", server=fork_server) as judge:
            yield judge


def judged(judge: Judge, source: str) -> Evaluation:
    return judge.evaluate(Candidate("brief", source))


@pytest.mark.long
def test_a_kernel_with_roles_is_executed_counted_and_scored(judge: Judge) -> None:
    evaluation = judged(judge, HOPPER)
    assert evaluation.status is Status.CORRECT, evaluation.message
    assert evaluation.score is not None
    assert evaluation.score.kind is ScoreKind.PREDICTED
    (case,) = evaluation.score.cases
    assert case.case == CASE.name
    assert case.utilisation["tensor"] > 0.2
    assert evaluation.resources[0].warps == 12


@newer_triton("barriers of Triton 3.6 are not told how many CTAs they are for")
@pytest.mark.long
def test_programs_of_several_ctas_are_executed_counted_and_scored(judge: Judge) -> None:
    source = HOPPER
    for old, new in OF_TWO_CTAS:
        assert old in source
        source = source.replace(old, new)
    evaluation = judged(judge, source)
    assert evaluation.status is Status.CORRECT, evaluation.message
    assert evaluation.score is not None
    assert evaluation.score.cases[0].utilisation["tensor"] > 0.2


@newer_triton("Triton 3.6 has no cluster launch control in Gluon")
@pytest.mark.long
@pytest.mark.parametrize(
    ("old", "new", "status"),
    [
        ("", "", Status.CORRECT),
        ("response.program_id(0), response.program_id(1)", "response.program_id(0), batch_head", Status.UNWRITTEN),
        ("        mbarrier.wait(answered, answers & 1)\n", "", Status.RACE),
        (
            LOOP,
            f"        tiles = {TILES}\n        if (answers > 0) & (kv_len > 2000):\n            tiles = 1\n"
            "        for tile in range(tiles):\n",
            Status.INCORRECT,
        ),
    ],
)
def test_programs_that_take_over_others_are_executed_counted_and_scored(
    fork_server: ForkServer, monkeypatch: pytest.MonkeyPatch, old: str, new: str, status: Status
) -> None:
    monkeypatch.setitem(PROBLEMS, "brief", BRIEF)
    with Judge(get_target("b200"), "brief", server=fork_server) as judge:
        evaluation = judged(judge, LAUNCH_CONTROL.replace(old, new))
    assert evaluation.status is status, evaluation.message
    assert (evaluation.score is not None) == (status is Status.CORRECT)


@pytest.mark.long
def test_roles_that_are_handed_tickets_by_one_that_draws_them_are_executed_counted_and_scored(judge: Judge) -> None:
    evaluation = judged(judge, TICKETS)
    assert evaluation.status is Status.CORRECT, evaluation.message
    assert evaluation.score is not None
    assert evaluation.score.cases[0].utilisation["tensor"] > 0.2


@pytest.mark.parametrize(
    ("old", "new", "status", "message"),
    [
        pytest.param(
            "gl.full([1], ticket, gl.int32, one)",
            "gl.full([1], ticket + (drawn & 1), gl.int32, one)",
            Status.RACE,
            "square-full.* the program ends while",
            marks=pytest.mark.long,
        ),
        (
            "        mbarrier.wait(taken, (drawn & 1) ^ 1)\n",
            "",
            Status.RACE,
            "partition 0 writes handed of .*, which the default partition may still be reading",
        ),
        (
            "    mbarrier.wait(told, turn & 1)\n",
            "",
            Status.DEADLOCK,
            "before that, .*the default partition reads handed of .*, which nobody has written",
        ),
        pytest.param(
            "mbarrier.wait(taken, (drawn & 1) ^ 1)",
            "mbarrier.wait(taken, (drawn & 1) ^ 1, pred=kv_len < 2000)",
            Status.UNSUPPORTED,
            "8k-causal: .* must be in order by the barriers waited for right before them .*handed of",
            marks=pytest.mark.long,
        ),
        pytest.param(
            "gl.cdiv(last, block_n)",
            "gl.cdiv(last, block_n) - ((kv_len > 2000) & (ticket % 2 == 1))",
            Status.INCORRECT,
            "8k-causal",
            marks=pytest.mark.long,
        ),
    ],
)
def test_tickets_that_are_handed_over_wrongly_are_refused(
    judge: Judge, old: str, new: str, status: Status, message: str
) -> None:
    evaluation = judged(judge, edited((old, new), source=TICKETS))
    assert evaluation.status is status, evaluation.message
    assert re.search(message, evaluation.message)
    assert evaluation.score is None


@pytest.mark.parametrize(
    ("old", "new", "status", "message"),
    sample(
        [
            ("s * scale", "s * scale * 1.1", Status.INCORRECT, ""),
            (
                f"{PRODUCT}{FREED}",
                f"{FREED}{PRODUCT}",
                Status.RACE,
                "v_tiles of candidate.py:.*, which .* may still be",
            ),
            (
                "mbarrier.arrive(k_free.index(stage), count=1)",
                "mbarrier.arrive(k_free.index(stage), count=1, pred=tile > 1)",
                Status.DEADLOCK,
                "waits for phase . of barrier . of k_free of .*, which lacks 1 arrival",
            ),
        ],
        3,
    ),
)
def test_roles_that_meet_wrongly_are_refused(judge: Judge, old: str, new: str, status: Status, message: str) -> None:
    evaluation = judged(judge, edited((old, new), source=HOPPER))
    assert evaluation.status is status, evaluation.message
    assert re.search(message, evaluation.message)


@pytest.mark.long
def test_what_only_a_gpu_can_do_is_unverified_with_a_prediction_in_place_of_a_score(judge: Judge) -> None:
    evaluation = judged(judge, ONLY_A_GPU)
    assert evaluation.status is Status.UNVERIFIED, evaluation.message
    assert "only a GPU runs it" in evaluation.message
    assert "%clock" in evaluation.message
    assert evaluation.score is None
    assert evaluation.predicted is not None
    assert evaluation.predicted.kind is ScoreKind.PREDICTED


def test_what_it_does_in_triton_is_executed_even_so(judge: Judge) -> None:
    assert judged(judge, PARTLY_TRITON).status is Status.UNWRITTEN
