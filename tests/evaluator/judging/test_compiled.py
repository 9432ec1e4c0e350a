"""A kernel that the compiler makes wrong is refused, with the pass that does it; one that it makes right is not."""

import random
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import pytest

from avo.evaluator.candidate import Candidate
from avo.evaluator.capture import CHILD_MODULE, Capturer
from avo.evaluator.catalogue import get_problem
from avo.evaluator.compiling.compiler import JOB_MODULE, Compiler
from avo.evaluator.compiling.passes import Trace
from avo.evaluator.evaluation import Fault, Status
from avo.evaluator.judging import compiled, execution
from avo.evaluator.judging.buffers import InputCache
from avo.evaluator.judging.cases import Cases, Tools
from avo.evaluator.judging.checking import Checker
from avo.evaluator.judging.examination import Examination
from avo.evaluator.judging.planning import Planner
from avo.evaluator.judging.refusal import Refused
from avo.evaluator.judging.speed import Predicted
from avo.evaluator.plan import Configuration, KernelIR, LaunchPlan, Level
from avo.evaluator.problem import Case, Problem
from avo.evaluator.problems.mha import MHA
from avo.evaluator.sandbox.jobs import ForkServer
from avo.evaluator.target import Target
from avo.evaluator.targets import get_target
from avo.seeds import seed_source
from bench.claims import made
from bench.known import TRITON
from corpora.edits import HONEST
from tests.corpus import sample
from tests.evaluator.judging.test_autotuning import autotuned, config
from tests.kernels import edited
from tests.oldest_triton import newer_triton


def smallest(problem: Problem) -> Case:
    return min(problem.correctness_cases, key=lambda case: case.batch * case.heads * case.q_len * case.kv_len)


CASE = smallest(MHA)
SEED = seed_source("mha", "plain")
GUILTY = "tritongpu-pipeline"
NO_ROLES_OF_128_ROWS = newer_triton("Triton 3.6 fails to compile these roles for Hopper")


class Miscompiler(Compiler):
    """One whose pipelining makes a sum of a product, in every kernel or in the ``spoilt`` ones."""

    spoilt: tuple[KernelIR, ...] | None = None

    def gpu_ir(self, kernel: KernelIR, target: Target) -> str | Fault:
        text = super().gpu_ir(kernel, target)
        spared = self.spoilt is not None and kernel not in self.spoilt
        return text if isinstance(text, Fault) or spared else _wrong(text)

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


@dataclass
class Remembering(Checker):
    """One that remembers the states of chance in which it executed a case."""

    states: set[object] = field(default_factory=set)

    def whole(self, case: Case, plan: LaunchPlan) -> None:
        self.states.add(self.chance.getstate())
        super().whole(case, plan)


def tools_of(server: ForkServer, compiler: Compiler, target: str = "h100") -> Tools:
    card = get_target(target)
    planner = Planner(Capturer(server), compiler, card)
    return Tools(card, planner, compiler, Predicted(card), InputCache(1), random.Random(1))


def checker_of(tools: Tools, problem: Problem = MHA) -> Remembering:
    return Remembering(problem, tools.inputs, tools.chance)


def check(tools: Tools, checker: Checker, source: str = SEED, name: str = "") -> None:
    """Check the case of a problem called ``name``, by default the smallest."""
    problem = checker.problem
    case = next((each for each in problem.correctness_cases if each.name == name), smallest(problem))
    (plan, *_) = tools.planner.alternatives(Candidate(problem.name, source), problem, [case])[0]
    compiled.check(tools, checker, case, plan, lambda kernel: tools.compiler.gpu_ir(kernel, tools.target))


def examination(tools: Tools) -> Examination:
    """Return the examination of a seed before acceptance; its large cases are a small one."""
    cases = Cases("small", small=(CASE,), scored=(CASE,), shown=(CASE,))
    made = Examination(tools, Candidate("mha", SEED), cases)
    made.capture()
    return made


@pytest.mark.long
def test_what_the_compiler_makes_of_a_seed_is_right(server: ForkServer) -> None:
    tools = tools_of(server, Compiler(None, server=server))
    checker = checker_of(tools)
    check(tools, checker)
    assert [result.case for result in checker.results] == [CASE.name], "it was executed"


@pytest.mark.long
def test_a_kernel_that_is_compiled_wrong_is_refused_with_the_pass_that_does_it(server: ForkServer) -> None:
    tools = tools_of(server, Miscompiler(None, server=server))
    checker = checker_of(tools)
    told = rf"^kernel attention_kernel is compiled wrong: right in Triton IR, wrong after pass \d+, {GUILTY}: "
    with pytest.raises(Refused, match=told) as caught:
        check(tools, checker)
    assert caught.value.fault.status is Status.MISCOMPILED
    assert len(checker.results) > 2
    assert len(checker.states) == 1, "all on the same inputs"


