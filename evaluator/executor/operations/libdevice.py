"""Functions of CUDA's libdevice."""

import torch

from evaluator.executor.errors import UnsupportedOperation
from evaluator.executor.ir import Op
from evaluator.executor.operations.floats import atan2, cosh, exp2, power, rsqrt, sinh
from evaluator.executor.operations.registry import Elementwise, Types, check_variant, elementwise

_LIBDEVICE: dict[str, Elementwise] = {
    "acos": torch.acos,
    "asin": torch.asin,
    "atan": torch.atan,
    "atan2": atan2,
    "ceil": torch.ceil,
    "cos": torch.cos,
    "cosh": cosh,
    "erf": torch.erf,
    "erfc": torch.erfc,
    "exp": torch.exp,
    "exp2": exp2,
    "expm1": torch.expm1,
    "fabs": torch.abs,
    "floor": torch.floor,
    "fmax": torch.fmax,
    "fmin": torch.fmin,
    "fmod": torch.fmod,
    "log": torch.log,
    "log10": torch.log10,
    "log1p": torch.log1p,
    "log2": torch.log2,
    "nearbyint": torch.round,
    "pow": power,
    "rint": torch.round,
    "rsqrt": rsqrt,
    "sin": torch.sin,
    "sinh": sinh,
    "sqrt": torch.sqrt,
    "tan": torch.tan,
    "tanh": torch.tanh,
    "trunc": torch.trunc,
}
"""CUDA's libdevice by name, without its prefix ``__nv_`` and the ``f`` of the float32 variant."""


@elementwise("tt.extern_elementwise")
def _extern(op: Op, types: Types) -> Elementwise:
    check_variant(op, attributes=["symbol", "pure", "libname", "libpath"])
    symbol = op.attributes.get("symbol", "").strip('"')
    element = types[op.results[0]].element
    name = symbol.removeprefix("__nv_").removeprefix("fast_")
    if element == "f32":
        name = name.removesuffix("f")
    function = _LIBDEVICE.get(name)
    same = all(types[operand].element == element for operand in op.operands)
    if function is None or element not in ("f32", "f64") or not same:
        raise UnsupportedOperation(f"tt.extern_elementwise {symbol[:60]}", op.location)
    return function
