"""Matrix products round what tensor cores round, in every operand type, and nothing else."""

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from hypothesis import given, settings
from hypothesis import strategies as st

from avo.evaluator.executor import Allocation, IRError, Launch, UnsupportedOperation, load
from avo.evaluator.executor.operations.products import truncate_tf32
from avo.evaluator.plan import Pointer

ORACLE = "float64, exact integers, and the methods' published error bounds"


@triton.jit
def multiply(A, B, C, G: tl.constexpr, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr, PRECISION: tl.constexpr):
    g, m, n, k = tl.arange(0, G), tl.arange(0, M), tl.arange(0, N), tl.arange(0, K)
    a = tl.load(A + g[:, None, None] * M * K + m[None, :, None] * K + k[None, None, :])
    b = tl.load(B + g[:, None, None] * K * N + k[None, :, None] * N + n[None, None, :])
    at = g[:, None, None] * M * N + m[None, :, None] * N + n[None, None, :]
    c = tl.dot(a, b, tl.load(C + at), input_precision=PRECISION, out_dtype=C.dtype.element_ty)
    tl.store(C + at, c)


def product(executor, a, b, c, precision="ieee"):
    """Return c + a @ b as the executor computes it."""
    c = c.clone()
    shape = {"G": a.shape[0], "M": a.shape[1], "N": b.shape[2], "K": a.shape[2]}
    executor.run(multiply, a, b, c, PRECISION=precision, **shape)
    return c


UNIT = {torch.float16: 2.0**-11, torch.float32: 2.0**-24, torch.float64: 2.0**-53}


@pytest.mark.parametrize(
    ("left", "right", "result"),
    [
        (torch.float16, torch.float16, torch.float32),
        (torch.float16, torch.float16, torch.float16),
        (torch.bfloat16, torch.bfloat16, torch.float32),
        (torch.float32, torch.float32, torch.float32),
        (torch.float64, torch.float64, torch.float64),
        (torch.float8_e4m3fn, torch.float8_e4m3fn, torch.float32),
        (torch.float8_e4m3fn, torch.float8_e5m2, torch.float32),
        (torch.float8_e5m2, torch.float8_e4m3fn, torch.float16),
        (torch.float8_e5m2, torch.float8_e5m2, torch.float32),
    ],
)
@settings(max_examples=3, deadline=None)
@given(groups=st.sampled_from([1, 2]), m=st.sampled_from([1, 16]), k=st.sampled_from([32, 64]), seed=st.integers(0, 99))
def test_products_err_by_roundings_of_the_sum_alone(executor, left, right, result, groups, m, k, seed):
    torch.manual_seed(seed)
    a, b = torch.randn(groups, m, k).to(left), torch.randn(groups, k, 16).to(right)
    c = torch.randn(groups, m, 16).to(result)
    exact = a.double() @ b.double() + c.double()
    sizes = a.double().abs() @ b.double().abs() + c.double().abs()
    roundings = k // 16 + 1 if result == torch.float16 else k + 1
    error = (product(executor, a, b, c).double() - exact).abs()
    assert (error <= 1.01 * roundings * UNIT[result] * sizes).all()


@settings(max_examples=6, deadline=None)
@given(k=st.sampled_from([32, 2048]), seed=st.integers(0, 99), extreme=st.booleans())
def test_integer_products_are_exact_and_wrap_around(executor, k, seed, extreme):
    generator = np.random.default_rng(seed)
    a, b = (
        generator.choice([125, 127], s) if extreme else generator.integers(-128, 128, s) for s in ((16, k), (k, 16))
    )
    c = generator.choice([2**31 - 1, -(2**31), 5], (16, 16))
    tensors = [torch.from_numpy(x[None]).to(t) for x, t in ((a, torch.int8), (b, torch.int8), (c, torch.int32))]
    wrapped = (a @ b + c + 2**31) % 2**32 - 2**31
    assert torch.equal(product(executor, *tensors), torch.from_numpy(wrapped[None]).int())


def test_half_accumulators_round_after_every_sixteen_terms(executor):
    a, b = torch.zeros(1, 16, 64).half(), torch.zeros(1, 64, 16).half()
    a[:, :, [0, 16, 32, 48]] = torch.tensor([2048.0, 1.0, 1.0, 1.0]).half()
    b[:] = 1.0
    zero = torch.zeros(1, 16, 16)
    assert (product(executor, a, b, zero.half()) == 2048.0).all()
    assert (product(executor, a, b, zero) == 2051.0).all()


