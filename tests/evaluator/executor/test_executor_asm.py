"""Inline assembly whose meaning is plain is executed; anything else is refused by name."""

import struct

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from hypothesis import given, settings
from hypothesis import strategies as st

from avo.evaluator.executor import UnsupportedOperation, load
from avo.evaluator.executor.operations.ptx import PtxError, assemble

ORACLE = "Python integers and fractions, numpy, and the PTX ISA's definitions"

WORDS = st.integers(0, 2**32 - 1)
SPECIAL = [0.0, -0.0, 1.0, -1.5, float("inf"), float("-inf"), float("nan"), 1e-40, -1e-45, 3.4e38, 448.0, 65504.0, 1e9]
SINGLES = st.one_of(st.sampled_from(SPECIAL), st.floats(width=32))


def register(*values, bits=32):
    half = 1 << (bits - 1)
    dtype = {16: torch.int16, 32: torch.int32, 64: torch.int64}[bits]
    return torch.tensor([(value + half) % (2 * half) - half for value in values], dtype=dtype)


def unsigned(tensor):
    return [value % (1 << (8 * tensor.element_size())) for value in tensor.tolist()]


def run(text, *inputs, out=32):
    """Run PTX with one output; inputs are registers."""
    widths = [out, *(8 * value.element_size() for value in inputs)]
    (result,) = assemble(text, widths, 1)(*inputs)
    return result


def singles(*values):
    return torch.tensor(values, dtype=torch.float32).view(torch.int32)


def signed(word):
    return word - 2**32 if word >= 2**31 else word


INTEGER = {
    "add.s32 $0, $1, $2;": lambda a, b: a + b,
    "sub.u32 $0, $1, $2;": lambda a, b: a - b,
    "mul.lo.s32 $0, $1, $2;": lambda a, b: a * b,
    "mul.hi.u32 $0, $1, $2;": lambda a, b: a * b >> 32,
    "mul.hi.s32 $0, $1, $2;": lambda a, b: signed(a) * signed(b) >> 32,
    "mad.lo.u32 $0, $1, $2, 0x00800080;": lambda a, b: a * b + 0x800080,
    "min.u32 $0, $1, $2;": min,
    "max.s32 $0, $1, $2;": lambda a, b: max(signed(a), signed(b)),
    "and.b32 $0, $1, $2;": lambda a, b: a & b,
    "xor.b32 $0, $1, $2;": lambda a, b: a ^ b,
    "not.b32 $0, $1;": lambda a, b: ~a,
    "shl.b32 $0, $1, 5;": lambda a, b: a << 5,
    "shr.b32 $0, $1, $2;": lambda a, b: a >> min(b, 32),
    "shr.s32 $0, $1, $2;": lambda a, b: signed(a) >> min(b, 32),
    "lop3.b32 $0, $1, $2, 0x0F0F0F0F, 0xea;": lambda a, b: (a & b) | 0x0F0F0F0F,
    "popc.b32 $0, $1;": lambda a, b: a.bit_count(),
    "clz.b32 $0, $1;": lambda a, b: 32 - a.bit_length(),
    "brev.b32 $0, $1;": lambda a, b: int(f"{a:032b}"[::-1], 2),
    "bfe.u32 $0, $1, 7, 9;": lambda a, b: a >> 7 & 0x1FF,
    "bfe.s32 $0, $1, 8, 8;": lambda a, b: (a >> 8 & 0xFF) - (256 if a >> 15 & 1 else 0),
    "bfi.b32 $0, $1, $2, 4, 12;": lambda a, b: (b & ~0xFFF0) | (a & 0xFFF) << 4,
    "fns.b32 $0, $1, 0, 3;": lambda a, b: ([i for i in range(32) if a >> i & 1] + [-1] * 3)[2],
    "fns.b32 $0, $1, 31, -1;": lambda a, b: a.bit_length() - 1,
    "fns.b32 $0, $1, 7, 0;": lambda a, b: 7 if a >> 7 & 1 else -1,
    "shf.l.wrap.b32 $0, $1, $2, 12;": lambda a, b: (b << 32 | a) << 12 >> 32,
    "shf.r.clamp.b32 $0, $1, $2, 40;": lambda a, b: b,
    "{ .reg .pred p; setp.lo.u32 p, $1, $2; selp.b32 $0, $1, $2, p; }": min,
    "{ .reg .pred p; setp.gt.s32 p, $1, $2; mov.b32 $0, $2; @p mov.b32 $0, $1; }": lambda a, b: max(
        signed(a), signed(b)
    ),
    "{ .reg .b16 lo, hi; mov.b32 {lo, hi}, $1; mov.b32 $0, {hi, lo}; }": lambda a, b: a >> 16 | a << 16,
    "{ .reg .b64 w; mov.b64 w, {$1, $2}; shr.u64 w, w, 8; cvt.u32.u64 $0, w; }": lambda a, b: (b << 32 | a) >> 8,
    "cvt.u32.u8 $0, $1;": lambda a, b: a & 0xFF,
    "cvt.s32.s16 $0, $1;": lambda a, b: (a & 0xFFFF) - (0x10000 if a >> 15 & 1 else 0),
    "cvt.sat.u8.s32 $0, $1;": lambda a, b: min(max(signed(a), 0), 255),
}


