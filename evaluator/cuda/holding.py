"""Who may use a card: the judges of one run, in turn. Kernels of others would distort the times.

A name in Linux's abstract namespace of sockets stands for each judge, for each that waits and for the one whose turn it
is. No file could stay behind, or be closed to another user, and what a process had is free when it ends, however it
ends.
"""

import re
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from avo.evaluator.cuda.cards import Card
from avo.evaluator.errors import EvaluatorUnavailable

_PATIENCE_S = 10.0
"""How long to wait for a judge that is just ending."""
_LOOK_S = 0.1
"""Seconds between looks whether the card is free: it idles for half of that between two turns. A look takes 2 ms where
there are 800 sockets.
"""
_NAMES = Path("/proc/net/unix")


class Place:
    """A judge's place at a card, until it is closed or the process ends."""

    def __init__(self, card: Card, run: str | None = None) -> None:
        """Take a place for a judge of ``run``, next to others of the same run; None: where nobody else is.

        Raises ``EvaluatorUnavailable`` when processes of another run on this machine are there.
        """
        self._prefix = f"avo-gpu-{card.uuid}/"
        self._mine = f"judge/{run or secrets.token_hex(8)}/"
        until = time.monotonic() + _PATIENCE_S
        while not (held := self._join()):
            if time.monotonic() >= until:
                raise EvaluatorUnavailable(
                    f"another judge measures on this {card.name}: wait for its end, or choose another card with "
                    "CUDA_VISIBLE_DEVICES"
                )
            time.sleep(_LOOK_S)
        self._held = held

    def __enter__(self) -> "Place":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Give it up."""
        self._held.close()

    @contextmanager
    def turn(self, wait: Callable[[int], None]) -> Iterator[None]:
        """Have the card alone as long as the context lasts, after all judges of the run who asked before.

        ``wait`` hears how many these are, whenever that changes: 0 when it has the card.
        """
        waiting, ahead = None, 0
        while waiting is None:
            waiting = self._bind(mine := f"turn/{time.monotonic_ns():020}")
        with waiting:
            # The list gives the order. That one judge alone has the card does not depend on it.
            while (before := sum(each < mine for each in self._names("turn/"))) or not (busy := self._bind("busy")):
                if max(1, before) != ahead:
                    wait(ahead := max(1, before))
                time.sleep(_LOOK_S)
            with busy:
                wait(0)
                yield

    def _join(self) -> socket.socket | None:
        """Return what holds the place, None where judges of others have theirs, or are just about to."""
        door = self._bind("door")
        if door is None:
            return None
        with door:
            others = [each for each in self._names("judge/") if not each.startswith(self._mine)]
            return None if others else self._bind(f"{self._mine}{secrets.token_hex(4)}")

    def _bind(self, name: str) -> socket.socket | None:
        """Return the socket that has a name of this card, None where another has it."""
        held = socket.socket(socket.AF_UNIX)
        try:
            held.bind(f"\0{self._prefix}{name}")
        except OSError:
            held.close()
            return None
        return held

    def _names(self, kind: str) -> list[str]:
        """Return the names of this card that begin with ``kind``; the kernel writes @ for the NUL before them."""
        return re.findall(rf" @{re.escape(self._prefix)}({kind}.*)$", _NAMES.read_text(errors="replace"), re.M)
