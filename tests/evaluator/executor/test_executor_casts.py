"""Conversions between all types are rounded once and saturate as PTX's ``cvt`` does."""

import math
from fractions import Fraction

import pytest
import torch
import triton
import triton.language as tl
from hypothesis import given
from hypothesis import strategies as st

from avo.evaluator.executor import IRError, UnsupportedOperation, load
from avo.evaluator.executor.ir import Op, Type
from avo.evaluator.executor.operations.casts import round_tf32
from avo.evaluator.executor.operations.constants import constant
from tests.evaluator.executor.elementwise_kernels import INTEGER_TYPES, integer_pairs
from tests.evaluator.executor.exact import edges, largest, numbers, rounded, same

ORACLE = "exact rationals"

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
SHORT = (torch.float8_e5m2, torch.float8_e4m3fn)


@triton.jit
def converted(x, i, outs):
    for n in tl.static_range(len(outs)):
        tl.store(outs[n] + i, x.to(outs[n].dtype.element_ty))


@triton.jit
def to_integers(X, A, B, C, D, E, F, G, H, SIZE: tl.constexpr):
    i = tl.arange(0, SIZE)
    converted(tl.load(X + i), i, (A, B, C, D, E, F, G, H))


@triton.jit
def to_floats(X, A, B, C, D, Truth, SIZE: tl.constexpr):
    i = tl.arange(0, SIZE)
    x = tl.load(X + i)
    converted(x, i, (A, B, C, D))
    tl.store(Truth + i, x.to(tl.int1))


@triton.jit
def to_short(X, A, B, SIZE: tl.constexpr):
    i = tl.arange(0, SIZE)
    converted(tl.load(X + i), i, (A, B))


@triton.jit
def from_short(X, A, B, C, Size, Chosen, SIZE: tl.constexpr):
    i = tl.arange(0, SIZE)
    x = tl.load(X + i)
    converted(x, i, (A, B, C))
    tl.store(Size + i, tl.abs(x))
    tl.store(Chosen + i, tl.where(i % 2 == 0, x, tl.abs(x)))


@triton.jit
def toward_zero(X, A, B, C, SIZE: tl.constexpr):
    i = tl.arange(0, SIZE)
    x = tl.load(X + i)
    tl.store(A + i, x.to(tl.float16, fp_downcast_rounding="rtz"))
    tl.store(B + i, x.to(tl.bfloat16, fp_downcast_rounding="rtz"))
    tl.store(C + i, x.to(tl.float8e5, fp_downcast_rounding="rtz"))


def floats(dtype):
    """Edge values, all magnitudes, and what lies around the ends of the integers' ranges; [1024]."""
    ends = [
        sign * (2.0**bits + step) for bits in (7, 8, 15, 16, 31, 32, 63, 64) for step in (-1, 0, 1) for sign in (1, -1)
    ]
    values = torch.cat([edges(dtype), torch.tensor(ends, dtype=torch.float64).to(dtype), numbers(dtype, 600, 0)])
    return torch.cat([values, torch.linspace(-300, 300, 1024 - len(values), dtype=torch.float64).to(dtype)])


def to_integer(value, bits, is_signed, wide):
    """Convert as ``cvt.rzi`` does; 8 bits are the lower ones of 16."""
    width = max(bits, 16)
    if math.isnan(value):
        result = 2 ** (width - 1) if wide or width == 64 else 0
    else:
        low, high = (-(2 ** (width - 1)), 2 ** (width - 1) - 1) if is_signed else (0, 2**width - 1)
        result = high if value > high else low if value < low else math.trunc(value)
    return result % 2**bits


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_floats_become_integers_toward_zero_and_saturate(executor, dtype):
    x = floats(dtype)
    outs = [torch.zeros(1024, dtype=target) for target in INTEGER_TYPES]
    executor.run(to_integers, x, *outs, SIZE=1024)
    for out in outs:
        info = torch.iinfo(out.dtype)
        expected = [to_integer(value, info.bits, info.min < 0, dtype == torch.float64) for value in x.double().tolist()]
        assert [value % 2**info.bits for value in out.tolist()] == expected, out.dtype


@pytest.mark.parametrize("dtype", INTEGER_TYPES, ids=str)
def test_integers_become_the_nearest_floats(executor, dtype):
    x = torch.cat(integer_pairs(dtype))
    if torch.iinfo(dtype).bits > 16:
        # Just beyond a tie of bfloat16: by way of float32 it would look like the tie.
        x[-5:] = torch.tensor([2**k + 2 ** (k - 8) + 1 for k in range(26, 31)], dtype=dtype)
    outs = [torch.zeros(512, dtype=target) for target in FLOATS]
    truth = torch.zeros(512, dtype=torch.bool)
    executor.run(to_floats, x, *outs, truth, SIZE=512)
    assert truth.tolist() == [value != 0 for value in x.tolist()]
    for out in outs:
        assert out.double().tolist() == [rounded(Fraction(value), out.dtype) for value in x.tolist()], out.dtype


