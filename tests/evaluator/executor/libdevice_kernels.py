"""Kernels made of Triton's list of libdevice functions, and what to run them on."""

import importlib.util
import re
from collections import defaultdict

import torch
from triton.language.extra.cuda import libdevice

from tests.evaluator.executor.elementwise_kernels import integer_pairs
from tests.evaluator.executor.exact import edges, numbers

DTYPES = {
    "int32": torch.int32,
    "uint32": torch.uint32,
    "int64": torch.int64,
    "uint64": torch.uint64,
    "fp32": torch.float32,
    "fp64": torch.float64,
}
SIZE = 256


def listed():
    """Return (python name, symbol, argument types, result type) as Triton's module lists them."""
    with open(libdevice.__file__) as file:
        text = file.read()
    found, name = [], ""
    pattern = r'^def (\w+)\(|\(\s*((?:core\.dtype\("\w+"\),?\s*)+)\):\s*\(\s*"__nv_(\w+)",\s*core\.dtype\("(\w+)"\)'
    for match in re.finditer(pattern, text, re.MULTILINE):
        name = match[1] or name
        if not match[1]:
            found.append((name, match[3], tuple(re.findall(r'"(\w+)"', match[2])), match[4]))
    assert {symbol for _, symbol, _, _ in found} == set(re.findall(r'"__nv_(\w+)"', text))
    return found


LISTED = listed()
"""Python name, symbol, argument types, result type."""

KERNEL = """
import triton
import triton.language as tl
from triton.language.extra import libdevice


@triton.jit
def kernel({parameters}, Out, SIZE: tl.constexpr):
    i = tl.arange(0, SIZE)
{loads}
{stores}
"""


def kernel_of(path, arity, names):
    """Return a kernel that stores one function's results after the other's."""
    operands = ["abcd"[i] for i in range(arity)]
    text = KERNEL.format(
        parameters=", ".join(operand.upper() for operand in operands),
        loads="\n".join(f"    {operand} = tl.load({operand.upper()} + i)" for operand in operands),
        stores="\n".join(
            f"    tl.store(Out + {k} * SIZE + i, libdevice.{name}({', '.join(operands)}))"
            for k, name in enumerate(names)
        ),
    )
    path.write_text(text)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.kernel


def operand(kind, place):
    dtype = DTYPES[kind]
    if not kind.startswith("fp"):
        pairs = integer_pairs(dtype)
        return pairs[place] if place < 2 else torch.tensor(pairs[0].tolist()[::-1], dtype=dtype)
    special = edges(dtype)
    spread = torch.linspace(-12, 12, 99), torch.linspace(-1, 1, 52)
    values = torch.cat([special, numbers(dtype, 80, place), *(part.to(dtype) for part in spread)])
    return values if place == 0 else values[torch.randperm(SIZE, generator=torch.Generator().manual_seed(place))]


def run_all(executor, folder, wanted):
    """Run every function whose symbol is wanted; return operands and results by symbol."""
    groups = defaultdict(list)
    for name, symbol, args, result in LISTED:
        if wanted(symbol):
            groups[args, result].append((name, symbol))
    made = {}
    for k, ((args, result), functions) in enumerate(groups.items()):
        operands = [operand(kind, place) for place, kind in enumerate(args)]
        if functions[0][0] in ("jn", "yn"):
            operands[0] = (torch.arange(SIZE) % 40 - 1).int()
        out = torch.zeros(len(functions) * SIZE, dtype=DTYPES[result])
        kernel = kernel_of(folder / f"kernel{k}.py", len(args), [name for name, _ in functions])
        executor.run(kernel, *operands, out, SIZE=SIZE)
        for (_, symbol), part in zip(functions, out.view(-1, SIZE), strict=True):
            made[symbol] = operands, part
    return made
