"""Functions of CUDA's libdevice, as ``triton.language.extra.libdevice`` names them.

Triton links libdevice so that its float32 functions flush subnormal numbers to zero (``nvvm-reflect-ftz``). Where the
result of such a function is fixed - arithmetic with a rounding mode, conversions, the parts of a number - the flushing
is done here too; the others are computed to a unit in the last place of the true value, subnormal or not.
"""

from avo.evaluator.executor.errors import UnsupportedOperation
from avo.evaluator.executor.ir import Op
from avo.evaluator.executor.operations.libdevice.functions import MATH_FUNCTIONS
from avo.evaluator.executor.operations.libdevice.integers import INTEGER_FUNCTIONS
from avo.evaluator.executor.operations.libdevice.parts import PART_FUNCTIONS
from avo.evaluator.executor.operations.libdevice.rounded import ROUNDED_FUNCTIONS
from avo.evaluator.executor.operations.libdevice.signature import LibdeviceFunction
from avo.evaluator.executor.operations.registry import Elementwise, Types, check_variant, elementwise

FUNCTIONS: dict[str, LibdeviceFunction] = INTEGER_FUNCTIONS | MATH_FUNCTIONS | PART_FUNCTIONS | ROUNDED_FUNCTIONS
"""Functions by symbol, without the prefix ``__nv_``."""


@elementwise("tt.extern_elementwise")
def _extern(op: Op, types: Types) -> Elementwise:
    check_variant(op, attributes=["symbol", "pure", "libname", "libpath"])
    symbol = op.attributes.get("symbol", "").strip('"')
    function = FUNCTIONS.get(symbol.removeprefix("__nv_")) if symbol.startswith("__nv_") else None
    args = tuple(types[operand].element for operand in op.operands)
    if function is None or (args, types[op.results[0]].element) != (function.args, function.result):
        raise UnsupportedOperation(f"tt.extern_elementwise {symbol[:60]}", op.location)
    return function.apply