@settings(max_examples=25, deadline=None)
@given(pairs=st.lists(st.tuples(WORDS, st.one_of(WORDS, st.integers(0, 40))), min_size=3, max_size=3))
def test_integer_instructions_agree_with_pythons_integers(pairs):
    a, b = zip(*pairs, strict=True)
    for text, function in INTEGER.items():
        inputs = (register(*a), register(*b))[: 2 if "$2" in text else 1]
        expected = [function(x, y) % 2**32 for x, y in zip(a, b, strict=True)]
        assert unsigned(run(text, *inputs)) == expected, text


@settings(max_examples=25, deadline=None)
@given(a=WORDS, b=WORDS, selectors=WORDS)
def test_permutations_pick_bytes_and_spread_signs(a, b, selectors):
    pool = a.to_bytes(4, "little") + b.to_bytes(4, "little")
    picked = []
    for i in range(4):
        choice = selectors >> 4 * i & 15
        byte = pool[choice & 7]
        picked.append((255 if byte > 127 else 0) if choice & 8 else byte)
    result = run("prmt.b32 $0, $1, $2, $3;", register(a), register(b), register(selectors))
    assert unsigned(result) == [int.from_bytes(picked, "little")]


@settings(max_examples=50, deadline=None)
@given(a=SINGLES, b=SINGLES, c=SINGLES)
def test_float_instructions_round_once_and_flush_where_they_say_so(a, b, c):
    x, y, z = singles(a), singles(b), singles(c)
    a, b, c = (np.float32(value) for value in (a, b, c))
    tiny = np.float32(2.0**-126)

    def flush(value):
        return np.copysign(np.float32(0), value) if abs(value) < tiny else value

    with np.errstate(all="ignore"):
        expected = {
            "add.f32 $0, $1, $2;": a + b,
            "sub.rn.f32 $0, $1, $2;": a - b,
            "mul.ftz.f32 $0, $1, $2;": flush(flush(a) * flush(b)),
            "div.rn.f32 $0, $1, $2;": a / b,
            "rcp.approx.ftz.f32 $0, $1;": flush(np.float32(1) / flush(a)),
            "neg.f32 $0, $1;": -a,
            "abs.f32 $0, $1;": abs(a),
            "max.f32 $0, $1, $2;": np.fmax(a, b),
            "min.NaN.f32 $0, $1, $2;": np.minimum(a, b),
            "add.sat.f32 $0, $1, $2;": np.clip(np.nan_to_num(a + b), 0, 1),
            "copysign.f32 $0, $1, $2;": np.copysign(b, a),
        }
        total = np.float32(float(a) * float(b) + float(c))
    for text, value in expected.items():
        inputs = (x, y)[: 2 if "$2" in text else 1]
        np.testing.assert_array_equal(run(text, *inputs).view(torch.float32).numpy(), [value], text)
    fused = run("fma.rn.f32 $0, $1, $2, $3;", x, y, z).view(torch.float32).item()
    assert np.isclose(fused, total, rtol=2e-7, atol=1.5e-45, equal_nan=True)


