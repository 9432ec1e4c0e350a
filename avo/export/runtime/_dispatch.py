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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import triton

from ._by_torch import autocasts

NAMESPACE = __name__.rpartition(".")[0].replace(".", "_")
"""Namespace of this package's operators in ``torch.ops``."""
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
"""Whether Triton interprets kernels. They then take tensors on the CPU, in types that its interpreter computes in."""
SIDE_BY_SIDE = "sequences side by side"
"""The reason against a dense call where all kernels are for packed sequences."""
_INTERPRETED_DTYPES = ("float16", "float32")
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
    """Name of the public function that the kernel is for."""
    entry: str
    """Name of the kernel's own function."""
    tensors: tuple[str, ...]
    """What that takes, in order."""
    scalars: tuple[str, ...]
    """What it takes besides, by name."""
    version: str
    """Where the kernel comes from: RUN@VERSION."""
    target: str
    """What the speed was judged for; speeds of different targets are never compared."""
    capability: tuple[int, int]
    dtypes: tuple[str, ...]
    head_dims: tuple[tuple[int, int], ...]
    """Elements of a key and of a value."""
    grouped: bool
    """Whether several query heads may share a KV head."""
    causal: tuple[bool, ...]
    """Whether it was judged with the causal mask, without, or both."""
    block_sizes: tuple[int, ...]
    """Sizes of selected blocks or of pages; empty for dense attention."""
    local: bool
    """Whether, of the blocks that a query selects, it relies on none but the query's own."""
    longest: int
    """Most keys of the range that it was judged in: of a sequence, or of all together where they are packed."""
    interpretable: bool
    """Whether Triton's interpreter can run the kernel."""

    @property
    def backward(self) -> bool:
        """Whether the kernel computes gradients."""
        return "dout" in self.tensors

    @property
    def packed(self) -> bool:
        """Whether the kernel is for sequences that are packed one after another."""
        return "cu_seqlens_q" in self.tensors


@dataclass(frozen=True, slots=True)
class CaseSpeed:
    """The speed of one kernel on one case."""

    kernel: str
    case: str
    batch: int
    heads: int
    kv_heads: int
    q_len: int
    length: int
    """Number of keys: of the longest sequence, or of all together where they are packed."""
    head_dim: int
    head_dim_v: int
    causal: bool
    window: int
    """Number of keys that a query sees at most; 0: all."""
    lengths: tuple[int, ...]
    """Number of keys of each sequence, where they are packed or differ."""
    block_size: int
    blocks: int
    """Number of blocks that a query selects at most."""
    kind: str
    """``predicted`` or ``measured``."""
    tflops: float


class Call(NamedTuple):
    """What decides which kernels take a call."""

    function: str
    device: torch.device
    dtype: torch.dtype
    head_dims: tuple[int, int]
    """Elements of a key and of a value."""
    group: int
    """Query heads to a KV head."""
    causal: bool
    window: int = 0
    """Number of keys that a query sees at most; 0: all."""
    sinks: bool = False
    packed: bool = False
    block_size: int = 0
    local: bool = False
    """Whether queries may lack block 0 or the one before their own."""


def _read() -> tuple[tuple[ExportedKernel, ...], tuple[CaseSpeed, ...]]:
    def hashable(value: Any) -> Any:
        return tuple(hashable(each) for each in value) if isinstance(value, list) else value

    table = json.loads(Path(__file__).with_name("dispatch.json").read_text(encoding="utf-8"))
    kernels, speeds = (
        [{name: hashable(value) for name, value in each.items()} for each in table[part]]
        for part in ("kernels", "cases")
    )
    return tuple(ExportedKernel(**each) for each in kernels), tuple(CaseSpeed(**each) for each in speeds)


KERNELS, SPEEDS = _read()
"""The kernels in order of preference of their targets, and their speeds."""


