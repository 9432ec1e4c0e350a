"""Problems: what to compute, the inputs, the reference and the cases it is judged on."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from evaluator.plan import ITEM_BYTES, Role

if TYPE_CHECKING:
    from random import Random

    import torch


HELD_OUT = "held_out"
"""The suite of benchmark cases that no variation operator is ever shown."""


LAYOUTS = ("contiguous", "bshd", "padded", "mixed")
"""Memory orders: ``contiguous`` [b, h, s, d], ``bshd`` [b, s, h, d], ``padded`` rows, or ``mixed``, one of its own for
each tensor.
"""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """The shape of one tensor argument: what the candidate's process is told, and all it is told."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    """Strides in elements."""
    size: int
    """Elements of the storage; at least what shape and strides reach."""
    role: Role

    @property
    def nbytes(self) -> int:
        """Bytes of the storage."""
        return self.size * ITEM_BYTES[self.dtype]


@dataclass(frozen=True, slots=True)
class Call:
    """How the entry function is called for one case: positional tensors, then keyword scalars."""

    case: str
    tensors: tuple[TensorSpec, ...]
    scalars: tuple[tuple[str, bool | int | float], ...]


@dataclass(frozen=True, slots=True)
class Case:
    """One configuration of an attention problem."""

    name: str
    batch: int
    heads: int
    kv_heads: int
    q_len: int
    kv_len: int
    head_dim: int
    causal: bool
    dtype: str = "bfloat16"
    inputs: str = "normal"
    """Name of the input maker."""
    layout: str = "contiguous"
    """Memory order of q, k, v and out, one of ``LAYOUTS``."""
    scale: float = 0.0
    """Factor on the scores before softmax; 0 stands for 1 / sqrt(head_dim)."""
    block_size: int = 0
    """Keys of one block, where a problem selects blocks."""
    blocks: int = 0
    """Blocks that a query may select at most."""
    selection: str = ""
    """Name of the maker of what is selected."""


@dataclass(frozen=True, slots=True)
class Baseline:
    """A published figure to compare a score with."""

    name: str
    target: str
    tflops: Mapping[str, float]
    """TFLOPS by the name of the benchmark case."""
    source: str


class Problem(Protocol):
    """One attention computation."""

    @property
    def name(self) -> str:
        """What the command line calls it."""
        ...

    @property
    def entry(self) -> str:
        """Name of the function a candidate must define."""
        ...

    @property
    def correctness_cases(self) -> tuple[Case, ...]:
        """Small structured cases; every program of every launch is executed."""
        ...

    @property
    def suites(self) -> Mapping[str, tuple[Case, ...]]:
        """Benchmark cases by suite name."""
        ...

    @property
    def baselines(self) -> tuple[Baseline, ...]:
        """Published figures on the benchmark cases."""
        ...

    def call(self, case: Case) -> Call:
        """Return how the entry function is called for ``case``."""
        ...

    def at_other_lengths(self, case: Case, chance: "Random") -> Case:
        """Return ``case`` at other lengths, drawn by ``chance``, and at most as many batches; unchanged if it has none.

        A candidate has to be correct there too before it is accepted.
        """
        ...

    def at_length(self, case: Case, length: int, chance: "Random") -> Case:
        """Return a case of ``length`` keys of the kind of ``case``, one of a suite, with everything else drawn that a
        candidate may not rely on: memory order, scale, number of queries, batch and heads.

        The same ``chance`` gives the same kind of case at each length, as far as memory allows: lengths reach twice
        those of the suites. A candidate has to be correct there too before it is accepted.
        """
        ...

    def flops(self, case: Case) -> int:
        """Return the useful floating-point operations of ``case``."""
        ...

    def least_bytes(self, case: Case) -> int:
        """Return the least bytes that move to or from HBM: each input is read and each output written once."""
        ...

    def make_inputs(self, case: Case, seed: int) -> "dict[str, torch.Tensor]":
        """Return the flat storage of each input tensor of ``call(case)``, by name, on torch's default device.

        That is the CPU, or the GPU where speed is measured; the same seed gives other numbers there. Tensors drawn with
        ``evaluator.problems.inputs.seeded`` are on the right device.
        """
        ...

    def reference(
        self, case: Case, inputs: "Mapping[str, torch.Tensor]", batch: int, head: int, rows: "torch.Tensor"
    ) -> "tuple[torch.Tensor, torch.Tensor, torch.Tensor]":
        """Return (out, lse, attainable) in float64 for query rows (int64 [n]) of one batch and head, all on the default
        device, as ``inputs`` and ``rows`` are.

        ``out`` is [n, head_dim], ``lse`` [n]; ``attainable`` [n] is the error norm per row of a computation that takes
        the inputs as they are, accumulates in float32 and rounds probabilities and result to the input type.
        """
        ...
