"""What a candidate is told about the GPU it cannot see: the target's figures, under the names torch and triton use."""

import contextlib
from types import SimpleNamespace
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget

from evaluator.capture.tensors import DEVICE
from evaluator.target import Target


class Driver:
    """The part of a triton driver that host code and the launch path ask."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self.utils = SimpleNamespace(get_device_properties=self._properties)

    def get_current_target(self) -> GPUTarget:
        """Return the architecture kernels are lowered for."""
        return GPUTarget("cuda", self._target.arch, 32)

    def get_current_device(self) -> int:
        """Return the only device."""
        return DEVICE.index

    def get_current_stream(self, device: object = None) -> int:
        """Return the default stream."""
        return 0

    def get_active_torch_device(self) -> torch.device:
        """Return the only device."""
        return DEVICE

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


def install(target: Target) -> None:
    """Answer torch's and triton's questions about the device from ``target``, in this process, for good."""
    triton.runtime.driver.set_active(Driver(target))
    capability = divmod(target.arch, 10)
    properties = SimpleNamespace(
        name=target.product,
        major=capability[0],
        minor=capability[1],
        multi_processor_count=target.sms,
        warp_size=32,
        regs_per_multiprocessor=target.registers_per_sm,
        max_threads_per_multi_processor=32 * target.warps_per_sm,
        shared_memory_per_block_optin=target.shared_bytes_per_cta,
        shared_memory_per_multiprocessor=target.shared_bytes_per_sm,
        L2_cache_size=target.l2_bytes,
    )
    stream = SimpleNamespace(cuda_stream=0, synchronize=lambda: None)
    answers: dict[str, Any] = {
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "init": lambda: None,
        "device_count": lambda: 1,
        "current_device": lambda: DEVICE.index,
        "set_device": lambda device: None,
        "device": lambda device: contextlib.nullcontext(),
        "device_of": lambda tensor: contextlib.nullcontext(),
        "synchronize": lambda device=None: None,
        "current_stream": lambda device=None: stream,
        "get_device_name": lambda device=None: target.product,
        "get_device_capability": lambda device=None: capability,
        "get_device_properties": lambda device=None: properties,
    }
    for name, answer in answers.items():
        setattr(torch.cuda, name, answer)
