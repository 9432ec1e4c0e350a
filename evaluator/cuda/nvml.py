"""SM clocks and what holds them down, from NVML, the library of every NVIDIA driver. Needs no CUDA context.

Not tried on a GPU.
"""

from collections.abc import Callable
from typing import Any

import pynvml

from evaluator.cuda.device import Clocks

REASONS = {
    pynvml.nvmlClocksThrottleReasonApplicationsClocksSetting: "application clocks setting",
    pynvml.nvmlClocksThrottleReasonSwPowerCap: "software power cap",
    pynvml.nvmlClocksThrottleReasonHwSlowdown: "hardware slowdown",
    pynvml.nvmlClocksThrottleReasonSyncBoost: "sync boost",
    pynvml.nvmlClocksThrottleReasonSwThermalSlowdown: "software thermal slowdown",
    pynvml.nvmlClocksThrottleReasonHwThermalSlowdown: "hardware thermal slowdown",
    pynvml.nvmlClocksThrottleReasonHwPowerBrakeSlowdown: "hardware power brake",
    pynvml.nvmlClocksThrottleReasonDisplayClockSetting: "display clock setting",
}
"""NVML's reasons for a clock that is not higher, by bit. An idle GPU, NVML's bit 0x01, slows no kernel."""
SLOWDOWN = (
    pynvml.nvmlClocksThrottleReasonHwSlowdown
    | pynvml.nvmlClocksThrottleReasonHwThermalSlowdown
    | pynvml.nvmlClocksThrottleReasonHwPowerBrakeSlowdown
)
"""Reasons for which a healthy card does not slow down: heat, and too little power."""


class NvmlMissing(Exception):
    """NVML cannot be used; ``str()`` says why."""


class Nvml:
    """NVML's view of one GPU."""

    def __init__(self, uuid: str | None = None) -> None:
        """Look at the GPU called ``uuid``, with or without ``GPU-``, or the first one. Raises ``NvmlMissing``."""
        _ask(pynvml.nvmlInit)
        if uuid is None:
            self._handle = _ask(pynvml.nvmlDeviceGetHandleByIndex, 0)
        else:
            self._handle = _ask(pynvml.nvmlDeviceGetHandleByUUID, f"GPU-{uuid.removeprefix('GPU-')}")

    def driver(self) -> str:
        """Return the driver's version. Raises ``NvmlMissing``."""
        return str(_ask(pynvml.nvmlSystemGetDriverVersion))

    def name(self) -> str:
        """Return the card's name. Raises ``NvmlMissing``."""
        return str(_ask(pynvml.nvmlDeviceGetName, self._handle))

    def clocks(self) -> Clocks:
        """Return the SM clock and what holds it down, now. Raises ``NvmlMissing``."""
        mhz = _ask(pynvml.nvmlDeviceGetClockInfo, self._handle, pynvml.NVML_CLOCK_SM)
        # The name from before driver R535, which later drivers keep.
        return Clocks(mhz, _ask(pynvml.nvmlDeviceGetCurrentClocksThrottleReasons, self._handle))


def _ask(function: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except pynvml.NVMLError as error:
        raise NvmlMissing(f"{function.__name__}: {error}") from None


def in_words(reasons: int) -> str:
    """Return the names of ``reasons``, a sum of NVML's bits, or ``none``."""
    return ", ".join(text for bit, text in REASONS.items() if reasons & bit) or "none"
