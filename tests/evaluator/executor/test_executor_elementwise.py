"""Kernels of elementwise operations agree with exact arithmetic, and with Triton's interpreter where that is right."""

import math
import os
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
import torch

from tests.evaluator.executor import elementwise_kernels as kernels
from tests.evaluator.executor.approximations import APPROXIMATIONS
from tests.evaluator.executor.exact import edges, numbers, rounded, same

ORACLE = "exact rationals, Triton's interpreter"


def truncated(a, b):
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


@pytest.fixture(scope="module")
def ran(executor):
    """Every case of the kernels by name, run: arguments, elements per operation."""
    made = {}
    for name, kernel, args, constants in kernels.cases():
        executor.run(kernel, *args, **constants)
        made[name] = args, constants["SIZE"]
    return made


WHOLE = {
    "add": lambda a, b, bits: a + b,
    "sub": lambda a, b, bits: a - b,
    "mul": lambda a, b, bits: a * b,
    "div": lambda a, b, bits: truncated(a, b or 1),
    "rem": lambda a, b, bits: a - (b or 1) * truncated(a, b or 1),
    "and": lambda a, b, bits: a & b,
    "or": lambda a, b, bits: a | b,
    "xor": lambda a, b, bits: a ^ b,
    "shl": lambda a, b, bits: a << (b & bits - 1),
    "shr": lambda a, b, bits: a >> (b & bits - 1),
    "min": lambda a, b, bits: min(a, b),
    "max": lambda a, b, bits: max(a, b),
    "neg": lambda a, b, bits: -a,
    "not": lambda a, b, bits: ~a,
    "eq": lambda a, b, bits: int(a == b),
    "ne": lambda a, b, bits: int(a != b),
    "lt": lambda a, b, bits: int(a < b),
    "le": lambda a, b, bits: int(a <= b),
    "gt": lambda a, b, bits: int(a > b),
    "ge": lambda a, b, bits: int(a >= b),
    "where": lambda a, b, bits: b if a < b else a,
    "clamp": lambda a, b, bits: min(max(a, min(b, 7)), 7),
    "abs": lambda a, b, bits: abs(a),
    "umulhi": lambda a, b, bits: a % 2**bits * (b % 2**bits) >> bits,
}


@pytest.mark.parametrize("dtype", kernels.INTEGER_TYPES, ids=str)
def test_kernels_of_integers_are_exact_modulo_their_width(ran, dtype):
    (x, y, out), size = ran[f"integers-{dtype}"]
    bits = torch.iinfo(dtype).bits
    names = [name for name in kernels.INTEGER_NAMES if name != "umulhi" or bits >= 32]
    for name, part in zip(names, out.view(-1, size), strict=False):
        expected = [WHOLE[name](a, b, bits) % 2**bits for a, b in zip(x.tolist(), y.tolist(), strict=True)]
        assert [value % 2**bits for value in part.tolist()] == expected, name


def test_kernels_of_booleans_compute_modulo_two_unsigned(ran):
    (x, y, out), size = ran["booleans"]
    a, b = x.int(), y.int()
    one = torch.ones_like(a)
    expected = [a ^ b, a ^ b, a & b, a & b, a | b, a ^ b, one - a, a == b, a != b, a < b, a <= b, a > b, a >= b]
    expected += [a & b, a | b, torch.where(x, b, one - b), a & b]
    for name, part, values in zip(kernels.BOOLEAN_NAMES, out.view(-1, size), expected, strict=True):
        assert part.tolist() == values.bool().tolist(), name


def least(a, b, keep_nan):
    if math.isnan(a) or math.isnan(b):
        return math.nan if keep_nan or (math.isnan(a) and math.isnan(b)) else b if math.isnan(a) else a
    return min(a, b) if a != b else math.copysign(a, min(math.copysign(1, a), math.copysign(1, b)))


def greatest(a, b, keep_nan):
    return -least(-a, -b, keep_nan)


