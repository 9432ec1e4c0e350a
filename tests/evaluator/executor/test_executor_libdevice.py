"""Every function of Triton's libdevice module is known; those with one right result give it, run in kernels."""

import math
import re
from fractions import Fraction

import pytest
import torch

from avo.evaluator.executor import IRError, UnsupportedOperation, load
from avo.evaluator.executor.operations.libdevice import FUNCTIONS
from avo.evaluator.executor.operations.libdevice.bessel import MAX_ORDER
from tests.evaluator.executor.exact import rounded
from tests.evaluator.executor.libdevice_kernels import LISTED, kernel_of, run_all

ORACLE = "exact rationals"

ROUNDED = re.compile(r"([fd])(add|sub|mul|div|rcp|sqrt)_(r[nzdu])|(fmaf?)_(r[nzdu])")
TO_INTEGER = re.compile(r"(float|double)2(u?)(int|ll)_(r[nzdu])")
TO_FLOAT = re.compile(r"(u?)(int|ll|double)2(float|double)_(r[nzdu])")


@pytest.fixture(scope="module")
def results(executor, tmp_path_factory):
    """Return operands and results by symbol; Bessel functions are slow and tested elsewhere."""

    def wanted(symbol):
        return not symbol.startswith(("j", "y", "cyl"))

    return run_all(executor, tmp_path_factory.mktemp("libdevice"), wanted)


def test_every_function_of_tritons_module_is_known():
    beyond = {"fmax", "fmaxf", "fmin", "fminf"}  # Of libdevice, for kernels that call it themselves.
    assert {symbol for _, symbol, _, _ in LISTED} == FUNCTIONS.keys() - beyond


def flush(value, dtype):
    tiny = 2.0**-126 if dtype == torch.float32 else 0.0
    return math.copysign(0.0, value) if abs(value) < tiny else value


def exact_rounding(symbol, operands, dtype):
    """Return the result of arithmetic with a rounding mode on finite operands, None where there is no such result."""
    match = ROUNDED.fullmatch(symbol)
    name, mode = match[2] or "fma", match[3] or match[5]
    a, *rest = (Fraction(flush(value, dtype)) for value in operands)
    if name == "sqrt":
        if a < 0:
            return None
        near = Fraction(math.isqrt(int(a * 4**1400)), 2**1400)
        exact = near if near * near == a else near + Fraction(1, 2**1401)
    elif (name == "div" and rest[0] == 0) or (name == "rcp" and a == 0):
        return None
    else:
        exact = {
            "add": lambda b: a + b,
            "sub": lambda b: a - b,
            "mul": lambda b: a * b,
            "div": lambda b: a / b,
            "rcp": lambda: 1 / a,
            "fma": lambda b, c: a * b + c,
        }[name](*rest)
    return flush(rounded(exact, dtype, mode), dtype)


@pytest.mark.long
def test_arithmetic_with_a_rounding_mode_is_rounded_once_and_flushes_float32(results):
    checked = 0
    for symbol in filter(ROUNDED.fullmatch, results):
        operands, out = results[symbol]
        for values, got in zip(zip(*(o.tolist() for o in operands), strict=True), out.tolist(), strict=True):
            if all(map(math.isfinite, values)):
                expected = exact_rounding(symbol, values, out.dtype)
                assert expected is None or got == expected, (symbol, values, got, expected)
        checked += 1
    assert checked == 56


WHOLE = {"rn": round, "rz": math.trunc, "rd": math.floor, "ru": math.ceil}


def cvt(value, bits, is_signed, mode, wide):
    if math.isnan(value):
        return 2 ** (bits - 1) if wide or bits == 64 else 0
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if is_signed else (0, 2**bits - 1)
    return high if value > high else low if value < low else min(max(WHOLE[mode](value), low), high) % 2**bits


def test_conversions_to_integers_round_as_named_and_saturate(results):
    checked = 0
    for symbol in filter(TO_INTEGER.fullmatch, results):
        source, unsigned, width, mode = TO_INTEGER.fullmatch(symbol).groups()
        (x,), out = results[symbol]
        bits = 32 if width == "int" else 64
        for value, got in zip(x.tolist(), out.tolist(), strict=True):
            expected = cvt(flush(value, x.dtype), bits, not unsigned, mode, source == "double") % 2**bits
            assert got % 2**bits == expected, (symbol, value)
        checked += 1
    assert checked == 32


def test_conversions_to_floats_round_as_named(results):
    checked = 0
    for symbol in filter(TO_FLOAT.fullmatch, results):
        (x,), out = results[symbol]
        for value, got in zip(x.tolist(), out.tolist(), strict=True):
            if math.isfinite(value):
                assert got == rounded(Fraction(value), out.dtype, symbol[-2:]), (symbol, value)
        checked += 1
    assert checked == 30


def signed(value, bits):
    return (value + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1)


def prmt(a, b, selector):
    pool = (a % 2**32 | b % 2**32 << 32).to_bytes(8, "little")
    return int.from_bytes(bytes(pool[selector >> 4 * i & 7] for i in range(4)), "little")


