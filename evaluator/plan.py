"""Launch plans: what a candidate asks a GPU to do for one case. Plain data that the judge treats as hostile.

A plan names buffers, then lists steps in order: fills of buffers, and launches of kernels given as IR.
"""

import hashlib
import json
import math
import re
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from functools import cached_property, lru_cache
from typing import Annotated, Any, Literal, TypeAlias

from msgspec import Meta

from avo.evaluator.locations import without_locations

ITEM_BYTES = {
    "bool": 1,
    "int8": 1,
    "uint8": 1,
    "int16": 2,
    "uint16": 2,
    "int32": 4,
    "uint32": 4,
    "int64": 8,
    "uint64": 8,
    "float16": 2,
    "bfloat16": 2,
    "float32": 4,
    "float64": 8,
    "float8_e4m3fn": 1,
    "float8_e5m2": 1,
}
"""Bytes per element of every dtype that a buffer may have, by its torch name."""

# Bounds that hold for plans from elsewhere: ``capture.plan_reading`` checks them.
Name: TypeAlias = Annotated[str, Meta(max_length=200)]
ConfigurationText: TypeAlias = Annotated[str, Meta(max_length=2000)]
Index: TypeAlias = Annotated[int, Meta(ge=0)]
Extent: TypeAlias = Annotated[int, Meta(ge=0, le=2**40)]
GridExtent: TypeAlias = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Grid: TypeAlias = tuple[GridExtent, GridExtent, GridExtent]
Extents: TypeAlias = Annotated[tuple[Extent, ...], Meta(max_length=8)]
Shape: TypeAlias = Annotated[tuple[Annotated[int, Meta(ge=1, le=2**40)], ...], Meta(max_length=8)]
BlockShape: TypeAlias = Annotated[tuple[Annotated[int, Meta(ge=1, le=2**20)], ...], Meta(max_length=8)]
Option: TypeAlias = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | float | Name | bool | None


@dataclass(frozen=True, slots=True)
class PlanLimits:
    """What a plan may ask for at most."""

    launches: int = 64
    fills: int = 64
    scratch_bytes: int = 2**30
    """All scratch buffers of one plan together."""
    ttir_chars: int = 4_000_000
    """All kernels of one plan together."""
    programs: int = 2**24
    """CTAs of one launch."""
    configurations: int = 16
    """Plans for one case, which differ by the configurations of autotuned kernels; and autotuned kernels of a plan."""


DEFAULT_LIMITS = PlanLimits()


_SECTOR_BYTES = 32
"""The unit in which device memory is written."""


class Role(StrEnum):
    """What a buffer is for."""

    INPUT = "input"
    OUTPUT = "output"
    SCRATCH = "scratch"


@dataclass(frozen=True, slots=True)
class Buffer:
    """One allocation."""

    name: Name
    dtype: str
    """A key of ``ITEM_BYTES``."""
    size: Extent
    """Elements."""
    role: Role

    @property
    def nbytes(self) -> int:
        """Bytes of the allocation."""
        return self.size * ITEM_BYTES[self.dtype]


@dataclass(frozen=True, slots=True)
class Pointer:
    """Kernel argument: the address ``byte_offset`` bytes into a buffer."""

    buffer: Index
    byte_offset: Index


@dataclass(frozen=True, slots=True)
class Scalar:
    """Kernel argument: a number; its type is the parameter's type in the IR."""

    value: int | float | bool


@dataclass(frozen=True, slots=True)
class Pixels:
    """How a descriptor walks over the pixels of images, TMA's im2col mode (PTX ISA): along each spatial axis from
    ``lower`` to the last place plus ``upper``, ``steps`` apart.
    """

    lower: tuple[int, ...]
    upper: tuple[int, ...]
    steps: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Descriptor:
    """Kernel argument: a host-made tensor descriptor (TMA) over a strided view of a buffer."""

    buffer: Index
    byte_offset: Index
    shape: Shape
    strides: Extents
    """Strides in elements; the last is 1."""
    block_shape: BlockShape
    padding: Literal["zero", "nan"]
    """What reads outside the shape give: ``zero`` or ``nan``."""
    pixels: Pixels | None = None
    """For an image [N, ..., C] whose blocks are [pixels, channels]; None: blocks are those of the tensor."""
    rounds_tf32: bool = False
    """Whether loads round float32 to tf32."""


Argument: TypeAlias = Pointer | Scalar | Descriptor


class Level(StrEnum):
    """Which of Triton's IRs a kernel is given in."""

    TTIR = "ttir"
    """Triton IR: what a ``triton.jit`` function is lowered to, without layouts."""
    TTGIR = "ttgir"
    """Triton GPU IR, with layouts and the target's own operations: where Gluon starts."""


