"""What one warp plays: a path of instructions as ops, with marks where passes through loops begin and end."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import cast

from avo.evaluator.performance.pipes import Costs, Kind, Op
from avo.evaluator.performance.sass import Instruction
from avo.evaluator.performance.simulate import Mark
from avo.evaluator.performance.structure import Loop

_DRAIN = 2
"""Extra passes played of a loop that copies ahead, because its last passes copy less. Three stages are two passes
ahead.
"""


@dataclass
class Visit:
    """One run of a loop in a stream."""

    loop: Loop
    marks: list[int]
    drained: int = 0
    """Last passes that no longer copy for later ones."""


@dataclass(frozen=True, slots=True)
class _Piece:
    """Instructions between loops."""

    ops: list[Op]
    followed: list[Op]
    """Those that do more than compute."""


@dataclass
class Stream:
    """Builds one warp's stream and remembers where its loops are."""

    costs: Costs
    passes: int
    """Number of passes of a loop without inner loops."""
    keeps_pace: bool
    """Whether marks count the stream's turns, so that the roles of a CTA stay within a few passes of each other."""
    alone: bool = True
    """Whether no other stream of the CTA copies for this one."""
    in_step: Mapping[Loop, int] = field(default_factory=dict)
    """Number of passes of loops for which it is known."""
    turn: int = 0
    copies: dict[int, float] = field(default_factory=lambda: defaultdict(float))
    """Number of phases of bulk copies so far, by mbarrier."""
    ahead: float = 0.0
    """Phases of bulk copies for which there was no wait yet."""
    groups: int = 0
    """Groups of the warp's own copies for which there was no wait yet."""
    ops: list[Op | Mark] = field(default_factory=list)
    visits: list[Visit] = field(default_factory=list)

    def extend(self, items: Sequence[Instruction | Loop]) -> None:
        """Add what is passed next; loops a few times over."""
        self._extend(self._pieces(items))

    def _extend(self, pieces: Sequence["_Piece | Loop"]) -> None:
        for piece in pieces:
            if isinstance(piece, Loop):
                self._visit(piece)
                continue
            self.ops += piece.ops
            for op in piece.followed:
                self._follow(op)

    def _visit(self, loop: Loop) -> None:
        visit = Visit(loop, [self._mark(0)])
        self.visits.append(visit)
        drain = _DRAIN if (self.ahead or self.groups) and loop not in self.in_step else 0
        pieces = self._pieces(loop.items)
        for _ in range(self.in_step.get(loop, _passes(loop, self.passes)) + drain):
            self._extend(pieces)
            self.turn += 1
            visit.marks.append(self._mark(self.turn if self.keeps_pace else 0))
        if self.alone:  # else one stream waits for what another copies
            visit.drained = min(drain, self._end_pipeline())

    def _pieces(self, items: Sequence[Instruction | Loop]) -> "list[_Piece | Loop]":
        """Return the items with ops for instructions, those between loops together."""
        pieces: list[_Piece | Loop] = []
        for looping, some in groupby(items, lambda item: isinstance(item, Loop)):
            if looping:
                pieces += cast(Iterator[Loop], some)
            else:
                ops = list(map(self.costs.op, cast(Iterator[Instruction], some)))
                pieces.append(_Piece(ops, [op for op in ops if op.kind]))
        return pieces

    def _follow(self, op: Op) -> None:
        """Track asynchronous copies and the waits for them."""
        if op.kind == Kind.BULK_COPY:
            self.copies[op.mbarrier] += 1 / max(1, op.count)
            self.ahead += 1 / max(1, op.count)
        elif op.kind == Kind.MBARRIER_WAIT_COPY:
            self.ahead = max(0.0, self.ahead - 1)
        elif op.kind == Kind.COPY_COMMIT:
            self.groups += 1
        elif op.kind == Kind.COUNT_WAIT:
            self.groups = min(self.groups, op.count)

    def _end_pipeline(self) -> int:
        """Let the last copies of a loop take no bandwidth: those for passes after its last, which it does not make.

        Returns how many passes they are spread over.
        """
        bulk, groups, passes = round(self.ahead, 6), self.groups, 0
        for i in range(len(self.ops) - 1, -1, -1):
            op = self.ops[i]
            if isinstance(op, Mark):
                passes += bool(bulk or groups)
            elif op.kind == Kind.BULK_COPY and bulk:
                bulk = max(0.0, round(bulk - 1 / max(1, op.count), 6))
                self.ops[i] = replace(op, l2=0.0)
            elif op.kind == Kind.COPY_COMMIT and groups:
                groups -= 1
            elif op.kind == Kind.COPY and self.groups:
                self.ops[i] = replace(op, l2=0.0)
            if not bulk and not groups:
                break
        last = self.ops[-1]
        assert isinstance(last, Mark)
        self.ops[-1] = replace(last, copies={name: round(phases) for name, phases in self.copies.items()})
        self.ahead, self.groups = 0.0, 0
        return passes

    def _mark(self, turn: int) -> int:
        name = len(self.ops)
        self.ops.append(Mark(name, turn))
        return name


def _passes(loop: Loop, passes: int) -> int:
    return 2 if loop.inner else passes