INTEGERS = {
    "clz": lambda a: 32 - (a % 2**32).bit_length(),
    "clzll": lambda a: 64 - (a % 2**64).bit_length(),
    "popc": lambda a: (a % 2**32).bit_count(),
    "popcll": lambda a: (a % 2**64).bit_count(),
    "brev": lambda a: int(f"{a % 2**32:032b}"[::-1], 2),
    "brevll": lambda a: int(f"{a % 2**64:064b}"[::-1], 2),
    "ffs": lambda a: (a & -a).bit_length(),
    "ffsll": lambda a: (a & -a).bit_length(),
    "abs": abs,
    "llabs": abs,
    "mulhi": lambda a, b: a * b >> 32,
    "umulhi": lambda a, b: a * b >> 32,
    "mul64hi": lambda a, b: a * b >> 64,
    "umul64hi": lambda a, b: a * b >> 64,
    "mul24": lambda a, b: signed(a, 24) * signed(b, 24),
    "umul24": lambda a, b: a % 2**24 * (b % 2**24),
    "hadd": lambda a, b: a + b >> 1,
    "uhadd": lambda a, b: a + b >> 1,
    "rhadd": lambda a, b: a + b + 1 >> 1,
    "urhadd": lambda a, b: a + b + 1 >> 1,
    "sad": lambda a, b, c: abs(a - b) + c,
    "usad": lambda a, b, c: abs(a - b) + c,
    "byte_perm": prmt,
}


@pytest.mark.parametrize("symbol", INTEGERS)
def test_functions_of_integers_are_exact(results, symbol):
    operands, out = results[symbol]
    modulus = 2 ** (out.element_size() * 8)
    for values, got in zip(zip(*(o.tolist() for o in operands), strict=True), out.tolist(), strict=True):
        assert got % modulus == INTEGERS[symbol](*values) % modulus, values


def whole(function):
    return lambda x: math.copysign(float(function(x)), x) if math.isfinite(x) else x


def half_away(x):
    return math.copysign(math.floor(abs(Fraction(x)) + Fraction(1, 2)), x)


def guarded(function):
    def apply(*values):
        try:
            return function(*values)
        except ValueError:
            return math.nan

    return apply


def exponent(x):
    if math.isnan(x) or x == 0:
        return -(2**31)
    return 2**31 - 1 if math.isinf(x) else math.frexp(x)[1] - 1


def to_long(function):
    return lambda x: cvt(function(x) if math.isfinite(x) else x, 64, True, "rz", True)


def clamp_unit(x):
    return 0.0 if math.isnan(x) else abs(min(max(x, 0.0), 1.0))


PARTS = {
    "fabs": abs,
    "floor": whole(math.floor),
    "ceil": whole(math.ceil),
    "trunc": whole(math.trunc),
    "rint": whole(round),
    "nearbyint": whole(round),
    "round": whole(half_away),
    "copysign": math.copysign,
    "fdim": lambda a, b: math.nan if a != a or b != b else a - b if a > b else 0.0,
    "fmod": guarded(math.fmod),
    "remainder": guarded(math.remainder),
    "logb": lambda x: (
        math.nan if x != x else abs(x) if math.isinf(x) else -math.inf if x == 0 else math.frexp(x)[1] - 1.0
    ),
    "ilogb": exponent,
    "isnan": math.isnan,
    "isinf": math.isinf,
    "finite": math.isfinite,
    "isfinite": math.isfinite,
    "signbit": lambda x: math.copysign(1, x) < 0,
    "llrint": to_long(round),
    "llround": to_long(half_away),
    "saturate": clamp_unit,
}


@pytest.mark.parametrize("name", PARTS)
def test_parts_of_floats_are_exact(results, name):
    symbols = [symbol for symbol in (name, name + "f", name + "d") if symbol in results and symbol != "fabsd"]
    assert symbols
    for symbol in symbols:
        operands, out = results[symbol]
        dtype = operands[0].dtype
        for values, got in zip(zip(*(o.tolist() for o in operands), strict=True), out.tolist(), strict=True):
            if any(map(math.isnan, values)) and name in ("copysign", "signbit"):
                continue
            expected = PARTS[name](*(values if name == "copysign" else [flush(value, dtype) for value in values]))
            if name == "fdim" and math.isfinite(expected):
                expected = flush(rounded(Fraction(values[0]) - Fraction(values[1]), dtype), dtype) if expected else 0.0
            if out.is_floating_point() and math.isnan(expected):
                assert math.isnan(got), (symbol, values, got)
            else:
                if not out.is_floating_point():
                    expected = signed(int(expected), 64)
                elif name != "copysign":
                    expected = flush(expected, dtype)
                assert got == expected, (symbol, values, got)
                assert not out.is_floating_point() or got != 0 or math.copysign(1, got) == math.copysign(1, expected), (
                    values
                )


