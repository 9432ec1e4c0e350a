"""The SM clock during a run, from counters that a tiny kernel reads on every SM before and after it.

So does NVIDIA's nvbench (``nvbench/detail/timestamps_kernel.cu`` and ``gpu_frequency.cxx``) on its first SM. NVML says
the clock at one moment after the run. Not tried on a GPU.
"""

import ctypes
import statistics

import torch
from triton.backends.nvidia.compiler import get_ptxas

from avo.evaluator.cuda.device import MachineFault
from avo.evaluator.cuda.runtime import Cuda
from avo.evaluator.cuda.start import Driver, assembled

_KERNEL = """.visible .entry sm_clock(.param .u64 rows) {
.reg .u32 %block, %sm;
.reg .u64 %row, %id, %cycles, %ns;
ld.param.u64 %row, [rows];
mov.u32 %block, %ctaid.x;
mad.wide.u32 %row, %block, 24, %row;
mov.u32 %sm, %smid;
cvt.u64.u32 %id, %sm;
mov.u64 %cycles, %clock64;
mov.u64 %ns, %globaltimer;
st.u64 [%row], %id;
st.u64 [%row+8], %cycles;
st.u64 [%row+16], %ns;
ret;
}
"""
_LEAST_NS = 50_000
"""Of a shorter time no clock is told: how often ``%globaltimer`` is updated is not defined (PTX ISA, "Special
Registers"), and with each microsecond it would be wrong by up to 2%.
"""


class SmClock:
    """Cycles and time on the SMs of the current device. Not to be read between the events that time a run."""

    def __init__(self, cuda: Cuda, driver: Driver, arch: int, sms: int) -> None:
        """Load the kernel, for a card with ``sms`` SMs. Raises ``MachineFault``."""
        self._cuda, self._sms = cuda, sms
        self._rows = torch.full((2, sms, 3), -1, dtype=torch.int64, device=cuda.place)
        module, self._kernel = ctypes.c_void_p(), ctypes.c_void_p()
        code = cuda.driver.cuModuleLoadData(ctypes.byref(module), assembled(get_ptxas(arch), arch, _KERNEL))
        if code := code or cuda.driver.cuModuleGetFunction(ctypes.byref(self._kernel), module, b"sm_clock"):
            raise MachineFault(f"the kernel that reads the SM clock is not loaded: {driver.words(code)}")

    def read(self, when: int) -> None:
        """Enqueue reading the counters before a run (0) or after it (1)."""
        rows = ctypes.c_uint64(self._rows[when].data_ptr())
        params = (ctypes.c_void_p * 1)(ctypes.addressof(rows))
        # An error is one of the run before it, which the next call that waits raises too.
        stream = ctypes.c_void_p(self._cuda.stream())
        self._cuda.driver.cuLaunchKernel(self._kernel, self._sms, 1, 1, 1, 1, 1, 0, stream, params, None)

    def mhz(self) -> float | None:
        """Return the mean clock of the SMs between both readings; None where no SM was read twice."""
        before, after = ({sm: counters for sm, *counters in rows} for rows in self._rows.tolist())
        self._rows.fill_(-1)
        passed = [[after[sm][i] - before[sm][i] for i in range(2)] for sm in before.keys() & after.keys()]
        rates = [1e3 * cycles / ns for cycles, ns in passed if ns >= _LEAST_NS]
        return statistics.fmean(rates) if rates else None
