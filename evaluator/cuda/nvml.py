"""SM clocks and what holds them down, from NVML, the library of every NVIDIA driver. Needs no CUDA context.

Not tried on a GPU.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pynvml

from avo.evaluator.cuda.blame import XIDS
from avo.evaluator.cuda.device import Clocks

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


_XID_MS = 100
"""How long to wait for the driver to tell of an error that CUDA has reported already."""
COMPUTE_MODES = {0: "default", 1: "exclusive thread", 2: "prohibited", 3: "exclusive process"}
"""NVML's ``nvmlComputeMode_t``, and CUDA's ``CUcomputemode``."""


@dataclass(frozen=True, slots=True)
class CardState:
    """One of the machine's cards, as NVML sees it now; what it does not say is None."""

    index: int
    uuid: str
    name: str
    compute_mode: str | None
    persistent: bool | None
    """Whether the driver stays loaded while nobody uses it."""
    mig: bool | None
    """Whether it is divided into parts."""
    sm_mhz: int | None
    max_sm_mhz: int | None
    watts: float | None
    limit_w: float | None
    celsius: int | None

    def in_words(self) -> str:
        """Return it in one line."""
        figures = (
            (f"compute mode {self.compute_mode}", self.compute_mode),
            ("divided by MIG", self.mig or None),
            (f"SM {self.sm_mhz} of {self.max_sm_mhz} MHz", self.sm_mhz),
            (f"{self.watts or 0:.0f} of {self.limit_w or 0:.0f} W", self.limit_w),
            (f"{self.celsius} C", self.celsius),
        )
        return ", ".join([self.name, *(words for words, known in figures if known is not None)])


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
        self._handle = _ask(pynvml.nvmlDeviceGetHandleByIndex, 0) if uuid is None else self._found(uuid)
        self._errors = _maybe(pynvml.nvmlEventSetCreate)
        _maybe(pynvml.nvmlDeviceRegisterEvents, self._handle, pynvml.nvmlEventTypeXidCriticalError, self._errors)
        self._uncorrected = self._ecc_errors()

    @staticmethod
    def _found(uuid: str) -> Any:
        bare = uuid.removeprefix("GPU-").removeprefix("MIG-")
        try:
            return _ask(pynvml.nvmlDeviceGetHandleByUUID, f"GPU-{bare}")
        except NvmlMissing as no_gpu:
            try:
                part = _ask(pynvml.nvmlDeviceGetHandleByUUID, f"MIG-{bare}")
            except NvmlMissing:
                raise no_gpu from None
            return _ask(pynvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle, part)

    def driver(self) -> str:
        """Return the driver's version. Raises ``NvmlMissing``."""
        return str(_ask(pynvml.nvmlSystemGetDriverVersion))

    def clocks(self) -> Clocks:
        """Return the SM clock, what holds it down, temperature, power and who else is there. Raises ``NvmlMissing``."""
        mhz = _ask(pynvml.nvmlDeviceGetClockInfo, self._handle, pynvml.NVML_CLOCK_SM)
        # The name from before driver R535, which later drivers keep.
        reasons = _ask(pynvml.nvmlDeviceGetCurrentClocksThrottleReasons, self._handle)
        celsius = _maybe(pynvml.nvmlDeviceGetTemperature, self._handle, pynvml.NVML_TEMPERATURE_GPU)
        watts = _watts(pynvml.nvmlDeviceGetPowerUsage, self._handle)
        return Clocks(mhz, reasons, celsius, watts, others=self._others())

    def _others(self) -> tuple[str, ...]:
        """Return the processes that compute on the GPU besides workers of this one's parent; none where NVML does not
        know this one by its number, as in a container.
        """
        pids = {each.pid for each in _maybe(pynvml.nvmlDeviceGetComputeRunningProcesses, self._handle) or ()}
        if os.getpid() not in pids:
            return ()
        return tuple(filter(None, map(_stranger, sorted(pids - {os.getpid()}))))

    def trouble(self) -> str:
        """Return in words which errors that no kernel brings about the GPU had since this object was made."""
        found = []
        while (event := _maybe(pynvml.nvmlEventSetWait, self._errors, _XID_MS)) is not None:
            found += [f"Xid {event.eventData}"] * (event.eventData in XIDS)
        if self._uncorrected is not None and (errors := (self._ecc_errors() or 0) - self._uncorrected) > 0:
            found.append(f"{errors} uncorrected ECC errors")
        return ", ".join(found)

    def _ecc_errors(self) -> int | None:
        kind = (pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, pynvml.NVML_VOLATILE_ECC)
        count: int | None = _maybe(pynvml.nvmlDeviceGetTotalEccErrors, self._handle, *kind)
        return count

    def most_mhz(self) -> int | None:
        """Return the highest SM clock; None where it does not say."""
        most: int | None = _maybe(pynvml.nvmlDeviceGetMaxClockInfo, self._handle, pynvml.NVML_CLOCK_SM)
        return most

    def power_limit_w(self) -> float | None:
        """Return the power that the card may draw, in watts; None where it does not say."""
        return _watts(pynvml.nvmlDeviceGetEnforcedPowerLimit, self._handle)


def cards() -> list[CardState]:
    """Return the state of all cards. Raises ``NvmlMissing``."""
    _ask(pynvml.nvmlInit)
    found = []
    for index in range(_ask(pynvml.nvmlDeviceGetCount)):
        handle = _ask(pynvml.nvmlDeviceGetHandleByIndex, index)
        mode = _maybe(pynvml.nvmlDeviceGetComputeMode, handle)
        persistent = _maybe(pynvml.nvmlDeviceGetPersistenceMode, handle)
        mig = _maybe(pynvml.nvmlDeviceGetMigMode, handle)  # now, and after the next reset
        state = CardState(
            index=index,
            uuid=str(_ask(pynvml.nvmlDeviceGetUUID, handle)),
            name=str(_ask(pynvml.nvmlDeviceGetName, handle)),
            compute_mode=None if mode is None else COMPUTE_MODES.get(mode, str(mode)),
            persistent=None if persistent is None else bool(persistent),
            mig=None if mig is None else bool(mig[0]),
            sm_mhz=_maybe(pynvml.nvmlDeviceGetClockInfo, handle, pynvml.NVML_CLOCK_SM),
            max_sm_mhz=_maybe(pynvml.nvmlDeviceGetMaxClockInfo, handle, pynvml.NVML_CLOCK_SM),
            watts=_watts(pynvml.nvmlDeviceGetPowerUsage, handle),
            limit_w=_watts(pynvml.nvmlDeviceGetEnforcedPowerLimit, handle),
            celsius=_maybe(pynvml.nvmlDeviceGetTemperature, handle, pynvml.NVML_TEMPERATURE_GPU),
        )
        found.append(state)
    return found


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


def _stranger(pid: int) -> str | None:
    """Return what process it is; None of one that is gone, or a worker of this one's parent (``serving.child``)."""
    try:
        leads = os.getsid(pid) == pid
        before, _, after = Path(f"/proc/{pid}/stat").read_text().rpartition(")")
    except ProcessLookupError:
        return None
    except OSError:
        return f"a process ({pid})"
    if leads and int(after.split()[1]) == os.getppid():
        return None
    return f"{before.partition('(')[2]} ({pid})"


def _watts(function: Callable[..., Any], handle: Any) -> float | None:
    milliwatts = _maybe(function, handle)
    return None if milliwatts is None else milliwatts / 1e3


def in_words(reasons: int) -> str:
    """Return the names of ``reasons``, a sum of NVML's bits, or ``none``."""
    return ", ".join(text for bit, text in REASONS.items() if reasons & bit) or "none"