def exact_float(name, a, b, c, dtype):
    finite = math.isfinite(a) and math.isfinite(b)
    if name in ("add", "sub"):
        b = -b if name == "sub" else b
        return (rounded(Fraction(a) + Fraction(b), dtype) or a + b) if finite else a + b
    if name == "mul" or (name == "fma" and not finite):
        product = a * b
        if finite:
            product = math.copysign(
                rounded(Fraction(a) * Fraction(b), dtype), math.copysign(1, a) * math.copysign(1, b)
            )
        return product if name == "mul" else a * b + c
    if name == "fma":
        if not math.isfinite(c):
            return c
        exact = Fraction(a) * Fraction(b) + Fraction(c)
        zero = a * b + c if 0 in (a, b) else 0.0
        return math.copysign(rounded(exact, dtype), 1 if exact > 0 else -1) if exact else zero
    compare = {"eq": a == b, "ne": a != b, "lt": a < b, "le": a <= b, "gt": a > b, "ge": a >= b}
    values = {
        "min": least(a, b, False),
        "max": greatest(a, b, False),
        "min_nan": least(a, b, True),
        "max_nan": greatest(a, b, True),
        "clamp": least(greatest(a, -1.0, False), 2.0, False),
        "clamp_nan": least(greatest(a, -1.0, True), 2.0, True),
        "neg": -a,
        "abs": abs(a),
        "where": a if a < b else c,
    }
    return float(compare[name]) if name in compare else values[name]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_kernels_of_floats_round_once_and_keep_signs_of_zeros_and_subnormals(ran, dtype):
    (x, y, z, out), size = ran[f"floats-{dtype}"]
    operands = list(zip(*(operand.double().tolist() for operand in (x, y, z)), strict=True))
    for name, part in zip(kernels.FLOAT_NAMES, out.view(-1, size), strict=True):
        expected = torch.tensor([exact_float(name, *values, dtype) for values in operands], dtype=torch.float64)
        if name == "neg":  # Triton 3.6 subtracts from +0.
            part, expected = part + 0.0, expected + 0.0
        wrong = (~same(part, expected.to(dtype))).nonzero().flatten().tolist()
        assert not wrong, (name, operands[wrong[0]], part[wrong[0]].item(), expected[wrong[0]].item())


WRONG_IN_THE_INTERPRETER = {
    "integers": ("umulhi",),
    "floats": ("fma", "min", "max", "min_nan", "max_nan", "clamp", "clamp_nan"),
}
"""What Triton's interpreter, that of 3.6 at least, gets wrong: signed, rounded twice, NaN kept, -0 taken for +0. It
also keeps bfloat16 as float32.
"""


@pytest.mark.long
def test_kernels_agree_with_the_interpreter_where_that_is_right(ran, tmp_path):
    path = tmp_path / "interpreted.pt"
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", "-m", "tests.evaluator.executor.elementwise_kernels", str(path)]
    subprocess.run(command, env=environment, check=True, timeout=600)
    results = torch.load(path)
    assert results.keys() >= {"integers-torch.int32", "floats-torch.float16", "floats-torch.float32"}
    for case, interpreted in results.items():
        kind, (args, size) = case.split("-")[0], ran[case]
        names = {"integers": kernels.INTEGER_NAMES, "floats": kernels.FLOAT_NAMES, "booleans": kernels.BOOLEAN_NAMES}[
            kind
        ]
        for name, got, expected in zip(names, args[-1].view(-1, size), interpreted.view(-1, size), strict=True):
            wrong = "bfloat16" in case or name in WRONG_IN_THE_INTERPRETER.get(kind, ())
            assert wrong or bool(same(got, expected).all()), (case, name)


