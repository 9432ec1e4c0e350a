"""What the script says is looked at is what the judge compares."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
import torch

from avo.evaluator.candidate import Candidate
from avo.evaluator.capture import Capturer
from avo.evaluator.compiling.compiler import Compiler
from avo.evaluator.executor import Allocation
from avo.evaluator.judging import compare, sampling
from avo.evaluator.judging.buffers import InputCache
from avo.evaluator.judging.checking import Checker
from avo.evaluator.judging.planning import Planner
from avo.evaluator.judging.sampling import EACH_TIME, random_groups
from avo.evaluator.problem import Case, Problem
from avo.evaluator.problems.mha import MHA
from avo.evaluator.sandbox.jobs import ForkServer
from avo.evaluator.targets import get_target
from avo.seeds import seed_source
from bench.escapes import KERNELS, Tiling, by_tile, escapes, looked_at
from tests.kernels import stored

CASE = replace(MHA.suites["quick"][0], batch=1, heads=4, kv_heads=4, q_len=1024, kv_len=1024)
FEW = replace(EACH_TIME, groups=3)


@pytest.mark.long
@pytest.mark.parametrize(
    ("source", "kernel"),
    [
        (seed_source("mha"), KERNELS[0]),
        (
            stored("honest/mha/persistent").replace("4 * sms", "5").replace("tiles_m - 1 - ", ""),
            Tiling("five programs", 128, 5),
        ),
    ],
    ids=["seed", "persistent"],
)
def test_the_rows_that_a_check_compares_are_those_that_the_script_draws(
    fork_server: ForkServer, monkeypatch: pytest.MonkeyPatch, source: str, kernel: Tiling
) -> None:
    planner = Planner(Capturer(fork_server), Compiler(None, server=fork_server), get_target("h100"))
    (plan,) = planner.plans(Candidate("mha", source), MHA, [CASE], ())
    chance, only, compared, states = random.Random(5), compare.only, [], []

    def seen(problem: Problem, case: Case, outputs: Mapping[str, Allocation], rows: compare.Rows) -> object:
        compared.append(rows["queries"])
        return only(problem, case, outputs, rows)

    def drawn(shape: Sequence[int], groups: int, chance: random.Random) -> torch.Tensor:
        states.append(chance.getstate())
        return random_groups(shape, groups, chance)

    monkeypatch.setattr(sampling, "only", seen)
    monkeypatch.setattr(sampling, "random_groups", drawn)
    Checker(MHA, InputCache(1), chance).sampled(CASE, plan, FEW)
    (state,), (rows,) = states, compared
    chance.setstate(state)
    assert torch.equal(rows, looked_at(CASE, kernel, FEW, chance))


def test_a_tile_is_looked_at_if_any_of_its_rows_is() -> None:
    looked = torch.zeros(2, 3, 130, dtype=torch.bool)
    looked[0, 1, [5, 6, 129]] = True
    assert by_tile(looked, KERNELS[0]).nonzero().tolist() == [[0, 1, 0], [0, 1, 2]]


def test_what_is_spoiled_everywhere_escapes_nowhere_and_less_escapes_more_often() -> None:
    chances = [escapes(KERNELS[0], "tiles", share, [CASE], FEW) for share in (1.0, 0.5, 0.1, 0.02)]
    assert chances[0] == 0.0
    assert chances == sorted(chances)
    assert chances[2] == pytest.approx(0.9**3, abs=0.04)
    assert escapes(KERNELS[0], "tiles", 0.1, [CASE, CASE], FEW) == pytest.approx(chances[2] ** 2)
