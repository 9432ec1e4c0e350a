"""Two kernels' hot loops beside each other: machine code aligned by opcodes, with the clocks of each side."""

from collections import Counter
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from itertools import groupby, zip_longest
from typing import TypeAlias

from avo.evaluator.profile import CodeLine, Profile, opcode_of
from avo.evaluator.units import Unit

_Pair: TypeAlias = tuple[CodeLine | None, CodeLine | None]
_NAMED = 4
"""Number of opcodes named for instructions in a row that share a line."""
_DIFFERENT = 0.005
"""Difference of the two sides' shares of a warp's time from which an instruction has a line of its own."""


def beside(first: Profile, second: Profile, unit: Unit, *names: str) -> str:
    """Return the alignment as text: ``-`` before what only the first has, ``+`` before what only the second has.

    Speeds are in ``unit``, that of the case.

    Instructions in a row that take both sides about as long share a line, also those that one has and that are cheap.
    """
    lines = [_heading(sign, name, made, unit) for sign, name, made in zip("-+", names, (first, second), strict=True)]
    if not (first.code and second.code):
        return "\n".join([*lines, "not both have a hot loop that was played"])
    lines.append(f"{'clocks -':>9} {'clocks +':>9}  {'line':>5}    instruction")
    for (sign, alike), run in groupby(_pairs(first.code.sass, second.code.sass), key=_kind):
        pairs = list(run)
        shared = alike and len(pairs) > 2
        lines += [_together(sign, pairs)] if shared else [_row(sign, pair) for pair in pairs]
    return "\n".join(lines)


def _heading(sign: str, name: str, made: Profile, unit: Unit) -> str:
    said = f"{sign} {name}, {made.score.case}: {unit.said(made.score.tflops, made.kind)}"
    if made.code is None:
        return said
    launch = max(made.launches, key=lambda launch: launch.time_us)
    clocks = max(launch.sections, key=lambda section: section.time_us).clocks_per_pass
    return f"{said}; {made.code.section}: {len(made.code.sass)} instructions, {clocks:.0f} clocks per pass"


def _pairs(ours: Sequence[CodeLine], theirs: Sequence[CodeLine]) -> Iterator[_Pair]:
    mine, others = ([opcode_of(each.instruction) for each in side] for side in (ours, theirs))
    for kind, start, stop, begin, end in SequenceMatcher(None, mine, others, autojunk=False).get_opcodes():
        if kind == "equal":
            yield from zip_longest(ours[start:stop], theirs[begin:end])
        else:
            yield from ((each, None) for each in ours[start:stop])
            yield from ((None, each) for each in theirs[begin:end])


def _kind(pair: _Pair) -> tuple[str, bool]:
    """Return the sign of a pair, and whether it takes both sides about as long."""
    mine, other = (each.share if each else 0.0 for each in pair)
    return " " if all(pair) else "-" if pair[0] else "+", abs(mine - other) < _DIFFERENT


def _clocks(pairs: Sequence[_Pair]) -> str:
    sides = zip(*pairs, strict=True)
    return " ".join(
        f"{sum(each.clocks_per_pass for each in own if each):9.1f}" if any(own) else " " * 9 for own in sides
    )


def _together(sign: str, pairs: Sequence[_Pair]) -> str:
    shown = [each for mine, other in pairs if (each := mine or other)]
    bases = Counter(opcode_of(each.instruction).partition(".")[0] for each in shown)
    named = ", ".join(f"{count} {base}" for base, count in bases.most_common(_NAMED))
    return f"{_clocks(pairs)}  {'':>5}  {sign} {len(pairs)} {'alike' if sign == ' ' else 'cheap'}: {named}"


def _row(sign: str, pair: _Pair) -> str:
    shown = pair[0] or pair[1]
    assert shown is not None
    why = f"  <- {shown.reason}" if shown.reason and shown.share >= _DIFFERENT else ""
    return f"{_clocks([pair])}  {shown.line or '?':>5}  {sign} {' '.join(shown.instruction.split())}{why}"
