"""Kernels of elementwise operations, and what to run them on. As a script: store what Triton's interpreter makes of
them.

TRITON_INTERPRET=1 python -m tests.evaluator.executor.elementwise_kernels OUT.pt
"""

import random
import sys

import torch
import triton
import triton.language as tl
from triton.runtime.errors import InterpreterError

from tests.evaluator.executor.exact import edges, numbers

INTEGER_TYPES = (
    torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8, torch.uint16, torch.uint32, torch.uint64,
)  # fmt: skip
INTEGER_NAMES = (
    "add", "sub", "mul", "div", "rem", "and", "or", "xor", "shl", "shr", "min", "max", "neg", "not", "eq", "ne",
    "lt", "le", "gt", "ge", "where", "clamp", "abs", "umulhi",
)  # fmt: skip
BOOLEAN_NAMES = (
    "add", "sub", "mul", "and", "or", "xor", "not", "eq", "ne", "lt", "le", "gt", "ge", "min", "max", "where",
    "extend",
)  # fmt: skip
FLOAT_NAMES = (
    "add", "sub", "mul", "fma", "min", "max", "min_nan", "max_nan", "clamp", "clamp_nan", "neg", "abs", "eq",
    "ne", "lt", "le", "gt", "ge", "where",
)  # fmt: skip
FUNCTION_NAMES = (
    "exp", "exp2", "log", "log2", "sin", "cos", "sqrt", "rsqrt", "erf", "floor", "ceil", "sigmoid", "div",
    "rem",
)  # fmt: skip


@triton.jit
def store_all(out, values, SIZE: tl.constexpr):
    for n in tl.static_range(len(values)):
        tl.store(out + n * SIZE, values[n])


@triton.jit
def integers(X, Y, Out, SIZE: tl.constexpr, WIDE: tl.constexpr):
    i = tl.arange(0, SIZE)
    x, y = tl.load(X + i), tl.load(Y + i)
    bits: tl.constexpr = x.dtype.primitive_bitwidth
    divisor = tl.where(y == 0, 1, y).to(x.dtype)
    shift = y & (bits - 1)
    values = (
        x + y, x - y, x * y, x // divisor, x % divisor, x & y, x | y, x ^ y, x << shift, x >> shift, tl.minimum(x, y),
        tl.maximum(x, y), -x, ~x, (x == y).to(x.dtype), (x != y).to(x.dtype), (x < y).to(x.dtype), (x <= y).to(x.dtype),
        (x > y).to(x.dtype), (x >= y).to(x.dtype), tl.where(x < y, y, x),
        tl.minimum(tl.maximum(x, tl.minimum(y, 7)), 7), tl.abs(x),
    )  # fmt: skip
    store_all(Out + i, values, SIZE)
    if WIDE:
        tl.store(Out + 23 * SIZE + i, tl.umulhi(x, y))


@triton.jit
def booleans(X, Y, Out, SIZE: tl.constexpr):
    i = tl.arange(0, SIZE)
    x, y = tl.load(X + i), tl.load(Y + i)
    values = (
        x + y, x - y, x * y, x & y, x | y, x ^ y, ~x, x == y, x != y, x < y, x <= y, x > y, x >= y, tl.minimum(x, y),
        tl.maximum(x, y), tl.where(x, y, ~y), (x.to(tl.int32) + y.to(tl.float32) == 2).to(tl.int1),
    )  # fmt: skip
    store_all(Out + i, values, SIZE)


