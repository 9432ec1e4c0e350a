"""Every configuration of an autotuned kernel that survives pruning gives a plan, as Triton would launch it."""

from collections.abc import Callable

import pytest

from avo.evaluator.capture import Capturer
from avo.evaluator.evaluation import Fault, Status
from avo.evaluator.plan import Configuration, Fill, LaunchPlan
from avo.evaluator.problem import Call
from avo.evaluator.targets import get_target

Alternatives = Callable[..., tuple[LaunchPlan, ...] | Fault]
MakeCall = Callable[..., Call]


def configs(*blocks: int, more: str = "") -> str:
    return ", ".join(f"triton.Config({{'BLOCK': {block}}}{more})" for block in blocks)


def planned(outcome: tuple[LaunchPlan, ...] | Fault) -> tuple[LaunchPlan, ...]:
    assert isinstance(outcome, tuple), outcome
    return outcome


def grids(outcome: tuple[LaunchPlan, ...] | Fault) -> list[list[int]]:
    """The extent in x of each launch of each plan."""
    return [[launch.grid[0] for launch in plan.launches] for plan in planned(outcome)]


def choices(plan: LaunchPlan) -> list[str]:
    return [str(configuration) for configuration in plan.configurations]


def test_each_configuration_gives_a_plan_that_names_it(alternatives: Alternatives) -> None:
    outcome = alternatives("triton.Config({'BLOCK': 64}, num_warps=2), triton.Config({'BLOCK': 32}, num_warps=1)")
    first, second = planned(outcome)
    assert grids(outcome) == [[64], [32]]
    assert [plan.kernels[0].option["num_warps"] for plan in (first, second)] == [2, 1]
    assert choices(first)[0].startswith("tuned: BLOCK=64, num_warps=2, ")
    assert first.configurations[0].key == second.configurations[0].key == "[100, 'torch.float32']"


def test_the_digest_of_a_plan_does_not_depend_on_what_its_configuration_is_called(alternatives: Alternatives) -> None:
    outcome = alternatives("triton.Config({'BLOCK': 64}), triton.Config({'BLOCK': 64}, pre_hook=lambda nargs: None)")
    first, second = planned(outcome)
    assert first.configurations != second.configurations
    assert first.digest == second.digest


def test_a_kernel_without_autotuning_has_one_plan_and_names_none(alternatives: Alternatives) -> None:
    (plan,) = planned(alternatives(configs(64), body="copy[(1,)](x, y, 9, BLOCK=16)"))
    assert plan.configurations == ()


def test_two_autotuned_kernels_are_varied_one_at_a_time(alternatives: Alternatives) -> None:
    body = """
other = triton.autotune([triton.Config({'BLOCK': block}) for block in (16, 8)], key=[])(copy)
tuned[lambda meta: (meta['BLOCK'],)](y, 100)
other[lambda meta: (meta['BLOCK'],)](x, y, 100)"""
    outcome = alternatives(configs(64, 32), body=body)
    assert grids(outcome) == [[64, 16], [32, 16], [64, 8]]
    assert [configuration.kernel for configuration in planned(outcome)[0].configurations] == ["tuned", "copy"]


def test_launches_with_one_key_share_a_configuration_and_another_key_is_tuned_by_itself(
    alternatives: Alternatives,
) -> None:
    body = "grid = lambda meta: (meta['BLOCK'],)\nfor n in (100, 100, 200):\n    tuned[grid](y, n)"
    outcome = alternatives(configs(64, 32), body=body)
    assert grids(outcome) == [[64, 64, 64], [32, 32, 64], [64, 64, 32]]
    assert [configuration.kernel for configuration in planned(outcome)[0].configurations] == ["tuned", "tuned #2"]


@pytest.mark.parametrize(
    "pruning",
    [
        "{'early_config_prune': lambda configs, args, **rest: [c for c in configs if c.kwargs['BLOCK'] < args['n']]}",
        "{'perf_model': lambda n, BLOCK, **kwargs: abs(n - 36 - BLOCK), 'top_k': 2}",
    ],
)
def test_pruning_by_shape_is_honoured(alternatives: Alternatives, pruning: str) -> None:
    outcome = alternatives(configs(32, 64, 128), arguments=f"key=['n'], prune_configs_by={pruning}")
    assert sorted(grids(outcome)) == [[32], [64]]