@pytest.mark.parametrize("dtype", INTEGER_TYPES, ids=str)
def test_integers_are_extended_by_their_own_sign_and_cut_short(executor, dtype):
    x = torch.cat(integer_pairs(dtype))
    outs = [torch.zeros(512, dtype=target) for target in INTEGER_TYPES]
    executor.run(to_integers, x, *outs, SIZE=512)
    for out in outs:
        modulus = 2 ** torch.iinfo(out.dtype).bits
        assert [value % modulus for value in out.tolist()] == [value % modulus for value in x.tolist()], out.dtype


def nearest(values, dtype, mode="rn"):
    """Rounded; to 8 bits beyond the largest number is that number."""
    made = []
    for value in values.double().tolist():
        result = rounded(Fraction(value), dtype, mode) or value * 0 if math.isfinite(value) else value
        if dtype in SHORT and math.isinf(result) and mode == "rn":
            result = math.copysign(float(largest(dtype)), result)
        made.append(result)
    return torch.tensor(made, dtype=torch.float64).to(torch.float32 if dtype in SHORT else dtype).to(dtype)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_floats_are_rounded_to_other_floats_once(executor, dtype):
    x = floats(dtype)
    x[700:] = (1 + torch.rand(324, dtype=torch.float64) / 64).to(dtype)
    if dtype == torch.float64:
        # Just beyond a tie of every shorter format: by way of another one it would look like the tie.
        x[900:] = 1 + 2.0 ** -torch.arange(4, 28).double().repeat(6)[:124] + 2.0**-40
    outs = [torch.zeros(1024, dtype=target) for target in FLOATS]
    truth = torch.zeros(1024, dtype=torch.bool)
    executor.run(to_floats, x, *outs, truth, SIZE=1024)
    assert torch.equal(truth, x != 0)
    for out in outs:
        assert bool(same(out, nearest(x, out.dtype)).all()), out.dtype


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_eight_bit_floats_are_rounded_to_nearest_and_saturate(executor, dtype):
    x = floats(dtype)
    x[:512] = (numbers(torch.float8_e5m2, 512, 7).double() * (1 + torch.rand(512, dtype=torch.float64) / 4)).to(dtype)
    outs = [torch.zeros(1024).to(target) for target in SHORT]
    executor.run(to_short, x, *outs, SIZE=1024)
    for out in outs:
        assert bool(same(out, nearest(x, out.dtype)).all()), out.dtype


@pytest.mark.parametrize("dtype", SHORT, ids=str)
def test_all_eight_bit_floats_are_widened_exactly_and_keep_their_signs(executor, dtype):
    x = torch.arange(-128, 128).to(torch.int8).view(dtype)
    outs = [torch.zeros(256, dtype=target) for target in FLOATS[:3]]
    size, chosen = torch.zeros(256).to(dtype), torch.zeros(256).to(dtype)
    executor.run(from_short, x, *outs, size, chosen, SIZE=256)
    for out in outs:
        assert bool(same(out.double(), x.double()).all())
    assert bool(same(size.float(), x.float().abs()).all())
    assert bool(same(chosen[::2], x[::2]).all())
    assert bool(same(chosen[1::2].float(), x[1::2].float().abs()).all())


def test_rounding_toward_zero_stops_at_the_largest_number_and_keeps_infinities(executor):
    x = floats(torch.float32)
    outs = [torch.zeros(1024).to(target) for target in (torch.float16, torch.bfloat16, torch.float8_e5m2)]
    executor.run(toward_zero, x, *outs, SIZE=1024)
    for out in outs:
        assert bool(same(out, nearest(x, out.dtype, "rz")).all()), out.dtype


