"""Autotuned kernels without a clock: the first configuration that fits runs, or all do and are compared."""

from typing import Any

import torch
import triton
import triton.language as tl

from avo.evaluator.offline import offline

calls: list[str] = []


@triton.autotune(
    [triton.Config({"BLOCK": 8}), triton.Config({"BLOCK": 16}), triton.Config({"BLOCK": 32})],
    key=["n"],
    reset_to_zero=["count"],
    restore_value=["x"],
)
@triton.heuristics({"EVEN": lambda args: args["n"] % args["BLOCK"] == 0})
@triton.jit
def increment(x, count, n, BLOCK: tl.constexpr, EVEN: tl.constexpr):
    tl.static_assert(BLOCK >= 16)
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(x + i, tl.load(x + i, mask=i < n) + 1, mask=i < n)
    tl.atomic_add(count, tl.sum((i < n).to(tl.int32)))


def blocks(n: int) -> Any:
    return lambda meta: (triton.cdiv(n, meta["BLOCK"]),)


def test_the_first_configuration_that_lowers_runs_once() -> None:
    x, count = torch.zeros(64), torch.full((1,), 5, dtype=torch.int32)
    with offline(autotune="first") as session:
        increment[blocks(64)](x, count, 64)
        increment[blocks(64)](x, count, 64)
    assert x.tolist() == [2.0] * 64
    assert count.tolist() == [64 + 64]  # reset by the tuning alone
    assert [launch.constants["BLOCK"] for launch in session.launches] == [16, 16]
    assert session.report().clean


def hook(arguments: dict[str, Any]) -> None:
    calls.append(f"hook {arguments['BLOCK']}")


@triton.autotune(
    [
        triton.Config({"BLOCK": 16, "WRONG": 0.0}, pre_hook=hook),
        triton.Config({"BLOCK": 32, "WRONG": 0.0}, pre_hook=hook),
        triton.Config({"BLOCK": 64, "WRONG": 0.5}, pre_hook=hook),
    ],
    key=["n"],
    prune_configs_by={"early_config_prune": lambda configs, named, **kwargs: configs[1:]},
)
@triton.jit
def double(x, y, n, BLOCK: tl.constexpr, WRONG: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y + i, tl.load(x + i, mask=i < n) * 2 + WRONG, mask=i < n)


def test_all_configurations_run_on_request_and_must_agree() -> None:
    x, y = torch.ones(40), torch.full((50,), 9.0)
    calls.clear()
    with offline(autotune="all") as session:
        double[blocks(40)](x, y[:40], 40)
    assert y.tolist() == [2.0] * 40 + [9.0] * 10
    assert [launch.constants["BLOCK"] for launch in session.launches] == [32, 64, 32]
    assert calls == ["hook 32", "hook 64", "hook 32"]
    report = session.report()
    assert [launch.config != "" for launch in report.launches] == [True, True, False]
    (disagreement,) = report.disagreements
    assert (disagreement.kernel, disagreement.tensor, disagreement.largest) == ("double", "y", 0.5)
    assert not report.clean
    assert "double: y differs by up to 0.5 between configurations [BLOCK: 64" in str(report)


def test_configurations_behind_the_chosen_one_are_left_alone() -> None:
    x, y = torch.ones(40), torch.zeros(40)
    double.cache.clear()
    calls.clear()
    with offline(autotune="first"):
        double[blocks(40)](x, y, 40)
    assert calls == ["hook 32", "hook 32"]  # to lower it, and to run it


@triton.autotune([triton.Config({"BLOCK": 16}), triton.Config({"BLOCK": 32})], key=["n"])
@triton.jit
def count(x, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(x + i, tl.load(x + i, mask=i < n) + 1, mask=i < n)


def test_trying_all_configurations_leaves_the_effect_of_one() -> None:
    x = torch.zeros(40)
    with offline(autotune="all") as session:
        count[blocks(40)](x, 40)
    assert x.tolist() == [1.0] * 40
    assert len(session.launches) == 3
    assert session.report().clean


@triton.autotune([triton.Config({"BLOCK": 256}), triton.Config({"BLOCK": 32})], key=[])
@triton.jit
def product(x, y, out, BLOCK: tl.constexpr):
    i = tl.arange(0, 32)
    j = tl.arange(0, BLOCK)
    acc = tl.zeros((32, 32), tl.float32)
    for k in range(0, 256, BLOCK):
        a = tl.load(x + i[:, None] * 256 + k + j[None, :])
        b = tl.load(y + (k + j)[:, None] * 32 + i[None, :])
        acc = tl.dot(a, b, acc)
    tl.store(out + i[:, None] * 32 + i[None, :], acc)


def test_a_configuration_that_does_not_fit_the_target_is_skipped() -> None:
    x, y, out = torch.randn(32, 256).half(), torch.randn(256, 32).half(), torch.empty(32, 32)
    small = 24 * 1024  # stands for a GPU on which blocks of 256 are too large
    with offline() as session:
        session.target = __import__("dataclasses").replace(session.target, shared_bytes_per_cta=small)
        product[(1,)](x, y, out)
    torch.testing.assert_close(out, x.float() @ y.float(), atol=1e-3, rtol=1e-3)
    (launch,) = session.launches
    assert launch.constants["BLOCK"] == 32
    assert launch.cubin[:4] == b"\x7fELF"
    assert launch.resources.shared_bytes <= small
    assert launch.resources.registers > 0
    assert launch.misfit == ""
