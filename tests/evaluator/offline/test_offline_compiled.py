"""What the compiler makes of a kernel can be looked at and executed, and hooks hear of launches."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import triton
import triton.language as tl
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.tools.tensor_descriptor import TensorDescriptor

from avo.evaluator.offline import OfflineError, offline
from avo.evaluator.performance import ModelError
from tests.oldest_triton import IS_OLDEST, newer_triton

ORACLE = "torch"

BARRIER_TOO_EARLY = newer_triton("Triton 3.6 invalidates barriers that the last product of a role may still signal")


@triton.jit
def product(a, b, c, steps, size: tl.constexpr):
    i = tl.arange(0, size)
    left, right = a + i[:, None] * (steps * size) + i[None, :], b + i[:, None] * size + i[None, :]
    total = tl.zeros([size, size], tl.float32)
    for _ in tl.range(steps):
        total = tl.dot(tl.load(left), tl.load(right), total)
        left += size
        right += size * size
    tl.store(c + i[:, None] * size + i[None, :], total)


@triton.jit
def described(a, b, c, steps, size: tl.constexpr):
    i = tl.arange(0, size)
    total = tl.zeros([size, size], tl.float32)
    for k in tl.range(steps, warp_specialize=True):
        total = tl.dot(a.load([0, k * size]), b.load([k * size, 0]), total)
    tl.store(c + i[:, None] * size + i[None, :], total)


@triton.jit
def describes(a_ptr, b_ptr, c_ptr, tiles, steps, size: tl.constexpr, roles: tl.constexpr):
    for tile in tl.range(tiles, num_stages=1 if roles else 3):
        c = tl.make_tensor_descriptor(c_ptr + tile * size * size, [size, size], [size, 1], [size, size])
        a = tl.make_tensor_descriptor(a_ptr, [tiles * size, steps * size], [steps * size, 1], [size, size])
        b = tl.make_tensor_descriptor(b_ptr, [steps * size, size], [size, 1], [size, size])
        total = tl.zeros([size, size], tl.float32)
        for k in tl.range(steps, warp_specialize=roles):
            total = tl.dot(a.load([tile * size, k * size]), b.load([k * size, 0]), total)
        c.store([0, 0], total)


@pytest.mark.long
@pytest.mark.parametrize(
    ("target", "roles"),
    [("h100", False), ("h100", True), ("b200", False), pytest.param("b200", True, marks=BARRIER_TOO_EARLY)],
)
def test_descriptors_that_the_compiler_makes_a_kernel_write_are_read_from_where_it_writes_them(
    target: str, roles: bool
) -> None:
    torch.manual_seed(0)
    a, b, c = torch.randn(384, 192).half(), torch.randn(192, 64).half(), torch.empty(384, 64)
    with offline(target, level="compiled") as session:
        describes[(1,)](a, b, c, 6, 3, 64, roles)
    assert session.report().clean
    assert torch.allclose(c, a.float() @ b.float(), atol=0.05)
    assert "ttng.tensormap_create" in session.launches[0].ir


@pytest.mark.long
@pytest.mark.parametrize(
    ("target", "roles", "made"),
    [
        ("a100", False, "ttg.async_copy_global_to_local"),
        ("h100", False, "ttng.warp_group_dot"),
        ("b200", False, "ttng.tc_gen5_mma"),
        pytest.param("b200", True, "ttg.warp_specialize", marks=BARRIER_TOO_EARLY),
    ],
)
def test_what_the_compiler_made_computes_what_the_source_says(target: str, roles: bool, made: str) -> None:
    torch.manual_seed(0)
    a, b, c = torch.randn(128, 640).half(), torch.randn(640, 128).half(), torch.empty(128, 128)
    with offline(target, level="compiled") as session:
        if roles:
            described[(1,)](*(TensorDescriptor.from_tensor(each, [128, 128]) for each in (a, b)), c, 5, 128)
        else:
            product[(1,)](a, b, c, 5, 128)
    assert session.report().clean
    assert torch.allclose(c, a.float() @ b.float(), atol=0.05)
    (launch,) = session.launches
    assert made in launch.ir
    with pytest.raises(OfflineError, match="not counted: what the compiler made of it was executed"):
        launch.predict()


@triton.jit(noinline=True)
def added(x, at, by, none):
    return tl.load(x + at + none) + by


@triton.jit
def calls(x, y, n):
    at = tl.program_id(0) * 16
    tl.store(y + at, added(x, at, 2.0, at * 0))
    tl.store(y + at + n, added(x, at + n * 32, n * 0.5, n * 0))


def test_what_the_compiler_found_out_about_the_arguments_of_calls_is_true() -> None:
    x, y = torch.randn(256), torch.zeros(64)
    with offline("h100", level="compiled") as session:
        calls[(4,)](x, y, 6)
    assert session.report().clean
    assert {int(each) for each in re.findall(r"tt.divisibility = (\d+) : i64", session.launches[0].ir)} >= {16, 2**62}
    expected = torch.zeros(64)
    expected[::16], expected[6::16] = x[:64:16] + 2, x[192::16] + 3
    torch.testing.assert_close(y, expected)


@triton.jit
def flattened(x, y, tiles, steps):
    i = tl.arange(0, 128)
    for tile in tl.range(tl.program_id(0), tiles, tl.num_programs(0), flatten=True):
        total = tl.zeros([128], tl.float32)
        for step in range(steps):
            total += tl.load(x + (tile * steps + step) * 128 + i)
        tl.store(y + tile * 128 + i, total)


@pytest.mark.parametrize("steps", [0, 2, 5])
def test_nested_loops_that_the_compiler_makes_one_of_go_through_all_that_they_went_through(steps: int) -> None:
    torch.manual_seed(0)
    x, y = torch.randn(7, steps, 128), torch.full([7, 128], -1.0)
    with offline("h100", level="compiled") as session:
        flattened[(3,)](x, y, 7, steps)
    assert session.report().clean
    assert "arith.ceildivsi" in session.launches[0].ir
    torch.testing.assert_close(y, x.sum(1))


@triton.jit
def scaled(
    a,
    a_scales,
    b,
    b_scales,
    c,
    left: tl.constexpr,
    right: tl.constexpr,
    a_depth: tl.constexpr,
    b_depth: tl.constexpr,
):
    i, g = tl.arange(0, 64), tl.arange(0, 4)
    x = tl.load(a + i[:, None] * a_depth + tl.arange(0, a_depth)[None, :])
    y = tl.load(b + tl.arange(0, b_depth)[:, None] * 64 + i[None, :])
    x_scale, y_scale = tl.load(a_scales + i[:, None] * 4 + g[None, :]), tl.load(b_scales + i[:, None] * 4 + g[None, :])
    tl.store(c + i[:, None] * 64 + i[None, :], tl.dot_scaled(x, x_scale, left, y, y_scale, right))


@pytest.mark.long
@pytest.mark.parametrize(("target", "made"), [("a100", "tt.dot "), ("h100", "ttng.warp_group_dot")])
@pytest.mark.parametrize(("left", "right"), [("e2m1", "e2m1"), ("bf16", "e2m1"), ("e2m1", "e5m2")])
def test_products_of_packed_numbers_are_those_of_the_source(target: str, made: str, left: str, right: str) -> None:
    """Also with the least scale, the greatest and the one that is no number."""
    torch.manual_seed(0)

    def operand(form: str) -> torch.Tensor:
        if form == "e2m1":
            return torch.randint(0, 256, (64 * 64,), dtype=torch.uint8)
        return torch.randn(64 * 128).to(torch.bfloat16 if form == "bf16" else torch.float8_e5m2)

    a, b, (a_scales, b_scales) = operand(left), operand(right), torch.randint(120, 134, (2, 64, 4), dtype=torch.uint8)
    # Triton 3.6 compiles the scale 0, which is 2^-127, to zero.
    a_scales[:3, 1], b_scales[:, 1] = torch.tensor([int(IS_OLDEST), 254, 255]), 250
    results = []
    for level in ("source", "compiled"):
        c = torch.empty(64, 64)
        with offline(target, level=level) as session:  # type: ignore[arg-type]
            scaled[(1,)](a, a_scales, b, b_scales, c, left, right, len(a) // 64, len(b) // 64)
        assert session.report().clean
        results.append(c)
    assert made in session.launches[0].ir
    assert "ttg.fp4_to_fp" in session.launches[0].ir
    torch.testing.assert_close(*results, rtol=0, atol=0, equal_nan=True)


@triton.jit
def shifted(x, y, n):
    i = tl.program_id(0) * 128 + tl.arange(0, 128)
    tl.store(y + i, tl.load(x + i + 1, mask=i < n))


def test_a_fault_of_the_compiled_kernel_is_told_by_its_line_in_the_source() -> None:
    x, y = torch.randn(128), torch.empty(128)
    found = []
    for level in ("source", "compiled"):
        with offline(level=level) as session:  # type: ignore[arg-type]
            shifted[(1,)](x, y, 128)
        found.append([fault.message for fault in session.report().faults])
    assert "element 128 of 'x'" in found[0][0]
    assert found[0] == found[1]


@pytest.mark.long
def test_a_kernel_shows_what_it_is_on_its_way_to_machine_code() -> None:
    x, y = torch.randn(128), torch.empty(128)
    with offline():
        kernel = shifted[(1,)](x, y, 127)
        asm = kernel.asm
        assert "tt.load" in asm["ttir"]
        assert "#ttg.blocked" in asm["ttgir"]
        assert "define ptx_kernel void @shifted" in asm["llir"]
        assert ".entry shifted" in asm["ptx"]
        assert "EXIT" in asm["sass"]
        with pytest.raises(KeyError):
            asm["amdgcn"]


@gluon.jit
def doubled(x, y):
    i = gl.arange(0, 128, gl.BlockedLayout([1], [32], [4], [0]))
    gl.store(y + i, 2 * gl.load(x + i))


@pytest.mark.long
@pytest.mark.parametrize(("function", "more"), [(shifted, (127,)), (doubled, ())])
def test_what_a_kernel_shows_is_what_triton_s_own_does_and_is_there_before_it_is_made(
    function: Any, more: tuple[int, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # A cache of its own: one that another folder's tests have filled answers with their paths.
    monkeypatch.setattr(knobs.cache, "dir", str(tmp_path))
    with offline("h100"):
        kernel = function[(1,)](torch.randn(128), torch.empty(128), *more)
        asm = kernel.asm
        told = {name for name in (*asm, "amdgcn") if name in asm}
        assert "define ptx_kernel void" in asm.get("llir")
        assert asm.get("amdgcn") is None
        texts = dict(asm)
    own = triton.compile(kernel.src, target=GPUTarget("cuda", 90, 32)).asm
    assert told == set(texts) == {*own, "sass"}
    # The others differ in the lines that they say they come from.
    assert all(texts[name] == own[name] for name in ("source", "llir", "sass"))


def test_hooks_hear_of_a_launch_before_and_after_it() -> None:
    x, y = torch.randn(128), torch.zeros(128)
    heard: list[Any] = []

    def enter(told: Any) -> None:
        heard.append((told.get()["name"], bool(y.any())))

    def leave(told: Any) -> None:
        heard.append(bool(y.any()))

    knobs.runtime.launch_enter_hook.add(enter)
    knobs.runtime.launch_exit_hook.add(leave)
    try:
        with offline():
            kernel = shifted[(1,)](x, y, 127)
            y.zero_()
            kernel[(1, 1, 1)](x, y, 127)
    finally:
        knobs.runtime.launch_enter_hook.remove(enter)
        knobs.runtime.launch_exit_hook.remove(leave)
    assert heard == [("shifted", False), True] * 2


@newer_triton("Triton 3.6 has no option clc")
@pytest.mark.long
def test_a_kernel_whose_programs_take_over_from_others_is_compiled_as_one() -> None:
    x, y = torch.randn(128), torch.empty(128)
    with offline("b200") as session:
        kernel = shifted[(1,)](x, y, 127, clc=True)
        assert "clusterlaunchcontrol" in kernel.asm["ptx"]
        ordinary, again = (shifted[(1,)](x, y, 127) for _ in range(2))
        assert kernel.hash != ordinary.hash == again.hash
    launch, *_ = session.launches
    with pytest.raises(ModelError, match="launched with clc=True: who takes over whose work is not modelled"):
        launch.predict()


def test_compiled_kernels_are_not_counted_without_being_executed() -> None:
    with pytest.raises(OfflineError, match="level='compiled' needs kernels to be executed"):
        offline(level="compiled", execute=False)
    with pytest.raises(OfflineError, match="level must be one of source, compiled, not 'sass'"):
        offline(level="sass")  # type: ignore[arg-type]
