"""The kind of a plan stays the same as lengths change, unless something else is launched or passed."""

import random
from dataclasses import replace

import pytest

from avo.evaluator.judging.plan_kinds import build, kind
from avo.evaluator.plan import Buffer, Fill, KernelIR, Launch, LaunchPlan, Pointer, Role, Scalar
from avo.evaluator.problem import Case
from avo.evaluator.problems.mha import MHA

IR = "tt.func public @k(%x: !tt.ptr<bf16> {tt.divisibility = 16 : i32}, %n: i32) { %0 = c : tensor<64x128xbf16> }"
KERNEL = KernelIR("k", IR, (("num_warps", 4),))


def case(length: int) -> Case:
    drawn = MHA.at_length(MHA.suites["quick"][0], length, random.Random(2))
    return replace(drawn, batch=2, heads=3, kv_heads=3, layout="padded", q_len=length)


def plan(
    of: Case, *, kernel: KernelIR = KERNEL, stride: int | None = None, scale: float = 0.5, number: int = 7
) -> LaunchPlan:
    q = MHA.call(of).tensors[0]
    stride = q.strides[1] if stride is None else stride
    args = (Pointer(0, 0), Scalar(of.kv_len), Scalar(stride), Scalar(scale), Scalar(number))
    steps = (Fill(0, 0, (q.size,), (1,), 0.0), Launch(0, (of.kv_len, 1, 1), args))
    return LaunchPlan(of.name, (Buffer("q", "bfloat16", q.size, Role.INPUT),), (kernel,), steps)


def of(length: int, *, arguments: bool = True, **what) -> str:
    return kind(plan(case(length), **what), MHA.call(case(length)), arguments=arguments)


def test_lengths_and_what_divides_them_make_no_kind() -> None:
    undivided = replace(KERNEL, ttir=IR.replace(" {tt.divisibility = 16 : i32}", ""))
    assert of(4096) == of(5000) == of(4999, kernel=undivided)


def test_numbers_of_tiles_make_no_kind() -> None:
    assert len({of(length, number=-(-length // 128)) for length in range(128, 20_000, 997)}) == 1


@pytest.mark.parametrize(
    "what",
    [
        {"kernel": replace(KERNEL, options=(("num_warps", 8),))},
        {"kernel": replace(KERNEL, ttir=IR.replace("64x", "128x"))},
        {"stride": 5000 * 128},
        {"scale": 0.25},
        {"number": 5},
    ],
)
def test_another_kernel_option_or_argument_makes_another_kind(what) -> None:
    assert of(5000) != of(5000, **what)


def test_without_arguments_only_kernels_and_their_order_count() -> None:
    assert of(5000, arguments=False) == of(5000, scale=0.25, number=5, arguments=False)
    assert of(5000, arguments=False) != of(5000, kernel=replace(KERNEL, options=()), arguments=False)


def test_what_a_kernel_needs_of_the_target_is_known_by_options_and_blocks() -> None:
    renamed = replace(KERNEL, name="other", ttir=IR.replace("%x", "%renamed").replace("i32)", "i64)"))
    assert build(renamed) == build(KERNEL)
    assert build(replace(KERNEL, ttir=IR.replace("64x", "128x"))) != build(KERNEL)
    assert build(replace(KERNEL, options=(("num_stages", 9),))) != build(KERNEL)