def candidates(call: Call, keys: int = 0, *, backward: bool = False) -> tuple[list[ExportedKernel], str]:
    """Return the kernels that take a call with so many ``keys``; where there are none, in a few words why."""
    found = [each for each in KERNELS if each.function == call.function and each.backward == backward]
    dtype = str(call.dtype).removeprefix("torch.")
    if INTERPRETED:
        found = [each for each in found if each.interpretable]
        if dtype not in _INTERPRETED_DTYPES or not found:
            return [], f"{dtype} in Triton's interpreter"
    else:
        if call.device.type != "cuda":
            return [], f"tensors on {call.device.type}"
        capability = _capability(call.device.index)
        found = [each for each in found if each.capability == capability]
        if not found:
            return [], f"compute capability {capability[0]}.{capability[1]}"
        found = [each for each in found if dtype in each.dtypes]
        if not found:
            return [], dtype
    key, value = call.head_dims
    wanted: tuple[tuple[Callable[[ExportedKernel], bool], str], ...] = (
        (
            lambda each: call.head_dims in each.head_dims,
            f"head dim {key}" if key == value else f"head dims {key} of keys and {value} of values",
        ),
        (lambda each: each.grouped or call.group == 1, f"groups of {call.group} query heads"),
        (lambda each: each.packed == call.packed, "packed sequences" if call.packed else SIDE_BY_SIDE),
        (lambda each: call.causal in each.causal, "causal attention" if call.causal else "attention without a mask"),
        (lambda each: not call.window or "window" in each.scalars, "a sliding window"),
        # What a query's lse says of keys elsewhere holds for sinks, too, so gradients need none of their own.
        (
            lambda each: ("sinks" in each.tensors) == call.sinks or (backward and call.sinks),
            "attention sinks" if call.sinks else "attention without sinks",
        ),
        (
            lambda each: not call.block_size or call.block_size in each.block_sizes,
            f"{'pages' if call.function == 'decode' else 'blocks'} of {call.block_size} keys",
        ),
        (lambda each: each.local or not call.local, "queries that may lack block 0 or the one before their own"),
    )
    for takes, reason in wanted:
        found = [each for each in found if takes(each)]
        if not found:
            return [], reason
    longest = max(each.longest for each in found)
    if keys > longest:
        return [], f"more than {longest} keys"
    return [each for each in found if keys <= each.longest], ""


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _capability(device: int | None) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device)


def choose(call: Call, q_len: int, kv_len: int, *, backward: bool = False) -> ExportedKernel:
    """Return the kernel that runs a call, for which there are ``candidates``, at these lengths."""
    taking, reason = candidates(call, kv_len, backward=backward)
    if reason:  # a graph is for any length, see ``length_of``
        warn_once(f"{NAMESPACE} was judged on no call with {reason}")
    found = tuple(taking or candidates(call, backward=backward)[0])
    name = _fastest(found, call.head_dims, call.causal, call.group, call.window, call.block_size, q_len, kv_len)
    return next(each for each in found if each.name == name)


@functools.lru_cache(maxsize=4096)
def _fastest(
    kernels: tuple[ExportedKernel, ...],
    head_dims: tuple[int, int],
    causal: bool,
    group: int,
    window: int,
    block_size: int,
    q_len: int,
    kv_len: int,
) -> str:
    names = {kernel.name for kernel in kernels if kernel.target == kernels[0].target}
    speeds = [each for each in SPEEDS if each.kernel in names]

    def apart(one: float, other: float) -> float:
        return abs(math.log2(one / other))

    def distance(each: CaseSpeed) -> tuple[float, ...]:
        seen = min(each.window or each.length, each.length)
        return (
            (each.head_dim, each.head_dim_v) != head_dims,
            each.causal != causal,
            apart(each.length / each.q_len, kv_len / q_len),  # few queries to many keys are another kind of work
            apart(seen / each.length, min(window or kv_len, kv_len) / kv_len),
            apart(each.heads / each.kv_heads, group),
            apart(each.block_size, block_size) if block_size else 0.0,
            apart(each.length, kv_len),
        )

    nearest = min(speeds, key=lambda each: (distance(each), each.case))
    rivals = [each for each in speeds if each.case == nearest.case and distance(each) == distance(nearest)]
    return max(rivals, key=lambda each: each.tflops).kernel


