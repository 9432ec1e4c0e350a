"""Problems: what to compute, the inputs, the reference and the cases it is judged on."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from avo.evaluator.plan import ITEM_BYTES, Role

if TYPE_CHECKING:
    from random import Random

    import torch


HELD_OUT = "held_out"
"""The suite of benchmark cases that no variation operator is ever shown."""


LAYOUTS = ("contiguous", "bshd", "padded", "mixed", "fused", "interleaved")
"""Memory orders: ``contiguous`` [b, h, s, d], ``bshd`` [b, s, h, d], ``padded`` rows, ``mixed``, one of its own for
each tensor, and parts of a larger tensor, ``fused`` [b, s, 3, heads, d] and ``interleaved`` [s, b, h, 3, d].
"""
FAR = ("far-batch", "far-heads", "far-rows")
"""Memory orders of small cases in which one axis is the outermost and reaches 2^32 elements or more: its offsets do not
fit in 32 bits, signed or not.
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
    sparse: bool = False
    """Whether the judge holds the elements alone, one after another, and nothing of the memory between them."""

    @property
    def nbytes(self) -> int:
        """Bytes of the storage."""
        return self.size * ITEM_BYTES[self.dtype]

    @property
    def held(self) -> "TensorSpec":
        """The tensor as the judge holds it."""
        if not self.sparse:
            return self
        strides = tuple(math.prod(self.shape[dim + 1 :]) for dim in range(len(self.shape)))
        return replace(self, strides=strides, size=math.prod(self.shape), sparse=False)


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
    """Memory order of q, k, v and out, one of ``LAYOUTS`` or ``FAR``."""
    scale: float = 0.0
    """Factor on the scores before softmax; 0 stands for 1 / sqrt(head_dim)."""
    head_dim_v: int = 0
    """Elements of a value and of out; 0 stands for ``head_dim``, that of queries and keys."""

    @property
    def far(self) -> bool:
        """Whether its tensors may reach over more memory than a machine has."""
        return self.layout.startswith("far-")


@dataclass(frozen=True, slots=True)
class Rounded:
    """The tolerance of an output that is rounded to the inputs' type. It is relative to the reference, row by row and
    for all rows together, as what attention computes shrinks as sequences grow.
    """

    factor: float = 2.0
    """A row may be off by this many times the error of plain arithmetic (see ``Expected.attainable``), plus a unit in
    the last place of its type: half for the result, half for a factor of a product that is rounded where plain
    arithmetic loses nothing, as a probability of 1 under lazy rescaling.
    """
    epsilons: float = 0.64
    """Limit on ``||out - ref|| / ||ref||`` in machine epsilons of the inputs' type, where ``factor`` times the
    attainable error is no more: 0.005 in bfloat16 and 0.000625 in float16. Rounding the result alone costs 0.2 epsilons
    (uniform errors within half a unit in the last place), and correct kernels reach about a quarter of one.
    """


@dataclass(frozen=True, slots=True)
class Absolute:
    """The tolerance of an output in float32: each element may be off by ``most``."""

    most: float


@dataclass(frozen=True, slots=True)
class Output:
    """An output of a problem: [batch, heads, rows] or [batch, heads, rows, elements]. ``Problem.call`` has its shape
    and type.
    """

    name: str
    tolerance: Rounded | Absolute
    rows: str = "queries"
    """What its rows are of. Outputs that agree in this have the same rows, which are sampled and compared together."""
    hint: str = ""
    """What an author may have got wrong where only this output is wrong, as the end of a sentence."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What the reference says of some rows of an output."""

    value: "torch.Tensor"
    """float64 [n] or [n, elements]."""
    attainable: "torch.Tensor | None" = None
    """float64 [n], for an output that is ``Rounded``: the norm of the error of each row in a computation that takes the
    inputs as they are, accumulates in float32 and rounds factors of products and the result to the input type.
    """


@dataclass(frozen=True, slots=True)
class Wrong:
    """Rows of one head that a candidate got wrong."""

    of: str
    """What the rows are of: see ``Output.rows``."""
    batch: int
    head: int
    rows: "torch.Tensor"
    """int64 [n]."""
    values: "Mapping[str, torch.Tensor]"
    """What the candidate wrote there, float64 [n, ...], by output."""


