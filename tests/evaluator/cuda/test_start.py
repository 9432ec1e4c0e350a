"""What is wrong with a machine is said when a worker starts, and is nobody's fault but the machine's."""

import ctypes
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from triton import knobs

from avo.evaluator.cuda import triton_device
from avo.evaluator.cuda.device import MachineFault
from avo.evaluator.cuda.start import Driver, building
from avo.evaluator.cuda.triton_device import TritonDevice
from avo.evaluator.target import TARGETS

INVALID_IMAGE = "cuModuleLoadData:1=200,cuModuleLoadData:2=200"  # CUDA_ERROR_INVALID_IMAGE of cuda.h
ARCHITECTURES = sorted({target.arch for target in TARGETS.values()})


@pytest.fixture
def driver(libcuda: Path) -> Driver:
    library = ctypes.CDLL(str(libcuda))
    library.stub_reset()  # no context is current, as torch.cuda.init leaves it
    return Driver(library, 0)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_an_empty_kernel_is_assembled_loaded_and_run_for_every_architecture(driver: Driver, arch: int) -> None:
    driver.check_assembler(arch, "580.65")


@pytest.mark.parametrize(("arch", "variable"), [(80, "TRITON_PTXAS_PATH"), (100, "TRITON_PTXAS_BLACKWELL_PATH")])
def test_a_driver_that_is_too_old_is_named_with_the_assembler_and_the_way_out(
    driver: Driver, monkeypatch: pytest.MonkeyPatch, arch: int, variable: str
) -> None:
    monkeypatch.setenv("STUB_ERRORS", INVALID_IMAGE)
    monkeypatch.setenv("STUB_CUDA", "12020")
    expected = (
        r"^driver 535.104 \(CUDA 12.2\) is too old for ptxas \d+\.\d+ \(/\S+\): device kernel image is invalid: "
        rf"install a newer driver, or set {variable} to the ptxas of CUDA 12.2$"
    )
    with pytest.raises(MachineFault, match=expected):
        driver.check_assembler(arch, "535.104")


def test_a_driver_that_is_too_old_for_one_assembler_gets_the_other_unless_one_was_chosen(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STUB_ERRORS", "cuModuleLoadData:1=200,cuModuleLoadData:3=200")
    monkeypatch.setenv("STUB_CUDA", "12080")
    assert driver.check_assembler(100, "570.86") == {"TRITON_PTXAS_BLACKWELL_PATH": knobs.nvidia.ptxas.path}
    monkeypatch.setenv("TRITON_PTXAS_BLACKWELL_PATH", knobs.nvidia.ptxas_blackwell.path)
    with pytest.raises(MachineFault, match=r"is too old for ptxas"):
        driver.check_assembler(100, "570.86")


def test_another_trouble_with_the_empty_kernel_is_not_put_down_to_age(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STUB_ERRORS", INVALID_IMAGE)
    monkeypatch.setenv("STUB_CUDA", "99000")
    with pytest.raises(MachineFault, match=r"^driver 999 does not run an empty kernel made by ptxas .*: device kernel"):
        driver.check_assembler(90, "999")


@pytest.mark.parametrize(
    ("attribute", "value", "message"),
    [
        (20, 3, r"^the card's compute mode is exclusive process, and .*: nvidia-smi --compute-mode=DEFAULT$"),
        (20, 2, "^the card's compute mode is prohibited"),
        (133, 1, "^the card is shared through MPS, where one candidate's fault ends the processes of others"),
    ],
)
def test_a_card_that_two_workers_cannot_share_is_refused(
    driver: Driver, monkeypatch: pytest.MonkeyPatch, attribute: int, value: int, message: str
) -> None:
    driver.check_sharing()
    monkeypatch.setenv("STUB_ATTRIBUTE", str(attribute))
    monkeypatch.setenv("STUB_VALUE", str(value))
    with pytest.raises(MachineFault, match=message):
        driver.check_sharing()


def test_a_process_that_is_alone_takes_a_card_that_is_for_one_process(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STUB_ATTRIBUTE", "20")
    monkeypatch.setenv("STUB_VALUE", "3")
    driver.check_sharing(alone=True)
    monkeypatch.setenv("STUB_VALUE", "2")
    with pytest.raises(MachineFault, match="prohibited"):
        driver.check_sharing(alone=True)


def test_a_launcher_that_does_not_build_is_told_in_the_compilers_words() -> None:
    told = "launcher.c:4:10: fatal error: Python.h: No such file or directory"
    with pytest.raises(MachineFault, match=rf"does not build: {told}: it needs .* Python's headers"), building():
        subprocess.check_call(["sh", "-c", f"echo; echo '{told}' >&2; echo compilation terminated. >&2; exit 1"])
    with pytest.raises(MachineFault, match=r"does not build: .*No such file or directory: '/no/such/cc'"), building():
        subprocess.check_call(["/no/such/cc"])
    with pytest.raises(MachineFault, match="does not build: Failed to find C compiler"), building():
        raise RuntimeError("Failed to find C compiler. Please specify via CC environment variable")


def test_torchs_own_reason_for_finding_no_gpu_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise RuntimeError("The NVIDIA driver on your system is too old (found version 12020). Please update\nmore")

    monkeypatch.setattr(torch.cuda, "init", refuse)
    with pytest.raises(MachineFault, match=r"^torch finds no CUDA GPU: The NVIDIA driver on your system is too old"):
        TritonDevice()


def test_only_running_out_of_resources_is_the_kernels_own_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    class Kernel:
        def __init__(self, *arguments: object) -> None:
            pass

        def _init_handles(self) -> None:
            raise RuntimeError("Triton Error [CUDA]: device kernel image is invalid")

    monkeypatch.setattr(triton_device, "CompiledKernel", Kernel)
    binary = SimpleNamespace(launch='{"signature": []}', cubin=b"")
    device = TritonDevice.__new__(TritonDevice)
    with pytest.raises(MachineFault, match=r"^kernel probe is not loaded: .*device kernel image is invalid"):
        device.load(SimpleNamespace(name="probe"), binary)  # type: ignore[arg-type]
