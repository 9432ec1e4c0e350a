"""One judge a card: kernels of another one would be in its times."""

import socket
import time

from evaluator.cuda.cards import Card
from evaluator.errors import EvaluatorUnavailable

_PATIENCE_S = 10.0
"""For a judge that has just been ended to be gone."""


def hold(card: Card) -> socket.socket:
    """Return what holds ``card`` for this process until it is closed, or the process ends, however that comes.

    It is a name in Linux's abstract socket namespace: no file that another user may not open or that stays behind.
    Raises ``EvaluatorUnavailable`` when another process on this machine holds the card.
    """
    held = socket.socket(socket.AF_UNIX)
    until = time.monotonic() + _PATIENCE_S
    while True:
        try:
            held.bind(f"\0avo-gpu-{card.uuid}")
        except OSError:
            if time.monotonic() < until:
                time.sleep(0.1)
                continue
            held.close()
            raise EvaluatorUnavailable(
                f"another judge measures on this {card.name}: wait for its end, or choose another card with "
                "CUDA_VISIBLE_DEVICES"
            ) from None
        return held
