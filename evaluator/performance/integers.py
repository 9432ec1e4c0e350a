"""Evaluates a kernel's integer code for all threads of a CTA at once.

Parameters, loaded values and results of unsupported instructions are unknown, and so is everything computed from them.
"""

import operator
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from avo.evaluator.performance.sass import Instruction
from avo.evaluator.performance.structure import MATRIX

LANES = 32
"""Threads of a warp."""
MASK = 0xFFFFFFFF
_REGISTER = re.compile(r"^(-|~)?(U?R(?:\d+|Z))$")
_NUMBER = re.compile(r"^-?0x[0-9a-f]+$")
_PREDICATE = re.compile(r"^!?U?P(?:\d|T)$")
_NO_INTEGERS = MATRIX | {"FFMA", "FMUL", "FADD", "FFMA2", "FMUL2", "FADD2", "FMNMX", "FMNMX3", "FSEL", "F2FP", "MUFU"}

Known = int | npt.NDArray[np.int64]
"""One value for all threads, or [threads]. Registers hold 32 bits without sign, predicates 0 or 1."""
Value = Known | None
State = dict[str, Value]


def meet(states: Sequence[State]) -> State:
    """Return the values on which all states agree."""
    first, *others = states
    return {name: value for name, value in first.items() if all(_same(value, other.get(name)) for other in others)}


def _same(one: Value, other: Value) -> bool:
    return one is other or (one is not None and other is not None and bool(np.array_equal(one, other)))


def execute(i: Instruction, state: State, threads: int) -> None:
    """Update ``state`` by one instruction."""
    if i.predicate != "!PT":
        guard = read(i.predicate, state) if i.predicate else 1
        for name, value in _results(i, state, threads).items():
            if name not in _CONSTANT:
                state[name] = _choose(guard, value, state.get(name))


def _results(i: Instruction, state: State, threads: int) -> State:
    """Return what the instruction writes where its guard is true."""
    if i.base in _NO_INTEGERS:  # half of a kernel: no need to look closer
        return {i.operands.partition(",")[0]: None}
    operands = [part.strip().removesuffix(".reuse") for part in i.operands.split(",")]
    predicates = [name for name in operands if _PREDICATE.match(name)]
    values = [name for name in operands if not _PREDICATE.match(name)]
    base = i.base.removeprefix("U") if i.base[1:] in _OPERATIONS else i.base
    if base == "STL":  # spilled: the place is named by its text, as the stack pointer stays
        return {values[0]: read(values[1], state)} if i.opcode == "STL" else _forget(state, "[")
    if base == "R2P":
        return _forget(state, "P")
    if "SETP" in base and predicates:
        second: State = dict.fromkeys(predicates[1:2])
        return {**second, predicates[0]: _compare(i.opcode, values, predicates[-1], state)}
    written: State = dict.fromkeys(predicates[: 0 if base == "SEL" else 2])  # carries
    register = _REGISTER.match(values[0]) if values else None
    if register is None:
        return written
    written.update(dict.fromkeys(_others(i, register[2])))
    if base in {"S2R", "S2UR"}:
        written[register[2]] = _special(values[1], threads)
    elif base == "SEL":
        written[register[2]] = _choose(read(predicates[-1], state), read(values[1], state), read(values[2], state))
    elif base == "HFMA2" and values[1:3] == ["-RZ", "RZ"]:
        written[register[2]] = _halves(values[3:])
    elif base == "LDL" and i.opcode in {"LDL", "LDL.LU"}:
        written[register[2]] = state.get(values[1])
    elif base in _OPERATIONS:
        known = [value for name in values[1:] if (value := read(name, state)) is not None]
        written[register[2]] = _OPERATIONS[base](i.opcode, known) if len(known) == len(values) - 1 else None
    else:
        written[register[2]] = None
    return written


def _forget(state: State, first: str) -> State:
    return dict.fromkeys(name for name in state if name.startswith(first))


_CONSTANT = {"RZ": 0, "URZ": 0, "SRZ": 0, "PT": 1, "UPT": 1, "!PT": 0, "!UPT": 0}


def read(name: str, state: State) -> Value:
    """Return the value of an operand."""
    if name in _CONSTANT:
        return _CONSTANT[name]
    if _NUMBER.match(name):
        return int(name, 16) & MASK
    if _PREDICATE.match(name):
        value = state.get(name.lstrip("!"))
        return value if value is None or name[0] != "!" else 1 - value
    register = _REGISTER.match(name)
    value = state.get(register[2]) if register else None
    if value is None or register is None or register[1] is None:
        return value
    return (-value if register[1] == "-" else ~value) & MASK


def _choose(condition: Value, one: Value, other: Value) -> Value:
    if isinstance(condition, int):
        return one if condition else other
    if one is None or other is None:
        return None
    if condition is None:
        return one if _same(one, other) else None
    return np.where(condition, one, other)


