"""Functions of libdevice and the types that they take and return."""

from dataclasses import dataclass

import torch

from avo.evaluator.executor.operations.registry import Elementwise


@dataclass(frozen=True, slots=True)
class LibdeviceFunction:
    """A function of libdevice with its element types. Integers have no sign, as in the IR."""

    args: tuple[str, ...]
    result: str
    apply: Elementwise


def both_widths(table: dict[str, Elementwise], arity: int) -> dict[str, LibdeviceFunction]:
    """Return the float32 function (``f`` appended to its name) and the float64 one for each entry of a table."""
    single = {name + "f": LibdeviceFunction(("f32",) * arity, "f32", function) for name, function in table.items()}
    return single | {name: LibdeviceFunction(("f64",) * arity, "f64", function) for name, function in table.items()}


def in_double(function: Elementwise) -> Elementwise:
    """Return a function of float32 or float64 that computes in float64 and rounds once."""

    def apply(*operands: torch.Tensor) -> torch.Tensor:
        dtype = operands[0].dtype
        return function(*(operand.to(torch.float64) for operand in operands)).to(dtype)

    return apply
