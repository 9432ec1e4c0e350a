"""Tensors without contents: they claim to be on a GPU, take views and fills, and refuse everything that computes.

Underneath they are torch's meta tensors. One mode sees every torch function and tells the tale of the device; the other
sees every operator that torch arrives at, however it was reached, and allows a closed list.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from avo.evaluator.capture.recorder import Recorder, RefusedError, candidate_line
from avo.evaluator.evaluation import Status
from avo.evaluator.problem import TensorSpec

DEVICE = torch.device("cuda", 0)
_META = torch.device("meta")
_ON_GPU = torch._C.DispatchKeySet(torch._C.DispatchKey.CUDA)

_aten = torch.ops.aten
_FILLED: Mapping[Any, Callable[[Sequence[Any]], object]] = {
    _aten.zeros.default: lambda args: 0,
    _aten.zeros_like.default: lambda args: 0,
    _aten.new_zeros.default: lambda args: 0,
    _aten.ones.default: lambda args: 1,
    _aten.ones_like.default: lambda args: 1,
    _aten.new_ones.default: lambda args: 1,
    _aten.full.default: lambda args: args[1],
    _aten.full_like.default: lambda args: args[1],
    _aten.new_full.default: lambda args: args[2],
}
"""Operators that allocate and fill, with the value they fill in."""
_EMPTY = {
    _aten.empty.memory_format,
    _aten.empty_strided.default,
    _aten.empty_like.default,
    _aten.new_empty.default,
    _aten.new_empty_strided.default,
}
_READS = {_aten._local_scalar_dense.default, _aten.equal.default, _aten.is_nonzero.default, _aten.item.default}
_READING_METHODS = {
    getattr(torch.Tensor, name)
    for name in ("numpy", "tolist", "__array__", "__dlpack__", "__repr__", "__format__", "__reduce_ex__")
}


class Operators(TorchDispatchMode):
    """Lets views, allocations and fills through to the recorder; refuses every other operator."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.recorder = Recorder()
        self._others = set(torch.library._defs)
        """Operators that Python code other than the candidate's has defined, by qualified name."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing is compiled here, and torch's guard against it would import all of dynamo: seconds per process."""
        return False

    def __torch_dispatch__(
        self, func: Any, types: object, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _READS or (func is _aten._to_copy.default and kwargs.get("device") == torch.device("cpu")):
            raise reads_contents(func)
        if func in _EMPTY or func in _FILLED:
            return self._allocate(func, args, kwargs)
        if func is _aten.fill_.Scalar or func is _aten.zero_.default:
            self.recorder.fill(args[0], args[1] if len(args) > 1 else 0)
            return args[0]
        if _is_view(func):
            return func(*args, **kwargs)
        if func.name().partition(".")[0] in torch.library._defs - self._others:
            with without_contents(self):  # what the candidate's own operator does is seen like all that it does
                return func.redispatch(_ON_GPU, *args, **kwargs)
        raise RefusedError(
            Status.FORBIDDEN,
            f"computes with torch operator {func.overloadpacket}{candidate_line()}: everything but views, empty, "
            "zeros, ones, full and fill must happen in the candidate's kernels",
        )

    def _allocate(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> torch.Tensor:
        device = kwargs.get("device") or (args[0].device if isinstance(args[0], torch.Tensor) else None)
        if device != _META:
            raise RefusedError(
                Status.FORBIDDEN,
                f"allocates a tensor on the CPU{candidate_line()}: pass the device of the entry function's arguments",
            )
        tensor: torch.Tensor = func(*args, **kwargs)
        self.recorder.allocate(tensor)
        if func in _FILLED:
            self.recorder.fill(tensor, _FILLED[func](args))
        return tensor


class Functions(TorchFunctionMode):
    """Presents meta tensors as tensors on a GPU, at the level of the functions and methods that a candidate calls."""

    def __init__(self, operators: Operators) -> None:
        super().__init__()
        attributes = {"device": DEVICE, "is_cuda": True, "is_meta": False, "is_cpu": False}
        self._answers: dict[Any, Callable[..., object]] = {
            torch.Tensor.get_device: lambda tensor: DEVICE.index,
            torch.Tensor.data_ptr: lambda tensor: operators.recorder.address(tensor),
            torch.Tensor.cuda: lambda tensor, *args, **kwargs: tensor,
            torch.Tensor.record_stream: lambda tensor, stream: None,
        }
        for name, answer in attributes.items():
            self._answers[getattr(torch.Tensor, name).__get__] = lambda tensor, answer=answer: answer

    def __torch_function__(
        self, func: Any, types: object, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        args = tuple(_to_meta(arg) for arg in args)
        kwargs = {key: _to_meta(value) for key, value in (kwargs or {}).items()}
        if func in _READING_METHODS:
            raise reads_contents(func)
        if func in self._answers:
            return self._answers[func](*args, **kwargs)
        if func is torch.Tensor.__setitem__ and isinstance(args[2], bool | int | float):
            args[0][args[1]].fill_(args[2])
            return None
        return func(*args, **kwargs)


@contextmanager
def without_contents(operators: Operators) -> Iterator[None]:
    """Inside, tensors have no contents, and ``operators.recorder`` is told what is asked of them."""
    with torch.no_grad(), Functions(operators), operators:
        yield


def make_argument(spec: TensorSpec, operators: Operators) -> torch.Tensor:
    """Return the tensor for one argument and tell the recorder. Call outside ``without_contents``."""
    storage = torch.empty(spec.size, dtype=getattr(torch, spec.dtype), device=_META)
    tensor = storage.as_strided(spec.shape, spec.strides)
    operators.recorder.allocate(tensor, spec.role, spec.name)
    return tensor


def reads_contents(what: Any) -> RefusedError:
    """Return the refusal for a host-side read."""
    name = getattr(what, "overloadpacket", None) or f"Tensor.{getattr(what, '__name__', what)}"
    return RefusedError(
        Status.READS_CONTENTS,
        f"reads the contents of a tensor on the host{candidate_line()} ({name}): host code may depend on shapes, "
        "strides, dtypes and scalars only",
    )


def _to_meta(value: Any) -> Any:
    if isinstance(value, torch.device):
        return _META if value.type == "cuda" else value
    if isinstance(value, str) and (value == "cuda" or value.startswith("cuda:")):
        return _META
    return value


def _is_view(func: Any) -> bool:
    # lift_fresh claims to be one; it is how torch.tensor hands over fresh contents.
    returns = func._schema.returns
    return (
        bool(returns)
        and func is not _aten.lift_fresh.default
        and all(value.alias_info is not None and not value.alias_info.is_write for value in returns)
    )
