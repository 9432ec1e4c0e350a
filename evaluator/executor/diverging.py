"""Programs of one frame that take different paths, and their values where the paths join."""

from collections.abc import Callable, Sequence
from typing import TypeAlias, cast

import torch

from avo.evaluator.executor.frame import Frame
from avo.evaluator.executor.space import total
from avo.evaluator.executor.values import AddressSum, Value, merge

Twins: TypeAlias = list[torch.Tensor | None]
Piece: TypeAlias = tuple[torch.Tensor, list[Value], Twins]
"""The programs that took one path: their positions [n] in the frame, their values, and the twins of these."""


def parted(condition: torch.Tensor) -> list[tuple[bool, torch.Tensor | None]]:
    """Return each truth value that occurs with the programs [n] that have it, None for all of them."""
    first = bool(condition[0])
    if condition.shape[0] == 1 or bool((condition == first).all()):
        return [(first, None)]
    return [(True, condition.nonzero().flatten()), (False, (~condition).nonzero().flatten())]


def assign(frame: Frame, targets: Sequence[int], sources: Sequence[int]) -> None:
    """Copy sources to targets, all at once: a slot may be both."""
    values = [frame.slots[slot] for slot in sources]
    for target, value in zip(targets, values, strict=True):
        frame.slots[target] = value
    if frame.twins:
        frame.set_twins(targets, [frame.twins.get(slot) for slot in sources])


def unchanged(before: tuple[int, list[Value | None]], now: tuple[int, list[Value | None]]) -> bool:
    """Whether two states are equal: the version of memory, and the values that a loop carries."""
    return before[0] == now[0] and all(
        a is b or (isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) and torch.equal(a, b))
        for a, b in zip(before[1], now[1], strict=True)
    )


def join(frame: Frame, targets: Sequence[int], pieces: Sequence[Piece]) -> None:
    """Set slots to the values of programs that took different paths."""
    for i, target in enumerate(targets):
        twins = [twins[i] for _, _, twins in pieces]
        exact = None
        if len(pieces) == 1:
            frame.slots[target], exact = pieces[0][1][i], twins[0]
        else:
            frame.slots[target] = merge([(where, values[i]) for where, values, _ in pieces], frame.programs)
            if any(twin is not None for twin in twins):
                exactly = [(piece[0], _exact(piece[1][i], twin)) for piece, twin in zip(pieces, twins, strict=True)]
                exact = cast(torch.Tensor, merge(exactly, frame.programs))
        frame.set_twins([target], [exact])


def twins_of(frame: Frame, slots: Sequence[int]) -> Twins:
    """Return the twins of slots, None for a slot without one."""
    return [frame.twins.get(slot) for slot in slots]


def narrowed(twins: Twins, narrow: Callable[[torch.Tensor], Value]) -> Twins:
    """Apply a function that keeps some of the programs to each twin."""
    return [None if twin is None else cast(torch.Tensor, narrow(twin)) for twin in twins]


def _exact(value: Value, twin: torch.Tensor | None) -> torch.Tensor:
    """Return the twin of an integer or address, which is its value where it has none."""
    assert isinstance(value, torch.Tensor | AddressSum)
    return total(value).to(torch.int64) if twin is None else twin