@pytest.mark.parametrize(
    ("precision", "bits"), [("tf32", 10), ("tf32x3", 20), ("bf16x3", 14), ("bf16x6", 22), ("ieee", 23)]
)
def test_short_products_of_float32_keep_the_bits_of_their_method(executor, precision, bits):
    """One term per sum, so that no other rounding hides that of the operands."""
    torch.manual_seed(0)
    a, b = torch.zeros(1, 16, 16), torch.zeros(1, 16, 16)
    a[0, range(16), range(16)] = torch.rand(16) + 1
    b[0] = torch.rand(16, 16) + 1
    error = product(executor, a, b, torch.zeros(1, 16, 16), precision).double() / (a.double() @ b.double()) - 1
    assert error.abs().max() < 2.0 ** (1 - bits)
    if precision != "ieee":
        assert error.abs().max() > 2.0 ** (-4 - bits), "operands were not rounded"
    if precision == "tf32":
        assert (error <= 0).all(), "tensor cores truncate"


@pytest.mark.parametrize(
    ("precision", "least", "most"),
    [("tf32x3", 0, 1e-6), ("bf16x6", 0, 1e-6), ("bf16x3", 1e-6, 1e-4), ("tf32", 1e-5, 1e-3)],
)
def test_long_products_of_float32_have_the_accuracy_of_their_method(executor, precision, least, most):
    torch.manual_seed(0)
    a, b = torch.randn(1, 32, 64), torch.randn(1, 64, 16)
    exact = a.double() @ b.double()
    error = product(executor, a, b, torch.zeros(1, 32, 16), precision) - exact
    assert least < error.norm() / exact.norm() < most


@pytest.mark.parametrize("precision", ["tf32", "tf32x3", "bf16x3", "bf16x6"])
def test_infinities_stay_infinite_where_operands_are_split(executor, precision):
    a = torch.eye(16)[None].contiguous()
    a[0, 0, 0], a[0, 1, 1], a[0, 2, 2] = float("inf"), float("nan"), 3e38
    b = torch.ones(1, 16, 16)
    c = product(executor, a, b, torch.zeros(1, 16, 16), precision)
    assert (c[0, 0] == float("inf")).all()
    assert c[0, 1].isnan().all()
    assert (c[0, 2] == truncate_tf32(torch.tensor(3e38)) if precision == "tf32" else c[0, 2] > 2.9e38).all()
    assert (c[0, 3:] == 1).all()


LAYOUTS = {
    "#blocked": "#ttg.blocked<{sizePerThread = [1, 4], threadsPerWarp = [8, 4], warpsPerCTA = [4, 1], order = [1, 0]}>",
    "#mma": "#ttg.nvidia_mma<{versionMajor = 2, versionMinor = 0, warpsPerCTA = [4, 1], instrShape = [16, 8]}>",
}


def product_in_layout(layout, a, b, c):
    """Return c + a @ b, all 16x16, as Triton GPU IR multiplies them with the result in a layout, in none for ""."""
    kind, result = (str(t.dtype).replace("torch.float", "f") for t in (a, c))

    def tensor(element, suffix):
        return f"tensor<16x16x{element}{suffix}>"

    factors = [f", #ttg.dot_op<{{opIdx = {i}, parent = {layout}}}>" if layout else "" for i in range(2)]
    left, right = (tensor(kind, factor) for factor in factors)
    total = tensor(result, f", {layout}" if layout else "")
    lines = ["%i = tt.make_range {end = 256 : i32, start = 0 : i32} : tensor<256xi32>"]
    for name, element, whole in (("x", kind, left), ("y", kind, right), ("z", result, total)):
        flat = f"tensor<256x!tt.ptr<{element}>>"
        lines += [
            f"%{name}0 = tt.splat %{name} : !tt.ptr<{element}> -> {flat}",
            f"%{name}1 = tt.addptr %{name}0, %i : {flat}, tensor<256xi32>",
            f"%{name}2 = tt.load %{name}1 : {flat}",
            f"%{name}3 = tt.reshape %{name}2 : tensor<256x{element}> -> {whole}",
        ]
    lines += [
        f"%d = tt.dot %x3, %y3, %z3, inputPrecision = tf32 : {left} * {right} -> {total}",
        f"%e = tt.reshape %d : {total} -> tensor<256x{result}>",
        f"tt.store %z1, %e : tensor<256x!tt.ptr<{result}>>",
        "tt.return",
    ]
    arguments = f"%x: !tt.ptr<{kind}>, %y: !tt.ptr<{kind}>, %z: !tt.ptr<{result}>"
    named = "".join(f"{name} = {text}\n" for name, text in LAYOUTS.items())
    body = "\n    ".join(lines)
    kernel = load(f"{named}module {{\n  tt.func public @k({arguments}) {{\n    {body}\n  }}\n}}")
    c = c.clone()
    memory = [Allocation(name, each.flatten(), None, False) for name, each in zip("xyz", (a, b, c), strict=True)]
    assert kernel.run(Launch(memory, [Pointer(i, 0) for i in range(3)], (1, 1, 1))).faults == ()
    return memory[2].data.view(16, 16)


