"""Looks at candidates: cheap, without a verdict, and as safe as a verdict."""

import json
from collections.abc import Iterator
from dataclasses import replace

import pytest

from avo.evaluator.candidate import Candidate
from avo.evaluator.errors import EvaluatorUnavailable, UnknownProblem
from avo.evaluator.evaluation import CaseScore, Evaluation, Fault, Score, Status
from avo.evaluator.fake import FakeEvaluator
from avo.evaluator.inspection import Findings, Inspection, Look
from avo.evaluator.judging.judge import Judge
from avo.evaluator.sandbox.jobs import ForkServer
from avo.evaluator.serving.process import ProcessEvaluator
from avo.evaluator.serving.protocol import (
    MalformedRequest,
    answer_line,
    failure_line,
    read_answer,
    request_line,
    requests,
)
from avo.evaluator.target import ScoreKind
from avo.evaluator.targets import get_target
from avo.seeds import seed_source

SEED = seed_source("mha")
CARRIED = """\
import triton
import triton.language as tl

@triton.jit
def carried(q, k, out):
    m, n = tl.arange(0, 128), tl.arange(0, 128)
    keys = tl.make_tensor_descriptor(k, [4096, 128], [128, 1], [128, 128])
    queries = tl.make_tensor_descriptor(q, [4096, 128], [128, 1], [128, 128]).load([0, 0])
    scores = tl.dot(queries, keys.load([0, 0]).T)
    acc = tl.zeros([128, 128], tl.float32)
    for start in tl.range(0, 2048, 128, warp_specialize=True):
        following = tl.dot(queries, keys.load([start + 128, 0]).T)
        acc = tl.dot(tl.exp2(scores).to(tl.bfloat16), keys.load([start, 0]), acc)
        scores = following
    tl.store(out + m[:, None] * 128 + n[None, :], acc.to(tl.bfloat16))

def attention(q, k, v, out, lse, *, causal, scale):
    carried[(1,)](q, k, out, num_warps=4)
"""


@pytest.fixture(scope="module")
def judge(fork_server: ForkServer) -> Iterator[Judge]:
    with Judge(get_target("h100"), "quick", server=fork_server) as judge:
        yield judge


def look(judge: Judge, what: Look, source: str = SEED, **more: str | None) -> Findings:
    return judge.inspect(Inspection(what, "mha", source, **more))


@pytest.mark.long
def test_a_check_compiles_for_the_suite_and_executes_a_small_case_of_each_kind(judge: Judge) -> None:
    found = look(judge, Look.CHECK)
    assert found.fault is None
    assert [case.case for case in found.cases] == ["mixed-full", "padded-causal"]
    assert {kernel.kernel for kernel in found.resources} == {"attention_kernel"}


@pytest.mark.long
def test_the_speed_is_predicted_whether_or_not_the_numbers_are_right(judge: Judge) -> None:
    found = look(judge, Look.SPEED, SEED.replace("acc / row_sum", "acc * row_sum"))
    assert found.fault is None
    assert found.score is not None
    assert found.score.kind is ScoreKind.PREDICTED
    assert [case.case for case in found.score.cases] == ["8k-causal", "8k-full"]
    assert {kernel.kernel for kernel in found.resources} == {"attention_kernel"}


@pytest.mark.long
def test_the_speed_is_that_of_the_verdict(judge: Judge) -> None:
    assert look(judge, Look.SPEED).score == judge.evaluate(Candidate("mha", SEED)).score


@pytest.mark.long
def test_the_rank_is_that_of_the_examination_before_acceptance(judge: Judge) -> None:
    found, alone = look(judge, Look.RANK).score, look(judge, Look.SPEED).score
    examined = judge.verify(Candidate("mha", SEED)).score
    assert found is not None
    assert examined is not None
    assert len(found.neighbours) > 1
    assert found.neighbours == examined.neighbours, "another verdict on it would be another rule"
    assert replace(found, neighbours=()) == alone