def test_a_register_may_get_its_value_on_either_side_of_a_predicate():
    """The softplus of flash-linear-attention, after stick-breaking attention."""
    text = """{ .reg .pred p;
        setp.gt.f32 p, $1, 20.;
        @p  mov.f32 $0, $1;
        @!p mul.f32 $0, $1, 1.4426950408889634;
        @!p ex2.approx.ftz.f32 $0, $0;
        @!p add.f32 $0, $0, 1.0;
        @!p lg2.approx.ftz.f32 $0, $0;
        @!p mul.f32 $0, $0, 0.6931471805599453; }"""
    x = torch.linspace(-5, 30, 64)
    result = run(text, x.view(torch.int32)).view(torch.float32)
    torch.testing.assert_close(result, torch.nn.functional.softplus(x), rtol=1e-5, atol=1e-6)


def test_registers_are_put_together_from_parts():
    x, y = singles(1.5, -2.0), singles(0.25, 8.0)
    text = """{ .reg .b64 pair, sum;
        mov.b64 pair, {$2, $3};
        fma.rn.f32x2 sum, pair, pair, pair;
        mov.b64 {$0, $1}, sum; }"""
    for result, value in zip(assemble(text, [32] * 4, 2)(x, y), (x, y), strict=True):
        number = value.view(torch.float32)
        assert torch.equal(result.view(torch.float32), number * number + number)
    text = """{ .reg .b8 a, b, c, d;
        cvt.u8.u32 a, $1; cvt.u8.u32 b, 2; cvt.u8.u32 c, 0x103; cvt.u8.u32 d, 4;
        mov.b32 $0, {a, b, c, d}; }"""
    assert unsigned(run(text, register(0xAA01))) == [0x04030201]


def test_a_register_lives_in_the_scope_that_declares_it():
    inner = "{ .reg .b32 t; mov.b32 t, $1; { .reg .b32 t; mov.b32 t, 5; } mov.b32 $0, t; }"
    assert unsigned(run(inner, register(7))) == [7]
    assert unsigned(run(f"{inner} {{ .reg .b32 t; mov.b32 t, 5; add.u32 $0, $0, t; }}", register(7))) == [12]
    guarded = "{ .reg .pred p; setp.eq.u32 p, $1, 7; { .reg .pred p; setp.ne.u32 p, $1, 7; } mov.b32 $0, 1; @p "
    assert unsigned(run(f"{guarded} mov.b32 $0, 2; }}", register(7, 8))) == [2, 1]


def test_a_constant_that_begins_with_zero_is_octal():
    assert unsigned(run("add.u32 $0, $1, 010;", register(1))) == [9]
    assert unsigned(run("add.u32 $0, $1, 0;", register(1))) == [1]


def test_rounding_modes_enclose_the_result():
    x, y = singles(1.0), singles(2.0**-30)
    results = {mode: run(f"add.{mode}.f32 $0, $1, $2;", x, y).view(torch.float32).item() for mode in ("rm", "rz", "rp")}
    assert results == {"rm": 1.0, "rz": 1.0, "rp": 1.0 + 2.0**-23}


def test_approximations_are_computed_accurately():
    x = torch.tensor([0.5, 1.0, 2.5, 30.0])
    for name, function in {"ex2": torch.exp2, "lg2": torch.log2, "sqrt": torch.sqrt, "tanh": torch.tanh}.items():
        flags = "approx" if name == "tanh" else "approx.ftz"
        result = run(f"{name}.{flags}.f32 $0, $1;", x.view(torch.int32)).view(torch.float32)
        torch.testing.assert_close(result, function(x.double()).float(), rtol=3e-7, atol=0)


