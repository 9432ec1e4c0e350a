"""Answers for host code about a GPU that is not there: a target's figures, under the names in torch and triton."""

import contextlib
import re
from types import SimpleNamespace
from typing import Any

import torch
from triton.backends.compiler import GPUTarget

from avo.evaluator.target import Target


class Driver:
    """The part of a triton driver that host code and the launch path ask."""

    def __init__(self, target: Target, device: int) -> None:
        """Answer for ``target`` as the only device, whose index is ``device``."""
        self._target = target
        self._device = device
        self.utils = SimpleNamespace(get_device_properties=self._properties)

    def get_current_target(self) -> GPUTarget:
        """Return the architecture kernels are lowered for."""
        return GPUTarget("cuda", self._target.arch, 32)

    def get_current_device(self) -> int:
        """Return the only device."""
        return self._device

    def get_current_stream(self, device: object = None) -> int:
        """Return the default stream."""
        return 0

    def get_active_torch_device(self) -> torch.device:
        """Return the only device."""
        return torch.device("cuda", int(self._device))

    def get_device_interface(self) -> Any:
        """Return torch's module for the device."""
        return torch.cuda

    def _properties(self, device: object) -> dict[str, int]:
        target = self._target
        return {
            "max_shared_mem": target.shared_bytes_per_cta,
            "max_num_regs": target.registers_per_sm,
            "multiprocessor_count": target.sms,
            "warpSize": 32,
            "sm_clock_rate": round(target.clock_ghz * 1e6),
        }


_GB = {"rtx4090": 24, "l40s": 48, "rtx5090": 32}
"""Memory of the cards whose product does not say it, from the sources that ``target`` names."""


def memory_bytes(target: Target) -> int:
    """Return the bytes of a card's memory, by what it is sold as."""
    said = re.search(r"(\d+)GB", target.product)
    return int(said[1]) * 10**9 if said else _GB.get(target.name, 64) * 10**9


def cuda_answers(target: Target) -> dict[str, Any]:
    """Return functions of ``torch.cuda`` by name, which answer from ``target`` as device 0."""
    capability = divmod(target.arch, 10)
    properties = SimpleNamespace(
        name=target.product,
        major=capability[0],
        minor=capability[1],
        multi_processor_count=target.sms,
        total_memory=memory_bytes(target),
        warp_size=32,
        regs_per_multiprocessor=target.registers_per_sm,
        max_threads_per_multi_processor=32 * target.warps_per_sm,
        shared_memory_per_block_optin=target.shared_bytes_per_cta,
        shared_memory_per_multiprocessor=target.shared_bytes_per_sm,
        L2_cache_size=target.l2_bytes,
    )
    stream = SimpleNamespace(cuda_stream=0, synchronize=lambda: None)
    return {
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "init": lambda: None,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "set_device": lambda device: None,
        "device": lambda device: contextlib.nullcontext(),
        "device_of": lambda tensor: contextlib.nullcontext(),
        "synchronize": lambda device=None: None,
        "current_stream": lambda device=None: stream,
        "get_device_name": lambda device=None: target.product,
        "get_device_capability": lambda device=None: capability,
        "get_device_properties": lambda device=None: properties,
    }