@triton.jit
def bits(Word, Half, Byte, Address, Out, Chosen, SIZE: tl.constexpr):
    i = tl.arange(0, SIZE)
    word = tl.load(Word + i)
    half = tl.load(Half + i)
    byte = tl.load(Byte + i)
    same_word = word.to(tl.float32, bitcast=True).to(tl.uint32, bitcast=True).to(tl.int32, bitcast=True)
    same_half = half.to(tl.bfloat16, bitcast=True).to(tl.float16, bitcast=True).to(tl.int16, bitcast=True)
    same_byte = byte.to(tl.float8e5, bitcast=True).to(tl.float8e4nv, bitcast=True).to(tl.int8, bitcast=True)
    long = (word.to(tl.int64) << 20).to(tl.float64, bitcast=True).to(tl.int64, bitcast=True) >> 20
    agree = (same_word == word) & (same_half == half) & (same_byte == byte) & (long == word)
    tl.store(Address + i, (Word + i).to(tl.int64) - Word.to(tl.int64))
    tl.store(Out + i, tl.load((Word + i).to(tl.int64).to(tl.pointer_type(tl.int32))))
    tl.store(Chosen + i, tl.load(tl.where(agree, Half + i, Half)))


def test_bits_and_addresses_survive_casts(executor):
    word, half = (torch.arange(-128, 128) * 16_777_213).int(), (torch.arange(-128, 128) * 257).short()
    byte = torch.arange(-128, 128).to(torch.int8)
    address, out, chosen = torch.zeros(256, dtype=torch.int64), torch.zeros(256).int(), torch.zeros(256).short()
    executor.run(bits, word, half, byte, address, out, chosen, SIZE=256)
    assert address.tolist() == [4 * i for i in range(256)]
    assert torch.equal(out, word)
    assert torch.equal(chosen, half)


@triton.jit
def convert(X, Out, HOW: tl.constexpr):
    x = tl.load(X)
    tl.store(Out, x.to(Out.dtype.element_ty, fp_downcast_rounding=HOW))


@pytest.mark.parametrize(
    ("source", "target", "how", "named"),
    [
        ("fp8e5", "fp8e4nv", None, "from f8E5M2 to f8E4M3FN"),
        ("fp64", "fp8e5", None, "from f64 to f8E5M2"),
        ("fp8e4nv", "fp64", None, "from f8E4M3FN to f64"),
        ("fp64", "fp32", "rtz", "from f64 to f32 with rounding rtz"),
        ("fp32", "fp8e4nv", "rtz", "from f32 to f8E4M3FN with rounding rtz"),
        ("fp16", "fp8e5", "rtz", "from f16 to f8E5M2 with rounding rtz"),
    ],
)
def test_conversions_that_nvidias_back_end_does_not_have_are_refused(executor, source, target, how, named):
    ttir = executor.lower(convert, {"X": "*" + source, "Out": "*" + target}, {"HOW": how})
    with pytest.raises(UnsupportedOperation, match=rf"unsupported operation tt\.fp_to_fp {named} at .*\.py:\d+"):
        load(ttir)


@given(value=st.floats(width=32))
def test_tf32_keeps_ten_mantissa_bits_with_ties_away_from_zero(value):
    got = round_tf32(torch.tensor([value])).item()
    if not math.isfinite(value):
        assert math.isnan(got) if math.isnan(value) else got == value
    else:
        unit = Fraction(2) ** max(math.frexp(value)[1] - 11, -136)
        exact = (abs(Fraction(value)) / unit + Fraction(1, 2)).__floor__() * unit
        exact = float(exact) if exact < Fraction(2) ** 128 else math.inf
        assert got == math.copysign(exact, value)


def made(text, kind):
    return constant(Op("arith.constant", (), (0,), "here:1", (text,)), (kind,))


def test_constants_are_read_as_printed():
    assert made("0xFF800000", Type("f32")).item() == -math.inf
    assert made("dense<0x7E>", Type("f8E5M2", (4,))).isnan().tolist() == [[True]]
    assert made("dense<[[1, -2], [3, 255]]>", Type("i8", (2, 2))).tolist() == [[[1, -2], [3, -1]]]
    assert made("dense<[true, false]>", Type("i1", (2,))).tolist() == [[True, False]]
    assert made("dense<[1.5e+00, 0x7FC00000]>", Type("f32", (2,)))[0, 0].item() == 1.5
    for text in ("dense<[1, 2]>", "dense<[[1, 2], [3]]>", "dense<[1, x, 2, 3]>"):
        with pytest.raises(IRError):
            made(text, Type("i8", (2, 2)))
    with pytest.raises(UnsupportedOperation):
        made('dense<"0x0102">', Type("i8", (2,)))


def test_poison_is_some_value(executor):
    ttir = executor.lower(convert, {"X": "*fp32", "Out": "*fp64"}, {"HOW": None})
    poisoned = ttir.replace("arith.extf", "ub.poison : f64\n    %unused = arith.extf", 1)
    assert "ub.poison" in poisoned
    load(poisoned)