def launch(kernel: ExportedKernel, tensors: Mapping[str, torch.Tensor], scalars: Mapping[str, Any]) -> None:
    """Call a kernel with those of ``tensors`` and ``scalars`` that it takes; import it if necessary."""
    entry = getattr(importlib.import_module(f".kernels.{kernel.name}", __package__), kernel.entry)
    run(entry, *(tensors[name] for name in kernel.tensors), **{name: scalars[name] for name in kernel.scalars})


def run(kernel: Callable[..., None], query: torch.Tensor, *tensors: torch.Tensor, **options: Any) -> None:
    """Call a kernel's entry on the device of ``query``, its first tensor, with memory for descriptors that it makes on
    the GPU. Triton's allocator of the caller stays as it is.
    """

    def call() -> None:
        triton.set_allocator(lambda size, alignment, stream: query.new_empty(size, dtype=torch.int8))
        with torch.cuda.device_of(query):
            kernel(query, *tensors, **options)

    contextvars.copy_context().run(call)


def autocast(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return tensors in the type of ``torch.autocast``, where that is on, as torch's own attention takes them."""
    if not autocasts(tensors[0]):
        return tensors
    dtype = torch.get_autocast_dtype(tensors[0].device.type)
    return tuple(each if each.dtype == torch.float64 else each.to(dtype) for each in tensors)


def length_of(key: torch.Tensor) -> int:
    """Return the number of keys, or 0 while torch compiles or exports: a graph is for any length."""
    return 0 if torch.compiler.is_compiling() else key.shape[2]


def as_judged(tensor: torch.Tensor) -> torch.Tensor:
    """Return ``tensor``, or a copy where its last stride is not 1 or its rows are not aligned as the judge's."""
    *strides, last = tensor.stride()
    aligned = [address % _ALIGNMENT == 0 for address in (tensor.data_ptr(), *(s * tensor.itemsize for s in strides))]
    if last == 1 and all(strides) and all(aligned):
        return tensor
    return tensor.clone(memory_format=torch.contiguous_format)


def empty_like(tensor: torch.Tensor, elements: int) -> torch.Tensor:
    """Return memory [batch, heads, rows, elements], the heads of a token side by side if they are in ``tensor``."""
    batch, heads, rows = tensor.shape[:3]
    if tensor.transpose(1, 2).is_contiguous():
        return tensor.new_empty(batch, rows, heads, elements).transpose(1, 2)
    return tensor.new_empty(batch, heads, rows, elements)


def empty_outputs(query: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return memory for the outputs of a call: out, and lse in float32."""
    return empty_like(query, value.shape[3]), query.new_empty(query.shape[:3], dtype=torch.float32)


def empty_gradients(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, sinks: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return memory for the gradients of a call; those of sinks, in float32, have no elements where it has none."""
    dq, dk, dv = (empty_like(tensor, tensor.shape[3]) for tensor in (query, key, value))
    dsinks = query.new_empty(1, 0 if sinks is None else sinks.shape[0], 1, dtype=torch.float32)
    return dq, dk, dv, dsinks


def decline(reason: str, on_unsupported: str | None) -> None:
    """Warn, once for each reason, that torch computes the call, or raise ``UnsupportedCall`` if asked to."""
    mode = _DEFAULT_MODE if on_unsupported is None else on_unsupported
    if mode not in _MODES:
        raise ValueError(f"on_unsupported should be one of {_MODES}, not {mode!r}")
    if mode == "raise":
        raise UnsupportedCall(f"{NAMESPACE} has no kernel for {reason}")
    warn_once(f"{NAMESPACE} has no kernel for {reason}: scaled_dot_product_attention computes it")


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def warn_once(text: str) -> bool:
    """Warn, unless this was said before."""
    if text not in _warned:
        _warned.add(text)
        warnings.warn(text, stacklevel=4)
    return True


def gradients_by(call: Call, keys: int = 0) -> Sequence[ExportedKernel]:
    """Return the kernels for the gradients of a call. Where there are none for it, but for other calls, say so once."""
    found, reason = candidates(call, keys, backward=True)
    if not found and any(each.backward and each.function == call.function for each in KERNELS):
        warn_once(f"{NAMESPACE} has no backward kernel for {reason}: torch computes the gradients")
    return found
