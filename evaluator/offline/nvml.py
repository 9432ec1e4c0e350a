"""Stands in for NVIDIA's management library, NVML, which packages ask what GPUs there are.

They ask through pynvml, of which some have a copy of their own. All load the library by ctypes, so it is replaced
there. Functions are those of the NVML API reference; all that are not here answer that they are not supported.
"""

import ctypes
import re
from collections.abc import Callable, Mapping
from typing import Any

from avo.evaluator.compiling.gpu import memory_bytes
from avo.evaluator.offline.patches import Patches
from avo.evaluator.target import Target

_NAME = "libnvidia-ml.so"
_SUCCESS, _NOT_SUPPORTED = 0, 3
_DRIVER, _CUDA = "570.00", 12080
"""Versions of a driver that serves all targets."""
_UUID = "GPU-00000000-0000-0000-0000-000000000000"
_NO_RESULT = ("nvmlInit", "nvmlInitWithFlags", "nvmlShutdown", "nvmlDeviceGetHandleByIndex")


def _returns(status: int) -> Callable[..., int]:
    return lambda *arguments: status


def _numbers(*values: int) -> Callable[..., int]:
    """Return a function that gives numbers through its last arguments, made by ``byref``."""

    def answer(*arguments: Any) -> int:
        for argument, value in zip(arguments[-len(values) :], values, strict=True):
            argument._obj.value = value
        return _SUCCESS

    return answer


def _text(value: str) -> Callable[..., int]:
    """Return a function that gives a text through a buffer, before the last argument."""

    def answer(*arguments: Any) -> int:
        arguments[-2].value = value.encode()
        return _SUCCESS

    return answer


class Library:
    """NVML on a machine with one GPU of the target's kind, as ctypes would load it."""

    def __init__(self, target: Target) -> None:
        total = memory_bytes(target)

        def memory(handle: Any, info: Any) -> int:
            info._obj.total, info._obj.free, info._obj.used = total, total, 0
            return _SUCCESS

        self._answers: Mapping[str, Callable[..., int]] = {
            **dict.fromkeys(_NO_RESULT, _returns(_SUCCESS)),
            "nvmlDeviceGetCount": _numbers(1),
            "nvmlDeviceGetIndex": _numbers(0),
            "nvmlDeviceGetCudaComputeCapability": _numbers(*divmod(target.arch, 10)),
            "nvmlDeviceGetMemoryInfo": memory,
            "nvmlDeviceGetName": _text(target.product),
            "nvmlDeviceGetUUID": _text(_UUID),
            "nvmlSystemGetDriverVersion": _text(_DRIVER),
            "nvmlSystemGetCudaDriverVersion": _numbers(_CUDA),
        }

    def __getattr__(self, name: str) -> Callable[..., int]:
        if not name.startswith("nvml"):
            raise AttributeError(name)
        answer = self._answers.get(re.sub(r"_v\d+$", "", name), _returns(_NOT_SUPPORTED))
        return lambda *arguments: answer(*arguments)  # ctypes has a new function each time, whose attributes are set


def present_nvml(patches: Patches, target: Target) -> None:
    """Have ctypes load the stand-in, also for modules that import ``CDLL`` while patches are in place."""
    library, original = Library(target), ctypes.CDLL

    class Loader(original):  # type: ignore[misc, valid-type]
        def __new__(cls, name: Any = None, *args: Any, **kwargs: Any) -> Any:
            if patches.applied and str(name).startswith(_NAME):
                return library
            return super().__new__(cls)

    patches.set(ctypes, "CDLL", Loader)
    try:
        import pynvml
    except ImportError:
        return
    patches.set(pynvml, "nvmlLib", library)
    patches.set(pynvml, "_nvmlGetFunctionPointer_cache", {})
