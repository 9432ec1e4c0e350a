"""``tt.dot``: matrix products with the accuracy of the tensor cores."""

import torch

from evaluator.executor.errors import UnsupportedOperation
from evaluator.executor.frame import Frame, Step
from evaluator.executor.ir import Op
from evaluator.executor.operations.casts import round_tf32
from evaluator.executor.operations.registry import Types, check_variant, step
from evaluator.executor.values import DTYPES, full

Tensor = torch.Tensor


def _bf16(value: Tensor) -> Tensor:
    return value.to(torch.bfloat16).to(torch.float32)


_PRECISIONS = {
    "ieee": None,
    "tf32": (round_tf32, 1),
    "tf32x3": (round_tf32, 2),
    "bf16x3": (_bf16, 2),
    "bf16x6": (_bf16, 3),
}
"""How float32 operands are taken: rounded to a shorter type, the x variants with remainders as further terms."""


def _terms(value: Tensor, precision: str) -> list[Tensor]:
    how = _PRECISIONS[precision]
    if how is None:
        return [value]
    rounding, count = how
    terms = []
    for _ in range(count):
        terms.append(rounding(value))
        value = value - terms[-1]
    return terms


def _product(a: Tensor, b: Tensor, precision: str) -> Tensor:
    left, right = _terms(a, precision), _terms(b, precision)
    result: Tensor | None = None
    for i in reversed(range(len(left))):
        for j in reversed(range(len(left) - i)):
            product = torch.matmul(left[i], right[j])
            result = product if result is None else result + product
    assert result is not None
    return result


@step("tt.dot")
def _dot(op: Op, types: Types) -> Step:
    check_variant(op, attributes=["inputPrecision", "maxNumImpreciseAcc"])
    precision = op.attributes.get("inputPrecision", "ieee")
    if precision not in _PRECISIONS:
        raise UnsupportedOperation(f"tt.dot with inputPrecision {precision[:60]}", op.location)
    a_slot, b_slot, c_slot = op.operands
    a_type, b_type, c_type = types[a_slot], types[b_slot], types[c_slot]
    # Sums of 8-bit integer products are exact in float64; everything else accumulates in float32 as the hardware does.
    inner = torch.float32 if a_type.floating and a_type.element != "f64" else torch.float64
    short = a_type.element == "f32" == b_type.element
    accumulator = DTYPES[c_type.element]
    result = op.results[0]

    def run(frame: Frame) -> None:
        a = full(frame.tensor(a_slot), a_type).to(inner)
        b = full(frame.tensor(b_slot), b_type).to(inner)
        c = frame.tensor(c_slot)
        product = _product(a, b, precision) if short else torch.matmul(a, b)
        if accumulator == torch.int32:
            frame.slots[result] = product.to(torch.int64).to(torch.int32) + c
        elif c.numel() == 1 and not bool(c):
            frame.slots[result] = product.to(accumulator)
        else:
            frame.slots[result] = (product + c.to(inner)).to(accumulator)

    return run
