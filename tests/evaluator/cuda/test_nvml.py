"""NVML is asked for clocks and what holds them down, and its absence is said."""

import shutil
import subprocess
from pathlib import Path

import pytest

from evaluator.cuda.device import Clocks
from evaluator.cuda.nvml import Nvml, NvmlMissing, in_words


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> str:
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc")
    built = tmp_path_factory.mktemp("nvml") / "libnvml_stub.so"
    source = Path(__file__).parent / "nvml_stub.c"
    subprocess.run(["gcc", str(source), "-shared", "-fPIC", "-o", str(built)], check=True, timeout=600)
    return str(built)


def test_the_card_with_that_uuid_tells_its_clock_and_reasons(library: str) -> None:
    nvml = Nvml("1234", library)
    assert nvml.driver() == "550.54.15"
    assert nvml.clocks() == Clocks(1755, 0x44)
    assert in_words(0x44) == "software power cap, hardware thermal slowdown"


def test_without_a_uuid_it_is_the_first_card(library: str) -> None:
    assert Nvml(library=library).name() == "Stub"


@pytest.mark.parametrize(
    ("uuid", "fails", "message"),
    [
        ("GPU-5678", "", "nvmlDeviceGetHandleByUUID failed with code 6"),
        (None, "init", "nvmlInit_v2 failed with code 3"),
        (None, "clock", "nvmlDeviceGetClockInfo failed with code 3"),
    ],
)
def test_what_fails_is_named(
    uuid: str | None, fails: str, message: str, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NVML_STUB_FAILS", fails)
    with pytest.raises(NvmlMissing, match=message):
        Nvml(uuid, library).clocks()


def test_no_library_and_another_library_are_told_apart() -> None:
    with pytest.raises(NvmlMissing, match=r"libno-such-nvml\.so"):
        Nvml(library="libno-such-nvml.so")
    with pytest.raises(NvmlMissing, match="no nvmlInit_v2 in the driver's NVML"):
        Nvml(library="libc.so.6")
