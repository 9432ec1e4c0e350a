"""Which kernel runs a call, and what happens to a call that no kernel takes.

``dispatch.json``, next to this file, says which calls each kernel takes and how fast it was on each case that it was
judged on. Among the kernels that take a call, the one that was fastest on the case nearest to the call runs.
"""

import functools
import json
import math
import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ._by_torch import autocasts
from ._calls import Arguments, Kind

NAMESPACE = __name__.rpartition(".")[0].replace(".", "_")
"""Namespace of this package's operators in ``torch.ops``."""
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
"""Whether Triton interprets kernels. They then take tensors on the CPU, in types that its interpreter computes in."""
MOST_HEADS = 65_535
"""Most query heads of all sequences, or packed sequences, of a launch: as many programs as a grid has on its second and
third axis. Kernels were judged on no more.
"""
SIDE_BY_SIDE = "sequences side by side"
"""The reason against a dense call where all kernels are for packed sequences."""
_INTERPRETED_DTYPES = ("float16", "float32")
_MODES = ("sdpa", "raise")
_DEFAULT_MODE = os.environ.get("AVO_ON_UNSUPPORTED", "sdpa")
_warned: set[str] = set()
"""Reasons for which a warning was given: there is one warning for each."""


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
    softcap: float
    """The soft cap of the scores that it was judged with; 0: they are not capped."""
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
    speed: str
    """The same as people read it: in TFLOPS, or in us and GB/s where memory or a launch bounds the case."""


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


def candidates(kind: Kind, keys: int = 0, *, backward: bool = False) -> tuple[list[ExportedKernel], str]:
    """Return the kernels that take a call with so many ``keys``; where there are none, in a few words why."""
    found = [each for each in KERNELS if each.function == kind.function and each.backward == backward]
    dtype = str(kind.dtype).removeprefix("torch.")
    if INTERPRETED:
        found = [each for each in found if each.interpretable]
        if dtype not in _INTERPRETED_DTYPES or not found:
            return [], f"{dtype} in Triton's interpreter"
    else:
        if kind.device.type != "cuda":
            return [], f"tensors on {kind.device.type}"
        capability = _capability(kind.device.index)
        found = [each for each in found if each.capability == capability]
        if not found:
            return [], f"compute capability {capability[0]}.{capability[1]}"
        found = [each for each in found if dtype in each.dtypes]
        if not found:
            return [], dtype
    for takes, reason in _TAKES:
        found = [each for each in found if takes(each, kind, backward)]
        if not found:
            return [], reason(kind)
    longest = max(each.longest for each in found)
    if keys > longest:
        return [], f"more than {longest} keys"
    return [each for each in found if keys <= each.longest], ""


def _dims(kind: Kind) -> str:
    key, value = kind.head_dims
    return f"head dim {key}" if key == value else f"head dims {key} of keys and {value} of values"


_TAKES: tuple[tuple[Callable[[ExportedKernel, Kind, bool], bool], Callable[[Kind], str]], ...] = (
    (lambda each, kind, _: kind.head_dims in each.head_dims, _dims),
    (lambda each, kind, _: each.grouped or kind.group == 1, lambda kind: f"groups of {kind.group} query heads"),
    (
        lambda each, kind, _: each.packed == kind.packed,
        lambda kind: "packed sequences" if kind.packed else SIDE_BY_SIDE,
    ),
    (
        lambda each, kind, _: kind.causal in each.causal,
        lambda kind: "causal attention" if kind.causal else "attention without a mask",
    ),
    (lambda each, kind, _: not kind.window or "window" in each.scalars, lambda kind: "a sliding window"),
    (
        lambda each, kind, _: each.softcap == kind.softcap,
        lambda kind: f"a soft cap of {kind.softcap:g}" if kind.softcap else "attention without a soft cap",
    ),
    # What a query's lse says of keys elsewhere holds for sinks, too, so gradients need none of their own.
    (
        lambda each, kind, backward: ("sinks" in each.tensors) == kind.sinks or (backward and kind.sinks),
        lambda kind: "attention sinks" if kind.sinks else "attention without sinks",
    ),
    (
        lambda each, kind, _: not kind.block_size or kind.block_size in each.block_sizes,
        lambda kind: f"{'pages' if kind.function == 'decode' else 'blocks'} of {kind.block_size} keys",
    ),
    (
        lambda each, kind, _: each.local or not kind.local,
        lambda kind: "queries that may lack block 0 or the one before their own",
    ),
)
"""Whether a kernel takes a call of a kind, or its gradients, and in a few words what it does not take."""


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _capability(device: int | None) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device)


