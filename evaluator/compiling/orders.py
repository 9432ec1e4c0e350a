"""Other orders of a kernel's PTX: what computes the same, and what the compiler might as well have written.

Only instructions that work in registers change places, within a basic block, past those that they do not depend on.
What touches memory, waits, multiplies matrices or is written in assembly stays where it is among its like, and nothing
moves past what synchronises.
"""

import hashlib
import heapq
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

_FARTHEST = 8.0
"""Instructions by which one may fall behind, about. With 24, more values are held at once, and registers spill."""
_REGISTER = re.compile(r"%\w+")
_NUMBERED = re.compile(r"(%[a-zA-Z]+)(\d+)\b")
_DECLARED = re.compile(r"\.reg\s+\.\w+\s+(%[a-zA-Z]+)<")
_LOCATION = re.compile(r"\s*\.loc\s")
_LABEL = re.compile(r"\s*[$\w]+:")
_ASSEMBLY, _ASSEMBLED = "// begin inline asm", "// end inline asm"
_WRITTEN_BY_HAND = re.compile(f"{_ASSEMBLY}(.*?){_ASSEMBLED}", re.DOTALL)
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


@dataclass(frozen=True, slots=True)
class _Block:
    """Units in an order that keeps what each depends on before it."""

    units: Sequence[_Unit]
    after: Sequence[Sequence[int]]
    """The places of the units that depend on each."""
    keys: Sequence[str]

    def drawn(self, seed: int) -> Iterator[_Unit]:
        """Yield the units in another such order. Units with the same key fall behind alike in all kernels."""
        needs = Counter(other for others in self.after for other in others)
        due = [place + _FARTHEST * _drawn(key, seed) for place, key in enumerate(self.keys)]
        ready = [(due[place], place) for place in range(len(self.units)) if not needs[place]]
        heapq.heapify(ready)
        while ready:
            _, place = heapq.heappop(ready)
            yield self.units[place]
            for other in self.after[place]:
                needs[other] -= 1
                if not needs[other]:
                    heapq.heappush(ready, (due[other], other))


def _drawn(key: str, seed: int) -> float:
    """Return what ``seed`` draws for a key, between 0 and 1."""
    digest = hashlib.blake2b(key.encode(), digest_size=4, salt=seed.to_bytes(8, "big")).digest()
    return int.from_bytes(digest, "big") / 2**32


def orders(ptx: str, seeds: Iterable[int]) -> list[str]:
    """Return a kernel's PTX with independent instructions in the order that each of the ``seeds`` draws.

    Texts that differ in the order of independent instructions, or in the numbers of registers, have the same orders,
    except where several instructions compute the same value: these stay in the order of the text.
    """
    blocks = list(_blocks(ptx))
    return ["\n".join(_written(blocks, seed)) + "\n" for seed in seeds]


def _written(blocks: Sequence[_Block], seed: int) -> Iterator[str]:
    location = ""
    for block in blocks:
        for unit in block.drawn(seed):
            if unit.location != location:
                location = unit.location
                yield location
            yield from unit.lines


def _blocks(ptx: str) -> Iterator[_Block]:
    """Yield what lies between fences in the order that all its orders begin from, and each fence as a block."""
    names, known = _Names(ptx), dict[str, str]()
    waiting: list[_Unit] = []
    for unit in _units(ptx.splitlines()):
        if not unit.fence:
            waiting.append(unit)
            continue
        if unit.lines[0].startswith("{"):  # a function begins, with registers of its own
            names, known = _Names(ptx), {}
        for units in (waiting, [unit]):
            graph = _Graph(units, known, names)
            order = graph.order()
            place = {old: new for new, old in enumerate(order)}
            after = [sorted(place[each] for each in graph.after[old]) for old in order]
            yield _Block([names.given(units[old]) for old in order], after, [graph.keys[old] for old in order])
            known |= graph.left
        waiting = []