@pytest.mark.parametrize(("layout", "whole"), [("", False), ("#mma", False), ("#blocked", True)])
def test_a_result_in_a_blocked_layout_is_made_of_fmas_of_whole_operands(layout, whole):
    torch.manual_seed(0)
    a, b, c = torch.rand(3, 16, 16) + 1
    error = (product_in_layout(layout, a, b, c).double() - (c.double() + a.double() @ b.double())).abs().max()
    assert (error < 64 * 16 * UNIT[torch.float32]) == whole


def test_fmas_of_float16_round_after_every_term():
    """From 2048 on, units are 2: each 1 that is added to it is half a unit, and lost."""
    a, b, c = torch.zeros(16, 16).half(), torch.ones(16, 16).half(), torch.zeros(16, 16).half()
    a[:, :5] = torch.tensor([2048.0, 1.0, 1.0, 1.0, 1.0]).half()
    assert (product_in_layout("#blocked", a, b, c) == 2048.0).all()
    assert (product_in_layout("#mma", a, b, c) == 2052.0).all()


@pytest.mark.parametrize("result", [torch.float32, torch.float16])
def test_fmas_have_operands_and_results_of_one_type(result):
    a, c = torch.ones(16, 16, dtype=torch.float16), torch.ones(16, 16, dtype=result)
    if result == torch.float16:
        assert (product_in_layout("#blocked", a, a, c) == 17).all()
    else:
        with pytest.raises(UnsupportedOperation, match="of FMAs of tensor<16x16xf16> and"):
            product_in_layout("#blocked", a, a, c)


E2M1 = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]


def decoded(form, stored, axis):
    """Numbers [rows, columns] of a stored operand in float64, unpacked along an axis."""
    if form != "e2m1":
        return stored.double()
    table = torch.tensor(E2M1 + [-x for x in E2M1], dtype=torch.float64)
    pairs = torch.stack([table[(stored & 15).long()], table[(stored >> 4).long()]], axis + 1)
    return pairs.flatten(axis, axis + 1)


