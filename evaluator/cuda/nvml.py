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
    pynvml.nvmlClocksThrottleReasonSwThermalSlowdown
    | pynvml.nvmlClocksThrottleReasonHwThermalSlowdown
    | pynvml.nvmlClocksThrottleReasonHwPowerBrakeSlowdown
)
"""Reasons for which a healthy card does not slow down: heat, and too little power.

``HwSlowdown`` is none of them: besides these it "may be also reported during PState or clock change" (NVML API,
"NvmlClocksEventReasons"; DCGM API, ``DCGM_CLOCKS_EVENT_REASON_HW_SLOWDOWN``). Neither is ``SwPowerCap``: a card at its
power limit is what kernels that use all of it run on.
"""


class NvmlMissing(Exception):
    """NVML cannot be used; ``str()`` says why."""


class Nvml:
    """NVML's view of one GPU."""

    def __init__(self, uuid: str | None = None) -> None:
        """Look at the GPU called ``uuid``, or the first one. Raises ``NvmlMissing``.

        CUDA tells a uuid without saying of what. A part of a GPU under MIG is called ``MIG-`` and its uuid by NVML
        (since driver R470), and only the whole GPU has clocks (NVML API, ``nvmlDeviceGetHandleByUUID`` and
        ``nvmlDeviceGetDeviceHandleFromMigDeviceHandle``).
        """
        _ask(pynvml.nvmlInit)
        if uuid is None:
            self._handle = _ask(pynvml.nvmlDeviceGetHandleByIndex, 0)
            return
        bare = uuid.removeprefix("GPU-").removeprefix("MIG-")
        try:
            self._handle = _ask(pynvml.nvmlDeviceGetHandleByUUID, f"GPU-{bare}")
        except NvmlMissing as no_gpu:
            try:
                part = _ask(pynvml.nvmlDeviceGetHandleByUUID, f"MIG-{bare}")
            except NvmlMissing:
                raise no_gpu from None
            self._handle = _ask(pynvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle, part)

    def driver(self) -> str:
        """Return the driver's version. Raises ``NvmlMissing``."""
        return str(_ask(pynvml.nvmlSystemGetDriverVersion))

    def name(self) -> str:
        """Return the card's name. Raises ``NvmlMissing``."""
        return str(_ask(pynvml.nvmlDeviceGetName, self._handle))

    def clocks(self) -> Clocks:
        """Return the SM clock, what holds it down, temperature and power, now. Raises ``NvmlMissing``."""
        mhz = _ask(pynvml.nvmlDeviceGetClockInfo, self._handle, pynvml.NVML_CLOCK_SM)
        # The name from before driver R535, which later drivers keep.
        reasons = _ask(pynvml.nvmlDeviceGetCurrentClocksThrottleReasons, self._handle)
        celsius = _maybe(pynvml.nvmlDeviceGetTemperature, self._handle, pynvml.NVML_TEMPERATURE_GPU)
        return Clocks(mhz, reasons, celsius, _watts(pynvml.nvmlDeviceGetPowerUsage, self._handle))

    def power_limit_w(self) -> float | None:
        """Return the power that the card may draw, in watts; None where it does not say."""
        return _watts(pynvml.nvmlDeviceGetEnforcedPowerLimit, self._handle)


def _ask(function: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except pynvml.NVMLError as error:
        raise NvmlMissing(f"{function.__name__}: {error}") from None


def _maybe(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return the answer, None where there is none: not all cards have all figures."""
    try:
        return _ask(function, *arguments)
    except NvmlMissing:
        return None


def _watts(function: Callable[..., Any], handle: Any) -> float | None:
    milliwatts = _maybe(function, handle)
    return None if milliwatts is None else milliwatts / 1e3


def in_words(reasons: int) -> str:
    """Return the names of ``reasons``, a sum of NVML's bits, or ``none``."""
    return ", ".join(text for bit, text in REASONS.items() if reasons & bit) or "none"
