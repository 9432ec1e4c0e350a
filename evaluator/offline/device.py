"""Makes CPU tensors pass for tensors on a GPU: what torch says about devices, and what ``device="cuda"`` means.

Everything here replaces attributes of torch for as long as a session lasts: modes of torch would be confined to one
thread, and blind inside operators that are written in Python.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._device import _device_constructors
from triton._C import libtriton

from avo.evaluator.compiling.gpu import Driver, cuda_answers, memory_bytes
from avo.evaluator.offline.cublas import CublasLt
from avo.evaluator.offline.cuda import DEVICE, accelerator_answers, cuda_idle, untimed
from avo.evaluator.offline.nvml import present_nvml
from avo.evaluator.offline.patches import Patches
from avo.evaluator.target import Target

_CPU = torch.device("cpu")
_LIKE = ("empty_like", "zeros_like", "ones_like", "full_like", "rand_like", "randn_like", "randint_like")
_NEW = ("new_empty", "new_empty_strided", "new_zeros", "new_ones", "new_full", "new_tensor")

real_device = torch.Tensor.device.__get__
"""Return the device that a tensor is on, whatever it claims."""


def is_hosted(tensor: object) -> bool:
    """Whether host code put a tensor on the CPU by name; its views, and what is computed from it, are on the GPU."""
    return getattr(tensor, "_hosted", False)


class DeviceKey(int):
    """The device's index, 0. As a key it differs from a real device's: Triton keeps compiled kernels by index."""

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other


class OfflineDriver(Driver):
    """The driver that triton sees during a session."""

    def __init__(self, target: Target) -> None:
        super().__init__(target, DeviceKey(0))
        self._capability = divmod(target.arch, 10)

    def get_device_capability(self, device: object = None) -> tuple[int, int]:
        """Return major and minor compute capability."""
        return self._capability

    def set_current_device(self, device: object) -> None:
        """Do nothing: there is only one device."""

    def get_benchmarker(self) -> Callable[..., Any]:
        """Return a stand-in for ``do_bench``."""
        return run_once

    def get_empty_cache_for_benchmark(self) -> torch.Tensor:
        """Return nothing to clear."""
        return torch.empty(0, dtype=torch.int32)

    def clear_cache(self, cache: object) -> None:
        """Do nothing: there is no cache."""


def run_once(call: Callable[[], object], *args: object, quantiles: Any = None, **options: object) -> Any:
    """Stand in for ``triton.testing.do_bench``: call once and answer one millisecond."""
    call()
    milliseconds = untimed()
    return [milliseconds] * len(quantiles) if quantiles else milliseconds


def present(patches: Patches, target: Target, claim_cuda: bool, check_devices: bool = False) -> None:
    """Make torch speak of one GPU of the target's kind, and keep tensors that are sent there on the CPU.

    With ``claim_cuda``, every tensor says that it is on ``cuda:0``; ``.cpu()`` then copies, as from a GPU. With
    ``check_devices``, a tensor that is put on the CPU by name says that it is there, and ``is_hosted``.
    """
    for name, answer in {**cuda_answers(target), **cuda_idle(memory_bytes(target))}.items():
        patches.set(torch.cuda, name, answer)
    patches.set(torch._C, "_cuda_getCurrentRawStream", lambda device=None: 0)
    patches.set(torch.version, "cuda", torch.version.cuda or "12.8")
    patches.set(libtriton.nvidia.cublas, "CublasLt", CublasLt)
    for name, answer in accelerator_answers().items():
        if hasattr(torch.accelerator, name):
            patches.set(torch.accelerator, name, answer)
    present_nvml(patches, target)
    redirect = _Redirect(patches, check_devices)
    for function in _device_constructors():
        name = function.__name__
        owner: Any = torch.fft if name.startswith("fft_") else torch
        name = name.removeprefix("fft_")
        if vars(owner).get(name) is function:
            patches.set(owner, name, redirect.wrap(function))
    for owner, names in ((torch, _LIKE), (torch.Tensor, _NEW)):
        for name in names:
            patches.set(owner, name, redirect.wrap(getattr(owner, name)))
    context = torch.utils._device.DeviceContext
    patches.set(torch, "Generator", redirect.generator())
    patches.set(torch, "set_default_device", redirect.wrap(torch.set_default_device))
    patches.set(context, "__init__", redirect.wrap(context.__init__))
    _present_tensors(patches, claim_cuda, check_devices)


def _present_tensors(patches: Patches, claim_cuda: bool, check_devices: bool) -> None:
    def moves(tensor: torch.Tensor, moved: torch.Tensor, *, leaves: bool) -> torch.Tensor:
        """Return a copy of a tensor that is moved to the CPU or, if it was put there by name, to the GPU."""
        if moved is tensor and leaves != is_hosted(tensor):
            moved = moved.clone()
        if leaves and check_devices:
            moved._hosted = True  # type: ignore[attr-defined]
        return moved

    def to(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        place = args[0] if args else kwargs.get("device")
        if _is_index(place) or isinstance(place, torch.Tensor):
            place = _CPU if is_hosted(place) else DEVICE
        leaves = claim_cuda and _names(place, "cpu")
        args = tuple(_CPU if _is_index(arg) and i == 0 else _cpu_for_cuda(arg) for i, arg in enumerate(args))
        moved = original_to(tensor, *args, **_cpu_for_cuda_in(kwargs))
        return moves(tensor, moved, leaves=leaves) if leaves or _names(place, "cuda") else moved

    def cuda(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        return moves(tensor, tensor, leaves=False)

    original_to, original_cpu = torch.Tensor.to, torch.Tensor.cpu

    def cpu(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        moved = original_cpu(tensor, *args, **kwargs)
        return moves(tensor, moved, leaves=True) if claim_cuda else moved

    def claimed(tensor: torch.Tensor) -> torch.device:
        device: torch.device = real_device(tensor)
        return DEVICE if device.type == "cpu" and not is_hosted(tensor) else device

    methods: dict[str, Any] = {
        "to": to,
        "cpu": cpu,
        "cuda": cuda,
        "pin_memory": cuda,  # kernels may access it
        "record_stream": lambda tensor, stream: None,
    }
    if claim_cuda:
        methods |= {
            "device": property(claimed),
            "is_cuda": property(lambda tensor: claimed(tensor).type == "cuda"),
            "is_cpu": property(lambda tensor: claimed(tensor).type == "cpu"),
            "get_device": lambda tensor: DEVICE.index if claimed(tensor).type == "cuda" else -1,
        }
    for name, method in methods.items():
        patches.set(torch.Tensor, name, method)


def _names(value: object, kind: str) -> bool:
    return isinstance(value, (str, torch.device)) and str(value).partition(":")[0] == kind


def _is_index(device: object) -> bool:
    return isinstance(device, int) and not isinstance(device, bool)


def _cpu_for_cuda(value: Any) -> Any:
    return _CPU if _names(value, "cuda") else value


def _cpu_for_cuda_in(kwargs: dict[str, Any]) -> dict[str, Any]:
    if "device" in kwargs:
        device = kwargs["device"]
        kwargs["device"] = _CPU if _is_index(device) else _cpu_for_cuda(device)
    if kwargs.get("pin_memory"):
        kwargs["pin_memory"] = False
    return kwargs


class _Redirect:
    """Sends requests for a GPU to the CPU while patches are in place, also through names that modules imported."""

    def __init__(self, patches: Patches, check_devices: bool) -> None:
        self._patches = patches
        self._check_devices = check_devices

    def wrap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that treats CPU devices as GPUs."""

        @functools.wraps(function, updated=())
        def on_cpu(*args: Any, **kwargs: Any) -> Any:
            if not self._patches.applied:
                return function(*args, **kwargs)
            named = self._check_devices and _names(kwargs.get("device"), "cpu") and not kwargs.get("pin_memory")
            made = function(*map(_cpu_for_cuda, args), **_cpu_for_cuda_in(kwargs))
            if named and isinstance(made, torch.Tensor):
                made._hosted = True  # type: ignore[attr-defined]
            return made

        return on_cpu

    def generator(self) -> type:
        """Return a class that stands in for ``torch.Generator``; its instances are torch's own."""
        original = torch.Generator
        make = self.wrap(original)

        class Kind(type):
            def __instancecheck__(cls, instance: object) -> bool:
                return isinstance(instance, original)

            def __call__(cls, *args: Any, **kwargs: Any) -> Any:
                return make(*args, **kwargs)

        return Kind("Generator", (), {})