def test_numbers_are_moved_to_the_next_scaled_and_taken_apart(results):
    (x, y), out = results["nextafter"]
    assert torch.equal(out.nan_to_num(7), torch.nextafter(x, y).nan_to_num(7))
    (x, y), out = results["nextafterf"]
    for a, b, got in zip(x.tolist(), y.tolist(), out.tolist(), strict=True):
        a, b = flush(a, x.dtype), flush(b, x.dtype)
        if math.isnan(a) or math.isnan(b):
            assert math.isnan(got)
        elif a == 0 and b != 0:
            assert got == math.copysign(2.0**-126, b)
        else:
            step = torch.nextafter(torch.tensor(a, dtype=x.dtype), torch.tensor(b, dtype=x.dtype)).item()
            assert got == flush(step, x.dtype)
    for symbol in ("ldexp", "ldexpf", "scalbn", "scalbnf"):
        (x, n), out = results[symbol]
        for a, power, got in zip(x.tolist(), n.tolist(), out.tolist(), strict=True):
            a = flush(a, x.dtype)
            if not math.isfinite(a):
                assert got == a or math.isnan(a)
            else:
                exact = Fraction(a) * Fraction(2) ** min(max(power, -5000), 5000)
                assert got == flush(rounded(exact, x.dtype), x.dtype)
    for symbol in (
        "int_as_float",
        "uint_as_float",
        "float_as_int",
        "float_as_uint",
        "longlong_as_double",
        "double_as_longlong",
    ):
        (x,), out = results[symbol]
        wide = torch.int32 if out.element_size() == 4 else torch.int64
        assert torch.equal(out.view(wide), x.view(wide))
    high, low = (results[f"double2{part}int"][1] for part in ("hi", "lo"))
    (x,), _ = results["double2loint"]
    assert torch.equal((high.to(torch.int64) << 32) | (low.to(torch.int64) & 0xFFFFFFFF), x.view(torch.int64))
    (high, low), out = results["hiloint2double"]
    assert torch.equal(out.view(torch.int64), (high.to(torch.int64) << 32) | (low.to(torch.int64) & 0xFFFFFFFF))
    (x,), out = results["rcp64h"]
    usual = (x.abs() > 1e-300) & (x.abs() < 1e300)
    assert ((out * x - 1).abs() <= 2.0**-19)[usual].all()
    assert not (out.view(torch.int64) & 0xFFFFFFFF).any()


def test_fast_functions_are_put_together_as_on_the_gpu(results):
    (x,), out = results["fast_logf"]
    assert out[x == 0].tolist() == [-math.inf] * int((x == 0).sum())
    assert out[(x.abs() > 0) & (x.abs() < 2.0**-126)].isinf().all()  # Flushed.
    for name, reference in (("sin", torch.sin), ("cos", torch.cos), ("exp", torch.exp), ("log", torch.log)):
        (x,), out = results[f"fast_{name}f"]
        near = (x.abs() < 12) & (x.abs() > 1e-30)
        torch.testing.assert_close(
            out[near].double(), reference(x[near].double()), rtol=3e-6, atol=1e-6, equal_nan=True
        )
    for name, reference in (("tan", torch.tan), ("log2", torch.log2), ("log10", torch.log10)):
        (x,), out = results[f"fast_{name}f"]
        near = (x.abs() < 12) & (x.abs() > 1e-30)
        torch.testing.assert_close(
            out[near].double(), reference(x[near].double()), rtol=3e-6, atol=1e-6, equal_nan=True
        )
    (x,), out = results["fast_exp10f"]
    torch.testing.assert_close(out[x.abs() < 12].double(), 10 ** x[x.abs() < 12].double(), rtol=3e-6, atol=0)
    (x, y), out = results["fast_powf"]
    assert out[(x < -1e-30) & (y.abs() < 1e30)].isnan().all()
    power = (x > 1e-3) & (x < 12) & (y.abs() < 5)
    torch.testing.assert_close(out[power].double(), x[power].double() ** y[power].double(), rtol=1e-5, atol=0)
    (x, y), out = results["fast_fdividef"]
    beyond = (y.abs() > 2.0**126) & torch.isfinite(x)
    assert beyond.any()
    assert not out[beyond].any()
    (x,), out = results["frsqrt_rn"]
    normal_ = (x >= 2.0**-126) & (x < math.inf)
    assert torch.equal(out[normal_], (1 / x[normal_].double().sqrt()).float())


def test_other_symbols_and_types_are_refused_by_name(executor, tmp_path):
    kernel = kernel_of(tmp_path / "one.py", 1, ["sin"])
    ttir = executor.lower(kernel, {"A": "*fp32", "Out": "*fp32"}, {"SIZE": 32})
    load(ttir)
    for symbol in ("__nv_sin", "__nv_made_up", "sinf"):
        with pytest.raises(UnsupportedOperation, match=rf"tt\.extern_elementwise {symbol} at .*one\.py:\d+"):
            load(ttir.replace("__nv_sinf", symbol))


def test_orders_of_bessel_functions_end_somewhere(executor, tmp_path):
    kernel = kernel_of(tmp_path / "order.py", 2, ["jn"])
    order = torch.full((32,), MAX_ORDER + 1, dtype=torch.int32)
    with pytest.raises(IRError, match=f"up to order {MAX_ORDER}"):
        executor.run(kernel, order, torch.ones(32), torch.zeros(32), SIZE=32)
