"""The operations that the executor knows, by family. Importing this package fills the registry."""

from evaluator.executor.operations import (
    atomics,
    blocks,
    casts,
    floats,
    hints,
    integers,
    libdevice,
    memory,
    products,
    reductions,
)
from evaluator.executor.operations.registry import ELEMENTWISE, STEPS

__all__ = [
    "ELEMENTWISE",
    "STEPS",
    "atomics",
    "blocks",
    "casts",
    "floats",
    "hints",
    "integers",
    "libdevice",
    "memory",
    "products",
    "reductions",
]
