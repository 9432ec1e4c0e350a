"""The operations that the executor knows, by family. Importing this package fills the registry."""

from evaluator.executor.operations import (
    atomics,
    blocks,
    casts,
    constants,
    dot_scaled,
    floats,
    hints,
    inline_asm,
    integers,
    libdevice,
    memory,
    products,
    reductions,
    regions,
)
from evaluator.executor.operations.registry import ELEMENTWISE, REGION_STEPS, STEPS

__all__ = [
    "ELEMENTWISE",
    "REGION_STEPS",
    "STEPS",
    "atomics",
    "blocks",
    "casts",
    "constants",
    "dot_scaled",
    "floats",
    "hints",
    "inline_asm",
    "integers",
    "libdevice",
    "memory",
    "products",
    "reductions",
    "regions",
]
