"""Elementwise operations, one at a time, agree with exact arithmetic, numpy or torch."""

import math

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from hypothesis import given
from hypothesis import strategies as st

from avo.evaluator.executor import UnsupportedOperation
from avo.evaluator.executor.dtypes import DTYPES
from avo.evaluator.executor.ir import Op, Type
from avo.evaluator.executor.operations import ELEMENTWISE
from tests.corpus import sample
from tests.evaluator.executor.exact import same

ORACLE = "exact integers, torch"

INTEGERS = {"i8": np.int8, "i16": np.int16, "i32": np.int32, "i64": np.int64}
FLOATS = ("f16", "bf16", "f32", "f64")


def apply(name, *operands, result=None, words=(), **attributes):
    """Apply one elementwise operation to (element type, tensor) pairs."""
    types = [Type(element, (1,)) for element, _ in operands]
    types.append(Type(result or operands[0][0], (1,)))
    op = Op(name, tuple(range(len(operands))), (len(operands),), "here:1", tuple(words), attributes)
    return ELEMENTWISE[name](op, tuple(types))(*[tensor for _, tensor in operands])


def integers(element):
    bits = int(element[1:])
    edges = st.sampled_from([-(2 ** (bits - 1)), 2 ** (bits - 1) - 1, -1, 0, 1, 2])
    return st.lists(edges | st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1), min_size=1, max_size=6)


@st.composite
def integer_pairs(draw):
    element = draw(st.sampled_from(sorted(INTEGERS)))
    a, b = draw(integers(element)), draw(integers(element))
    size = min(len(a), len(b))
    return element, a[:size], b[:size]


def wrap(value, bits):
    return (value + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1)


def truncated(a, b):
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


