"""Types of PTX operands: how registers, which hold bits, are read as numbers and written."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch

from avo.evaluator.executor.dtypes import RAW

Tensor = torch.Tensor


@dataclass(frozen=True, slots=True)
class PtxType:
    """Type of an operand of an instruction."""

    name: str
    kind: str
    """``b``its, ``s``igned, ``u``nsigned, ``f``loat or ``p``redicate."""
    bits: int
    """Width of the register in bits."""
    dtype: torch.dtype
    """Dtype of a float, or of the register's integer."""
    lanes: int = 1
    """How many numbers one register holds."""

    @property
    def floating(self) -> bool:
        """Whether it holds floating-point numbers."""
        return self.kind == "f"

    @property
    def item_bits(self) -> int:
        """Bits of one number."""
        return self.bits // self.lanes


def _types() -> dict[str, PtxType]:
    types = [PtxType(f"{kind}{8 * n}", kind, 8 * n, raw) for kind in "bsu" for n, raw in RAW.items()]
    types += [
        PtxType("f16", "f", 16, torch.float16),
        PtxType("bf16", "f", 16, torch.bfloat16),
        PtxType("f32", "f", 32, torch.float32),
        PtxType("f64", "f", 64, torch.float64),
        PtxType("f16x2", "f", 32, torch.float16, 2),
        PtxType("bf16x2", "f", 32, torch.bfloat16, 2),
        PtxType("f32x2", "f", 64, torch.float32, 2),
        PtxType("e4m3x2", "f", 16, torch.float8_e4m3fn, 2),
        PtxType("e5m2x2", "f", 16, torch.float8_e5m2, 2),
        PtxType("pred", "p", 1, torch.bool),
    ]
    return {kind.name: kind for kind in types}


TYPES = _types()
"""Types by the name that instructions use as a modifier."""


@dataclass(frozen=True, slots=True)
class Form:
    """What an instruction does: a function of numbers [n], or [n, lanes], that returns one tensor per result.

    Integers are passed as int64; those of 64 bits have the same bits, signed or not. Results are truncated to their
    width.
    """

    results: tuple[PtxType, ...]
    operands: tuple[PtxType, ...]
    function: Callable[..., Tensor | tuple[Tensor, ...]]
    resizes: bool = False
    """Whether registers may be wider than the types, as for ``cvt``."""


Builder: TypeAlias = Callable[[str, tuple[str, ...]], Form | None]
"""A function that returns the form for a name and its modifiers, None if there is none."""


def read(register: Tensor, kind: PtxType) -> Tensor:
    """Return the numbers in registers [n] of raw bits."""
    if kind.floating:
        return register.contiguous().view(kind.dtype) if kind.lanes == 1 else register[:, None].view(kind.dtype)
    if kind.kind == "u" and kind.bits < 64:
        return register.to(torch.int64) & ((1 << kind.bits) - 1)
    return register.to(torch.int64) if kind.kind in "su" else register


def write(value: Tensor, kind: PtxType) -> Tensor:
    """Return raw registers [n] that hold numbers."""
    if not kind.floating:
        return value.to(kind.dtype)
    value = value.to(kind.dtype).contiguous()
    raw = RAW[kind.bits // 8]
    return value.view(raw) if kind.lanes == 1 else value.view(raw)[:, 0]
