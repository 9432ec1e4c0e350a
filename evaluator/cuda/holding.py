"""One judge per card: the kernels of another judge would distort its times."""

import socket
import time

from avo.evaluator.cuda.cards import Card
from avo.evaluator.errors import EvaluatorUnavailable

_PATIENCE_S = 10.0
"""How long to wait for a judge that is just ending."""


def hold(card: Card) -> socket.socket:
    """Reserve ``card`` for this process until the returned socket is closed or the process ends, however it ends.

    The socket's name is in Linux's abstract namespace: there is no file that could stay behind, or that another user
    could not open.
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
