"""The whole way of a candidate on the target ``cuda``: the device executes IR where a GPU would run binaries."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import NoReturn

import pytest
import torch

from avo.evaluator import executor
from avo.evaluator.binary import Binary
from avo.evaluator.candidate import Candidate, Incumbent
from avo.evaluator.cuda import measuring
from avo.evaluator.cuda.contender import Contender
from avo.evaluator.cuda.device import LoadedKernel
from avo.evaluator.cuda.measured import Measured
from avo.evaluator.evaluation import Fault, Status, Verdict
from avo.evaluator.executor import Allocation
from avo.evaluator.judging import gpu_work
from avo.evaluator.judging.examination import Examination
from avo.evaluator.judging.execution import executable
from avo.evaluator.judging.judge import Judge
from avo.evaluator.judging.refusal import Refused
from avo.evaluator.judging.speed import Challenge, CompiledPlan
from avo.evaluator.plan import Argument, KernelIR
from avo.evaluator.problem import Problem
from avo.evaluator.problems import PROBLEMS
from avo.evaluator.sandbox.jobs import ForkServer
from avo.evaluator.target import ScoreKind
from avo.seeds import seed_source
from tests.evaluator.cuda.fake_device import CARD, FakeDevice, Loopback, attend, forever
from tests.evaluator.cuda.stub_card.tiny import PROBLEM as TINY
from tests.evaluator.cuda.stub_card.tiny import SMALL
from tests.kernels import stored

SEED = seed_source("mha")
FICKLE = """

import os

import torch

same = attention


def attention(q, k, v, out, lse, *, causal, scale):
    torch.zeros(1 + int.from_bytes(os.urandom(3)), device=q.device)
    same(q, k, v, out, lse, causal=causal, scale=scale)
"""
ONLY_A_GPU = f"""{stored("gluon/hopper_attention")}

@gluon.jit
def clock(lse):
    now = gl.inline_asm_elementwise("mov.u32 $0, %clock; // $1", "=r,r", [gl.program_id(0)], gl.int32, False, 1)
    gl.store(lse, now.to(gl.float32))

judged = attention

def attention(q, k, v, out, lse, *, causal, scale):
    clock[(1,)](lse)
    judged(q, k, v, out, lse, causal=causal, scale=scale)
