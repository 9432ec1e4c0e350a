"""Records which storages host code has put on the CPU by name, so that kernels are refused them as on a GPU."""

import torch
from torch.multiprocessing.reductions import StorageWeakRef

_SWEEP = 256
"""Number of storages after which those that were freed are dropped."""


class Hosted:
    """The storages that ``device="cpu"``, ``.to("cpu")`` or ``.cpu()`` made. What is computed from them is not held."""

    def __init__(self) -> None:
        self._held: dict[int, StorageWeakRef] = {}  # a weak reference keeps the identity from being reused
        self._most = _SWEEP

    def add(self, tensor: torch.Tensor) -> None:
        """Record that a new tensor is on the CPU."""
        if tensor.layout is not torch.strided:
            return
        storage = tensor.untyped_storage()
        self._held[storage._cdata] = StorageWeakRef(storage)
        if len(self._held) > self._most:
            self._held = {key: storage for key, storage in self._held.items() if not storage.expired()}
            self._most = 2 * len(self._held) + _SWEEP

    def __contains__(self, tensor: torch.Tensor) -> bool:
        held = self._held and tensor.layout is torch.strided
        return bool(held) and tensor.untyped_storage()._cdata in self._held
