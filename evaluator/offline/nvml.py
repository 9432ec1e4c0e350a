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
_SUCCESS, _INVALID_ARGUMENT, _NOT_SUPPORTED = 0, 2, 3
_DRIVER, _CUDA = "570.00", 12080
"""Versions of a driver that serves all targets."""
_NOTHING = ("Init", "InitWithFlags", "Shutdown", "DeviceGetHandleByIndex", "DeviceGetMemoryInfo")
_Answers = Mapping[str, tuple[int | str, ...]]
"""What each function gives through its last arguments; after a text comes the size of its buffer."""


def _function(name: str, answers: _Answers, memory: int) -> Callable[..., int]:
    """Return a function of NVML on a machine with one GPU, of ``memory`` bytes."""
    name = re.sub(r"^nvml|_v\d+$", "", name)

    def function(*arguments: Any) -> int:
        if name not in answers:
            return _NOT_SUPPORTED
        if name == "DeviceGetHandleByIndex" and getattr(arguments[0], "value", arguments[0]) != 0:
            return _INVALID_ARGUMENT
        for argument, value in zip(arguments[len(arguments) - len(answers[name]) :], answers[name], strict=True):
            if isinstance(value, int):
                argument._obj.value = value
            elif value:
                argument.value = value.encode()
        if name == "DeviceGetMemoryInfo":
            info = arguments[-1]._obj
            info.total, info.free, info.used = memory, memory, 0
        return _SUCCESS

    return function


def present_nvml(patches: Patches, target: Target) -> None:
    """Have ctypes, and pynvml if it is installed, load the stand-in."""
    original, memory = ctypes.CDLL.__init__, memory_bytes(target)
    answers: _Answers = dict.fromkeys(_NOTHING, ()) | {
        "DeviceGetCount": (1,),
        "DeviceGetIndex": (0,),
        "DeviceGetCudaComputeCapability": divmod(target.arch, 10),
        "DeviceGetName": (target.product, ""),
        "DeviceGetUUID": ("GPU-00000000-0000-0000-0000-000000000000", ""),
        "SystemGetDriverVersion": (_DRIVER, ""),
        "SystemGetCudaDriverVersion": (_CUDA,),
    }

    def load(library: Any, name: Any = None, *args: Any, **kwargs: Any) -> None:
        if _NAME in str(name):
            library._name, library._handle = name, 0
            library._FuncPtr = lambda symbol: _function(symbol[0], answers, memory)
        else:
            original(library, name, *args, **kwargs)

    patches.set(ctypes.CDLL, "__init__", load)
    try:
        import pynvml
    except ImportError:
        return
    patches.set(pynvml, "nvmlLib", ctypes.CDLL(_NAME))
    patches.set(pynvml, "_nvmlGetFunctionPointer_cache", {})
