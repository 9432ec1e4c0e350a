"""Candidates' plans as the judge makes them, for tests that give them to a worker on a real GPU."""

from pathlib import Path
from tempfile import TemporaryDirectory

from evaluator.candidate import Candidate
from evaluator.capture import CHILD_MODULE, Capturer
from evaluator.compiling.compiler import JOB_MODULE, Compiler
from evaluator.cuda.contender import WorkerContender, start_worker
from evaluator.evaluation import Fault
from evaluator.judging.planning import Planner
from evaluator.judging.speed import CompiledPlan
from evaluator.problem import Case
from evaluator.problems.mha import MHA
from evaluator.sandbox.jobs import ForkServer
from evaluator.target import Target

CASE = Case("1k-causal", 2, 4, 4, 1024, 1024, 128, True)
LIMIT_S = 2.0


def plans(source: str, target: Target, *cases: Case) -> list[CompiledPlan]:
    """Return what ``source`` launches for ``cases``, compiled; its numbers are not looked at."""
    with ForkServer((CHILD_MODULE, JOB_MODULE)) as server, TemporaryDirectory() as folder:
        compiler = Compiler(Path(folder), server=server)
        made = Planner(Capturer(server), compiler, target).plans(Candidate("mha", source), MHA, cases, ())
        benchmarks = []
        for case, plan in zip(cases, made, strict=True):
            binaries = {}
            for ir in plan.kernels:
                binary = compiler.compile(ir, target)
                assert not isinstance(binary, Fault), binary
                binaries[ir] = binary
            benchmarks.append(CompiledPlan(case, plan, binaries, ()))
        return benchmarks


def opened(source: str, target: Target, *cases: Case) -> WorkerContender:
    """Return a worker that holds the plans of ``source``."""
    contender = start_worker()
    for benchmark in plans(source, target, *cases):
        assert contender.open(MHA, benchmark) is None
    return contender
