"""The fastest of an autotuned kernel's configurations counts; all are checked, and misfits are left out."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest

from avo.evaluator.candidate import Candidate
from avo.evaluator.evaluation import Evaluation, Fault, Status
from avo.evaluator.judging.autotuning import Autotuner
from avo.evaluator.judging.judge import Judge
from avo.evaluator.judging.refusal import outcome
from avo.evaluator.plan import Configuration, KernelIR, LaunchPlan
from avo.evaluator.problem import Case
from avo.evaluator.problems import PROBLEMS
from avo.evaluator.problems.mha import MHA
from avo.evaluator.sandbox.jobs import ForkServer
from avo.evaluator.targets import get_target
from tests.kernels import edited

CASE = MHA.suites["quick"][0]
BRIEF = replace(MHA, correctness_cases=MHA.correctness_cases[:4], suites={"brief": (CASE,)})
"""Few cases: each test here goes through all of them."""


def plan(*choices: str, key: str = "k") -> LaunchPlan:
    """A plan of one kernel for each of ``choices``, such as ``a1`` for choice 1 of kernel a."""
    kernels = tuple(KernelIR(choice, "", ()) for choice in choices)
    return LaunchPlan("case", (), kernels, (), tuple(Configuration(choice[0], key, choice[1:]) for choice in choices))


class Chip:
    """Knows how long each kernel takes and which do not fit."""

    def __init__(self, seconds: dict[str, float], misfits: Sequence[str] = ()) -> None:
        self._seconds = seconds
        self._misfits = misfits
        self.timed: list[list[str]] = []
        self.captured: list[str] = []
        self.autotuner = Autotuner(self._misfit, self._time, self._capture)

    def _misfit(self, kernel: KernelIR) -> Fault | None:
        return Fault(Status.DOES_NOT_FIT, f"{kernel.name} is too big") if kernel.name in self._misfits else None

    def _time(self, case: Case, plan: LaunchPlan) -> float:
        self.timed.append([kernel.name for kernel in plan.kernels])
        return sum(self._seconds[kernel.name] for kernel in plan.kernels)

    def _capture(self, case: Case, configurations: Sequence[Configuration]) -> LaunchPlan:
        self.captured.append(" ".join(map(str, configurations)))
        return plan(*(configuration.kernel + configuration.choice for configuration in configurations))

    def fastest(self, *plans: LaunchPlan) -> list[str] | Fault:
        found = outcome(lambda: self.autotuner.fastest(CASE, plans))
        return found if isinstance(found, Fault) else [kernel.name for kernel in found.kernels]


def test_the_fastest_configuration_counts() -> None:
    assert Chip({"a1": 3, "a2": 1, "a3": 2}).fastest(plan("a1"), plan("a2"), plan("a3")) == ["a2"]


def test_a_kernel_that_is_not_autotuned_is_not_timed() -> None:
    chip = Chip({})
    assert chip.fastest(plan("a1")) == ["a1"]
    assert chip.timed == []


def test_two_kernels_are_tuned_one_by_one_and_launched_with_the_best_of_each() -> None:
    chip = Chip({"a1": 3, "a2": 1, "b1": 5, "b2": 4})
    assert chip.fastest(plan("a1", "b1"), plan("a2", "b1"), plan("a1", "b2")) == ["a2", "b2"]
    assert chip.captured == ["a: 2 b: 2"]


def test_configurations_that_do_not_fit_are_skipped_the_first_one_too() -> None:
    chip = Chip({"a2": 2, "a3": 3}, misfits=["a1"])
    assert chip.fastest(plan("a1"), plan("a2"), plan("a3")) == ["a2"]
    assert chip.timed == [["a2"], ["a3"]]


def test_where_the_first_of_one_kernel_does_not_fit_the_others_are_timed_without_it() -> None:
    chip = Chip({"a2": 1, "b1": 2, "b2": 1}, misfits=["a1"])
    assert chip.fastest(plan("a1", "b1"), plan("a2", "b1"), plan("a1", "b2")) == ["a2", "b2"]
    assert chip.timed == [["a2", "b1"], ["a2", "b2"]]


def test_a_kernel_of_which_no_configuration_fits_does_not_fit() -> None:
    found = Chip({"b1": 1}, misfits=["a1", "a2"]).fastest(plan("a1", "b1"), plan("a2", "b1"))
    assert isinstance(found, Fault)
    assert found.status is Status.DOES_NOT_FIT
    assert found.message == "no configuration of kernel a fits: 1: a1 is too big; 2: a2 is too big"


def test_a_kernel_next_to_the_autotuned_one_has_to_fit() -> None:
    plain = KernelIR("plain", "", ())
    plans = [LaunchPlan("case", (), (plain, *p.kernels), (), p.configurations) for p in (plan("a1"), plan("a2"))]
    found = Chip({}, misfits=["plain"]).fastest(*plans)
    assert found == Fault(Status.DOES_NOT_FIT, "plain is too big")


@pytest.mark.parametrize(("key", "second"), [("k", ["a2"]), ("another", ["a1"])])
def test_a_key_is_tuned_once_as_triton_does(key: str, second: list[str]) -> None:
    chip = Chip({"a1": 2, "a2": 1})
    assert chip.fastest(plan("a1"), plan("a2")) == ["a2"]
    chip._seconds["a1"] = 0.5
    assert chip.fastest(plan("a1", key=key), plan("a2", key=key)) == second


def config(block_m: int, block_n: int, warps: int, stages: int = 1, wrong: bool = False) -> str:
    meta = f"{{'BLOCK_M': {block_m}, 'BLOCK_N': {block_n}, 'WRONG': {wrong}}}"
    return f"triton.Config({meta}, num_warps={warps}, num_stages={stages})"


def autotuned(*configs: str) -> str:
    """The seed, autotuned over ``configs``."""
    return edited(
        (
            "@triton.jit\ndef attention_kernel(",
            f"@triton.autotune([{', '.join(configs)}], key=['q_len', 'kv_len', 'CAUSAL'])\n"
            "@triton.jit\ndef attention_kernel(",
        ),
        ("    BLOCK_N: tl.constexpr,\n", "    BLOCK_N: tl.constexpr,\n    WRONG: tl.constexpr,\n"),
        ("    out = acc / row_sum[:, None]\n", "    out = acc / (row_sum + WRONG)[:, None]\n"),
        ("    grid = (triton.cdiv(q_len, block_m),", "    grid = lambda meta: (triton.cdiv(q_len, meta['BLOCK_M']),"),
        ("        BLOCK_M=block_m,\n        BLOCK_N=block_n,\n        num_warps=4,\n        num_stages=1,\n", ""),
    )


@pytest.fixture(scope="module")
def judge(fork_server: ForkServer) -> Iterator[Judge]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PROBLEMS, "brief", BRIEF)
        with Judge(get_target("h100"), "brief", server=fork_server) as judge:
            yield judge


def judged(judge: Judge, *configs: str) -> Evaluation:
    return judge.evaluate(Candidate("brief", autotuned(*configs)))


@pytest.mark.long
def test_the_winning_configuration_is_named_and_one_that_does_not_fit_is_left_out(judge: Judge) -> None:
    evaluation = judged(judge, config(64, 64, 4, stages=9), config(64, 16, 4), config(64, 32, 4))
    assert evaluation.status is Status.CORRECT, evaluation.message
    assert evaluation.score is not None
    (case,) = evaluation.score.cases
    (winner,) = case.configurations
    assert winner.startswith("attention_kernel: BLOCK_M=64, BLOCK_N=32, WRONG=False, num_warps=4, ")
    assert "num_stages=1" in winner
    assert len(evaluation.cases) == 3 * len(BRIEF.correctness_cases) + 1
    assert Evaluation.from_json(evaluation.to_json()) == evaluation


@pytest.mark.long
def test_a_profile_names_the_winning_configuration(judge: Judge) -> None:
    found = judge.profile(Candidate("brief", autotuned(config(64, 16, 4), config(64, 32, 4))))
    assert not isinstance(found, Fault), found
    (winner,) = found[0].score.configurations
    assert winner.startswith("attention_kernel: BLOCK_M=64, BLOCK_N=32, ")


@pytest.mark.long
def test_a_wrong_configuration_among_right_ones_is_found_before_any_is_compiled(judge: Judge) -> None:
    evaluation = judged(judge, config(64, 64, 4), config(32, 64, 4, wrong=True), config(64, 32, 4))
    assert evaluation.status is Status.INCORRECT
    assert "(with attention_kernel: BLOCK_M=32, BLOCK_N=64, WRONG=True, num_warps=4" in evaluation.message
    assert evaluation.resources == ()
    assert [case.passed for case in evaluation.cases] == [True] * len(BRIEF.correctness_cases) + [False]