def choose(kind: Kind, q_len: int, kv_len: int, *, backward: bool = False) -> ExportedKernel:
    """Return the kernel that runs a call, for which there are ``candidates``, at these lengths."""
    taking, reason = candidates(kind, kv_len, backward=backward)
    if reason:  # a graph is for any length, see ``length_of``
        warn_once(f"{NAMESPACE} was judged on no call with {reason}")
    found = tuple(taking or candidates(kind, backward=backward)[0])
    return _fastest(found, kind, q_len, kv_len)


@functools.lru_cache(maxsize=4096)
def _fastest(kernels: tuple[ExportedKernel, ...], kind: Kind, q_len: int, kv_len: int) -> ExportedKernel:
    named = {kernel.name: kernel for kernel in kernels if kernel.target == kernels[0].target}
    speeds = [each for each in SPEEDS if each.kernel in named]

    def apart(one: float, other: float) -> float:
        return abs(math.log2(one / other))

    def distance(each: CaseSpeed) -> tuple[float, ...]:
        seen = min(each.window or each.length, each.length)
        return (
            (each.head_dim, each.head_dim_v) != kind.head_dims,
            each.causal != kind.causal,
            apart(each.length / each.q_len, kv_len / q_len),  # few queries to many keys are another kind of work
            apart(seen / each.length, min(kind.window or kv_len, kv_len) / kv_len),
            apart(each.heads / each.kv_heads, kind.group),
            apart(each.block_size, kind.block_size) if kind.block_size else 0.0,
            apart(each.length, kv_len),
        )

    nearest = min(speeds, key=lambda each: (distance(each), each.case))
    rivals = [each for each in speeds if each.case == nearest.case and distance(each) == distance(nearest)]
    return named[max(rivals, key=lambda each: each.tflops).kernel]


def autocast(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return tensors in the type of ``torch.autocast``, where that is on, as torch's own attention takes them."""
    if not autocasts(tensors[0]):
        return tensors
    dtype = torch.get_autocast_dtype(tensors[0].device.type)
    return tuple(each if each.dtype == torch.float64 else each.to(dtype) for each in tensors)


def length_of(call: Arguments) -> int:
    """Return the number of keys, or 0 while torch compiles or exports: a graph is for any length."""
    return 0 if torch.compiler.is_compiling() else call.keys()


def too_many(query: torch.Tensor, starts: torch.Tensor | None) -> str:
    """Return in a few words what of a call no launch has room for, even if it is of one sequence, or of all that are
    packed between ``starts``; an empty string while torch compiles or exports: a graph is for any number.
    """
    if torch.compiler.is_compiling():
        return ""
    if query.shape[1] > MOST_HEADS:
        return f"more than {MOST_HEADS} heads"
    many = starts is not None and starts.shape[0] - 1 > MOST_HEADS
    return f"more than {MOST_HEADS} packed sequences" if many else ""


def refusal(call: Arguments) -> str:
    """Return in a few words why no kernel takes a call; an empty string where one does."""
    return too_many(call.query, call.given().get("cu_seqlens_q")) or candidates(call.kind(), length_of(call))[1]


def check_softcap(softcap: float) -> None:
    """Raise ``ValueError`` unless scores can have this soft cap."""
    if not 0.0 <= softcap < math.inf:
        raise ValueError(f"softcap should be above 0, or 0 for none, not {softcap}")


def decline(reason: str, on_unsupported: str | None) -> None:
    """Warn, once for each reason, that torch computes the call, or raise ``UnsupportedCall`` if asked to."""
    mode = _DEFAULT_MODE if on_unsupported is None else on_unsupported
    if mode not in _MODES:
        raise ValueError(f"on_unsupported should be one of {_MODES}, not {mode!r}")
    if mode == "raise":
        raise UnsupportedCall(f"{NAMESPACE} has no kernel for {reason}")
    warn_once(f"{NAMESPACE} has no kernel for {reason}: torch computes it")


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def warn_once(text: str) -> bool:
    """Warn, unless this was said before."""
    if text not in _warned:
        _warned.add(text)
        warnings.warn(text, stacklevel=4)
    return True


def gradients_by(kind: Kind, keys: int = 0) -> Sequence[ExportedKernel]:
    """Return the kernels for the gradients of a kind. Where there are none for it, but for other calls, say so once."""
    found, reason = candidates(kind, keys, backward=True)
    if not found and any(each.backward and each.function == kind.function for each in KERNELS):
        warn_once(f"{NAMESPACE} has no backward kernel for {reason}: torch computes the gradients")
    return found
