"""Registers of PTX that say which SM runs a program, and what time it is: kernels read them by inline assembly.

Only a session whose kernels nobody judges answers, so that no candidate can tell an execution from a measurement.
"""

import re
from collections.abc import Sequence

import torch

from avo.evaluator.executor.dtypes import DTYPES
from avo.evaluator.executor.frame import Frame, Step
from avo.evaluator.executor.ir import Op, Type
from avo.evaluator.executor.lexer import unquoted

_ASKED = re.compile(r"mov\.[usb](32|64) \$0, %(\w+);")
_CONSTRAINTS = {"32": "=r", "64": "=l"}
_WIDTHS = {"smid": "32", "globaltimer": "64", "clock64": "64", "clock": "32"}


def answer(op: Op, types: Sequence[Type], sms: int) -> Step | None:
    """Return the step of inline assembly that only reads such a register of a GPU with ``sms`` SMs, else None."""
    if op.name != "tt.elementwise_inline_asm" or op.operands or not sms or len(op.words) != 1 or len(op.results) != 1:
        return None
    asked = _ASKED.fullmatch(" ".join(unquoted(op.words[0]).split()))
    width, register = asked.groups() if asked else ("", "")
    if _WIDTHS.get(register) != width or types[op.results[0]] != Type(f"i{width}"):
        return None
    if unquoted(op.attributes.get("constraints", "")) != _CONSTRAINTS[width]:
        return None

    def run(frame: Frame) -> None:
        if register == "smid":
            value = frame.ids() % sms  # programs take the SMs in turn, in the order of their linear ids
        else:
            value = torch.tensor([next(frame.run.clock)]) & 2 ** (int(width) - 1) - 1
        frame.slots[op.results[0]] = value.to(DTYPES[f"i{width}"])

    return run