@dataclass(frozen=True, slots=True)
class KernelIR:
    """One kernel: IR text and the compile options it was launched with."""

    name: Annotated[str, Meta(max_length=400)]
    """The ``tt.func public`` symbol."""
    ttir: str
    """The IR as text, at ``level``."""
    options: Annotated[tuple[tuple[Name, Option], ...], Meta(max_length=64)]
    """Sorted pairs, e.g. ``("num_warps", 4)``."""
    level: Level = Level.TTIR

    @property
    def option(self) -> dict[str, Option]:
        """The options as a dictionary."""
        return dict(self.options)


@dataclass(frozen=True, slots=True)
class Fill:
    """Step: set a strided view of a buffer to one value."""

    buffer: Index
    offset: Extent
    """Offset in elements, like the strides."""
    shape: Extents
    strides: Extents
    value: int | float | bool

    def nbytes(self, buffer: Buffer) -> int:
        """Return the bytes that it writes to ``buffer``; each contiguous run of elements takes whole sectors."""
        run = runs = 1
        for stride, extent in sorted(zip(self.strides, self.shape, strict=True)):
            if stride == run:
                run *= extent
            elif stride:  # with a stride of 0, all extents are the same elements
                runs *= extent
        return runs * -(-run * ITEM_BYTES[buffer.dtype] // _SECTOR_BYTES) * _SECTOR_BYTES


@dataclass(frozen=True, slots=True)
class Launch:
    """Step: run a kernel over a grid."""

    kernel: Index
    """Index into the plan's kernels."""
    grid: Grid
    args: tuple[Argument, ...]
    """One argument per parameter of the IR function, in order."""

    @property
    def programs(self) -> int:
        """Number of CTAs in the grid."""
        return math.prod(self.grid)


@dataclass(frozen=True, slots=True)
class Configuration:
    """What one autotuned kernel was launched with in a plan."""

    kernel: ConfigurationText
    """The kernel's name. If one call tunes it for several keys, the second and later ones are marked ``#2`` and so on.
    """
    key: ConfigurationText
    """Calls with the same key get the same configuration."""
    choice: ConfigurationText
    """Meta-parameters and options, e.g. ``BM=128, num_warps=8``."""

    def __str__(self) -> str:
        return f"{self.kernel}: {self.choice}"


@dataclass(frozen=True)
class LaunchPlan:
    """Everything a candidate wants done for one case."""

    case: str
    buffers: tuple[Buffer, ...]
    kernels: tuple[KernelIR, ...]
    steps: tuple[Fill | Launch, ...]
    configurations: tuple[Configuration, ...] = ()
    """Configurations of the autotuned kernels, in the order of their first launch."""

    @property
    def launches(self) -> tuple[Launch, ...]:
        """The steps that launch a kernel."""
        return tuple(step for step in self.steps if isinstance(step, Launch))

    @property
    def fills(self) -> tuple[tuple[int, ...], ...]:
        """For each launch the bytes of each fill before it; those after the last launch are with it."""
        found: list[list[int]] = [[] for _ in self.launches] or [[]]
        place = 0
        for step in self.steps:
            if isinstance(step, Fill):
                found[min(place, len(found) - 1)].append(step.nbytes(self.buffers[step.buffer]))
            else:
                place += 1
        return tuple(map(tuple, found))

    @cached_property
    def digest(self) -> str:
        """Hex digest of what the plan does; source locations and names of values and functions in the IR do not count,
        nor do the names of configurations.
        """
        data = replace(self, configurations=()).to_json()
        for kernel in data["kernels"]:
            kernel["ttir"], kernel["name"] = canonical_ttir(kernel["ttir"]), ""
        return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """Plain data for JSON; ``plan_reading`` takes it back."""
        return {
            "case": self.case,
            "buffers": [asdict(buffer) for buffer in self.buffers],
            "kernels": [
                {"name": k.name, "ttir": k.ttir, "options": dict(k.options), "level": k.level} for k in self.kernels
            ],
            "steps": [_step_to_json(step) for step in self.steps],
            "configurations": [asdict(configuration) for configuration in self.configurations],
        }


_STRING_OR_NAME = re.compile(r'"(?:[^"\\]|\\.)*"|[%@][\w$.\-]+')


@lru_cache(maxsize=64)  # the cases of a candidate share their kernels
def canonical_ttir(text: str) -> str:
    """Return IR text without source locations and with SSA values and functions renamed in order of appearance."""
    names: dict[str, str] = {}

    def rename(match: re.Match[str]) -> str:
        return match[0] if match[0].startswith('"') else names.setdefault(match[0], f"{match[0][0]}{len(names)}")

    renamed = _STRING_OR_NAME.sub(rename, without_locations(text))
    return "\n".join(line.strip() for line in renamed.splitlines() if line.strip())


def _step_to_json(step: Fill | Launch) -> dict[str, Any]:
    if isinstance(step, Fill):
        return {"fill": asdict(step)}
    args = [{type(arg).__name__.lower(): asdict(arg)} for arg in step.args]
    return {"launch": {"kernel": step.kernel, "grid": list(step.grid), "args": args}}