@triton.jit
def floats(X, Y, Z, Out, SIZE: tl.constexpr):
    i = tl.arange(0, SIZE)
    x, y, z = tl.load(X + i), tl.load(Y + i), tl.load(Z + i)
    values = (
        x + y, x - y, x * y, tl.fma(x, y, z), tl.minimum(x, y), tl.maximum(x, y),
        tl.minimum(x, y, propagate_nan=tl.PropagateNan.ALL), tl.maximum(x, y, propagate_nan=tl.PropagateNan.ALL),
        tl.clamp(x, -1.0, 2.0), tl.clamp(x, -1.0, 2.0, propagate_nan=tl.PropagateNan.ALL), -x, tl.abs(x),
        (x == y).to(x.dtype), (x != y).to(x.dtype), (x < y).to(x.dtype), (x <= y).to(x.dtype), (x > y).to(x.dtype),
        (x >= y).to(x.dtype), tl.where(x < y, x, z),
    )  # fmt: skip
    store_all(Out + i, values, SIZE)


@triton.jit
def functions(X, Y, Out, SIZE: tl.constexpr):
    i = tl.arange(0, SIZE)
    x, y = tl.load(X + i), tl.load(Y + i)
    values = (
        tl.exp(x), tl.exp2(x), tl.log(x), tl.log2(x), tl.sin(x), tl.cos(x), tl.sqrt(x), tl.rsqrt(x), tl.erf(x),
        tl.floor(x), tl.ceil(x), tl.sigmoid(x), x / y, x % y,
    )  # fmt: skip
    store_all(Out + i, values, SIZE)


@triton.jit
def precise(X, Y, Out, SIZE: tl.constexpr):
    i = tl.arange(0, SIZE)
    x, y = tl.load(X + i), tl.load(Y + i)
    tl.store(Out + i, tl.sqrt_rn(x))
    tl.store(Out + SIZE + i, tl.div_rn(x, y))


def integer_pairs(dtype):
    """Return two tensors [256]: every pair of ends of the range, and numbers between."""
    info = torch.iinfo(dtype)
    ends = [end for end in (info.min, info.min + 1, -1, 0, 1, 2, 7, info.max - 1, info.max) if info.min <= end]
    source = random.Random(0)
    pairs = [(a, b) for a in ends for b in ends]
    pairs += [tuple(source.randint(info.min, info.max) for _ in range(2)) for _ in range(256 - len(pairs))]
    return tuple(torch.tensor(side, dtype=dtype) for side in zip(*pairs, strict=True))


def float_pairs(dtype, seed=0):
    """Return three tensors [1024]: every pair of edge values, and numbers of all magnitudes."""
    special = edges(dtype)
    x, y, z = (numbers(dtype, 1024, seed + i) for i in range(3))
    count = len(special) ** 2
    x[:count] = special.repeat_interleave(len(special))
    y[:count] = special.repeat(len(special))
    z[:count:3] = (-x[:count:3].double() * y[:count:3].double()).to(dtype)  # What a multiply-add cancels.
    return x, y, z


def cases():
    """Return (name, kernel, arguments, constants); the last argument is what the kernel fills."""
    made = []
    for dtype in INTEGER_TYPES:
        x, y = integer_pairs(dtype)
        out = torch.zeros(len(INTEGER_NAMES) * 256, dtype=dtype)
        wide = dtype in (torch.int32, torch.int64, torch.uint32, torch.uint64)
        made.append((f"integers-{dtype}", integers, (x, y, out), {"SIZE": 256, "WIDE": wide}))
    x, y = torch.tensor([False, False, True, True] * 4), torch.tensor([False, True] * 8)
    made.append(("booleans", booleans, (x, y, torch.zeros(17 * 16, dtype=torch.bool)), {"SIZE": 16}))
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        x, y, z = float_pairs(dtype)
        out = torch.zeros(len(FLOAT_NAMES) * 1024, dtype=dtype)
        made.append((f"floats-{dtype}", floats, (x, y, z, out), {"SIZE": 1024}))
    return made


if __name__ == "__main__":
    results = {}
    for name, kernel, args, constants in cases():
        try:
            kernel[(1,)](*args, **constants)
        except InterpreterError as error:  # Of Triton 3.6: it cannot invert unsigned integers.
            print(name, error)
        else:
            results[name] = args[-1]
    torch.save(results, sys.argv[1])