def run_functions(executor, dtype):
    x = torch.cat([numbers(dtype, 400, 1), torch.linspace(-20, 20, 999).to(dtype), edges(dtype)])
    x = torch.cat([x, torch.zeros(2048 - len(x), dtype=dtype)])
    y = numbers(dtype, 2048, 2)
    out = torch.zeros(len(kernels.FUNCTION_NAMES) * 2048, dtype=dtype)
    executor.run(kernels.functions, x, y, out, SIZE=2048)
    return x, y, dict(zip(kernels.FUNCTION_NAMES, out.view(-1, 2048), strict=True))


REFERENCES = {
    "exp": np.exp,
    "exp2": np.exp2,
    "log": np.log,
    "log2": np.log2,
    "sin": np.sin,
    "cos": np.cos,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "sqrt": np.sqrt,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "erf": np.vectorize(math.erf),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_functions_are_within_the_bounds_of_the_gpus_own(executor, dtype):
    """The reference is float64: for float64 itself it is as far off as what it is compared with."""
    x, _, results = run_functions(executor, dtype)
    element = "f32" if dtype == torch.float32 else "f64"
    bounds = {entry.operation: entry for entry in APPROXIMATIONS if entry.element == element}
    tiny, top = torch.finfo(dtype).tiny, torch.finfo(dtype).max
    for name, reference in REFERENCES.items():
        flushes = name in ("sqrt", "rsqrt") and dtype == torch.float32
        with np.errstate(all="ignore"):
            operand = torch.where(x.abs() < tiny, x * 0, x) if flushes else x
            expected = torch.from_numpy(reference(operand.double().numpy()))
        got = results[name].double()
        finite = expected.abs() < top
        assert bool(same(got, expected)[~finite & ~(expected.abs() < math.inf)].all()), name
        bound = bounds.get("math.exp" if name == "sigmoid" else f"math.{name}")
        allowed = torch.full_like(expected, 1 + (bound.ulps if bound else 1))
        if name in ("exp", "sigmoid") and dtype == torch.float32:
            allowed += x.double().abs().nan_to_num(0.0)  # The rounded product in the exponent.
        units = (got - expected).abs() / (torch.finfo(dtype).eps * expected.abs().clamp(min=tiny))
        assert bool((units <= allowed)[finite].all()), (name, units[finite].max())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_division_is_exact_and_floor_and_ceil_flush_subnormal_float32(executor, dtype):
    x, y, results = run_functions(executor, dtype)
    with np.errstate(all="ignore"):
        assert bool(same(results["div"], torch.from_numpy(x.numpy() / y.numpy())).all())
    flushed = torch.where(x.abs() < torch.finfo(dtype).tiny, x * 0, x) if dtype == torch.float32 else x
    assert bool(same(results["floor"], torch.floor(flushed)).all())
    assert bool(same(results["ceil"], torch.ceil(flushed)).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_remainders_are_those_of_the_rounded_quotient(executor, dtype):
    """LLVM expands remainders like this for NVIDIA: the remainder of a quotient that rounds up is negative."""
    x, y, results = run_functions(executor, dtype)
    for a, b, got in zip(x.tolist(), y.tolist(), results["rem"].tolist(), strict=True):
        if not math.isfinite(a):
            assert math.isnan(got)
            continue
        quotient = rounded(Fraction(a) / Fraction(b), dtype)
        if math.isfinite(quotient):
            assert got == rounded(Fraction(a) - math.trunc(quotient) * Fraction(b), dtype)


def test_precise_roots_and_quotients_are_rounded_to_nearest(executor):
    x, y = numbers(torch.float32, 2048, 5).abs(), numbers(torch.float32, 2048, 6)
    out = torch.zeros(2 * 2048)
    executor.run(kernels.precise, x, y, out, SIZE=2048)
    root, quotient = out.view(2, -1)
    with np.errstate(all="ignore"):
        assert torch.equal(root, torch.from_numpy(np.sqrt(x.numpy())))
        assert torch.equal(quotient, torch.from_numpy(x.numpy() / y.numpy()))
