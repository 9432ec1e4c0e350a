"""Which loop of the machine code stands for which loop of the IR: by the line of its jump back, or of its body."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from avo.evaluator.performance.passes import Pass, PlayedKernel
from avo.evaluator.work import LoopWork, Shares

_MORE = 1.5
"""How many times as long as one of the unrolled passes a remainder may take where it may be another version."""


@dataclass(frozen=True)
class Matched:
    """The passes of a kernel, by the loops of its IR."""

    passes: tuple[Pass | None, ...]
    """For each loop of the IR, the pass in SASS that it is charged as; None for a loop that was unrolled."""
    remainders: tuple[Pass | None, ...]
    """For each loop that was unrolled in part, the pass in SASS that makes what is left."""
    made: tuple[float, ...]
    """Clocks of loops that the compiler made: per program outside all loops, then per pass of each loop of the IR. How
    often they are passed is not known; once is charged."""
    guessed: bool
    """Whether loops were charged as the slowest of several that could not be told apart."""


def match_loops(loops: Sequence[LoopWork], kernel: PlayedKernel, shares: Shares = ()) -> Matched:
    """Match the passes of a kernel with the loops of its IR.

    Where several passes stand for a loop, the compiler made versions of it, of which the slowest is charged. But one
    that it unrolled less, and that takes no longer than a pass of the code that it unrolled most, makes the
    remainder. Where ``shares`` say that some passes go around lines of the loop, a version may be for the others: a
    remainder then takes hardly longer than one of the unrolled passes. Loops with the same lines are one loop, in a
    function that is called several times. A loop that no pass stands for is charged as the slowest pass that stands for
    none and whose jump back has no line, if there is one.
    """
    owners = _owners(loops, kernel)
    lost = [p for p, owner in zip(kernel.loops, owners, strict=True) if owner is None and not p.lines]
    passes: list[Pass | None] = []
    remainders: list[Pass | None] = []
    guessed = False
    for loop in loops:
        own = [
            passed
            for passed, owner in zip(kernel.loops, owners, strict=True)
            if owner is not None and loops[owner].lines == loop.lines
        ]
        found = own or [passed for passed in lost if passed.flops or not loop.body.dot_flops] or lost
        most = max((passed.copies for passed in found), default=0)
        whole = max((passed.clocks for passed in found if passed.copies == most), default=0)
        rests = [passed for passed in found if passed.copies < most and passed.clocks <= whole]
        if any(lines.start in loop.lines for lines, _ in shares):
            rests = [passed for passed in rests if passed.clocks <= _MORE * passed.copies * whole / most]
        versions = [passed for passed in found if passed not in rests]
        passes.append(_slowest(versions))
        remainders.append(_slowest(rests))
        guessed |= len(versions) > 1
    charged = set(map(id, (*passes, *remainders)))
    made = [0.0] * (1 + len(loops))
    around = _around(kernel)
    for place, (passed, owner) in enumerate(zip(kernel.loops, owners, strict=True)):
        if owner is None and id(passed) not in charged:
            outer = around[place]
            while outer is not None and owners[outer] is None:
                outer = around[outer]
            loop_around = None if outer is None else owners[outer]
            made[0 if loop_around is None else 1 + loop_around] += passed.clocks
    return Matched(tuple(passes), tuple(remainders), tuple(made), guessed)


def _slowest(passes: Sequence[Pass]) -> Pass | None:
    return max(passes, key=lambda passed: passed.clocks / passed.copies, default=None)


def _owners(loops: Sequence[LoopWork], kernel: PlayedKernel) -> list[int | None]:
    """Return for each pass the loop of the IR that it stands for, None where it stands for none or is not known.

    The jump back of a loop may go straight to the beginning of the one around it, which then has the inner loop's line.
    And the code made from an operation, or from the loop itself, may contain a loop of its own, as that of a wait does.
    If two loops have the line of the same one, the one that holds most of its instructions stands for it. Where no jump
    back of a pass has a line, it stands for the loop that most of its instructions are from, unless others have that
    loop's lines.
    """
    owners = [_innermost(loops, passed.lines[-1]) if passed.lines else None for passed in kernel.loops]
    known = {loops[owner].lines for owner in owners if owner is not None}
    for place, passed in enumerate(kernel.loops):
        owner = None if passed.lines else max(range(len(loops)), key=partial(_held, loops, passed), default=None)
        if owner is not None and _held(loops, passed, owner) and loops[owner].lines not in known:
            owners[place] = owner
    around = _around(kernel)
    for inner in reversed(range(len(owners))):
        outer = around[inner]
        while outer is not None:
            owner = owners[inner]
            if owner is not None and owners[outer] == owner:
                if _held(loops, kernel.loops[inner], owner) > _held(loops, kernel.loops[outer], owner):
                    owners[outer] = loops[owner].parent
                else:
                    owners[inner] = None
            outer = around[outer]
    return owners


def _held(loops: Sequence[LoopWork], passed: Pass, owner: int) -> int:
    """Return the number of a pass's instructions that were made from the body of a loop of the IR."""
    lines = (i.line for instructions, _ in passed.parts for i in instructions if i.line)
    return sum(_innermost(loops, line) == owner for line in lines)


def _innermost(loops: Sequence[LoopWork], line: int) -> int | None:
    """Return the innermost loop that a line of the IR is in."""
    holding = [number for number, loop in enumerate(loops) if line in loop.lines]
    return min(holding, key=lambda number: len(loops[number].lines), default=None)


def _around(kernel: PlayedKernel) -> list[int | None]:
    """Return for each pass the one of the loop around it."""
    around: list[int | None] = []
    open_loops: list[int] = []
    for place, depth in enumerate(kernel.depths or [0] * len(kernel.loops)):
        del open_loops[depth:]
        around.append(open_loops[-1] if open_loops else None)
        open_loops.append(place)
    return around
