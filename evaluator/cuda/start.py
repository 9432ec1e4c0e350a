"""What must hold before anything is timed: Triton's launcher builds, the driver runs what the assembler makes, and
nobody else's fault can end a worker. Asked of the driver itself, so that what is wrong has a name.
"""

import ctypes
import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from triton import knobs
from triton.backends.nvidia.compiler import get_ptxas, ptx_get_version

from avo.evaluator.cuda.blame import names_machine
from avo.evaluator.cuda.device import MachineFault
from avo.evaluator.cuda.nvml import COMPUTE_MODES
from avo.evaluator.sandbox.tools import VARIABLES

_EXCLUSIVE_PROCESS = 3
"""``CU_COMPUTEMODE_EXCLUSIVE_PROCESS`` of cuda.h, common where jobs share a node."""
_COMPUTE_MODE, _MPS_ENABLED = 20, 133
"""``CU_DEVICE_ATTRIBUTE_COMPUTE_MODE`` and ``CU_DEVICE_ATTRIBUTE_MPS_ENABLED`` of cuda.h; drivers before CUDA 12.1 do
not know the second.
"""
_EMPTY = ".visible .entry empty() { ret; }\n"


@contextmanager
def building() -> Iterator[None]:
    """Compile Triton's launcher within; raise ``MachineFault`` with the C compiler's words where that fails.

    Triton runs the compiler with this process's standard error (``triton/runtime/build.py``).
    """
    with tempfile.TemporaryFile() as said:
        kept = os.dup(2)
        os.dup2(said.fileno(), 2)
        failed: Exception
        try:
            yield
        except (subprocess.CalledProcessError, OSError) as error:
            failed, words = error, _written(said.fileno())
        except RuntimeError as error:
            if "C compiler" not in str(error):
                raise
            failed, words = error, ""
        else:
            return
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            os.write(2, _written(said.fileno()).encode())
    lines = words.strip().splitlines()
    telling = next((line for line in lines if "error" in line), lines[-1] if lines else str(failed))
    raise MachineFault(
        f"Triton's launcher does not build: {telling.strip():.300}: it needs a C compiler (CC names another than gcc) "
        "and Python's headers (apt-get install gcc python3-dev)"
    )


def _written(file: int) -> str:
    size = os.lseek(file, 0, os.SEEK_END)
    return os.pread(file, size, 0).decode(errors="replace")


class Driver:
    """The CUDA driver, asked about one device."""

    def __init__(self, library: ctypes.CDLL, device: int) -> None:
        """``library`` is ``libcuda.so.1``; ``device`` is the driver's number of the device."""
        self._cuda, self._device = library, device

    def cuda(self) -> str:
        """Return the latest CUDA release that the driver supports, such as ``12.8``."""
        number = ctypes.c_int()
        self._cuda.cuDriverGetVersion(ctypes.byref(number))
        return f"{number.value // 1000}.{number.value % 1000 // 10}"

    def words(self, code: int) -> str:
        """Return what the driver calls an error."""
        text = ctypes.c_char_p()
        self._cuda.cuGetErrorString(code, ctypes.byref(text))
        return (text.value or b"").decode() or f"error {code}"

    def check_sharing(self, *, alone: bool = False) -> None:
        """Raise ``MachineFault`` where a second worker cannot run beside the first, unless one is ``alone``, or would
        not outlive its fault.
        """
        mode = self._attribute(_COMPUTE_MODE) or 0
        if mode and not (alone and mode == _EXCLUSIVE_PROCESS):
            raise MachineFault(
                f"the card's compute mode is {COMPUTE_MODES.get(mode, mode)}, and a comparison needs two processes: "
                "nvidia-smi --compute-mode=DEFAULT"
            )
        if self._attribute(_MPS_ENABLED):
            raise MachineFault(
                "the card is shared through MPS, where one candidate's fault ends the processes of others: "
                "echo quit | nvidia-cuda-mps-control, or set CUDA_MPS_PIPE_DIRECTORY to an empty folder"
            )

    def check_assembler(self, arch: int, driver: str) -> dict[str, str]:
        """Assemble, load and run an empty kernel; raise ``MachineFault`` where that fails.

        Return the environment in which Triton takes an assembler whose kernel runs: nothing, or the older one of its
        two where the driver is too old for the one that it takes by itself. ``arch`` is the compute capability times
        ten, ``driver`` the driver's version.
        """
        tool = get_ptxas(arch)
        if failed := self._run_empty(assembled(tool, arch, _EMPTY)):
            supported = self.cuda()
            tools = (knobs.nvidia.ptxas, knobs.nvidia.ptxas_blackwell)
            variable = VARIABLES[tool.path == tools[1].path]
            here = f"ptxas {tool.version} ({tool.path})"
            if _parts(supported) < _parts(tool.version) and not names_machine(failed):
                older = min(tools, key=lambda each: _parts(each.version))
                if variable not in os.environ and older != tool and not self._run_empty(assembled(older, arch, _EMPTY)):
                    return {variable: older.path}
                raise MachineFault(
                    f"driver {driver or 'unknown'} (CUDA {supported}) is too old for {here}: {failed}: install a newer "
                    f"driver, or set {variable} to the ptxas of CUDA {supported}"
                )
            raise MachineFault(f"driver {driver or 'unknown'} does not run an empty kernel made by {here}: {failed}")
        return {}

    def _run_empty(self, cubin: bytes) -> str:
        """Return what the driver says against the kernel; nothing where it ran."""
        context, module, function = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_void_p()
        none = ctypes.c_void_p()
        steps: tuple[Callable[[], int], ...] = (
            # torch makes this context current with its first tensor, not before (pytorch/pytorch, pull request 99533).
            lambda: self._cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), self._device),
            lambda: self._cuda.cuCtxSetCurrent(context),
            lambda: self._cuda.cuModuleLoadData(ctypes.byref(module), cubin),
            lambda: self._cuda.cuModuleGetFunction(ctypes.byref(function), module, b"empty"),
            lambda: self._cuda.cuLaunchKernel(function, 1, 1, 1, 1, 1, 1, 0, none, none, none),
            self._cuda.cuCtxSynchronize,
        )
        for step in steps:
            if code := step():
                return self.words(code)
        self._cuda.cuModuleUnload(module)
        return ""

    def _attribute(self, which: int) -> int | None:
        value = ctypes.c_int()
        failed = self._cuda.cuDeviceGetAttribute(ctypes.byref(value), which, self._device)
        return None if failed else value.value


def assembled(tool: knobs.NvidiaTool, arch: int, kernel: str) -> bytes:
    """Return the cubin of a kernel in PTX for compute capability ``arch`` / 10. Raises ``MachineFault``."""
    # The newest PTX that an assembler reads has every architecture that it knows.
    version = "{}.{}".format(*divmod(ptx_get_version(tool.version), 10))
    with tempfile.TemporaryDirectory() as folder:
        text, cubin = Path(folder, "kernel.ptx"), Path(folder, "kernel.cubin")
        text.write_text(f".version {version}\n.target sm_{arch}\n.address_size 64\n{kernel}")
        command = [tool.path, f"--gpu-name=sm_{arch}", str(text), "-o", str(cubin)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            said = (done.stdout + done.stderr).strip().splitlines() or [f"exit code {done.returncode}"]
            raise MachineFault(f"{tool.path} does not assemble a kernel for sm_{arch}: {said[0]:.300}")
        return cubin.read_bytes()


def _parts(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version)))
