"""Clocks and their reasons from NVML, the library that comes with every NVIDIA driver; without a CUDA context.

Declarations follow nvml.h of the NVML API reference (vR550). Written from there; not tried on a GPU.
"""

import ctypes
from typing import Any

from evaluator.cuda.device import Clocks

REASONS = {
    0x02: "application clocks setting",
    0x04: "software power cap",
    0x08: "hardware slowdown",
    0x10: "sync boost",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "hardware power brake",
    0x100: "display clock setting",
}
"""``nvmlClocksEventReason*`` by bit; 0x01, an idle GPU, is none that slows a kernel."""
SLOWDOWN = 0x08 | 0x40 | 0x80
"""Reasons for which a card that is well does not slow down: heat, and too little power."""
_CLOCK_SM = 1
"""``NVML_CLOCK_SM`` of ``nvmlClockType_t``."""
_TEXT_BYTES = 96
"""``NVML_DEVICE_NAME_V2_BUFFER_SIZE``; versions take less."""


class NvmlMissing(Exception):
    """NVML cannot be used; ``str()`` says why."""


class Nvml:
    """NVML's view of one GPU."""

    def __init__(self, uuid: str | None = None, library: str = "libnvidia-ml.so.1") -> None:
        """Look at the GPU called ``uuid``, with or without ``GPU-``, or the first one. Raises ``NvmlMissing``."""
        try:
            self._library: Any = ctypes.CDLL(library)
        except OSError as error:
            raise NvmlMissing(str(error)) from None
        self._call("nvmlInit_v2")
        self._handle = ctypes.c_void_p()
        if uuid is None:
            self._call("nvmlDeviceGetHandleByIndex_v2", ctypes.c_uint(0), ctypes.byref(self._handle))
        else:
            named = f"GPU-{uuid.removeprefix('GPU-')}".encode()
            self._call("nvmlDeviceGetHandleByUUID", ctypes.c_char_p(named), ctypes.byref(self._handle))

    def driver(self) -> str:
        """Return the driver's version."""
        text = ctypes.create_string_buffer(_TEXT_BYTES)
        self._call("nvmlSystemGetDriverVersion", text, ctypes.c_uint(_TEXT_BYTES))
        return text.value.decode()

    def name(self) -> str:
        """Return the card's name."""
        text = ctypes.create_string_buffer(_TEXT_BYTES)
        self._call("nvmlDeviceGetName", self._handle, text, ctypes.c_uint(_TEXT_BYTES))
        return text.value.decode()

    def clocks(self) -> Clocks:
        """Return the SM clock and what holds it down, now."""
        mhz, reasons = ctypes.c_uint(), ctypes.c_ulonglong()
        self._call("nvmlDeviceGetClockInfo", self._handle, ctypes.c_int(_CLOCK_SM), ctypes.byref(mhz))
        # The name of before R535, which later drivers keep.
        self._call("nvmlDeviceGetCurrentClocksThrottleReasons", self._handle, ctypes.byref(reasons))
        return Clocks(mhz.value, reasons.value)

    def _call(self, function: str, *arguments: Any) -> None:
        try:
            code = getattr(self._library, function)(*arguments)
        except AttributeError:
            raise NvmlMissing(f"no {function} in the driver's NVML") from None
        if code != 0:  # NVML_SUCCESS
            raise NvmlMissing(f"{function} failed with code {code}")


def in_words(reasons: int) -> str:
    """Return NVML's reasons for a clock that is not higher, or ``none``."""
    return ", ".join(text for bit, text in REASONS.items() if reasons & bit) or "none"
