"""What Triton's compiler says of its passes when it is asked to: the IR before each, and the one that it died in."""

import re
from dataclasses import dataclass
from typing import Any

from avo.evaluator.locations import source_lines, to_read

TALKATIVE = tuple(
    f"nvgpu-ws-{part}"
    for part in ("task-partition", "data-partition", "code-partition", "buffer", "lower-mem", "specialize", "utility")
)
"""Parts of Triton that name the operations they work on, as LLVM's debug output knows them: those of the pass that was
seen to crash. A Triton that is built without assertions names none.
"""

_HEADER = re.compile(r"^// -----// (.*)$", re.MULTILINE)
_BEFORE = re.compile(r"IR Dump Before (\w+)[ :(]*([\w-]*)")
_DIED = re.compile(r"Pipeline failed while executing|A signal was caught while processing|PassManager::run failed")
_REPRODUCER = re.compile(r"^module \{\n", re.MULTILINE)
_BLAMED = re.compile(r"(kernel\.ttg?ir:\d+:\d+): error: '([a-z_]\w*\.[\w.]+)' op (.*)")
_WRITTEN = re.compile(
    r"^(?:\[[\w-]+\]: ?)?((?:%\S+ = )?\"?(?!kernel\.ttg?ir)([a-z_]\w*\.[\w.]+)\b[^:{(]*)", re.MULTILINE
)
"""An operation on a line of its own, as far as nothing but values follow its name; those inside a region are indented.
"""
_TELLING = re.compile(r"^.*(?:\berror\b|\bLLVM ERROR\b|Assertion|^UNREACHABLE).*$", re.MULTILINE)
_MOST_PLACES = 3
_MOST_SAID = 4000


@dataclass(frozen=True, slots=True)
class Trace:
    """How a kernel went through the compiler's passes."""

    passes: tuple[str, ...]
    """The passes that were begun, by the names that Triton's own pipelines have for them."""
    failed: bool
    """Whether the compiler gave up in the last one."""
    said: str
    """What it wrote about that, without IR."""
    operation: str = ""
    """The operation that it failed on, where it names one."""
    blamed: bool = False
    """Whether it says itself that this operation is at fault, or just wrote of it last."""
    places: tuple[str, ...] = ()
    """Where the operation is, as the compiler names places; several where more than one may be meant."""
    shown: int | None = None
    """Index of the pass that ``ir`` is from, if the one wanted was found."""
    ir: str = ""
    """The IR before that pass, with locations."""
    finished: bool = False
    """Whether it compiled the kernel."""


def shown(kernel: str, trace: Trace, wanted: str | None) -> str:
    """Return the IR of a trace without locations, after a list of the passes; the list alone if there is none."""
    count = len(trace.passes)
    head = f"kernel {kernel}: {count} passes" + (f", the last of which fails: {trace.passes[-1]}" * trace.failed)
    listed = "\n".join(f"{number:>4} {name}" for number, name in enumerate(trace.passes, start=1))
    if trace.shown is None:
        missed = "" if wanted is None else f"; there is no pass {wanted!r}"
        return f"{head}{missed}: name one by its number or its name\n{listed}"
    return f"{head}; the IR before pass {trace.shown + 1}, {trace.passes[trace.shown]}:\n{to_read(trace.ir)}"


def read(log: str, wanted: str | None) -> dict[str, Any]:
    """Return the fields of a ``Trace`` but the last, from what a compiler with debug output and dumps wrote.

    ``wanted`` is the number of a pass, from 1, or the name of one: the first of this name. None: the one that failed.
    """
    found: list[tuple[str, str]] = []
    headers = list(_HEADER.finditer(log))
    for header, end in zip(headers, [*(each.start() for each in headers[1:]), len(log)], strict=False):
        text = log[header.end() + 1 : end]
        if before := _BEFORE.match(header[1]):
            found.append((before[2] or before[1], text))
        elif found:
            found[-1] = found[-1][0], f"{found[-1][1]}{header[0]}\n{text}"
    names = [name for name, _ in found]
    ir, said = _divided(found[-1][1]) if found else ("", log)
    failed = bool(found) and _DIED.search(said) is not None
    shown = _index(names, wanted, failed)
    fields: dict[str, Any] = {"passes": names, "failed": failed, "said": _telling(said), "shown": shown}
    if shown is not None:
        fields["ir"] = _divided(found[shown][1])[0]
    if failed:
        fields |= _blamed(said) or _last_written(ir, said)
    return fields


def _divided(text: str) -> tuple[str, str]:
    """Return the module with its aliases that ``text`` begins with, and the rest."""
    lines, end, begun, closed = text.splitlines(keepends=True), 0, False, False
    for i, line in enumerate(lines):
        begun = begun or line.startswith("module")
        closed = closed or (begun and line.startswith("}"))
        if closed and line.strip() and not line.startswith(("}", "#")):
            break
        end = i + 1
        if not begun and line.strip() and not line.startswith("#"):
            return "", text
    return "".join(lines[:end]).strip(), "".join(lines[end:])


def _index(names: list[str], wanted: str | None, failed: bool) -> int | None:
    if wanted is None:
        return len(names) - 1 if failed else None
    if wanted.isdigit():
        return int(wanted) - 1 if 0 < int(wanted) <= len(names) else None
    return names.index(wanted) if wanted in names else None


def _telling(said: str) -> str:
    """Return the lines that say what went wrong; what is unreachable is explained on the line before."""
    lines = said.splitlines()
    numbers = [i for i, line in enumerate(lines) if _TELLING.search(line)]
    kept = {n for i in numbers for n in ((i - 1, i) if lines[i].startswith("UNREACHABLE") else (i,)) if n >= 0}
    return "\n".join(lines[i].strip() for i in sorted(kept))[:_MOST_SAID]


def _blamed(said: str) -> dict[str, Any] | None:
    found = _BLAMED.search(said)
    return {"operation": found[2], "blamed": True, "places": [found[1]]} if found else None


def _last_written(ir: str, said: str) -> dict[str, Any]:
    """Return the last operation that the pass wrote of before it died, and where the IR before the pass has it.

    The pass may have changed the IR by then. So where the same values are not found, all operations of that name count.
    """
    said = _REPRODUCER.split(said)[0]
    written = list(_WRITTEN.finditer(said))
    if not written:
        return {}
    line, operation = written[-1][1].strip(), written[-1][2]
    lines, places = ir.splitlines(), source_lines(ir)
    named = re.compile(rf"(?<![\w.]){re.escape(operation)}(?![\w.])")
    alike = [i for i, each in enumerate(lines) if each.strip().startswith(line)]
    alike = alike or [i for i, each in enumerate(lines) if named.search(each)]
    found = [f"{place}:1" for place in dict.fromkeys(places[i] for i in alike) if place.startswith("kernel.")]
    return {"operation": operation, "places": found if len(found) <= _MOST_PLACES else []}
