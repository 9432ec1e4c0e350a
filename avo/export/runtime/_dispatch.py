"""Which kernel runs a call, and what happens to a call that no kernel takes.

``dispatch.json``, next to this file, says which calls each kernel takes and how fast it was on each case that it was
judged on. Among the kernels that take a call, the one that was fastest on the case nearest to the call runs.
"""

import contextvars
import functools
import importlib
import json
import math
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import triton

NAMESPACE = __name__.rpartition(".")[0].replace(".", "_")
"""Namespace of this package's operators in ``torch.ops``."""
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
"""Whether Triton interprets kernels. They then take tensors on the CPU, in types that its interpreter computes in."""
_INTERPRETED_DTYPES = (torch.float16, torch.float32)
_MODES = ("sdpa", "raise")
_DEFAULT_MODE = os.environ.get("AVO_ON_UNSUPPORTED", "sdpa")
_warned: set[str] = set()
"""Reasons for which a warning was given: there is one warning for each."""
_ALIGNMENT = 16
"""Alignment of the judge's tensors and of their rows, in bytes."""


class UnsupportedCall(NotImplementedError):
    """No kernel of this package takes the call, and the caller asked for an error."""


@dataclass(frozen=True, slots=True)
class ExportedKernel:
    """Which calls one kernel takes."""

    name: str
    """Name of the kernel's module in ``kernels``."""
    function: str
    """Name of the kernel's entry and of the public function that it is for."""
    version: str
    """Where the kernel comes from: RUN@VERSION."""
    target: str
    """What the speed was judged for; speeds of different targets are never compared."""
    capability: tuple[int, int]
    dtypes: tuple[str, ...]
    head_dims: tuple[int, ...]
    grouped: bool
    """Whether several query heads may share a KV head."""
    block_sizes: tuple[int, ...]
    """Sizes of selected blocks; empty for dense attention."""
    gluon: bool
    """Whether the kernel is written in Gluon, which only a GPU runs."""
    interpretable: bool
    """Whether Triton's interpreter can run the kernel."""


@dataclass(frozen=True, slots=True)
class CaseSpeed:
    """The speed of one kernel on one case."""

    kernel: str
    case: str
    batch: int
    heads: int
    kv_heads: int
    length: int
    """Number of keys in a sequence."""
    head_dim: int
    causal: bool
    block_size: int
    blocks: int
    """Number of blocks that a query selects at most."""
    kind: str
    """``predicted`` or ``measured``."""
    tflops: float


def _read() -> tuple[tuple[ExportedKernel, ...], tuple[CaseSpeed, ...]]:
    def hashable(record: dict[str, Any]) -> dict[str, Any]:
        return {name: tuple(value) if isinstance(value, list) else value for name, value in record.items()}

    table = json.loads(Path(__file__).with_name("dispatch.json").read_text(encoding="utf-8"))
    kernels = tuple(ExportedKernel(**hashable(each)) for each in table["kernels"])
    return kernels, tuple(CaseSpeed(**each) for each in table["cases"])


KERNELS, SPEEDS = _read()
"""The kernels in order of preference of their targets, and their speeds."""


def candidates(function: str, query: torch.Tensor, group: int, block_size: int = 0) -> tuple[list[ExportedKernel], str]:
    """Return the kernels for a call with such a query and ``group`` query heads to a KV head; where none, say why."""
    found = [kernel for kernel in KERNELS if kernel.function == function]
    dtype = str(query.dtype).removeprefix("torch.")
    if INTERPRETED:
        found = [kernel for kernel in found if kernel.interpretable]
        if query.dtype not in _INTERPRETED_DTYPES or not found:
            return [], f"{dtype} in Triton's interpreter"
    else:
        if not query.is_cuda:
            return [], f"tensors on {query.device.type}"
        capability = _capability(query.device.index)
        found = [kernel for kernel in found if kernel.capability == capability]
        if not found:
            return [], f"compute capability {capability[0]}.{capability[1]}"
        found = [kernel for kernel in found if dtype in kernel.dtypes]
        if not found:
            return [], dtype
    found = [kernel for kernel in found if query.shape[3] in kernel.head_dims]
    if not found:
        return [], f"head dim {query.shape[3]}"
    found = [kernel for kernel in found if kernel.grouped or group == 1]
    if not found:
        return [], f"groups of {group} query heads"
    found = [kernel for kernel in found if not block_size or block_size in kernel.block_sizes]
    return found, "" if found else f"blocks of {block_size} keys"


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _capability(device: int | None) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device)


def choose(function: str, query: torch.Tensor, key: torch.Tensor, causal: bool, block_size: int = 0) -> ModuleType:
    """Return the module of the kernel that runs a call for which ``candidates`` are found; import it if necessary."""
    group = query.shape[1] // key.shape[1]
    found = candidates(function, query, group, block_size)[0]
    name = _fastest(tuple(found), query.shape[3], causal, group, block_size, key.shape[2])
    return importlib.import_module(f".kernels.{name}", __package__)


@functools.lru_cache(maxsize=4096)
def _fastest(
    kernels: tuple[ExportedKernel, ...], head_dim: int, causal: bool, group: int, block_size: int, length: int
) -> str:
    names = {kernel.name for kernel in kernels if kernel.target == kernels[0].target}
    speeds = [each for each in SPEEDS if each.kernel in names]

    def distance(each: CaseSpeed) -> tuple[float, ...]:
        return (
            each.head_dim != head_dim,
            each.causal != causal,
            abs(math.log2(each.heads / each.kv_heads / group)),
            abs(math.log2(each.block_size / block_size)) if block_size else 0.0,
            abs(math.log2(each.length / length)),
        )

    nearest = min(speeds, key=lambda each: (distance(each), each.case))
    rivals = [each for each in speeds if each.case == nearest.case and distance(each) == distance(nearest)]
    return max(rivals, key=lambda each: each.tflops).kernel


def run(kernel: Callable[..., None], query: torch.Tensor, *tensors: torch.Tensor, **options: Any) -> None:
    """Call a kernel's entry on the device of ``query``, its first tensor, with memory for descriptors that it makes on
    the GPU. Triton's allocator of the caller stays as it is.
    """

    def call() -> None:
        triton.set_allocator(lambda size, alignment, stream: query.new_empty(size, dtype=torch.int8))
        with torch.cuda.device_of(query):
            kernel(query, *tensors, **options)

    contextvars.copy_context().run(call)


def as_judged(tensor: torch.Tensor) -> torch.Tensor:
    """Return ``tensor``, or a copy where its last stride is not 1 or its rows are not aligned as the judge's."""
    *strides, last = tensor.stride()
    aligned = [address % _ALIGNMENT == 0 for address in (tensor.data_ptr(), *(s * tensor.itemsize for s in strides))]
    if last == 1 and all(strides) and all(aligned):
        return tensor
    return tensor.clone(memory_format=torch.contiguous_format)


def decline(reason: str, on_unsupported: str | None) -> None:
    """Warn, once for each reason, that torch computes the call, or raise ``UnsupportedCall`` if asked to."""
    mode = _DEFAULT_MODE if on_unsupported is None else on_unsupported
    if mode not in _MODES:
        raise ValueError(f"on_unsupported should be one of {_MODES}, not {mode!r}")
    if mode == "raise":
        raise UnsupportedCall(f"{NAMESPACE} has no kernel for {reason}")
    _warn_once(reason)


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _warn_once(reason: str) -> bool:
    if reason not in _warned:
        _warned.add(reason)
        warnings.warn(f"{NAMESPACE} has no kernel for {reason}: scaled_dot_product_attention computes it", stacklevel=4)
    return True