@dataclass(frozen=True, slots=True)
class Baseline:
    """Published work to compare a score with: figures, or a kernel in its place."""

    name: str
    target: str
    """The card that the figures are for; empty for a kernel that is judged where the score is."""
    tflops: Mapping[str, float]
    """TFLOPS by the name of the benchmark case."""
    source: str
    words: str = ""
    """What was published instead of figures for cases."""
    seed: str = ""
    """Name of the problem's seed that is judged in place of published figures."""


MOST_HEADS = 65_535
"""Most query heads of all sequences of a case: as many programs as a grid has on its second axis, where the seeds have
them (CUDA C++ Programming Guide, technical specifications per compute capability).
"""
CROWDED = 4
"""Most keys of a case with nearly so many heads, which so has about as many rows as others that are drawn."""
_BEYOND = 2
"""Longest cases that a candidate is judged on, as a multiple of the longest benchmark case."""


def longest(problem: "Problem") -> int:
    """Return the end of the range of lengths that a candidate is judged at before acceptance, in keys."""
    return _BEYOND * max(case.kv_len for suite in problem.suites.values() for case in suite)


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
    def outputs(self) -> tuple[Output, ...]:
        """What a candidate must compute, and how exactly; the first ones are what a wrong candidate is told of first.

        They are the tensors of ``call`` with the role of an output.
        """
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
        those of the suites. Up to ``CROWDED`` keys there are nearly ``MOST_HEADS``, if memory allows. A candidate has
        to be correct there too before it is accepted.
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
        ``avo.evaluator.problems.inputs.seeded`` are on the right device.
        """
        ...

    def reference(
        self, case: Case, inputs: "Mapping[str, torch.Tensor]", of: str, batch: int, head: int, rows: "torch.Tensor"
    ) -> Mapping[str, Expected]:
        """Return what is right for the outputs whose rows are ``of`` the given, at ``rows`` (int64 [n]) of one batch
        and head, by name; all on the default device, as ``inputs`` and ``rows`` are.
        """
        ...

    def plant(
        self, case: Case, inputs: "Mapping[str, torch.Tensor]", chance: "Random"
    ) -> Mapping[str, tuple[int, int, int]]:
        """Change the inputs in few places, drawn by ``chance``, and return one row (batch, head, row) that is quite
        another than before, for each kind of rows.

        Where speed is measured each run gets inputs of its own so, and that row is compared.
        """
        ...


@runtime_checkable
class Diagnosing(Protocol):
    """A problem that knows usual mistakes."""

    def diagnose(self, case: Case, inputs: "Mapping[str, torch.Tensor]", wrong: Wrong) -> str:
        """Return the mistake that explains the wrong rows, as the end of a sentence; ``""`` if none is found.

        No verdict depends on it.
        """
        ...


def signature(problem: Problem) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """Return the names of the entry function, its tensors and its scalars: problems that agree in them take each
    other's kernels.
    """
    call = problem.call(problem.correctness_cases[0])
    return problem.entry, tuple(spec.name for spec in call.tensors), tuple(name for name, _ in call.scalars)


def rows_of(outputs: Iterable[Output]) -> dict[str, tuple[Output, ...]]:
    """Return the outputs by what their rows are of, in order."""
    found: dict[str, tuple[Output, ...]] = {}
    for output in outputs:
        found[output.rows] = (*found.get(output.rows, ()), output)
    return found


_TILE = 64
"""Rows of a small tile of queries."""


def smallest_of_each(cases: Sequence[Case]) -> tuple[Case, ...]:
    """Return the causal and the full case with the least work among those that are larger than a tile of a usual size.

    If all cases of a problem are of one kind, this is one case.
    """
    near = [case for case in cases if not case.far]
    kinds = ([case for case in near if case.causal is causal] for causal in (False, True))
    larger = ([case for case in of_kind if case.q_len > _TILE] or of_kind for of_kind in kinds)
    return tuple(
        min(of_kind, key=lambda case: case.batch * case.heads * case.q_len * case.kv_len)
        for of_kind in larger
        if of_kind
    )
