"""Autotuned kernels where nothing is executed: every configuration of every key is counted, as Triton would try it."""

from typing import Any

import pytest
import torch
import triton
import triton.language as tl

from avo.evaluator.offline import OfflineError, OfflineSession, offline
from avo.evaluator.offline.contents import LARGE
from avo.evaluator.offline.trials import Trial

calls: list[str] = []


def hook(arguments: dict[str, Any]) -> None:
    calls.append(f"hook {arguments['BLOCK']}")


def prune(configs: list[Any], named: dict[str, Any], **kwargs: Any) -> list[Any]:
    return [config for config in configs if config.kwargs["BLOCK"] <= named["n"]]


@triton.autotune(
    [triton.Config({"BLOCK": size}, num_warps=1, pre_hook=hook) for size in (8, 16, 32, 2**21, 64)],
    key=["n"],
    prune_configs_by={"early_config_prune": prune},
    reset_to_zero=["count"],
    restore_value=["x"],
)
@triton.heuristics({"EVEN": lambda args: args["n"] % args["BLOCK"] == 0})
@triton.jit
def increment(x, count, n, BLOCK: tl.constexpr, EVEN: tl.constexpr):
    tl.static_assert(BLOCK >= 16, "blocks of 16 at least")
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(x + i, tl.load(x + i, mask=i < n) + 1, mask=i < n)
    tl.atomic_add(count, tl.sum((i < n).to(tl.int32)))


def blocks(n: int) -> Any:
    return lambda meta: (triton.cdiv(n, meta["BLOCK"]),)


def counting(**options: Any) -> OfflineSession:
    return offline(execute=False, autotune="all", **options)


def sizes(trials: list[Trial]) -> list[int]:
    return [trial.config.kwargs["BLOCK"] for trial in trials]


def test_every_configuration_of_every_key_is_counted_once() -> None:
    with counting() as session:
        for n in (100, 40, 100):
            increment[blocks(n)](torch.randn(2**20, device="cuda"), torch.zeros(1, dtype=torch.int32), n)
    assert sizes(session.trials) == [8, 16, 32, 64, 8, 16, 32]
    assert [trial.key for trial in session.trials] == [(("n", "100"),)] * 4 + [(("n", "40"),)] * 3
    assert {trial.dtypes for trial in session.trials} == {(("x", "torch.float32"), ("count", "torch.int32"))}
    launched = [trial.launch for trial in session.trials]
    assert [launch and launch.grid[0] for launch in launched] == [None, 7, 4, 2, None, 3, 2]
    assert [launch.constants["EVEN"] for launch in launched if launch] == [False] * 5
    # Triton's autotuner would use the first of these times from then on; here it is the first that can be launched.
    assert [launch.grid[0] for launch in session.launches if not launch.config] == [7, 3, 7]


def test_a_configuration_that_cannot_be_launched_says_why() -> None:
    with counting() as session:
        increment[blocks(16)](torch.randn(16, device="cuda"), torch.zeros(1, dtype=torch.int32), 16)
        increment[blocks(2**22)](torch.randn(2**22, device="cuda"), torch.zeros(1, dtype=torch.int32), 2**22)
    assert [trial.reason for trial in session.trials[:2]] == ["blocks of 16 at least", ""]
    (large,) = [trial for trial in session.trials if trial.config.kwargs["BLOCK"] == 2**21]
    assert "exceeds triton maximum tensor numel" in large.reason
    assert large.launch is None


@triton.autotune([triton.Config({}, num_warps=warps) for warps in (3, 4)], key=["n"])
@triton.jit
def clear(x, n):
    tl.store(x + tl.arange(0, 64), 0.0)


def test_an_option_that_triton_refuses_is_the_fault_of_its_configuration_alone() -> None:
    with counting() as session:
        clear[(1,)](torch.zeros(64, device="cuda"), 64)
    reasons = {trial.config.num_warps: trial.reason for trial in session.trials}
    assert reasons == {3: "num_warps must be a power of 2", 4: ""}


@pytest.mark.long
def test_a_printed_prediction_is_a_line() -> None:
    with counting() as session:
        clear[(1,)](torch.zeros(64, device="cuda"), 64)
    assert len(repr(session.launches[-1].predict())) < 400


def test_hooks_are_called_as_in_a_benchmark() -> None:
    count = torch.full((1,), 5, dtype=torch.int32)
    calls.clear()
    with counting():
        increment[blocks(40)](torch.ones(40, device="cuda"), count, 40)
        with pytest.raises(OfflineError, match="never made"):
            int(count)  # which the kernel would have written
    assert int(count) == 0  # it was reset, and nothing added to it
    assert calls == ["hook 8", "hook 16", "hook 32", "hook 16"]


@triton.autotune([triton.Config({"BLOCK": 16})], key=[])
@triton.jit
def single(x, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(x + i, tl.load(x + i, mask=i < n) * 2, mask=i < n)


def test_a_single_configuration_is_a_trial_too() -> None:
    with counting() as session:
        single[blocks(40)](torch.ones(40, device="cuda"), 40)
    (trial,) = session.trials
    assert (trial.kernel, trial.key, trial.reason) == ("single", (), "")
    assert trial.location.startswith(__file__ + ":")
    assert trial.launch is not None
    assert trial.launch.predict().us > 0


def test_a_trial_does_not_take_contents_away_from_the_next() -> None:
    @triton.autotune([triton.Config({"BLOCK": size}) for size in (16, 32)], key=[])
    @triton.jit
    def repeat(x, times, BLOCK: tl.constexpr):
        i = tl.arange(0, BLOCK)
        for _ in range(tl.load(times)):
            tl.store(x + i, tl.load(x + i) + 1)
        tl.store(times, 0)

    with counting() as session:
        repeat[(1,)](torch.ones(64, device="cuda"), torch.tensor([3], dtype=torch.int32))
    trips = [trial.launch.work.loops[0].trips.tolist() for trial in session.trials if trial.launch]
    assert trips == [[3], [3]]


def test_what_is_known_of_a_key_does_not_outlive_the_session() -> None:
    for _ in range(2):
        with counting() as session:
            single[blocks(40)](torch.ones(40, device="cuda"), 40)
        assert len(session.trials) == 1


def test_a_launch_that_nothing_is_known_of_is_skipped_on_request() -> None:
    @triton.jit
    def repeat(x, times):
        for _ in range(tl.load(times)):
            tl.store(x, tl.load(x) + 1)

    with counting(unsupported="skip") as session:
        times = torch.randn(LARGE + 1, device="cuda")[:1].int()
        repeat[(1,)](torch.ones(1, device="cuda"), times)
        single[blocks(40)](torch.ones(40, device="cuda"), 40)
    assert "how often kernel repeat loops depends on times" in session.launches[0].unsupported
    with pytest.raises(OfflineError, match="a launch of kernel repeat was skipped: how often"):
        session.launches[0].predict()
    assert len(session.trials) == 1
