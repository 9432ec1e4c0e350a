"""Registers of PTX that say which SM runs a program, and what time it is: kernels read them by inline assembly.

Only a session whose kernels nobody judges answers, so that no candidate can tell an execution from a measurement.
"""

import re
from collections.abc import Callable, Mapping, Sequence

import torch

from avo.evaluator.executor.dtypes import DTYPES
from avo.evaluator.executor.frame import Frame, Step
from avo.evaluator.executor.ir import Op, Type
from avo.evaluator.executor.lexer import unquoted

_ASKED = re.compile(r"mov\.[usb](32|64) \$0, %(\w+);")
_CONSTRAINTS = {"i32": "=r", "i64": "=l"}
_Answer = Callable[[Frame, int], torch.Tensor]


def _time(frame: Frame, sms: int) -> torch.Tensor:
    return torch.tensor([next(frame.run.clock)])


_ANSWERS: Mapping[tuple[str, str], _Answer] = {
    ("32", "smid"): lambda frame, sms: frame.ids() % sms,
    ("64", "globaltimer"): _time,
    ("64", "clock64"): _time,
    ("32", "clock"): lambda frame, sms: _time(frame, sms) % 2**31,
}
"""By width and name. Programs take the SMs in turn, in the order of their linear ids."""


def answer(op: Op, types: Sequence[Type], sms: int) -> Step | None:
    """Return the step of inline assembly that only reads such a register of a GPU with ``sms`` SMs, else None."""
    if op.name != "tt.elementwise_inline_asm" or op.operands or not sms or len(op.words) != 1 or len(op.results) != 1:
        return None
    kind, asked = types[op.results[0]], _ASKED.fullmatch(" ".join(unquoted(op.words[0]).split()))
    known = _ANSWERS.get((asked[1], asked[2])) if asked and kind == Type(f"i{asked[1]}") else None
    if known is None or unquoted(op.attributes.get("constraints", "")) != _CONSTRAINTS[kind.element]:
        return None

    def run(frame: Frame) -> None:
        frame.slots[op.results[0]] = known(frame, sms).to(DTYPES[kind.element])

    return run