SIGNED = {
    "arith.addi": lambda a, b: a + b,
    "arith.subi": lambda a, b: a - b,
    "arith.muli": lambda a, b: a * b,
    "arith.divsi": lambda a, b: truncated(a, b) if b else -1,
    "arith.ceildivsi": lambda a, b: -(-a // b) if b else -1 + (a > 0),
    "arith.floordivsi": lambda a, b: a // b if b else -1 - (a < 0),
    "arith.remsi": lambda a, b: a - b * truncated(a, b) if b else a,
    "arith.maxsi": max,
    "arith.minsi": min,
    "arith.andi": lambda a, b: a & b,
    "arith.ori": lambda a, b: a | b,
    "arith.xori": lambda a, b: a ^ b,
}
UNSIGNED = {
    "arith.divui": lambda a, b, bits: a // b if b else -1,
    "arith.ceildivui": lambda a, b, bits: -(-a // b) if b else 0,
    "arith.remui": lambda a, b, bits: a % b if b else a,
    "arith.maxui": lambda a, b, bits: max(a, b),
    "arith.minui": lambda a, b, bits: min(a, b),
    "arith.shli": lambda a, b, bits: a << b if b < bits else 0,
    "arith.shrui": lambda a, b, bits: a >> b if b < bits else 0,
    "arith.shrsi": lambda a, b, bits: wrap(a, bits) >> min(b, bits - 1),
}


@pytest.mark.parametrize("name", sample([*SIGNED, *UNSIGNED], 9))
@given(case=integer_pairs(), small=st.booleans())
def test_integers_wrap_around_and_divide_as_they_are_told_to_round(name, case, small):
    element, a, b = case
    bits = int(element[1:])
    b = [value % (bits + 2) for value in b] if small else b
    tensors = [torch.tensor(values, dtype=DTYPES[element]) for values in (a, b)]
    got = apply(name, *[(element, tensor) for tensor in tensors])
    if name in SIGNED:
        expected = [SIGNED[name](x, y) for x, y in zip(a, b, strict=True)]
    else:
        expected = [UNSIGNED[name](x % 2**bits, y % 2**bits, bits) for x, y in zip(a, b, strict=True)]
    assert got.dtype == DTYPES[element]
    assert got.tolist() == [wrap(value, bits) for value in expected]


@pytest.mark.long
@pytest.mark.parametrize("element", ["i32", "i64"])
@given(data=st.data())
def test_mulhiui_is_the_high_half_of_the_unsigned_product(element, data):
    bits = int(element[1:])
    a, b = data.draw(integers(element)), data.draw(integers(element))
    pairs = list(zip(a, b, strict=False))
    tensors = [torch.tensor([pair[i] for pair in pairs], dtype=DTYPES[element]) for i in (0, 1)]
    got = apply("tt.mulhiui", *[(element, tensor) for tensor in tensors]).tolist()
    assert got == [wrap(x % 2**bits * (y % 2**bits) >> bits, bits) for x, y in pairs]


@given(case=integer_pairs())
def test_integer_comparisons_know_signed_from_unsigned(case):
    element, a, b = case
    bits = int(element[1:])
    operands = [(element, torch.tensor(values, dtype=DTYPES[element])) for values in (a, b)]
    for word, compare in {"lt": int.__lt__, "le": int.__le__, "gt": int.__gt__, "ge": int.__ge__}.items():
        got = apply("arith.cmpi", *operands, words=["s" + word]).tolist()
        assert got == [compare(x, y) for x, y in zip(a, b, strict=True)]
        got = apply("arith.cmpi", *operands, words=["u" + word]).tolist()
        assert got == [compare(x % 2**bits, y % 2**bits) for x, y in zip(a, b, strict=True)]


def test_float_comparisons_treat_nan_as_their_predicate_says():
    nan = math.nan
    a = torch.tensor([1.0, 2.0, 2.0, nan])
    b = torch.tensor([2.0, 2.0, 1.0, 1.0])
    expected = {"oeq": "0100", "ogt": "0010", "oge": "0110", "olt": "1000", "ole": "1100", "one": "1010", "ord": "1110"}
    expected |= {
        "ueq": "0101",
        "ugt": "0011",
        "uge": "0111",
        "ult": "1001",
        "ule": "1101",
        "une": "1011",
        "uno": "0001",
    }
    for predicate, bits in expected.items():
        got = apply("arith.cmpf", ("f32", a), ("f32", b), words=[predicate])
        assert "".join(str(int(bit)) for bit in got) == bits, predicate


def test_exp_is_that_of_the_gpu_to_a_few_ulp_and_right_at_the_edges():
    x = torch.linspace(-80, 80, 4001)
    got = apply("math.exp", ("f32", x)).double()
    assert ((got / x.double().exp()) - 1).abs().max() < 2e-5
    edges = apply("math.exp", ("f32", torch.tensor([-math.inf, 0.0, math.inf, math.nan])))
    torch.testing.assert_close(edges, torch.tensor([0.0, 1.0, math.inf, math.nan]), equal_nan=True)


def test_one_bit_integers_are_zero_and_minus_one():
    bits = torch.tensor([False, True])
    assert apply("arith.extsi", ("i1", bits), result="i32").tolist() == [0, -1]
    assert apply("arith.extui", ("i1", bits), result="i32").tolist() == [0, 1]
    assert apply("arith.sitofp", ("i1", bits), result="f32").tolist() == [0, -1]
    assert apply("arith.uitofp", ("i1", bits), result="f32").tolist() == [0, 1]
    assert apply("arith.trunci", ("i32", torch.tensor([2, 3], dtype=torch.int32)), result="i1").tolist() == [
        False,
        True,
    ]
    both = ("i1", torch.tensor([True, True, False])), ("i1", torch.tensor([True, False, False]))
    assert apply("arith.addi", *both).tolist() == [False, True, False]
    assert apply("arith.muli", *both).tolist() == [True, False, False]
    assert apply("arith.cmpi", *both, words=["slt"]).tolist() == [False, True, False]
    assert apply("arith.cmpi", *both, words=["ult"]).tolist() == [False, False, False]


@triton.jit
def everything(X, Y, Out, n, s, SIZE: tl.constexpr):
    i = tl.arange(0, SIZE)
    x = tl.load(X + i)
    y = tl.load(Y + i)
    r = tl.exp(x) + tl.exp2(y) + tl.log(tl.abs(x) + 1) + tl.log2(tl.abs(y) + 1) + tl.sqrt(tl.abs(x)) + tl.erf(y)
    r += tl.sin(x) * tl.cos(y) + tl.floor(x) - tl.ceil(y) + tl.rsqrt(tl.abs(x) + 1) + tl.fma(x, y, x)
    r += tl.clamp(x, -0.5, 0.5) + tl.where(x > y, x, y) + tl.maximum(x, y) - tl.minimum(x, y) + tl.div_rn(x, s)
    r += tl.sqrt_rn(tl.abs(y)) + (i % 7) + (i // 3) + (i.to(tl.uint32) // 5).to(tl.float32) + (i << 2) + (i >> 1)
    r += tl.sigmoid(x) + tl.cdiv(n, 3) + tl.umulhi(i * 1000003, i * 1000033)
    tl.store(Out + i, r)


def test_the_operations_of_the_language_agree_with_torch(executor):
    torch.manual_seed(0)
    x, y = torch.randn(64), torch.randn(64)
    out = torch.empty(64)
    executor.run(everything, x, y, out, 10, 3.0, SIZE=64)
    i = torch.arange(64)
    r = x.exp() + y.exp2() + (x.abs() + 1).log() + (y.abs() + 1).log2() + x.abs().sqrt() + y.erf()
    r += x.sin() * y.cos() + x.floor() - y.ceil() + (x.abs() + 1).rsqrt() + x * y + x
    r += x.clamp(-0.5, 0.5) + torch.maximum(x, y) + torch.maximum(x, y) - torch.minimum(x, y) + x / 3
    r += y.abs().sqrt() + i % 7 + i // 3 + i // 5 + i * 4 + i // 2
    r += x.sigmoid() + 4 + (i * 1000003 * i * 1000033 >> 32)
    torch.testing.assert_close(out, r, rtol=1e-5, atol=1e-4)


def test_approximate_division_is_zero_where_the_reciprocal_is(executor):
    a, b = torch.tensor([1.0, -1.0, math.inf, 6.0]), torch.tensor([2.0**127, 2.0**127, 2.0**127, 3.0])
    got = apply("tt.approx_divf", ("f32", a), ("f32", b))
    assert bool(same(got, torch.tensor([0.0, -0.0, math.nan, 2.0])).all())


def test_what_the_gpu_has_no_arithmetic_for_is_refused_by_name():
    f8 = "f8E5M2", torch.zeros(1).to(torch.float8_e5m2)
    half, single = ("f16", torch.zeros(1).half()), ("f32", torch.zeros(1))
    for name, operands, words in (
        ("arith.addf", (f8, f8), ()),
        ("arith.cmpf", (f8, f8), ("olt",)),
        ("math.fma", (f8, f8, f8), ()),
        ("arith.addf", (half, single), ()),
        ("arith.addi", (single, single), ()),
        ("arith.mulf", (("i32", torch.zeros(1).int()),) * 2, ()),
        ("tt.mulhiui", (("i8", torch.zeros(1, dtype=torch.int8)),) * 2, ()),
    ):
        with pytest.raises(UnsupportedOperation, match=f"unsupported operation {name} on .* at here:1"):
            apply(name, *operands, words=words)