class _Names:
    """New numbers for the registers of a kernel, in the order in which they are met."""

    def __init__(self, ptx: str) -> None:
        self._classes = set(_DECLARED.findall(ptx)).difference(*map(_DECLARED.findall, _WRITTEN_BY_HAND.findall(ptx)))
        self._names: dict[str, str] = {}
        self._met = Counter[str]()

    def given(self, unit: _Unit) -> _Unit:
        """Return the unit with the new names."""
        return replace(unit, lines=tuple(_NUMBERED.sub(self._new, line) for line in unit.lines))

    def number(self, name: str) -> int:
        """Return the new number of a register, 0 of one that was not met."""
        found = _NUMBERED.match(self._names.get(name, ""))
        return int(found[2]) if found else 0

    def _new(self, found: re.Match[str]) -> str:
        if found[1] not in self._classes:
            return found[0]
        if found[0] not in self._names:
            self._met[found[1]] += 1
            self._names[found[0]] = f"{found[1]}{self._met[found[1]]}"
        return self._names[found[0]]


class _Graph:
    """What the units of a block depend on, and what each computes: its ``keys`` are the same in any order."""

    def __init__(self, units: Sequence[_Unit], known: Mapping[str, str], names: _Names) -> None:
        self._units, self._known, self._names = units, known, names
        self.after: list[list[int]] = [[] for _ in units]
        self.keys: list[str] = []
        self.left: dict[str, str] = {}
        """What is in the registers after the block."""
        self._before: list[list[int]] = []
        self._used = [False] * len(units)
        """Whether another unit of the block reads what a unit computes."""
        self._nearest: list[tuple[int, tuple[int, ...]]] = []
        """Of each unit the fewest steps to registers from before the block, and which these are."""
        self._writer: dict[str, int] = {}
        self._readers: dict[str, list[int]] = {}
        self._pinned: int | None = None
        for unit in units:
            self._add(unit)

    def _add(self, unit: _Unit) -> None:
        place, met = len(self.keys), list(dict.fromkeys(_REGISTER.findall("\n".join(unit.lines))))
        read = [name for name in met if name in unit.read]
        needed = [self._writer[name] for name in read if name in self._writer]
        others = {reader for name in unit.written for reader in self._readers.get(name, ())}
        others.update(self._writer[name] for name in unit.written if name in self._writer)
        if unit.pinned:
            others.update(() if self._pinned is None else (self._pinned,))
            self._pinned = place
        before = list(dict.fromkeys((*needed, *sorted(others, key=lambda other: (self.keys[other], other)))))
        for other in needed:
            self._used[other] = True
        for other in before:
            self.after[other].append(place)
        self._before.append(before)
        self.keys.append(self._key(unit))
        self._nearest.append(self._near(read, needed))
        for name in unit.written:
            self._writer[name], self._readers[name] = place, []
        for name in unit.read - unit.written:
            self._readers.setdefault(name, []).append(place)
        self.left |= {name: f"{self.keys[place]}{n}" for n, name in enumerate(met) if name in unit.written}

    def _key(self, unit: _Unit) -> str:
        """Return a digest of what a unit computes: of its text, with what is in the registers for their names."""
        values = {name: self.left.get(name) or self._known.get(name, name) for name in unit.read}
        text = _REGISTER.sub(lambda found: values.get(found[0], "_"), "\n".join(unit.lines))
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

    def _near(self, read: Sequence[str], needed: Sequence[int]) -> tuple[int, tuple[int, ...]]:
        given = tuple(self._names.number(name) for name in read if name not in self._writer)
        found = [(steps + 1, numbers) for steps, numbers in (self._nearest[other] for other in needed)]
        found += [(0, given)] if given else []
        least = min((steps for steps, _ in found), default=0)
        return least, tuple(sorted({number for steps, numbers in found if steps == least for number in numbers}))

    def order(self) -> list[int]:
        """Return the places of the units in an order that depends on what they compute alone.

        Each is written when it is first needed, so that few values wait in registers. What other blocks need is in the
        order of the registers that it is made of, as tiles are: in another, several values for one tile would wait.
        """
        ends = [place for place, unit in enumerate(self._units) if unit.pinned]
        ends += sorted(
            (place for place, used in enumerate(self._used) if not used and not self._units[place].pinned),
            key=lambda place: (self._nearest[place], self.keys[place], place),
        )
        done: dict[int, None] = {}
        for end in ends:
            waiting = [(end, iter(self._before[end]))]
            while waiting:
                place, before = waiting[-1]
                for other in before:
                    if other not in done:
                        waiting.append((other, iter(self._before[other])))
                        break
                else:
                    waiting.pop()
                    done.setdefault(place)
        return list(done)


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
    if name in ("st", "red", "cp", "prefetch", "stmatrix", "discard"):
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
