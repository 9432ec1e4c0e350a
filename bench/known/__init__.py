"""The best kernels known, judged: ``avo.agents.best`` has the moves that lead to each."""

from avo.agents.best import GLUON, TRITON, Paths

__all__ = ["GLUON", "SUITE", "TRITON", "Paths"]

SUITE = "quick"
