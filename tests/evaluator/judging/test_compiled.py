"""A kernel that the compiler makes wrong is refused, with the pass that does it; one that it makes right is not."""

import random
from collections.abc import Iterator
from dataclasses import replace

import pytest

from evaluator.candidate import Candidate
from evaluator.capture import CHILD_MODULE, Capturer
from evaluator.compiling.compiler import JOB_MODULE, Compiler
from evaluator.compiling.passes import Trace
from evaluator.evaluation import Fault, Status
from evaluator.judging import compiled
from evaluator.judging.buffers import InputCache
from evaluator.judging.cases import Tools
from evaluator.judging.checking import Checker
from evaluator.judging.planning import Planner
from evaluator.judging.refusal import Refused
from evaluator.judging.speed import Predicted
from evaluator.plan import KernelIR, LaunchPlan
from evaluator.problems.mha import MHA
from evaluator.sandbox.jobs import ForkServer
from evaluator.target import Target
from evaluator.targets import get_target
from seeds import seed_source

CASE = min(MHA.correctness_cases, key=lambda case: case.batch * case.heads * case.q_len * case.kv_len)
GUILTY = "tritongpu-pipeline"


class Miscompiler(Compiler):
    """One whose pipelining makes a sum of a product."""

    def gpu_ir(self, kernel: KernelIR, target: Target) -> str | Fault:
        text = super().gpu_ir(kernel, target)
        return text if isinstance(text, Fault) else _wrong(text)

    def trace(
        self, kernel: KernelIR, target: Target, wanted: str | None = None, *, to_gpu_ir: bool = False
    ) -> Trace | Fault:
        trace = super().trace(kernel, target, wanted, to_gpu_ir=to_gpu_ir)
        if isinstance(trace, Fault) or trace.shown is None or GUILTY not in trace.passes[: trace.shown]:
            return trace
        return replace(trace, ir=_wrong(trace.ir))


def _wrong(text: str) -> str:
    return text.replace("arith.mulf", "arith.addf", 1)


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    server = ForkServer((CHILD_MODULE, JOB_MODULE))
    yield server
    server.close()


def examined(server: ForkServer, compiler: Compiler) -> tuple[Tools, Checker, LaunchPlan]:
    target, chance = get_target("h100"), random.Random(1)
    planner, inputs = Planner(Capturer(server), compiler, target), InputCache(1)
    tools = Tools(target, planner, compiler, Predicted(target), inputs, chance)
    (plan,) = planner.plans(Candidate("mha", seed_source("mha", "plain")), MHA, [CASE], ())
    return tools, Checker(MHA, inputs, chance), plan


@pytest.mark.long
def test_what_the_compiler_makes_of_a_seed_is_right(server: ForkServer) -> None:
    tools, checker, plan = examined(server, Compiler(None, server=server))
    compiled.check(tools, checker, CASE, plan)
    assert [result.case for result in checker.results] == [CASE.name], "it was executed"


@pytest.mark.long
def test_a_kernel_that_is_compiled_wrong_is_refused_with_the_pass_that_does_it(server: ForkServer) -> None:
    tools, checker, plan = examined(server, Miscompiler(None, server=server))
    told = rf"^kernel attention_kernel is compiled wrong: right in Triton IR, wrong after pass \d+, {GUILTY}: "
    with pytest.raises(Refused, match=told) as caught:
        compiled.check(tools, checker, CASE, plan)
    assert caught.value.fault.status is Status.INCORRECT
