"""Runs Triton kernels without a GPU: executed on the CPU from their Triton IR, and checked.

    with offline(target="h100", sanitize=True) as session:
        kernel[grid](x, y, n, BLOCK=1024)
    print(session.report())

Needs triton and torch. See docs/executor.md.
"""

from avo.evaluator.executor.errors import UnsupportedOperation
from avo.evaluator.offline.errors import FaultsFound, OfflineError
from avo.evaluator.offline.launches import Launch
from avo.evaluator.offline.report import SessionReport
from avo.evaluator.offline.session import OfflineSession, offline

__all__ = [
    "FaultsFound",
    "Launch",
    "OfflineError",
    "OfflineSession",
    "SessionReport",
    "UnsupportedOperation",
    "offline",
]