@pytest.mark.long
def test_sources_with_the_same_launch_plans_are_played_once(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    first = look(judge, Look.SPEED)
    monkeypatch.delattr("avo.evaluator.judging.speed.predict")
    assert look(judge, Look.SPEED, f"{SEED}\n\nunused = 1\n") == first


@pytest.mark.long
def test_the_speed_of_what_does_not_fit_is_that_fault_with_what_the_kernel_needs(judge: Judge) -> None:
    found = look(judge, Look.SPEED, SEED.replace("num_stages=1", "num_stages=9"))
    assert found.fault is not None
    assert (found.fault.status, found.score) == (Status.DOES_NOT_FIT, None)
    assert found.resources[0].shared_bytes > get_target("h100").shared_bytes_per_cta


@pytest.mark.long
def test_where_speed_is_measured_a_look_predicts_it_for_the_card(fork_server: ForkServer) -> None:
    card = replace(get_target("h100"), name="cuda", kind=ScoreKind.MEASURED)
    with Judge(card, "quick", server=fork_server) as judge:
        score = look(judge, Look.SPEED).score
    assert score is not None
    assert (score.kind, score.target) == (ScoreKind.PREDICTED, "cuda")


@pytest.mark.long
def test_a_check_names_wrong_numbers_and_still_says_what_the_kernel_needs(judge: Judge) -> None:
    found = look(judge, Look.CHECK, SEED.replace("tl.exp(", "tl.exp2("))
    assert found.fault is not None
    assert found.fault.status is Status.INCORRECT
    assert "powers of 2" in found.fault.message
    assert found.resources


def test_a_check_of_what_does_not_parse_is_that_fault(judge: Judge) -> None:
    found = look(judge, Look.CHECK, "def attention(:")
    assert found.fault is not None
    assert found.fault.status is Status.PARSE_ERROR


def test_a_score_on_another_suite_says_so(judge: Judge) -> None:
    found = look(judge, Look.SCORE, "def attention(:", suite="paper")
    assert found.fault is not None
    assert found.evaluation is not None
    assert (found.fault.status, found.evaluation.suite) == (Status.PARSE_ERROR, "paper")
    with pytest.raises(UnknownProblem):
        look(judge, Look.SCORE, suite="nope")


@pytest.mark.long
def test_code_is_that_of_the_case_asked_for(judge: Judge) -> None:
    assert ".target sm_90" in look(judge, Look.PTX, case="8k-full").text
    assert "#ttg.blocked" in look(judge, Look.TTGIR).text
    with pytest.raises(UnknownProblem):
        look(judge, Look.PTX, case="nope")


@pytest.mark.long
@pytest.mark.parametrize("before", [None, "nope"])
def test_of_a_kernel_that_no_compiler_takes_the_ir_before_its_passes_can_be_read(
    judge: Judge, before: str | None
) -> None:
    found = look(judge, Look.IR, CARRIED, case="8k-full", before=before)
    assert found.fault is None
    head, *lines = found.text.splitlines()
    assert head.startswith("kernel carried: ")
    assert "the last of which fails: nvgpu-warp-specialization" in head
    if before == "nope":
        assert "there is no pass 'nope'" in head
        assert any(line.endswith(" tritongpu-coalesce") for line in lines)
    else:
        assert head.endswith(", nvgpu-warp-specialization:")
        assert any("ttng.warp_group_dot" in line for line in lines)


@pytest.mark.long
def test_machine_code_has_what_its_instructions_wait_for(judge: Judge) -> None:
    text = look(judge, Look.SASS).text
    title, _, *rows = text.splitlines()
    assert title.startswith("8k-causal, kernel attention_kernel, loop at line")
    assert "predicted" in title
    assert any("HGMMA" in row and "<- " in row for row in rows)
    shares = [float(row.split("%")[0].split()[-1]) for row in rows]
    assert sum(shares) == pytest.approx(100, abs=0.1 * len(rows))
    assert any("cheap instructions: " in row for row in rows)


def test_a_script_computes_and_reaches_nothing(judge: Judge) -> None:
    source = (
        "import numpy, torch, triton, socket\nprint(float(torch.ones(3) @ torch.ones(3)), numpy.arange(2))\n"
        "for reach in (socket.socket, lambda: open('x', 'w'), lambda: open('/etc/passwd'), __import__('os').fork):\n"
        "    try:\n        reach()\n    except OSError:\n        print('refused')\n"
    )
    assert look(judge, Look.SCRIPT, source) == Findings(text="3.0 [0 1]\n" + 4 * "refused\n")


@pytest.mark.parametrize(
    ("source", "message", "text"),
    [
        ("print(1)\nraise KeyError(7)", "line 2, in <module>\n    raise KeyError(7)\nKeyError: 7", "1\n"),
        ("def f(:", "SyntaxError", ""),
        ("import sys; sys.exit('enough')", "exit code enough", ""),
        ("import os; os._exit(3)", "exited with code 3", ""),
    ],
)
def test_a_script_that_fails_says_how_and_keeps_what_it_printed(
    judge: Judge, source: str, message: str, text: str
) -> None:
    found = look(judge, Look.SCRIPT, source)
    assert found.fault is not None
    assert message in found.fault.message
    assert found.text == text


REQUEST = Inspection(Look.SASS, "mha", "x = 1", case="8k-full")


def test_looks_and_findings_survive_the_wire() -> None:
    assert list(requests([request_line(7, REQUEST)])) == [(7, REQUEST)]
    verdict = Evaluation(Status.CRASHED, "died", "h100", "paper", 0.5)
    score = Score(ScoreKind.PREDICTED, "h100", (CaseScore("a", 1.0, 2.0, "tensor", draws=(1.0, 2.0)),))
    predicted = Findings(score=score, plan_digest="p")
    for found in (Findings(Fault(Status.CRASHED, "died"), "text"), Findings(evaluation=verdict), predicted):
        assert read_answer(7, REQUEST, answer_line(7, found)) == found


@pytest.mark.parametrize("asked", [True, {}, {"look": "away"}, {"look": "ptx", "case": 3}, {"look": "ptx", "x": 1}])
def test_a_malformed_look_is_named(asked: object) -> None:
    (request,) = requests([json.dumps({"id": 1, "problem": "mha", "source": "", "inspect": asked})])
    assert isinstance(request, MalformedRequest)
    assert '"inspect" is an object' in str(request)


@pytest.mark.parametrize("line", ["{}", '{"id": 7}', '{"id": 7, "findings": 3}', failure_line(7, "no")])
def test_an_answer_without_findings_is_no_answer(line: str) -> None:
    with pytest.raises(EvaluatorUnavailable):
        read_answer(7, REQUEST, line)


@pytest.mark.long
def test_a_process_looks_too_and_refuses_what_is_no_case_at_once() -> None:
    with ProcessEvaluator("h100", "quick") as evaluator:
        with pytest.raises(UnknownProblem):
            evaluator.inspect(Inspection(Look.PTX, "mha", SEED, case="nope"))
        assert evaluator.inspect(Inspection(Look.SCRIPT, "mha", "print(6 * 7)")).text == "42\n"


def test_the_fake_gives_what_it_holds() -> None:
    fake = FakeEvaluator(lambda candidate: None)  # type: ignore[arg-type, return-value]
    assert fake.inspect(REQUEST) == Findings()
    assert fake.inspections == [REQUEST]
