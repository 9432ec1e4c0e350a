"""Disassembly: a cubin's instructions with the control bits that carry their schedule."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from avo.evaluator.errors import EvaluatorError


class ModelError(EvaluatorError):
    """A binary's speed cannot be predicted; the message says why."""


@dataclass(frozen=True, slots=True)
class Instruction:
    """One SASS instruction of one warp."""

    index: int
    """Position among the code's instructions."""
    address: int
    predicate: str
    """Guard such as ``P0`` or ``!UP1``; empty when unguarded."""
    opcode: str
    """Opcode with modifiers, e.g. ``HGMMA.64x128x16.F32.BF16``."""
    operands: str
    stall: int
    """Cycles before the same warp may issue again."""
    write_barrier: int
    """Scoreboard barrier (0 to 5) released when the result is written; 7 for none."""
    read_barrier: int
    """Scoreboard barrier released when the operands have been read; 7 for none."""
    wait_mask: int
    """Bit b set: issue only when barrier b is clear."""
    ptx_line: int | None = None
    """The line of PTX that the instruction was made from."""
    line: int | None = None
    """The line of the IR's text, counted from 1, that the instruction was made from."""
    base: str = field(init=False, repr=False, compare=False)
    """Opcode without modifiers."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "base", self.opcode.partition(".")[0])

    @property
    def joins_all(self) -> bool:
        """Whether it is a barrier at which all warps of the CTA meet, whatever their role, in each pass."""
        return self.base == "BAR" and "SYNC" in self.opcode and "," not in self.operands and not self.predicate

    @property
    def lane_bytes(self) -> int:
        """Bytes that an access to memory moves for each lane."""
        parts = self.opcode.split(".")[1:]
        if self.base in {"LDSM", "STSM"}:
            return 4 * int(parts[-1]) if parts[-1:] in (["2"], ["4"]) else 4
        return next((int(part) // 8 for part in parts if part in {"64", "128", "256"}), 4)


@dataclass(frozen=True)
class Code:
    """The instructions of a cubin's kernel and of the functions it calls, in address order."""

    instructions: tuple[Instruction, ...]
    labels: dict[str, int]
    """Index of the instruction that each label stands before."""
    entry: int
    """Index of the kernel's first instruction."""


_FIRST = re.compile(
    r"^\s+/\*(?P<address>[0-9a-f]{4,})\*/\s+(?:@(?P<predicate>!?U?P\w+)\s+)?(?P<opcode>[A-Z][\w.]*)\s*(?P<operands>.*?)"
    r"\s*;?\s*/\* 0x[0-9a-f]{16} \*/"
)
"""The line of a listing on which an instruction begins."""
_PTX_LINE = re.compile(r'//## File "\.nv_debug_ptx_txt", line (\d+)')
"""The comment that says which line of PTX the following instructions were made from."""
_SECOND = re.compile(r"^\s+/\* 0x([0-9a-f]{16}) \*/")
_LABEL = re.compile(r"^([.$\w]+):")
_ENTRY = re.compile(r'^\s+\.other\s+([.$\w]+),@"STO_CUDA_ENTRY')
_LONGEST_LINE = 4096
"""Longest line, in characters. A branch table of a hundred labels takes half of it; longer lines are not instructions.
"""


def parse(text: str, lines: Sequence[int | None] = ()) -> Code:
    """Parse the output of ``nvdisasm -c -hex -gp``; raise ``ModelError`` for any other text.

    ``lines`` has the line of IR of each line of PTX.
    The second of an instruction's two 64-bit words holds the control bits above bit 41: stall count (4 bits), yield,
    write barrier (3), read barrier (3), wait mask (6), as found by Jia et al., "Dissecting the NVIDIA Volta GPU
    Architecture via Microbenchmarking" (2018), section 2.1, and unchanged since.
    """
    instructions: list[Instruction] = []
    labels: dict[str, int] = {}
    entry = ""
    ptx_line: int | None = None
    rest = iter(text.splitlines())
    for line in rest:
        if len(line) > _LONGEST_LINE:
            raise ModelError(f"a line of the disassembly has {len(line)} characters")
        if found := _PTX_LINE.search(line):
            ptx_line = int(found[1])
        elif line.lstrip().startswith(".section"):
            ptx_line = None
        elif label := _LABEL.match(line):
            labels[label[1]] = len(instructions)
        elif kernel := _ENTRY.match(line):
            entry = kernel[1]
        elif first := _FIRST.match(line):
            second = _SECOND.match(next(rest, ""))
            if second is None:
                raise ModelError(
                    "nvdisasm printed an instruction without its second word: its version is not supported"
                )
            control = int(second[1], 16) >> 41
            instructions.append(
                Instruction(
                    len(instructions),
                    int(first["address"], 16),
                    first["predicate"] or "",
                    first["opcode"],
                    first["operands"],
                    control & 15,
                    control >> 5 & 7,
                    control >> 8 & 7,
                    control >> 11 & 63,
                    ptx_line,
                    lines[ptx_line - 1] if ptx_line and ptx_line <= len(lines) else None,
                )
            )
    if not instructions:
        raise ModelError("the binary holds no code")
    return Code(tuple(instructions), labels, labels.get(entry, 0))
