"""Records about storages: which elements are not yet written, and whose tensors may reach beyond their edges.

A torch dispatch mode sees allocations and what torch's operators write. If anything else may have written to a tensor,
all of it counts as written, so that no read is wrongly called uninitialised.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from avo.evaluator.offline.device import real_device
from avo.evaluator.offline.patches import Patches

_aten = torch.ops.aten
_EMPTY = {
    _aten.empty.memory_format,
    _aten.empty_strided.default,
    _aten.empty_like.default,
    _aten.empty_permuted.default,
    _aten.new_empty.default,
    _aten.new_empty_strided.default,
}
_SWEEP = 256
"""Number of allocations after which shadows of freed storages are dropped."""


@dataclass
class _Shadow:
    storage: StorageWeakRef  # keeps the storage's identity from being reused
    written: torch.Tensor
    item_bytes: int
    versions: tuple[int, ...]
    """Torch's counter of changes to the tensor; a change that is seen here is counted just afterwards, or never."""


class Shadows:
    """The storages, by identity, that are not completely written or that tensors share in unusual ways."""

    def __init__(self) -> None:
        self._shadows: dict[int, _Shadow] = {}
        self._restrided: dict[int, StorageWeakRef] = {}
        self._until_sweep = _SWEEP

    def allocated(self, tensor: torch.Tensor) -> None:
        """Record a tensor with its own storage that nothing has written yet."""
        storage = tensor.untyped_storage()
        with torch.inference_mode(False):
            written = torch.zeros(storage.nbytes() // tensor.element_size(), dtype=torch.bool)
        shadow = _Shadow(StorageWeakRef(storage), written, tensor.element_size(), (_version(tensor),))
        self._shadows[storage._cdata] = shadow
        self._until_sweep -= 1
        if self._until_sweep == 0:
            self._until_sweep = _SWEEP
            self._shadows = {key: shadow for key, shadow in self._shadows.items() if not shadow.storage.expired()}
            self._restrided = {key: storage for key, storage in self._restrided.items() if not storage.expired()}

    def restrided(self, tensor: torch.Tensor) -> None:
        """Record a tensor that ``as_strided`` made: kernels may use its strides to reach all of the storage."""
        storage = tensor.untyped_storage()
        self._restrided[storage._cdata] = StorageWeakRef(storage)

    def padded(self, tensor: torch.Tensor) -> bool:
        """Whether parts of the tensor's storage that lie in no tensor of a launch are out of bounds for it."""
        return storage_key(tensor) not in self._restrided

    def wrote(self, tensor: torch.Tensor) -> None:
        """Record that every element of a tensor has been written."""
        shadow = self._shadows.get(storage_key(tensor))
        if shadow is None:
            return
        end = tensor.storage_offset() + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True))
        version = _version(tensor)
        known = version in shadow.versions and shadow.item_bytes == tensor.element_size()
        if not known or (tensor.numel() and end >= shadow.written.numel()):
            self.forget(tensor)
            return
        shadow.versions = (version, version + 1)
        if tensor.numel():
            shadow.written.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset()).fill_(True)

    def forget(self, tensor: torch.Tensor) -> None:
        """Record that all of the tensor's storage may have been written."""
        self._shadows.pop(storage_key(tensor), None)

    def written(self, tensor: torch.Tensor) -> tuple[torch.Tensor, int] | None:
        """Return which elements of the tensor's storage are written, and bytes per element; None if all may be.

        The caller sets elements written later in place.
        """
        shadow = self._shadows.get(storage_key(tensor))
        if shadow is None:
            return None
        if _version(tensor) not in shadow.versions or bool(shadow.written.all()):
            self.forget(tensor)
            return None
        return shadow.written, shadow.item_bytes


class Watch(TorchDispatchMode):
    """Updates ``Shadows``, if given, with what torch allocates and writes; runs operators that exist only for CUDA."""

    def __init__(self, shadows: Shadows | None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._shadows = shadows

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Return False: torch's guard against compiling under a mode would import dynamo, which takes seconds."""
        return False

    def __torch_dispatch__(
        self, func: Any, types: object, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if key := python_kernel(func):
            with self:  # so that what it calls is seen too
                return func.redispatch(torch._C.DispatchKeySet(key), *args, **kwargs)
        result = func(*args, **kwargs)
        if self._shadows is None:
            return result
        if func in _EMPTY:
            if result.layout is torch.strided and real_device(result).type == "cpu":
                self._shadows.allocated(result)
        elif func is _aten.as_strided.default:
            self._shadows.restrided(result)
        elif func._schema.is_mutable:
            for tensor in mutated(func, args, kwargs):
                self._shadows.wrote(tensor)
        return result


_CPU_KEYS = ("CPU", "CompositeExplicitAutograd")


def python_kernel(func: Any) -> torch._C.DispatchKey | None:
    """Return the dispatch key of an operator's Python kernel: that for CPUs, else that for CUDA."""
    if func.namespace in ("aten", "prims"):
        return None
    overload = "" if func._overloadname == "default" else f".{func._overloadname}"
    name = f"{func.namespace}/{func._schema.name.partition('::')[2]}{overload}"
    if any(f"{name}/{key}" in torch.library._impls for key in _CPU_KEYS):
        return torch._C.DispatchKey.CPU
    if f"{name}/CUDA" in torch.library._impls and not func.has_kernel_for_dispatch_key(torch._C.DispatchKey.CPU):
        return torch._C.DispatchKey.CUDA
    return None


def mutated(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Iterator[torch.Tensor]:
    """Yield the arguments that an operator writes to."""
    for i, parameter in enumerate(func._schema.arguments):
        if parameter.alias_info is not None and parameter.alias_info.is_write:
            value = args[i] if i < len(args) else kwargs.get(parameter.name)
            for tensor in value if isinstance(value, list | tuple) else (value,):
                if isinstance(tensor, torch.Tensor) and tensor.layout is torch.strided:
                    yield tensor


def storage_key(tensor: torch.Tensor) -> int:
    """Return the identity of a tensor's storage, which may be reused once nothing refers to it, even weakly."""
    key: int = tensor.untyped_storage()._cdata
    return key


def _version(tensor: torch.Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version


def watch_handovers(patches: Patches, shadows: Shadows) -> None:
    """Record tensors that are passed to other libraries, which may write to them, as written."""
    for name in ("numpy", "__array__", "__dlpack__"):
        original = getattr(torch.Tensor, name)

        def handover(tensor: torch.Tensor, *args: Any, _original: Any = original, **kwargs: Any) -> Any:
            shadows.forget(tensor)
            return _original(tensor, *args, **kwargs)

        patches.set(torch.Tensor, name, handover)