@settings(max_examples=40, deadline=None)
@given(a=SINGLES, b=SINGLES)
def test_conversions_round_and_saturate(a, b):
    x, y = singles(a), singles(b)
    pair = torch.tensor([b, a], dtype=torch.float32)

    def halves(result, dtype):
        return result.view(dtype).float()

    for name, dtype in (("bf16x2", torch.bfloat16), ("f16x2", torch.float16)):
        result = run(f"cvt.rn.{name}.f32 $0, $1, $2;", x, y)
        torch.testing.assert_close(halves(result, dtype), pair.to(dtype).float(), rtol=0, atol=0, equal_nan=True)
    for name, dtype in (("e4m3x2", torch.float8_e4m3fn), ("e5m2x2", torch.float8_e5m2)):
        result = run(f"cvt.rn.satfinite.{name}.f32 $0, $1, $2;", x, y, out=16)
        limit = torch.finfo(dtype).max
        expected = pair.clamp(-limit, limit).to(dtype).float()
        torch.testing.assert_close(halves(result, dtype), expected, rtol=0, atol=0, equal_nan=True)
    whole = 0 if np.isnan(a) else int(np.clip(np.floor(np.float64(np.float32(a))), -(2**31), 2**31 - 1))
    assert run("cvt.rmi.s32.f32 $0, $1;", x).item() == whole
    tf32 = run("cvt.rna.tf32.f32 $0, $1;", x)
    assert tf32.item() & 0x1FFF == 0 or not np.isfinite(np.float32(a))


def test_four_bit_floats_round_to_even_and_unpack():
    values = [0.0, -0.25, 0.26, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0, -5.1, 100.0, float("nan")]
    wanted = [0.0, -0.0, 0.5, 1.0, 1.0, 2.0, 2.0, 4.0, 4.0, -6.0, 6.0, 6.0]
    text = "{ .reg .b8 t; cvt.rn.satfinite.e2m1x2.f32 t, $1, $2; cvt.u32.u8 $0, t; }"
    packed = run(text, singles(*values), singles(*([1.0] * len(values))))
    unpacked = run("cvt.rn.f16x2.e2m1x2 $0, $1;", packed).view(torch.float16).view(-1, 2)
    assert unpacked[:, 0].tolist() == [1.0] * len(values)
    assert [struct.pack("e", x) for x in unpacked[:, 1].tolist()] == [struct.pack("e", x) for x in wanted]


def test_powers_of_two_as_scales():
    x = singles(1.0, 1.5, 2.0**-127, float("inf"), float("nan"), 3e-39)
    up, down = (run(f"cvt.{r}.satfinite.ue8m0x2.f32 $0, $1, $1;", x, out=16) for r in ("rp", "rz"))
    assert [word & 255 for word in unsigned(up)] == [127, 128, 0, 254, 255, 0]
    assert [word >> 8 for word in unsigned(down)] == [127, 127, 0, 254, 255, 0]
    assert run("cvt.rn.bf16x2.ue8m0x2 $0, $1;", register(0x7F80, bits=16)).view(torch.bfloat16).tolist() == [2.0, 1.0]


