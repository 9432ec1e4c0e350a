"""Counted loops, in lockstep, also where some programs pass them more often than others."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from avo.evaluator.executor.diverging import Piece, assign, join, narrowed, twins_of
from avo.evaluator.executor.frame import Frame
from avo.evaluator.executor.lockstep import Pace
from avo.evaluator.executor.values import suffix


@dataclass(frozen=True, slots=True)
class CountedLoop:
    """A counted loop, its values as slots."""

    body: Callable[[Frame], None]
    variable: int
    dtype: torch.dtype
    """Of the variable."""
    initial: Sequence[int]
    carried: Sequence[int]
    yields: Sequence[int]
    results: Sequence[int]
    outer: Sequence[int]
    """What the body uses from outside."""

    def run(self, frame: Frame, low: torch.Tensor, step: torch.Tensor, counts: torch.Tensor) -> None:
        """Run it for programs with ``counts`` passes; the variable begins at ``low`` and grows by ``step``. All are
        int64 [P or 1].
        """
        longest = int(counts.max())
        if int(counts.min()) == longest:
            assign(frame, self.carried, self.initial)
            for trip in range(longest):
                self._pass(frame, low + trip * step)
            assign(frame, self.results, self.carried)
            return
        # Longest first: the programs in the loop are then always a prefix, and narrowing needs no copies.
        counts, order = counts.sort(descending=True, stable=True)
        low, step = low.expand(frame.programs)[order], step.expand(frame.programs)[order]
        work = self._end_together if frame.run.pace is Pace.END else self._start_together
        join(frame, self.results, work(frame, order, low, step, counts))

    def _pass(self, inner: Frame, variable: torch.Tensor) -> None:
        inner.run.check_time()
        inner.slots[self.variable] = variable.to(self.dtype)
        self.body(inner)
        assign(inner, self.carried, self.yields)

    def _start_together(
        self, frame: Frame, order: torch.Tensor, low: torch.Tensor, step: torch.Tensor, counts: torch.Tensor
    ) -> list[Piece]:
        left_after = counts.tolist()
        inner = frame.select(order, (*self.outer, *self.initial))
        assign(inner, self.carried, self.initial)
        pieces: list[Piece] = []
        active, trip = frame.programs, 0
        while active:
            still = active
            while still and left_after[still - 1] <= trip:
                still -= 1
            if still < active:
                values = [suffix(inner.value(slot), still) for slot in self.carried]
                twins = narrowed(twins_of(inner, self.carried), partial(suffix, start=still))
                pieces.append((order[still:active], values, twins))
                inner.keep_first(still, (*self.outer, *self.carried))
                active = still
            if active:
                self._pass(inner, low[:active] + trip * step[:active])
                trip += 1
        return pieces

    def _end_together(
        self, frame: Frame, order: torch.Tensor, low: torch.Tensor, step: torch.Tensor, counts: torch.Tensor
    ) -> list[Piece]:
        longest, active = int(counts[0]), 0
        begin_at = (longest - counts).tolist()
        inner = frame
        for trip in range(longest):
            joined = active
            while joined < frame.programs and begin_at[joined] <= trip:
                joined += 1
            if joined > active:
                newcomers = frame.select(order[active:joined], self.initial)
                pieces = [_piece(torch.arange(active, joined), newcomers, self.initial)]
                if active:
                    pieces.append(_piece(torch.arange(active), inner, self.carried))
                inner, active = frame.select(order[:joined], self.outer), joined
                join(inner, self.carried, pieces)
            self._pass(inner, low[:active] + (trip - longest + counts[:active]) * step[:active])
        if active == frame.programs:
            return [_piece(torch.arange(active), inner.select(order.argsort(), self.carried), self.carried)]
        unmoved = frame.select(order[active:], self.initial)
        return [_piece(order[:active], inner, self.carried), _piece(order[active:], unmoved, self.initial)]


def _piece(positions: torch.Tensor, frame: Frame, slots: Sequence[int]) -> Piece:
    return positions, [frame.value(slot) for slot in slots], twins_of(frame, slots)
