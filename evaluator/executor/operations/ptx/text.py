"""Reads PTX: declarations of registers, and instructions with their operands."""

import re
from collections import ChainMap
from dataclasses import dataclass, replace

MAX_INSTRUCTIONS = 1000
"""Most instructions of one piece of assembly; a bound on hostile text."""


class PtxError(Exception):
    """The text is not PTX that can be executed here; the message says where."""


@dataclass(frozen=True, slots=True)
class Operand:
    """A register, a constant, or several registers in braces."""

    registers: tuple[str, ...] = ()
    """Names of registers, several for a vector; ``_`` discards a value."""
    constant: int | float | None = None
    bits: int | None = None
    """Bits of a constant that is given by its bit pattern."""
    vector: bool = False


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction."""

    name: str
    modifiers: tuple[str, ...]
    operands: tuple[Operand, ...]
    guard: str | None = None
    """Predicate register that says where the instruction is executed."""
    negated: bool = False
    """Whether the instruction is executed where the guard is false."""


_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_DECLARATION = re.compile(r"\.reg\s+\.([a-z]+)(\d*)\s+(.+)", re.DOTALL)
_DECLARED = re.compile(r"([A-Za-z_%]\w*)(?:<(\d{1,3})>)?")
_COMPILERS = re.compile(r"%[A-Za-z]+\d+")
"""Names that LLVM gives to registers: one of them may stand for an operand, which a declaration would hide."""
_INSTRUCTION = re.compile(r"(?:@(!?)([\w%$]+)\s+)?([a-z][a-z0-9]*)((?:[.:]+[a-zA-Z0-9_]+)*)(?:\s+(.*))?", re.DOTALL)
_OPERAND = re.compile(r"\s*(\{[^{}]*\}|[^,{}]*[^,{}\s])\s*(?:,|$)")
_REGISTER = re.compile(r"\$\d+|\$\{\d+\}|[A-Za-z_%]\w*")
_INTEGER = re.compile(r"(-?)(0[xX][0-9a-fA-F]+|0[bB][01]+|0[0-7]*|[1-9]\d*)U?")
_BITS = re.compile(r"0([fFdD])([0-9a-fA-F]+)")
_DECIMAL = re.compile(r"-?\d+\.\d*(?:[eE][+-]?\d+)?")


def read(text: str) -> tuple[dict[str, int], list[Instruction]]:
    """Return the declared registers with their bits (1 for predicates), and the instructions in order.

    A register whose name was declared before, in another scope, gets a name of its own.
    """
    registers: dict[str, int] = {}
    instructions: list[Instruction] = []
    scopes: list[dict[str, str]] = [{}]
    for piece in _COMMENT.sub(" ", text).split(";"):
        # A brace that does not enclose operands opens or closes a scope.
        statement = re.sub(r"^[\s{}]+", "", piece).strip()
        for brace in piece[: piece.find(statement)] if statement else piece:
            if brace == "{":
                scopes.append({})
            elif brace == "}":
                scopes.pop()
            if not 0 < len(scopes) <= MAX_INSTRUCTIONS:
                raise PtxError(brace)
        if statement.startswith(".reg"):
            for name, bits in _declared(statement).items():
                if name in scopes[-1] or _COMPILERS.fullmatch(name):
                    raise PtxError(statement)
                scopes[-1][name] = name if name not in registers else f"{name} {len(registers)}"
                registers[scopes[-1][name]] = bits
        elif statement:
            instructions.append(_named(_instruction(statement), scopes))
        if max(len(instructions), len(registers)) > MAX_INSTRUCTIONS:
            raise PtxError("too long")
    return registers, instructions


def _named(instruction: Instruction, scopes: list[dict[str, str]]) -> Instruction:
    """Return an instruction with the names that its registers have in the innermost scopes that declare them."""
    names = ChainMap(*reversed(scopes))

    def named(name: str) -> str:
        if name not in names and name != "_" and not name.startswith("$"):
            raise PtxError(name)
        return names.get(name, name)

    operands = tuple(replace(each, registers=tuple(map(named, each.registers))) for each in instruction.operands)
    return replace(instruction, operands=operands, guard=instruction.guard and named(instruction.guard))


def _declared(statement: str) -> dict[str, int]:
    match = _DECLARATION.fullmatch(statement)
    if match is None or (match[1], match[2]) not in {(k, b) for k, bs in _REGISTER_TYPES.items() for b in bs}:
        raise PtxError(statement)
    bits = int(match[2] or 1)
    names: dict[str, int] = {}
    for item in match[3].split(","):
        declared = _DECLARED.fullmatch(item.strip())
        if declared is None:
            raise PtxError(statement)
        count = declared[2]
        names.update({declared[1]: bits} if count is None else {f"{declared[1]}{i}": bits for i in range(int(count))})
    return names


_REGISTER_TYPES = {
    "pred": ("",),
    "b": ("8", "16", "32", "64"),
    "u": ("8", "16", "32", "64"),
    "s": ("8", "16", "32", "64"),
    "f": ("16", "32", "64"),
}


def _instruction(statement: str) -> Instruction:
    match = _INSTRUCTION.fullmatch(statement)
    if match is None:
        raise PtxError(statement)
    operands: list[Operand] = []
    rest, position = (match[5] or "").strip(), 0
    while position < len(rest):
        operand = _OPERAND.match(rest, position)
        if operand is None:
            raise PtxError(statement)
        operands.append(_vector(operand[1][1:-1]) if operand[1].startswith("{") else _operand(operand[1]))
        position = operand.end()
    modifiers = tuple(part for part in re.split(r"[.:]+", match[4]) if part)
    return Instruction(match[3], modifiers, tuple(operands), match[2], match[1] == "!")


def _vector(text: str) -> Operand:
    names = [_name(item.strip()) for item in text.split(",")]
    return Operand(tuple(names), vector=True)


def _name(text: str) -> str:
    if _REGISTER.fullmatch(text) is None:
        raise PtxError(text)
    return text.replace("{", "").replace("}", "")


def _operand(text: str) -> Operand:
    if match := _BITS.fullmatch(text):
        return Operand(constant=int(match[2], 16), bits=32 if match[1] in "fF" else 64)
    if match := _INTEGER.fullmatch(text):
        digits = match[2].lower()
        base = 0 if digits[:2] in ("0x", "0b") else 8 if digits.startswith("0") else 10
        return Operand(constant=int(match[1] + digits, base))
    if _DECIMAL.fullmatch(text):
        return Operand(constant=float(text))
    if "|" in text:
        return Operand(tuple(_name(name.strip()) for name in text.split("|")))
    return Operand((_name(text),))
