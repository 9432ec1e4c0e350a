"""NVML is asked for clocks and what holds them down, and its absence is said."""

import ctypes
from collections.abc import Callable
from pathlib import Path

import pynvml
import pytest

from avo.evaluator.cuda.device import Clocks
from avo.evaluator.cuda.nvml import SLOWDOWN, Nvml, NvmlMissing, cards, in_words

Install = Callable[[str], None]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Makes a library the driver's: pynvml loads it in place of ``libnvidia-ml.so.1``."""

    def load(library: str) -> None:
        monkeypatch.setattr(pynvml, "CDLL", lambda name: ctypes.CDLL(library))

    monkeypatch.setattr(pynvml, "nvmlLib", None)
    monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
    return load


@pytest.fixture
def stub(libcuda: Path, install: Install) -> None:
    install(str(libcuda.with_name("libnvidia-ml.so.1")))


@pytest.mark.usefixtures("stub")
def test_the_card_with_that_uuid_tells_its_clock_and_reasons() -> None:
    nvml = Nvml("1234")
    assert nvml.driver() == "550.54.15"
    assert nvml.clocks() == Clocks(1755, 0x44, 61, 350.5)
    assert nvml.most_mhz() == 1995


def test_reasons_are_named_by_the_bits_of_nvml_h() -> None:
    assert in_words(0x44) == "software power cap, hardware thermal slowdown"
    assert in_words(0x01) == "none"


def test_heat_and_lack_of_power_slow_a_card_down_and_a_change_of_clocks_does_not() -> None:
    # nvml.h: software and hardware thermal slowdown and power brake; hardware slowdown is set when clocks change, too
    assert SLOWDOWN == 0x20 | 0x40 | 0x80


@pytest.mark.usefixtures("stub")
def test_a_part_of_a_card_has_the_clocks_of_the_whole() -> None:
    assert Nvml("4321").clocks() == Clocks(1755, 0x44, 61, 350.5)


@pytest.mark.usefixtures("stub")
def test_without_a_uuid_it_is_the_first_card() -> None:
    assert Nvml().clocks().sm_mhz == 0


@pytest.mark.usefixtures("stub")
@pytest.mark.parametrize(
    ("uuid", "fails", "message"),
    [
        ("GPU-5678", "", "nvmlDeviceGetHandleByUUID: Not Found"),
        (None, "init", "nvmlInit: Not Supported"),
        (None, "clock", "nvmlDeviceGetClockInfo: Not Supported"),
    ],
)
def test_what_fails_is_named(uuid: str | None, fails: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NVML_STUB_FAILS", fails)
    with pytest.raises(NvmlMissing, match=message):
        Nvml(uuid).clocks()


@pytest.mark.parametrize(
    ("library", "message"),
    [("libno-such-nvml.so", "NVML Shared Library Not Found"), ("libc.so.6", "nvmlInit: Function Not Found")],
)
def test_no_library_and_another_library_are_told_apart(library: str, message: str, install: Install) -> None:
    install(library)
    with pytest.raises(NvmlMissing, match=message):
        Nvml()


@pytest.mark.usefixtures("stub")
def test_figures_that_a_card_does_not_have_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Nvml("1234").power_limit_w() == 700
    for lacking, clocks in (("power", Clocks(1755, 0x44, 61, None)), ("temperature", Clocks(1755, 0x44, None, 350.5))):
        monkeypatch.setenv("NVML_STUB_FAILS", lacking)
        assert Nvml("1234").clocks() == clocks


@pytest.mark.usefixtures("stub")
def test_all_cards_are_told_with_what_they_say_of_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NVML_STUB_FAILS", "mig")
    first, second = cards()
    assert (first.index, second.index, first.uuid, first.persistent, first.mig) == (0, 1, "GPU-1234", False, None)
    assert first.in_words() == "Stub, compute mode exclusive process, SM 0 of 1995 MHz, 350 of 700 W, 61 C"