@pytest.mark.parametrize(
    "text",
    [
        "mov.u64 $0, %globaltimer;",
        "mov.u32 $0, %smid;",
        "ld.global.b32 $0, [$1];",
        "L: add.f32 $0, $1, $2;",
        "@p bra L;",
        "add.f32 $0, $1;",
        "add.f32 $0, $1, 2;",
        "add.f32x4 $0, $1, $2;",
        "add.f16 $0, $1, $2;",
        "cvt.rs.f16x2.f32 $0, $1, $2, $1;",
        "prmt.b32.f4e $0, $1, $2, 3;",
        "mov.b32 $0, undeclared;",
        "mov.b64 $0, {$1, $2};",
        "atom.add.u32 $0, [$1], $2;",
        "{ .reg .b32 t; add.u32 $0, t, $1; }",
        "{ .reg .pred p; setp.eq.u32 p, $1, $2; @p mov.b32 $0, $1; }",
        "{ .reg .pred p; setp.eq.u32 p, $1, $2; @p mov.b32 $0, $1; @!p add.u32 $0, $0, $1; }",
        "{ .reg .pred p; setp.eq.u32 p, $1, 0; @p mov.b32 $0, $1; setp.eq.u32 p, $2, 0; @!p mov.b32 $0, $1; }",
        "{ .reg .b128 t; mov.b32 $0, $1; }",
        "{ .reg .b32 %r1; mov.b32 %r1, 7; mov.b32 $0, $1; }",
        "{ .reg .b32 %r<4>; mov.b32 $0, $1; }",
        "{ .reg .b32 $1; mov.b32 $1, 7; mov.b32 $0, $1; }",
        "{ .reg .b32 t; .reg .f32 t; mov.b32 $0, $1; }",
        "{ { .reg .b32 t; mov.b32 t, 7; } mov.b32 $0, t; }",
        "mov.b32 $0, 7; } {",
        "mov.b32 $0, 08;",
        "and.b32 $1, $1, $2;",
        "hello",
        ";".join(["add.f32 $0, $1, $2"] * 2000),
    ],
)
def test_what_is_not_understood_is_refused(text):
    with pytest.raises(PtxError):
        assemble(text, [32, 32, 32], 1)


PIECES = ["add", "mov", ".b32", ".f32", "cvt.rn", "$0", "$1", ",", ";", "{", "}", "0x", "7", "@p", ".reg", "<2>"]
PIECES += ["|", " "]


@pytest.mark.long
@settings(max_examples=150, deadline=None)
@given(text=st.lists(st.sampled_from(PIECES), max_size=14).map("".join))
def test_damaged_assembly_never_raises_anything_but_its_own_error(text):
    try:
        code = assemble(text, [32, 32], 1)
    except PtxError:
        return
    code(register(5))


@triton.jit
def packed(X, Y, Out8, OutB, Out4, N: tl.constexpr):
    i = tl.arange(0, N)
    x, y = tl.load(X + i), tl.load(Y + i)
    quantised = tl.inline_asm_elementwise(
        "{ .reg .b16 lo, hi; cvt.rn.satfinite.e4m3x2.f32 lo, $2, $1; cvt.rn.satfinite.e4m3x2.f32 hi, $4, $3; "
        "mov.b32 $0, {lo, hi}; }",
        "=r,f,f,f,f",
        [x],
        dtype=tl.float8e4nv,
        is_pure=True,
        pack=4,
    )
    tl.store(Out8 + i, quantised)
    product, total = tl.inline_asm_elementwise(
        "mul.bf16x2 $0, $2, $3;\n add.bf16x2 $1, $2, $3; // both",
        "=r,=r, r, r",
        [x.to(tl.bfloat16), y.to(tl.bfloat16)],
        dtype=(tl.bfloat16, tl.bfloat16),
        is_pure=True,
        pack=2,
    )
    tl.store(OutB + i, product)
    tl.store(OutB + N + i, total)
    nibbles = tl.inline_asm_elementwise(
        "{ .reg .b32 t; and.b32 $0, $2, 0x0F0F0F0F; shr.u32 t, $2, 4; and.b32 $1, t, 0x0F0F0F0F; }",
        "=r,=r,r",
        [quantised.to(tl.int8, bitcast=True)],
        dtype=(tl.int8, tl.int8),
        is_pure=True,
        pack=4,
    )
    tl.store(Out4 + i, nibbles[0])
    tl.store(Out4 + N + i, nibbles[1])
    tl.inline_asm_elementwise("griddepcontrol.wait; // dummy $0", "=r", [], dtype=tl.int32, is_pure=False, pack=1)


