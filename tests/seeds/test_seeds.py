"""Every seed gives the reference's numbers, in both types, and compiles for every architecture."""

import re
from dataclasses import replace
from importlib import import_module
from typing import Any

import pytest

from avo.evaluator.candidate import Candidate
from avo.evaluator.capture import Capturer
from avo.evaluator.catalogue import get_problem, get_suite
from avo.evaluator.compiling.compiler import Compiler
from avo.evaluator.compiling.limits import fit
from avo.evaluator.evaluation import Fault, Status
from avo.evaluator.judging.judge import Judge
from avo.evaluator.problem import Case, Problem
from avo.evaluator.problems import PROBLEMS
from avo.evaluator.problems.fsa_backward import SelectedBackwardCase
from avo.evaluator.problems.selection import SelectedCase
from avo.evaluator.sandbox.jobs import ForkServer
from avo.evaluator.targets import get_target
from avo.seeds import KINDS, claimed, fitting, seed_source, seeds_of
from bench.verdicts import SETTINGS
from tests.corpus import sample, soaked
from tests.evaluator.problems.offline_kernel import fault_of, tried

IN_GLUON = {"hopper": "h100", "blackwell": "b200"}
"""Seeds for one architecture each, in bfloat16, with a card that has it."""
NAMES = [(problem, name) for problem in KINDS for name in seeds_of(problem) if name not in IN_GLUON]
LARGE_GROUPS = "fsa-h8x1-b64x4-local-1024x1"
"""A setting of selected attention that has seeds in Gluon."""
FIRST = [(problem, next(iter(seeds_of(problem)))) for problem in KINDS]
"""The one of each problem that is not in the corpus."""
SPARSE: dict[str, type[SelectedCase]] = {"fsa": SelectedCase, "fsa_backward": SelectedBackwardCase}
"""Problems whose queries select blocks, and what their cases are."""


@pytest.fixture(autouse=True)
def fusion_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_DEFAULT_FP_FUSION", "1")


def seed(problem: str, name: str) -> Any:
    """The seed as a module."""
    (file,) = (seed.file for seed in claimed(problem) if seed.name == name and not seed.edits)
    return import_module(f"avo.seeds.{file.removesuffix('.py').replace('/', '.')}")


def check(problem: Problem, case: Case, module: Any) -> None:
    """Run a kernel on one case and compare all that it writes."""
    assert fault_of(problem, case, module) is None


@pytest.mark.parametrize("dtype", ["bfloat16", pytest.param("float16", marks=pytest.mark.corpus)])
@pytest.mark.parametrize(
    ("problem", "name"),
    [
        pytest.param(problem, name, marks=pytest.mark.corpus if (problem, name) not in FIRST else ())
        for problem, name in NAMES
    ],
)
def test_a_seed_gives_the_references_numbers(problem: str, name: str, dtype: str) -> None:
    found = get_problem(problem)
    for case in tried(found):
        check(found, replace(case, dtype=dtype), seed(problem, name))


@pytest.mark.parametrize("block_size", sample([48, 16], 2))
@pytest.mark.parametrize(
    ("problem", "name"),
    [(problem, seed.name) for problem in SPARSE for seed in claimed(problem) if seed.name not in IN_GLUON],
)
def test_a_sparse_seed_takes_any_block_size_and_number_of_blocks(problem: str, name: str, block_size: int) -> None:
    case = SPARSE[problem](
        "x", 1, 3, 1, 130, 130, 128, True, "bfloat16", "large", block_size=block_size, blocks=block_size // 8
    )
    check(get_problem(problem), replace(case, selection="random"), seed(problem, name))


@pytest.mark.long
def test_positions_taken_in_several_lots_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    module = seed("fsa", "kv_outer")
    problem = get_problem("fsa")
    case = next(case for case in problem.correctness_cases if case.name == "skewed")
    monkeypatch.setattr(module, "PARTIAL_BYTES", 2**20)
    check(problem, case, module)


