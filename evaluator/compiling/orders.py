"""Other orders of a kernel's PTX: what computes the same, and what the compiler might as well have written.

Only instructions that work in registers change places, within a basic block, past those that they do not depend on.
What touches memory, waits, multiplies matrices or is written in assembly stays where it is among its like, and nothing
moves past what synchronises.
"""

import heapq
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_FARTHEST = 8.0
"""Instructions by which one may fall behind, about. With 24, more values are held at once, and registers spill."""
_REGISTER = re.compile(r"%\w+")
_LOCATION = re.compile(r"\s*\.loc\s")
_LABEL = re.compile(r"\s*[$\w]+:")
_ASSEMBLY, _ASSEMBLED = "// begin inline asm", "// end inline asm"
_PINNED = (
    *(
        "ld",
        "st",
        "atom",
        "red",
        "cp",
        "ldmatrix",
        "stmatrix",
        "prefetch",
        "shfl",
        "vote",
        "match",
        "redux",
        "activemask",
    ),
    *("elect", "griddepcontrol", "nanosleep", "pmevent", "discard", "applypriority", "createpolicy"),
)
"""What stays where it is among its like. Loads of parameters do too: they are few."""
_FENCES = (
    *("bar", "barrier", "mbarrier", "membar", "fence", "wgmma", "tcgen05", "setmaxnreg", "clusterlaunchcontrol"),
    *("bra", "brx", "call", "ret", "exit", "trap", "brkpt"),
)
"""What nothing moves past."""


@dataclass(frozen=True, slots=True)
class _Unit:
    """An instruction, or a piece of inline assembly, with the location that it is from."""

    lines: tuple[str, ...]
    location: str
    written: frozenset[str] = frozenset()
    read: frozenset[str] = frozenset()
    pinned: bool = False
    fence: bool = False


def reordered(ptx: str, seed: int) -> str:
    """Return a kernel's PTX with independent instructions in an order that ``seed`` draws."""
    chance = random.Random(seed)
    done, location = list[str](), ""
    block: list[_Unit] = []
    for unit in _units(ptx.splitlines()):
        if not unit.fence:
            block.append(unit)
            continue
        for each in (*_shuffled(block, chance), unit):
            if each.location != location:
                location = each.location
                done.append(location)
            done += each.lines
        block.clear()
    return "\n".join(done) + "\n"


def _units(lines: Sequence[str]) -> Iterator[_Unit]:
    """Yield all of a text: what is no instruction is a fence."""
    location, within, at = "", False, 0
    while at < len(lines):
        line = lines[at]
        text = line.partition("//")[0].strip()
        if _ASSEMBLY in line:
            stop = next(i for i in range(at, len(lines)) if _ASSEMBLED in lines[i]) + 1
            yield _assembly(tuple(lines[at:stop]), location)
            at = stop
            continue
        at += 1
        if line.startswith(("{", "}")):
            within = line.startswith("{")
        if not within or text.startswith(("{", "}")):
            yield _Unit((line,), location, fence=True)
        elif _LOCATION.match(line):
            location = line
        elif not text or text.startswith((".", "$", ")")) or not text.endswith(";"):
            yield _Unit((line,), location, fence=bool(text))
        else:
            yield _instruction(line, text, location)


def _instruction(line: str, text: str, location: str) -> _Unit:
    if _LABEL.match(text):
        return _Unit((line,), location, fence=True)
    guard, text = re.match(r"(?:@!?(%\w+)\s+)?(.*)", text).groups()  # type: ignore[union-attr]
    opcode, _, operands = text.partition("\t") if "\t" in text else text.partition(" ")
    name = opcode.partition(".")[0].strip(" ;")
    if name in _FENCES or ".cc" in opcode or name in ("addc", "subc", "madc"):  # these have a carry
        return _Unit((line,), location, fence=True)
    pinned = name in _PINNED
    first = operands.lstrip()
    written = first[: first.find("}") if first.startswith("{") else _comma(first)]
    if name in ("st", "red", "cp", "prefetch"):
        written = ""
    results = frozenset(_REGISTER.findall(written))
    read = frozenset(_REGISTER.findall(operands[len(operands) - len(first) + len(written) :]))
    if guard:  # what is skipped keeps what was there
        read |= results | {guard}
    return _Unit((line,), location, results, read, pinned)


def _comma(text: str) -> int:
    return found if (found := text.find(",")) >= 0 else len(text)


def _assembly(lines: tuple[str, ...], location: str) -> _Unit:
    """Return a piece of inline assembly: what it does with its registers is not known."""
    text = "\n".join(lines)
    registers = frozenset(_REGISTER.findall(text))
    named = {word.partition(".")[0] for word in re.findall(r"[a-z]\w*(?:\.[\w:]+)+", text)}
    return _Unit(
        lines, location, registers, registers, True, not named.isdisjoint(_FENCES) or _LABEL.search(text) is not None
    )


def _shuffled(block: Sequence[_Unit], chance: random.Random) -> Iterator[_Unit]:
    """Yield the units of a block in another order that keeps what each depends on before it."""
    after: list[list[int]] = [[] for _ in block]
    needs = [0] * len(block)
    writer: dict[str, int] = {}
    readers: dict[str, list[int]] = {}
    pinned = None
    for place, unit in enumerate(block):
        before = {writer[name] for name in unit.read | unit.written if name in writer}
        before.update(reader for name in unit.written for reader in readers.get(name, ()))
        if unit.pinned:
            if pinned is not None:
                before.add(pinned)
            pinned = place
        before.discard(place)
        for other in before:
            after[other].append(place)
        needs[place] = len(before)
        for name in unit.written:
            writer[name], readers[name] = place, []
        for name in unit.read - unit.written:
            readers.setdefault(name, []).append(place)
    due = [place + chance.uniform(0, _FARTHEST) for place in range(len(block))]
    ready = [(due[place], place) for place, count in enumerate(needs) if not count]
    heapq.heapify(ready)
    while ready:
        _, place = heapq.heappop(ready)
        yield block[place]
        for other in after[place]:
            needs[other] -= 1
            if not needs[other]:
                heapq.heappush(ready, (due[other], other))