def test_elements_are_packed_into_registers(executor):
    torch.manual_seed(0)
    n = 64
    x, y = 100 * torch.randn(n), torch.randn(n)
    quantised = torch.empty(n, dtype=torch.float8_e4m3fn)
    halves, nibbles = torch.empty(2, n, dtype=torch.bfloat16), torch.empty(2, n, dtype=torch.int8)
    executor.run(packed, x, y, quantised, halves, nibbles, N=n)
    expected = x.clamp(-448, 448).to(torch.float8_e4m3fn)
    assert torch.equal(quantised.view(torch.uint8), expected.view(torch.uint8))
    assert torch.equal(halves, torch.stack([x.bfloat16() * y.bfloat16(), x.bfloat16() + y.bfloat16()]))
    codes = expected.view(torch.uint8)
    assert torch.equal(nibbles.view(torch.uint8), torch.stack([codes & 15, codes >> 4]))


@triton.jit
def exchanged(Out, M: tl.constexpr, N: tl.constexpr, WHERE: tl.constexpr, PACK: tl.constexpr):
    """Exchanges neighbours, and stores them in each other's place."""
    row, column = tl.arange(0, M)[:, None], tl.arange(0, N)[None, :]
    x = (row * N + column).to(tl.int16)
    if PACK == 2:
        y = tl.inline_asm_elementwise("prmt.b32 $0, $1, $1, 0x1032;", "=r,r", [x], tl.int16, True, 2)
    elif PACK == 4:
        y = tl.inline_asm_elementwise("mov.b32 $0, $3; mov.b32 $1, $2;", "=r,=r,r,r", [x], tl.int16, True, 4)
    else:
        # Only where the other element is in this place, such as that of the same column eight rows below.
        y = tl.inline_asm_elementwise(
            "{ .reg .b32 d; .reg .pred p; xor.b32 d, $2, $3; setp.eq.u32 p, d, " + WHERE + "; "
            "selp.b32 $0, $3, $2, p; selp.b32 $1, $2, $3, p; }",
            "=r,=r,r,r", [x.to(tl.int32)], tl.int32, True, 2,
        ).to(tl.int16)  # fmt: skip
    tl.store(Out + row * N + (column ^ (PACK // 2)), y)


@pytest.mark.parametrize(
    ("shape", "pack", "where"), [((16, 16), 2, "0"), ((16, 16), 4, "0"), ((16, 16), 1, "1"), ((64, 128), 1, "1024")]
)
def test_assembly_that_exchanges_packed_elements_is_refused(executor, shape, pack, where):
    """The compiler's layout decides which elements those are. An epilogue runs once."""
    out = torch.zeros(*shape, dtype=torch.int16)
    with pytest.raises(UnsupportedOperation, match="depend on which elements are packed together"):
        executor.run(exchanged, out, M=shape[0], N=shape[1], WHERE=where, PACK=pack)


@triton.jit
def legacy_floats(X, Out, Back, N: tl.constexpr):
    i = tl.arange(0, N)
    x = tl.load(X + i).to(tl.float8e4b15, bitcast=True)
    half = x.to(tl.float16)
    tl.store(Out + i, half)
    tl.store(Back + i, half.to(tl.float8e4b15).to(tl.int8, bitcast=True))


def test_tritons_own_conversions_in_assembly_give_every_number_of_the_format(executor):
    """fp8e4b15 as Triton defines it: a bias of 15, no infinities, no NaN."""
    codes = torch.arange(256, dtype=torch.int16).to(torch.int8)
    out, back = torch.empty(256, dtype=torch.float16), torch.empty(256, dtype=torch.int8)
    executor.run(legacy_floats, codes, out, back, N=256)
    bits = torch.arange(256)
    exponent, mantissa = bits >> 3 & 15, bits & 7
    normal = (1 + mantissa / 8.0) * 2.0 ** (exponent - 15.0)
    value = torch.where(exponent == 0, mantissa / 8.0 * 2.0**-14, normal)
    assert torch.equal(out.double(), torch.where(bits >= 128, -value, value).double())
    assert torch.equal(back.view(torch.uint8)[:127].int(), bits[:127].int())


@triton.jit
def dependent(X):
    tl.extra.cuda.gdc_wait()
    tl.store(X, 1.0)
    tl.extra.cuda.gdc_launch_dependents()


def test_waiting_for_other_kernels_does_nothing(executor):
    x = torch.zeros(1)
    executor.run(dependent, x)
    assert x.item() == 1


@triton.jit
def accessing(X, Y, Z, N: tl.constexpr, TEXT: tl.constexpr, FROM: tl.constexpr, BARRIER: tl.constexpr):
    i = tl.arange(0, N)
    before = tl.load(Y + i)
    if BARRIER:
        tl.debug_barrier()
    source = (Y if FROM < 0 else X + FROM) + i
    z = tl.inline_asm_elementwise(TEXT, "=r,l,l", [source, Y + i], dtype=tl.int8, is_pure=False, pack=1)
    tl.store(Z + i, before + z)


@pytest.mark.parametrize("kind", ["s", "u", "b"])
def test_loads_and_stores_in_assembly_access_memory_and_extend_the_sign_if_asked(executor, kind):
    x, y, z = torch.arange(-64, 64, dtype=torch.int8), *(torch.full((128,), 5, dtype=torch.int8) for _ in "yz")
    text = f"ld.global.{kind}8 $0, [$1]; shr.u32 $0, $0, 3;\nst.global.{kind}8 [$2], $0;"
    found = executor.prepare(accessing, x, y, z, N=128, TEXT=text, FROM=0, BARRIER=True).run(sanitize=True)
    expected = x >> 3 if kind == "s" else ((x.int() & 255) >> 3).to(torch.int8)
    assert not found.faults
    assert torch.equal(torch.stack((y, z)), torch.stack((expected, expected + 5)))


@pytest.mark.parametrize(
    ("start", "barrier", "kind"),
    [(1, True, "read out of bounds"), (0, False, "missing barrier"), (-1, True, "missing barrier")],
)
def test_loads_and_stores_in_assembly_are_checked(executor, start, barrier, kind):
    """Threads that hold an element all store it, so that one may load what another one has stored."""
    x, y, z = (torch.ones(128, dtype=torch.int8) for _ in range(3))
    text = "ld.global.b8 $0, [$1]; st.global.b8 [$2], $0;"
    launch = executor.prepare(accessing, x, y, z, N=128, TEXT=text, FROM=start, BARRIER=barrier)
    (fault,) = launch.run(sanitize=True).faults
    assert fault.kind == kind


@pytest.mark.parametrize(
    "text",
    [
        "ld.global.nc.b8 $0, [$1];",
        "ld.global.b16 $0, [$1];",
        "ld.global.b8 $0, [$1]; add.s64 $1, $1, 1;",
        "ld.global.b8 $0, [$1]; st.global.b8 [$1], $0;",
        "ld.global.b8 $0, [$1]; st.global.b8 [$2], $9;",
        "ld.global.b8 $0, [$1]; st.global.b8 [$2], $0; shl.b32 $0, $0, 3;",
        "ld.global.b8 $0, [$1]; // st.global.b8 [$2], $0;",
    ],
)
def test_accesses_in_assembly_that_are_not_plain_are_refused(executor, text):
    constexprs = {"N": 128, "TEXT": text, "FROM": 0, "BARRIER": False}
    with pytest.raises(UnsupportedOperation, match="inline assembly"):
        load(executor.lower(accessing, {"X": "*i8", "Y": "*i8", "Z": "*i8"}, constexprs))


@triton.jit
def timed(X):
    tl.store(X, tl.inline_asm_elementwise("mov.u64 $0, %globaltimer;", "=l", [], dtype=tl.int64, is_pure=False, pack=1))


def test_assembly_without_a_meaning_here_is_refused_with_its_line(executor):
    ttir = executor.lower(timed, {"X": "*i64"}, {})
    with pytest.raises(UnsupportedOperation, match=r"inline assembly 'mov.u64 \$0, %globaltimer;'") as caught:
        load(ttir)
    assert caught.value.location.startswith("test_executor_asm.py:")