def _others(i: Instruction, register: str) -> list[str]:
    """Return the registers after the first that the instruction writes."""
    pair = "WIDE" in i.opcode or i.base == "CS2R" or i.opcode.endswith(".64")
    count = i.lane_bytes // 4 if i.base.startswith("LD") else 2 if pair else 1
    number = register.lstrip("UR")
    return [f"{register[: -len(number)]}{int(number) + more}" for more in range(1, count)] if number.isdigit() else []


def _special(name: str, threads: int) -> Value:
    known: dict[str, Value] = {
        "SR_TID.X": np.arange(threads),
        "SR_LANEID": np.arange(threads) % LANES,
        "SR_TID.Y": 0,
        "SR_TID.Z": 0,
        "SR_CgaCtaId": 0,
    }
    return known.get(name)


def _signed(value: Known) -> Known:
    return value - (value >> 31 << 32)


def _halves(values: Sequence[str]) -> Value:
    """Return the constant that HFMA2 makes of two numbers in half precision."""
    try:
        high, low = np.array(values, np.float16).view(np.uint16).tolist()
    except ValueError:
        return None
    return int(high) << 16 | int(low)


def _compare(opcode: str, values: Sequence[str], combined: str, state: State) -> Value:
    """Return the first predicate that a comparison of two integers sets, combined with another one."""
    parts = opcode.removeprefix("U").split(".")
    if parts[0] != "ISETP" or len(values) != 2 or "EX" in parts or parts[1] not in _COMPARISONS:
        return None
    one, other, third = (read(name, state) for name in (*values, combined))
    if one is None or other is None or third is None:
        return None
    if "U32" not in parts:
        one, other = _signed(one), _signed(other)
    result: Known = 1 * _COMPARISONS[parts[1]](one, other)
    if "AND" in parts:
        return result & third
    return result | third if "OR" in parts else None


_COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "EQ": operator.eq,
    "NE": operator.ne,
    "LT": operator.lt,
    "LE": operator.le,
    "GT": operator.gt,
    "GE": operator.ge,
}


def _add(opcode: str, values: Sequence[Known]) -> Value:
    return sum(values) & MASK if not _carries(opcode) else None


def _multiply_add(opcode: str, values: Sequence[Known]) -> Value:
    if _carries(opcode) or ".HI" in opcode or len(values) != 3:
        return None
    return (values[0] * values[1] + values[2]) & MASK


def _scale_add(opcode: str, values: Sequence[Known]) -> Value:
    if _carries(opcode) or "SX32" in opcode or not isinstance(values[-1], int) or not 0 < values[-1] < 32:
        return None
    if ".HI" in opcode:  # of a 64-bit number whose upper half comes third
        known = len(values) == 4 and isinstance(values[2], int) and not values[2]
        return ((values[0] >> (32 - values[-1])) + values[1]) & MASK if known else None
    return ((values[0] << values[-1]) + values[1]) & MASK if len(values) == 3 else None


def _carries(opcode: str) -> bool:
    return opcode.endswith((".X", ".64")) or ".X." in opcode


def _shift(opcode: str, values: Sequence[Known]) -> Value:
    if len(values) != 3 or not isinstance(values[1], int) or values[1] > 31:
        return None
    if ".L.U32" in opcode and not opcode.endswith(".HI"):
        return (values[0] << values[1]) & MASK
    if ".R.U32.HI" in opcode:
        return values[2] >> values[1]
    if ".R.S32.HI" in opcode:
        return (_signed(values[2]) >> values[1]) & MASK
    return None


def _logic(_: str, values: Sequence[Known]) -> Value:
    """LOP3: bit ``4a + 2b + c`` of the table is the result for bits a, b and c."""
    if len(values) != 4 or not isinstance(values[3], int):
        return None
    result: Known = 0
    for row in range(8):
        if values[3] >> row & 1:
            term: Known = MASK
            for place, value in enumerate(values[:3]):
                term = term & (value if row >> (2 - place) & 1 else ~value)
            result = result | term
    return result & MASK


def _extend(opcode: str, values: Sequence[Known]) -> Value:
    if len(values) != 2 or not isinstance(values[1], int) or not 0 < values[1] < 32:
        return None
    low = values[0] & ((1 << values[1]) - 1)
    return low if ".U32" in opcode else (low - (low >> (values[1] - 1) << values[1])) & MASK


_OPERATIONS: dict[str, Callable[[str, Sequence[Known]], Value]] = {
    "MOV": lambda _, values: values[0],
    "R2UR": lambda _, values: values[0],
    "CS2R": lambda _, values: values[0],
    "IADD3": _add,
    "VIADD": _add,
    "IMAD": _multiply_add,
    "LEA": _scale_add,
    "SHF": _shift,
    "LOP3": _logic,
    "SGXT": _extend,
    "SEL": lambda _, values: None,  # see ``_results``
}
"""Functions that compute the first result from known operands, by opcode without the U of the uniform datapath."""