@NO_ROLES_OF_128_ROWS
@pytest.mark.long
@pytest.mark.parametrize("case", ["odd-causal", "square-full"])
def test_rows_that_tritons_roles_on_hopper_move_twice_are_refused_and_those_that_they_move_once_are_right(
    server: ForkServer, case: str
) -> None:
    """One program of several tiles: its wrong rows lie over those of another."""
    tools = tools_of(server, Compiler(None, server=server))
    checker = checker_of(tools)
    known = made(TRITON["mha", "h100"], "h100")
    check(tools, checker, known, case)
    assert checker.results, "it was executed"
    shared = edited((" + tl.minimum(stride_qm, 0)", ""), source=known)
    with pytest.raises(Refused, match=r"wrong after pass \d+, nvgpu-warp-specialization: ") as caught:
        check(tools, checker, shared, case)
    assert caught.value.fault.status is Status.MISCOMPILED


@pytest.mark.long
def test_the_compiler_is_not_blamed_for_a_kernel_that_is_wrong_before_it(server: ForkServer) -> None:
    """It was right where it was checked before, on other inputs."""
    tools = tools_of(server, Compiler(None, server=server))
    wrong = edited(("tl.dot(q, k) * scale", "tl.dot(q, k) * 2 * scale"), source=SEED)
    with pytest.raises(Refused) as caught:
        check(tools, checker_of(tools), wrong)
    assert caught.value.fault.status is Status.INCORRECT
    assert "compiled" not in caught.value.fault.message


@pytest.mark.long
def test_a_kernel_that_is_compiled_wrong_does_not_become_a_version(server: ForkServer) -> None:
    examined = examination(tools_of(server, Miscompiler(None, server=server)))
    with pytest.raises(Refused, match="is compiled wrong: right in Triton IR") as caught:
        examined.score(None)
    found = examined.evaluation(caught.value.fault).compiled
    told = rf"kernel attention_kernel is compiled wrong: right in Triton IR, wrong after pass \d+, {GUILTY}"
    assert re.fullmatch(told, found), "without the case"


class Unheard(Compiler):
    """One that makes an operation that the executor does not know."""

    def gpu_ir(self, kernel: KernelIR, target: Target) -> str | Fault:
        return 'module { tt.func public @k() { "ttg.unheard_of"() : () -> () tt.return } }'.replace(" { ", " {\n")


UNHEARD = (
    "Not all that the compiler made was checked: "
    "kernel attention_kernel: unsupported operation ttg.unheard_of at line 3 of the IR"
)


def test_what_the_compiler_makes_and_the_executor_does_not_know_is_told(server: ForkServer) -> None:
    cases, kernel = MHA.correctness_cases[:2], KernelIR("attention_kernel", "module {}", ())
    plan = LaunchPlan("any", (), (kernel,), ())
    small = [(case, [plan]) for case in cases]
    tools = tools_of(server, Unheard(None, server=server))
    assert compiled.check_all(tools, MHA, small, [plan], ()) == f"{UNHEARD} (2 of 2 cases)"


@pytest.mark.long
def test_a_kernel_that_was_not_executed_as_compiled_may_become_a_version_which_says_so(server: ForkServer) -> None:
    examined = examination(tools_of(server, Unheard(None, server=server)))
    evaluation = examined.evaluation(examined.score(None))
    assert evaluation.correct
    assert evaluation.compiled == f"{UNHEARD} (1 of 1 cases)"


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (Fault(Status.RACE, "case a: missing barrier", "missing barrier"), "race: missing barrier"),
        (Fault(Status.TIMED_OUT, "case a: kernel k: out of time"), "timed out"),
        (Fault(Status.RACE, "case a: a race", "write race"), "race: write race, but not because of one kernel alone"),
    ],
)
def test_what_is_found_of_what_the_compiler_makes_and_is_no_verdict_is_told_without_the_case(
    server: ForkServer, monkeypatch: pytest.MonkeyPatch, found: Fault, told: str
) -> None:
    """Here it is found only where both kernels are as the compiler makes them."""
    empty = "module {\n  tt.func public @k() {\n    tt.return\n  }\n}\n"
    plan = LaunchPlan("any", (), (KernelIR("k", empty, ()), KernelIR("other", empty, ())), ())
    tools = tools_of(server, Compiler(None, server=server))
    checker = checker_of(tools)

    def whole(case: Case, plan: LaunchPlan) -> None:
        if all(kernel.level is Level.TTGIR for kernel in plan.kernels):
            raise Refused(found)

    monkeypatch.setattr(checker, "whole", whole)
    assert compiled.check(tools, checker, CASE, plan, lambda kernel: kernel.ttir) == [told]