def test_every_problem_has_a_default_seed() -> None:
    for problem in PROBLEMS:
        assert f"def {get_problem(problem).entry}(" in seed_source(problem)
    assert seed_source("mha") == seed_source("mha", "plain") != seed_source("mha", "tuned")
    with pytest.raises(KeyError):
        seed_source("mha", "none")


def test_a_seed_for_one_architecture_fits_no_other_card() -> None:
    cards = ("a100", "h200", "b200", "b300", "rtx5090")
    found = {name: fitting("mha", get_target(name))[2:] for name in cards}
    assert found == {"a100": [], "h200": ["hopper"], "b200": ["blackwell"], "b300": ["blackwell"], "rtx5090": []}
    assert fitting("mha", get_target("h100"), gluon=False) == ["plain", "tuned"]
    large = {name: fitting(LARGE_GROUPS, get_target(name)) for name in cards}
    assert {name: set(found) & set(IN_GLUON) for name, found in large.items()} == {
        name: set(each) for name, each in found.items()
    }
    assert not {"hopper", "blackwell"} & seeds_of("fsa").keys()
    everything = fitting("mha", None)
    assert everything == list(seeds_of("mha")), "whether it fits an unknown card is for the judge to find out"


@pytest.mark.corpus
@pytest.mark.parametrize("target", ["b200", "a100"])
@pytest.mark.parametrize(
    ("problem", "name"),
    [
        ("mha", "tuned"),
        *(("fsa", name) for name in seeds_of("fsa")),
        *(
            (problem, name)
            for problem in SETTINGS
            if re.search("d192|d256|d512|c50", problem)
            for name in seeds_of(problem)
        ),
    ],
)
def test_a_seed_compiles_for_every_architecture(fork_server: ForkServer, problem: str, name: str, target: str) -> None:
    found, architecture = get_problem(problem), get_target(target)
    call = found.call(get_suite(found, "quick")[-1])
    plans = Capturer(fork_server).capture(seed_source(problem, name), found.entry, [call], architecture)
    assert not isinstance(plans, Fault), plans
    for kernel in plans[0].kernels:
        binary = Compiler(None, server=fork_server).compile(kernel, architecture)
        assert not isinstance(binary, Fault), binary
        assert fit(binary, architecture) is None


@pytest.mark.parametrize(("name", "architecture"), IN_GLUON.items())
def test_a_seed_in_gluon_is_compiled_once_for_all_numbers_of_heads_and_queries(
    name: str, architecture: str, fork_server: ForkServer
) -> None:
    found, target = get_problem("mha"), get_target(architecture)
    (case,) = get_suite(found, "quick")[:1]
    calls = [found.call(replace(case, heads=n, kv_heads=n, q_len=length)) for n, length in ((1, 1), (3, 100), (16, 64))]
    plans = Capturer(fork_server).capture(seed_source("mha", name), found.entry, calls, target)
    assert not isinstance(plans, Fault), plans
    assert len({plan.kernels for plan in plans}) == 1


@pytest.mark.corpus
@pytest.mark.parametrize(
    ("problem", "name"),
    [
        *soaked(((problem, name) for problem in KINDS for name in seeds_of(problem)), [("gqa", "blackwell")]),
        *((LARGE_GROUPS, name) for name in IN_GLUON),
    ],
)
def test_a_seed_is_judged_correct(fork_server: ForkServer, problem: str, name: str) -> None:
    with Judge(get_target(IN_GLUON.get(name, "h100")), "quick", server=fork_server) as judge:
        evaluation = judge.evaluate(Candidate(problem, seed_source(problem, name)))
    assert evaluation.status is Status.CORRECT, evaluation.message


@pytest.mark.parametrize("problem", [*KINDS, *SETTINGS])
def test_seeds_that_stand_for_earlier_work_are_for_the_problem(problem: str) -> None:
    named = [baseline.seed for baseline in get_problem(problem).baselines if baseline.seed]
    assert set(named) <= seeds_of(problem).keys()
