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
_Answer = tuple[int | str, ...]


class Library:
    """NVML on a machine with one GPU of the target's kind, as ctypes would load it."""

    def __init__(self, target: Target) -> None:
        self._memory = memory_bytes(target)
        nothing = ("Init", "InitWithFlags", "Shutdown", "DeviceGetHandleByIndex", "DeviceGetMemoryInfo")
        self._answers: Mapping[str, _Answer] = dict.fromkeys(nothing, ()) | {
            "DeviceGetCount": (1,),
            "DeviceGetIndex": (0,),
            "DeviceGetCudaComputeCapability": divmod(target.arch, 10),
            "DeviceGetName": (target.product, ""),
            "DeviceGetUUID": ("GPU-00000000-0000-0000-0000-000000000000", ""),
            "SystemGetDriverVersion": (_DRIVER, ""),
            "SystemGetCudaDriverVersion": (_CUDA,),
        }
        """What each function gives through its last arguments; after a text comes the size of its buffer."""

    def __getattr__(self, name: str) -> Callable[..., int]:
        if not name.startswith("nvml"):
            raise AttributeError(name)
        answer = self._answers.get(re.sub(r"^nvml|_v\d+$", "", name))

        def function(*arguments: Any) -> int:
            if answer is None:
                return _NOT_SUPPORTED
            for argument, value in zip(arguments[len(arguments) - len(answer) :], answer, strict=True):
                if isinstance(value, int):
                    argument._obj.value = value
                elif value:
                    argument.value = value.encode()
            if "MemoryInfo" in name:
                info = arguments[-1]._obj
                info.total, info.free, info.used = self._memory, self._memory, 0
            return _SUCCESS

        return function


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