@triton.jit
def scaled(
    A, SA, B, SB, C, LEFT: tl.constexpr, RIGHT: tl.constexpr, L_PACK: tl.constexpr, R_PACK: tl.constexpr,
    FAST: tl.constexpr, GROUPS: tl.constexpr, AM: tl.constexpr, AK: tl.constexpr, BK: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    a = tl.load(A + tl.arange(0, AM)[:, None] * AK + tl.arange(0, AK)[None, :])
    b = tl.load(B + tl.arange(0, BK)[:, None] * BN + tl.arange(0, BN)[None, :])
    i, j, g = tl.arange(0, 32), tl.arange(0, 16), tl.arange(0, GROUPS)
    sa = tl.load(SA + i[:, None] * GROUPS + g[None, :])
    sb = tl.load(SB + j[:, None] * GROUPS + g[None, :])
    at = i[:, None] * 16 + j[None, :]
    c = tl.dot_scaled(a, sa, LEFT, b, sb, RIGHT, fast_math=FAST, lhs_k_pack=L_PACK, rhs_k_pack=R_PACK)
    tl.store(C + at, c)
    c = tl.dot_scaled(a, None, LEFT, b, sb, RIGHT, c, fast_math=FAST, lhs_k_pack=L_PACK, rhs_k_pack=R_PACK)
    tl.store(C + 512 + at, c)
    c = tl.dot_scaled(a, sa, LEFT, b, None, RIGHT, c, fast_math=FAST, lhs_k_pack=L_PACK, rhs_k_pack=R_PACK)
    tl.store(C + 1024 + at, c)
    tl.store(C + 1536 + at, tl.dot_scaled(a, None, LEFT, b, None, RIGHT, lhs_k_pack=L_PACK, rhs_k_pack=R_PACK))


STORED = {"e4m3": torch.float8_e4m3fn, "e5m2": torch.float8_e5m2, "bf16": torch.bfloat16, "fp16": torch.float16}


def operand(form, shape, pack_axis, positive=False):
    if form != "e2m1":
        return (torch.rand(shape) + 0.5 if positive else torch.randn(shape)).to(STORED[form])
    packed = [extent // 2 if axis == pack_axis else extent for axis, extent in enumerate(shape)]
    return torch.randint(0, 256, packed, dtype=torch.uint8)


def run_scaled(
    executor, left, right, *, l_pack=True, r_pack=True, fast=False, edit=None, groups=2, scales=torch.uint8, **kind
):
    torch.manual_seed(0)
    k = 64
    a, b = operand(left, (32, k), 1 if l_pack else 0, **kind), operand(right, (k, 16), 0 if r_pack else 1, **kind)
    sa, sb = (torch.randint(124, 131, (rows, groups), dtype=torch.uint8) for rows in (32, 16))
    if scales != torch.uint8:
        sa, sb = ((torch.rand(s.shape) + 0.5).to(scales) for s in (sa, sb))
    if edit:
        edit(sa, sb)
    c = torch.empty(4, 32, 16)
    constants = {"AM": a.shape[0], "AK": a.shape[1], "BK": b.shape[0], "BN": b.shape[1], "GROUPS": groups}
    flags = {"LEFT": left, "RIGHT": right, "L_PACK": l_pack, "R_PACK": r_pack, "FAST": fast}
    executor.run(scaled, a, sa, b, sb, c, **constants, **flags)
    x, y = decoded(left, a, 1 if l_pack else 0), decoded(right, b, 0 if r_pack else 1)
    u, v = (2.0 ** (s.double() - 127) if s.dtype == torch.uint8 else s.double() for s in (sa, sb))
    xs = x * u.repeat_interleave(k // groups, 1)
    ys = y * v.repeat_interleave(k // groups, 1).T
    first = xs @ ys
    return c.double(), torch.stack([first, first + x @ ys, first + x @ ys + xs @ y, x @ y])


@pytest.mark.parametrize(
    ("left", "right", "packed"),
    [
        ("e2m1", "e2m1", (True, True)),
        ("e2m1", "e2m1", (False, False)),
        ("e4m3", "e2m1", (True, False)),
        ("e5m2", "e4m3", (True, True)),
        ("bf16", "e5m2", (True, True)),
        ("e2m1", "fp16", (True, True)),
    ],
)
def test_scaled_products_of_all_formats_agree_with_float64(executor, left, right, packed):
    result, expected = run_scaled(executor, left, right, l_pack=packed[0], r_pack=packed[1])
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-4)


def test_scales_may_be_floats_of_their_own_per_sixteen_elements(executor):
    result, expected = run_scaled(executor, "e2m1", "e2m1", groups=4, scales=torch.float8_e4m3fn)
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("fast", [False, True])
def test_a_scale_of_all_ones_is_nan_unless_mathematics_is_fast(executor, fast):
    def edit(sa, sb):
        sa[3, 1] = 255

    result, _ = run_scaled(executor, "e4m3", "e4m3", fast=fast, edit=edit, positive=True)
    assert (result[0, 3].isinf() if fast else result[0, 3].isnan()).all()
    assert result[0, :3].isfinite().all()
    assert result[0, 4:].isfinite().all()


def test_the_least_scale_is_a_power_of_two_too(executor):
    def edit(sa, sb):
        sa[:, 1], sb[:, 1] = 0, 250

    result, expected = run_scaled(executor, "e2m1", "e2m1", edit=edit)
    torch.testing.assert_close(result[0], expected[0], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize(
    ("element", "dtype"), [("f16", torch.float16), ("bf16", torch.bfloat16), ("f32", torch.float32)]
)
def test_numbers_of_4_bits_are_unpacked_along_an_axis(axis, element, dtype):
    shape = "32x16" if axis == 0 else "16x32"
    lines = [
        "%i = tt.make_range {end = 256 : i32, start = 0 : i32} : tensor<256xi32>",
        "%j = tt.make_range {end = 512 : i32, start = 0 : i32} : tensor<512xi32>",
        "%p = tt.splat %x : !tt.ptr<i8> -> tensor<256x!tt.ptr<i8>>",
        "%q = tt.addptr %p, %i : tensor<256x!tt.ptr<i8>>, tensor<256xi32>",
        "%b = tt.load %q : tensor<256x!tt.ptr<i8>>",
        "%m = tt.reshape %b : tensor<256xi8> -> tensor<16x16xi8>",
        f"%f = ttg.fp4_to_fp %m {{axis = {axis} : i32}} : tensor<16x16xi8> -> tensor<{shape}x{element}>",
        f"%g = tt.reshape %f : tensor<{shape}x{element}> -> tensor<512x{element}>",
        f"%r = tt.splat %y : !tt.ptr<{element}> -> tensor<512x!tt.ptr<{element}>>",
        f"%s = tt.addptr %r, %j : tensor<512x!tt.ptr<{element}>>, tensor<512xi32>",
        f"tt.store %s, %g : tensor<512x!tt.ptr<{element}>>",
    ]
    body = "\n    ".join([*lines, "tt.return"])
    kernel = load(f"module {{\n  tt.func public @k(%x: !tt.ptr<i8>, %y: !tt.ptr<{element}>) {{\n    {body}\n  }}\n}}")
    packed, result = torch.arange(256, dtype=torch.uint8), torch.empty(512, dtype=dtype)
    memory = [Allocation("x", packed.view(torch.int8), None, True), Allocation("y", result, None, False)]
    assert kernel.run(Launch(memory, [Pointer(0, 0), Pointer(1, 0)], (1, 1, 1))).faults == ()
    expected = decoded("e2m1", packed.view(16, 16), axis).flatten()
    assert torch.equal(result.double(), expected)
    assert torch.equal(result.signbit(), expected.signbit())


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("%d = tt.dot %a, %a, %a : tensor<16x32xf16> * tensor<16x32xf16> -> tensor<16x32xf16>", "multiplies"),
        ("%d = tt.dot %a, %b, %c, inputPrecision = fp8 : tensor<16x32xf16> * tensor<32x16xf16>", "inputPrecision fp8"),
        ("%d = tt.dot %a, %b, %i : tensor<16x32xf16> * tensor<32x16xf16> -> tensor<16x16xi32>", "tensor<16x16xi32>"),
        ("%d = tt.dot_scaled %a, %b, %c lhs = e9m9 rhs = fp16 : tensor<16x32xf16> * tensor<32x16xf16>", "lhs = e9m9"),
        ("%d = tt.dot_scaled %a scale %i, %b, %c lhs = fp16 rhs = fp16 : tensor<16x32xf16>", "with scales"),
        ("%d = tt.dot_scaled %a, %b, scale %c lhs = fp16 rhs = fp16 : tensor<16x32xf16>", "operands, scales at"),
        ("%d = ttg.fp4_to_fp %i {axis = 0 : i32} : tensor<16x16xi32> -> tensor<32x16xf16>", "of tensor<16x16xi32> to"),
        ("%d = ttg.fp4_to_fp %e {axis = 0 : i32} : tensor<16x16xi8> -> tensor<32x16xf64>", "to tensor<32x16xf64>"),
        ("%d = ttg.fp4_to_fp %e {axis = 1 : i32} : tensor<16x16xi8> -> tensor<32x16xf16>", "along axis 1"),
    ],
)
def test_products_that_make_no_sense_are_refused(line, message):
    arguments = "%a: tensor<16x32xf16>, %b: tensor<32x16xf16>, %c: tensor<16x16xf32>, %i: tensor<16x16xi32>"
    arguments += ", %e: tensor<16x16xi8>"
    with pytest.raises((IRError, UnsupportedOperation), match=message):
        load(f"module {{\n  tt.func public @k({arguments}) {{\n    {line}\n    tt.return\n  }}\n}}")