"""


class ExecutingDevice(FakeDevice):
    """Runs Triton IR; Gluon as if it were right."""

    def __init__(self, spoil: Callable[[Sequence[torch.Tensor]], None]) -> None:
        super().__init__(forever(1e-3))
        self._spoil = spoil

    def load(self, ir: KernelIR, binary: Binary) -> LoadedKernel:
        """Return the kernel of the IR."""
        assert binary.launch
        assert binary.cubin
        self._seconds = forever(0.8e-3 if ir.option["num_warps"] == 8 else 1e-3)

        def launch(grid: tuple[int, int, int], arguments: Sequence[Argument], buffers: Sequence[torch.Tensor]) -> None:
            if ir.level == "ttir":
                allocations = [Allocation(str(i), flat) for i, flat in enumerate(buffers)]
                assert executor.load(ir.ttir).run(executor.Launch(allocations, arguments, grid)).faults == ()
            else:
                attend(SMALL, dict(zip(("q", "k", "v", "out", "lse"), buffers, strict=False)))
            self._spoil(buffers)

        return launch


class Room:
    """A judge on a made-up card."""

    def __init__(self, server: ForkServer) -> None:
        self.spoil: Callable[[Sequence[torch.Tensor]], None] = lambda buffers: None
        speed = Measured(CARD.target(), start=self._start)
        self.judge = Judge(CARD.target(), "quick", speed=speed, server=server)

    def _start(self) -> Contender:
        return Contender(Loopback(ExecutingDevice(lambda buffers: self.spoil(buffers))))


@pytest.fixture(scope="module")
def room(fork_server: ForkServer) -> Iterator[Room]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PROBLEMS, "tiny", TINY)
        patch.setattr(measuring, "RUNS", 6)
        patch.setattr(measuring, "MOST_WARMUPS", 1)
        patch.setattr(measuring, "ROUNDS", range(4, 17, 4))
        room = Room(fork_server)
        with room.judge:
            yield room


@pytest.mark.long
def test_a_right_candidate_is_measured_on_the_card_and_compared_with_the_incumbent(room: Room) -> None:
    faster = SEED.replace("num_warps=4", "num_warps=8")
    assert faster != SEED
    evaluation = room.judge.evaluate(Candidate("tiny", faster), Incumbent(Candidate("tiny", SEED), 0.2))
    assert evaluation.status is Status.CORRECT, evaluation.message
    score = evaluation.score
    assert score is not None
    assert (score.kind, score.target, score.card) == (ScoreKind.MEASURED, "cuda", "Fake H100")
    assert score.cases[0].time_us == pytest.approx(800)
    assert score.comparison is not None
    assert score.comparison.verdict is Verdict.FASTER
    assert "cascade passed: predicted at most" in score.conditions
    assert type(evaluation).from_json(evaluation.to_json()) == evaluation


def spoil(buffers: Sequence[torch.Tensor]) -> None:
    buffers[3].mul_(1.5)


@pytest.mark.long
def test_what_only_the_gpu_gets_wrong_is_incorrect(room: Room) -> None:
    room.spoil = spoil
    evaluation = room.judge.evaluate(Candidate("tiny", SEED))
    room.spoil = lambda buffers: None
    assert evaluation.status is Status.INCORRECT
    assert evaluation.message.startswith("case small-causal: ")


@pytest.mark.long
def test_a_gluon_kernel_that_only_a_gpu_runs_is_judged_by_it_alone(room: Room) -> None:
    evaluation = room.judge.evaluate(Candidate("tiny", ONLY_A_GPU))
    assert evaluation.status is Status.CORRECT, evaluation.message
    assert evaluation.score is not None
    assert evaluation.score.kind is ScoreKind.MEASURED


@pytest.mark.long
def test_a_gluon_incumbent_whose_work_cannot_be_counted_is_timed_all_the_same(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> NoReturn:
        raise Refused(Fault(Status.UNSUPPORTED, "cannot be counted"))

    monkeypatch.setattr(gpu_work, "works", refuse)
    evaluation = room.judge.evaluate(Candidate("tiny", SEED), Incumbent(Candidate("tiny", ONLY_A_GPU), 0.05))
    assert evaluation.status is Status.CORRECT, evaluation.message
    assert evaluation.score is not None
    assert evaluation.score.comparison is not None


def test_a_candidate_that_launches_something_else_each_time_is_refused(room: Room) -> None:
    evaluation = room.judge.evaluate(Candidate("tiny", SEED + FICKLE))
    assert evaluation.status is Status.FORBIDDEN, evaluation.message
    assert evaluation.message == "launches other plans when it is called again: see what its host code reads"


class Asked:
    """Knows what the judge wanted to have timed."""

    def __init__(self) -> None:
        self.small: Sequence[CompiledPlan] = ()

    def score(
        self,
        problem: Problem,
        benchmarks: Sequence[CompiledPlan],
        incumbent: Challenge | None,
        small: Sequence[CompiledPlan] = (),
    ) -> Fault:
        """Note it."""
        self.small = small
        return Fault(Status.NOT_TIMED, "not timed")


@pytest.mark.long
def test_configurations_that_were_not_seen_together_run_on_the_gpu_too(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Asked()
    monkeypatch.setattr(room.judge, "_tools", replace(room.judge._tools, speed=asked))
    gluon = Candidate("tiny", ONLY_A_GPU)
    mixture = room.judge._tools.planner.plans(gluon, TINY, TINY.correctness_cases, ())
    monkeypatch.setattr(Examination, "_mixtures", lambda *arguments: [[(plan,) for plan in mixture]])
    evaluation = room.judge.evaluate(Candidate("tiny", SEED.replace("num_stages=1", "num_stages=2")))
    assert evaluation.status is Status.NOT_TIMED, evaluation.message
    assert [executable(each.plan) for each in asked.small] == [True, False]
