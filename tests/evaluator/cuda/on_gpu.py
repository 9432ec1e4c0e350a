"""Candidates' plans as the judge makes them, for tests that give them to a worker on a real GPU."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from avo.evaluator.candidate import Candidate
from avo.evaluator.capture import CHILD_MODULE, Capturer
from avo.evaluator.catalogue import get_problem
from avo.evaluator.compiling.compiler import JOB_MODULE, Compiler
from avo.evaluator.cuda.contender import Contender, start_worker
from avo.evaluator.evaluation import Fault
from avo.evaluator.judging.planning import Planner
from avo.evaluator.judging.speed import CompiledPlan
from avo.evaluator.problem import Case
from avo.evaluator.problems.mha import MHA
from avo.evaluator.sandbox.jobs import ForkServer
from avo.evaluator.target import Target

CASE = Case("1k-causal", 2, 4, 4, 1024, 1024, 128, True)
LIMIT_S = 2.0


def plans(source: str, target: Target, *cases: Case) -> list[CompiledPlan]:
    """Return what ``source`` launches for ``cases``, compiled; its numbers are not looked at."""
    with ForkServer((CHILD_MODULE, JOB_MODULE)) as server:
        return compiled(server, Candidate("mha", source), target, cases)


def compiled(server: ForkServer, candidate: Candidate, target: Target, cases: Sequence[Case]) -> list[CompiledPlan]:
    """Return what a candidate launches for ``cases``, compiled; its numbers are not looked at."""
    with TemporaryDirectory() as folder:
        compiler = Compiler(Path(folder), server=server)
        problem = get_problem(candidate.problem)
        made = Planner(Capturer(server), compiler, target).plans(candidate, problem, cases, ())
        benchmarks = []
        for case, plan in zip(cases, made, strict=True):
            binaries = {}
            for ir in plan.kernels:
                binary = compiler.compile(ir, target)
                assert not isinstance(binary, Fault), binary
                binaries[ir] = binary
            benchmarks.append(CompiledPlan(case, plan, binaries, ()))
        return benchmarks


def opened(source: str, target: Target, *cases: Case) -> Contender:
    """Return a worker that holds the plans of ``source``."""
    contender = start_worker()
    for benchmark in plans(source, target, *cases):
        assert contender.open(MHA, benchmark) is None
    return contender