def test_a_kernel_that_waits_for_ever_as_it_is_compiled_is_refused(
    server: ForkServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = "module {\n  tt.func public @k() {\n    tt.return\n  }\n}\n"
    plan = LaunchPlan("any", (), (KernelIR("k", empty, ()),), ())
    tools = tools_of(server, Compiler(None, server=server))
    checker = checker_of(tools)

    def whole(case: Case, plan: LaunchPlan) -> None:
        if plan.kernels[0].level is Level.TTGIR:
            raise Refused(Fault(Status.DEADLOCK, "kernel k: deadlock: partition 0 waits"))

    monkeypatch.setattr(checker, "whole", whole)
    with pytest.raises(
        Refused, match=r"^kernel k is compiled wrong: .*: kernel k: deadlock: partition 0 waits"
    ) as caught:
        compiled.check(tools, checker, CASE, plan, lambda kernel: kernel.ttir)
    assert caught.value.fault.status is Status.MISCOMPILED


@pytest.mark.long
def test_a_configuration_that_is_compiled_wrong_is_refused_though_another_is_scored(server: ForkServer) -> None:
    compiler = Miscompiler(None, server=server)
    tools = tools_of(server, compiler)
    source = autotuned(config(64, 32, 4, 2), config(64, 32, 8, 2))
    (plans,) = tools.planner.alternatives(Candidate("mha", source), MHA, [CASE])
    scored, other = plans
    compiler.spoilt = other.kernels

    def check_all(fit: Sequence[Configuration]) -> None:
        compiled.check_all(tools, MHA, [(CASE, plans)], [scored], fit)

    check_all(())
    with pytest.raises(Refused, match=r"wrong after pass \d+, .*num_warps=8") as caught:
        check_all(other.configurations)
    assert caught.value.fault.status is Status.MISCOMPILED


def test_what_is_scored_is_looked_at_first_and_whole_and_then_some_cases_of_each_other_that_fits() -> None:
    def plan(case: Case, choice: str) -> LaunchPlan:
        return LaunchPlan(case.name, (), (), (), (Configuration("k", case.name, choice),))

    cases, names = MHA.correctness_cases[:6], ("slow", "too large", "fast", "slower")
    small = [(case, [plan(case, name) for name in names]) for case in cases]
    fit = [Configuration("k", "another key", name) for name in ("slow", "fast", "slower")]

    def chosen(seed: int) -> list[tuple[str, str]]:
        found = compiled.chosen(small, [plan(cases[0], "fast")], fit, random.Random(seed))
        return [(case.name, plan.configurations[0].choice) for case, plan in found]

    first = chosen(1)
    assert first[:6] == [(case.name, "fast") for case in cases]
    assert [choice for _, choice in first[6:]] == ["slow"] * 4 + ["slower"] * 4
    assert len(set(first)) == len(first)
    assert {name for seed in range(20) for name, _ in chosen(seed)[6:]} == {case.name for case in cases}


def test_no_case_is_begun_when_the_time_is_over(server: ForkServer, monkeypatch: pytest.MonkeyPatch) -> None:
    now, begun = [0.0], []

    def check(*given: object) -> Sequence[str]:
        begun.append(given)
        now[0] += execution.EXECUTION_S / 2 + 1
        return ()

    monkeypatch.setattr(time, "process_time", lambda: now[0])
    monkeypatch.setattr(compiled, "check", check)
    plan = LaunchPlan("any", (), (), ())
    cases = [(case, [plan]) for case in MHA.correctness_cases]
    found = compiled.check_all(tools_of(server, Compiler(None, server=server)), MHA, cases, [plan], ())
    assert len(begun) == 2 < len(cases)
    left = f"{len(cases) - 2} of {len(cases)} cases"
    assert found == f"Not all that the compiler made was checked: no time was left ({left})"


@pytest.mark.long
@pytest.mark.parametrize(
    ("problem", "target"), [pytest.param("mha", "h100", marks=NO_ROLES_OF_128_ROWS), ("gqa", "h100"), ("mha", "b200")]
)
def test_what_the_compiler_makes_of_the_best_kernels_known_is_executed_and_right(
    server: ForkServer, problem: str, target: str
) -> None:
    tools = tools_of(server, Compiler(None, server=server), target)
    checker = checker_of(tools, get_problem(problem))
    check(tools, checker, made(TRITON[problem, target], target), "odd-causal")
    assert checker.results


@pytest.mark.corpus
@pytest.mark.parametrize("target", ["h100", "b200"])
@pytest.mark.parametrize(("problem", "name"), sample(((each, name) for each in HONEST for name in HONEST[each]), 1, 3))
def test_what_the_compiler_makes_of_an_honest_kernel_is_right(
    server: ForkServer, problem: str, name: str, target: str
) -> None:
    tools = tools_of(server, Compiler(None, server=server), target)
    checker = checker_of(tools, get_problem(problem))
    try:
        check(tools, checker, HONEST[problem][name])
    except Refused as refused:
        if "Block pointers have been removed" in str(refused):
            pytest.skip("this version of Triton has no block pointers")
        raise
    assert checker.results