def test_what_an_autotuner_does_while_it_measures_is_no_part_of_a_plan(alternatives: Alternatives) -> None:
    arguments = "key=['n'], reset_to_zero=['dst'], restore_value=['dst']"
    for plan in planned(alternatives(configs(64, 32), arguments=arguments)):
        assert len(plan.steps) == 1


def test_the_hook_of_a_configuration_runs_before_each_launch(alternatives: Alternatives) -> None:
    hook = ", pre_hook=lambda nargs: nargs['dst'].fill_(nargs['BLOCK'])"
    outcome = alternatives(configs(64, 32, more=hook), body="for _ in range(2):\n    tuned[(1,)](y, 100)")
    steps = [[step.value for step in plan.steps if isinstance(step, Fill)] for plan in planned(outcome)]
    assert steps == [[64, 64], [32, 32]]


def test_host_code_is_told_what_it_would_be_told_after_tuning(alternatives: Alternatives) -> None:
    body = "tuned[(1,)](y, 100)\ncopy[(tuned.best_config.kwargs['BLOCK'],)](x, y, 9, BLOCK=16)"
    assert grids(alternatives(configs(64, 32), body=body)) == [[1, 64], [1, 32]]


def test_configurations_that_fail_a_static_assertion_are_skipped(alternatives: Alternatives) -> None:
    inside = "tl.static_assert(BLOCK % 64 == 0, 'whole tiles')"
    assert grids(alternatives(configs(32, 64, 16, 128), inside=inside)) == [[64], [128]]


def test_where_all_fail_their_static_assertion_it_is_quoted(alternatives: Alternatives) -> None:
    outcome = alternatives(configs(32, 16), inside="tl.static_assert(BLOCK % 64 == 0, 'whole tiles')")
    assert isinstance(outcome, Fault)
    assert outcome.status is Status.LOWERING_ERROR
    assert "whole tiles" in outcome.message
    assert "(configuration BLOCK=16, " in outcome.message


def test_a_configuration_that_does_not_lower_is_named(alternatives: Alternatives) -> None:
    outcome = alternatives(configs(32, 24))
    assert isinstance(outcome, Fault)
    assert outcome.status is Status.LOWERING_ERROR
    assert "(configuration BLOCK=24, " in outcome.message


@pytest.mark.parametrize(("count", "accepted"), [(16, True), (17, False)])
def test_configurations_are_judged_up_to_a_number(alternatives: Alternatives, count: int, accepted: bool) -> None:
    outcome = alternatives(f"*(triton.Config({{'BLOCK': 16}}, num_stages=s) for s in range(1, {count + 1}))")
    if accepted:
        assert len(planned(outcome)) == count
    else:
        assert isinstance(outcome, Fault)
        assert outcome.status is Status.FORBIDDEN
        assert "has 17 configurations of autotuned kernels for one call, at most 16 are judged" in outcome.message


SOURCE = """\
import triton
import triton.language as tl

@triton.autotune([triton.Config({"BLOCK": b}) for b in (16, 32)], key=["n"],
                 prune_configs_by={"early_config_prune": lambda configs, nargs, **_: configs[nargs["n"] < 100:]})
@triton.jit
def tuned(dst, n, BLOCK: tl.constexpr):
    tl.store(dst + tl.arange(0, BLOCK), 1.0)

def run(x, index, y, *, scale):
    tuned[lambda meta: (meta["BLOCK"],)](y, x.shape[0])
"""


def test_a_configuration_can_be_asked_for_even_where_pruning_drops_it(capturer: Capturer, calls: MakeCall) -> None:
    found = capturer.alternatives(SOURCE, "run", [calls(200), calls(50)], get_target("h100"))
    assert not isinstance(found, Fault)
    assert [grids(plans) for plans in found] == [[[16], [32]], [[32]]]
    small = capturer.capture(SOURCE, "run", [calls(50)], get_target("h100"), found[0][0].configurations)
    assert grids(small) == [[16]]


def test_a_configuration_that_there_is_not_is_refused(capturer: Capturer, calls: MakeCall) -> None:
    wanted = [Configuration("tuned", "", "BLOCK=17")]
    outcome = capturer.capture(SOURCE, "run", [calls()], get_target("h100"), wanted)
    assert isinstance(outcome, Fault)
    assert "kernel tuned has no configuration BLOCK=17 at line 11" in outcome.message
