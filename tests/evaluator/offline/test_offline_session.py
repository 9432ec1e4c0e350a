"""A session changes the process while it is open, and leaves nothing behind."""

import ctypes
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

import pynvml
import pytest
import torch
import triton
import triton.compiler
import triton.language as tl
import triton.testing
from triton.runtime.autotuner import Autotuner

from avo.evaluator.errors import UnknownTarget
from avo.evaluator.offline import OfflineError, offline


@triton.autotune([triton.Config({"BLOCK": 16}), triton.Config({"BLOCK": 32})], key=["n"])
@triton.jit
def fill(y, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y + i, i + 1, mask=i < n)


@triton.jit
def double(x, N: tl.constexpr):
    i = tl.arange(0, N)
    tl.store(x + i, tl.load(x + i) * 2)


def state() -> dict[str, Any]:
    """Everything of others that a session changes."""
    of_torch = (torch, torch.cuda, torch.accelerator, torch.version, torch.fft, torch.Tensor)
    owners = (*of_torch, triton.testing, ctypes.CDLL, pynvml)
    return {
        **{f"{owner.__name__}.{name}": value for owner in owners for name, value in vars(owner).items()},
        "driver": triton.runtime.driver._active,
        "compile": triton.compiler.compile,
        **{f"Autotuner.{name}": value for name, value in vars(Autotuner).items()},
    }


def test_nothing_is_left_behind() -> None:
    real = {("known",): triton.Config({"BLOCK": 16})}
    fill.cache = dict(real)
    before = state()
    for _ in range(2):
        y = torch.zeros(40)
        with offline(autotune="first") as session:
            fill[lambda meta: (triton.cdiv(40, meta["BLOCK"]),)](y, 40)
            assert list(fill.cache) != list(real)
        assert y.tolist() == list(range(1, 41))
        assert len(session.launches) == 1
        after = state()
        assert {name for name in before if after[name] is not before[name]} == set()
        assert after.keys() == before.keys()
        assert fill.cache == real
        assert not fill.fn.device_caches
        assert fill.fn.compile is triton.compiler.compile


def test_an_error_in_a_session_leaves_nothing_behind_either() -> None:
    before = state()
    with pytest.raises(RuntimeError, match="mine"), offline():
        raise RuntimeError("mine")
    assert state() == before


def test_what_a_module_keeps_of_torch_is_plain_again() -> None:
    with offline():
        kept = torch.empty
        assert kept(3, device="cuda").shape == (3,)
    assert kept is not torch.empty
    with pytest.raises((RuntimeError, AssertionError)):
        kept(3, device="cuda:77")


def test_sessions_do_not_nest() -> None:
    with offline() as outer:
        with pytest.raises(OfflineError, match="open already"), offline():
            pass
        y = torch.zeros(16)
        fill[(1,)](y, 16)
    assert len(outer.launches) == 1


def test_wrong_settings_are_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnknownTarget, match="choose one of"):
        offline("rtx")
    with pytest.raises(UnknownTarget, match="unknown target None"):
        offline(None)  # type: ignore[arg-type]
    with pytest.raises(OfflineError, match="on_fault must be one of collect, raise, not 'explode'"):
        offline(on_fault="explode")  # type: ignore[arg-type]
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    with pytest.raises(OfflineError, match="TRITON_INTERPRET is set"), offline():
        pass


def test_tensors_pass_for_tensors_on_a_gpu() -> None:
    with offline("a100"):
        x = torch.randn(4, device="cuda")
        for made in (
            x,
            torch.zeros(4).cuda(),
            torch.zeros(4).to("cuda:0"),
            torch.zeros(4).to(0),
            x.new_empty(4, device=torch.device("cuda")),
            torch.ones_like(x, device="cuda"),
            torch.randn(4, device="cuda", generator=torch.Generator("cuda").manual_seed(1)),
            torch.nn.Linear(2, 2, device="cuda").weight,
        ):
            assert made.is_cuda
            assert made.device == torch.device("cuda", 0)
            assert made.get_device() == torch.cuda.current_device() == 0
        with torch.device("cuda"):
            assert torch.zeros(2).is_cuda
        kept = x.cpu()
        x.zero_()
        assert kept.abs().sum() > 0
        assert torch.cuda.get_device_capability() == (8, 0)
        assert torch.cuda.get_device_properties(0).multi_processor_count == 108
        assert triton.runtime.driver.active.get_current_target().arch == 80
        with torch.cuda.device(x.device), torch.cuda.stream(torch.cuda.Stream()):
            torch.cuda.synchronize()
        torch.manual_seed(3)
        with pytest.warns(UserWarning, match="nothing is timed without a GPU") as warned:
            times = triton.testing.do_bench(lambda: x.add_(1)), torch.cuda.Event().elapsed_time(torch.cuda.Event())
        assert times == (1.0, 1.0)
        assert [one.filename for one in warned] == [__file__] * 2
        assert x.tolist() == [1.0] * 4
    assert not x.is_cuda
    assert x.device.type == "cpu"


def test_tensors_may_keep_saying_that_they_are_on_the_cpu() -> None:
    with offline(claim_cuda=False) as session:
        x = torch.zeros(40, device="cuda")
        assert x.device.type == "cpu"
        assert not x.is_cuda
        assert x.cpu() is x
        fill[(3,)](x, 40)
    assert x.tolist() == list(range(1, 41))
    assert len(session.launches) == 1


def test_a_tensor_that_is_on_the_cpu_by_name_is_refused_where_devices_are_checked() -> None:
    x = torch.ones(4)
    with offline(check_devices=True):
        named = torch.ones(4, device="cpu")
        for here in (named, x.cpu(), x.to("cpu"), x.to(named), torch.ones_like(x, device="cpu")):
            assert (here.device.type, here.is_cuda) == ("cpu", False)
            with pytest.raises(ValueError, match=r"Pointer argument x cannot be accessed from Triton \(cpu tensor\?\)"):
                double[(1,)](here, N=2)
            moved = (here.to(to) for to in ("cuda", "cuda:0", 0, x.device, x))
            for there in (*moved, here.to(device=0), here.cuda(), here.cuda(0), here + 0, here.pin_memory()):
                double[(1,)](there, N=2)
                assert there.is_cuda
                assert there[0] == 2 * here[0]
        double[(1,)](x, N=4)
        double[(1,)](torch.ones(4, pin_memory=True, device="cpu"), N=4)


def test_nvml_knows_the_target_whoever_loads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    before, loaded = pynvml.nvmlLib, ctypes.CDLL(None)
    with offline("h100"):
        assert isinstance(loaded, ctypes.CDLL)
        assert ctypes.cdll.LoadLibrary("libnvidia-ml.so.1").nvmlInit_v2() == 0
        spec = importlib.util.spec_from_file_location("copy_of_pynvml", pynvml.__file__)
        copy = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, "copy_of_pynvml", copy)
        spec.loader.exec_module(copy)
        for nvml in (pynvml, copy):
            nvml.nvmlInit()
            assert nvml.nvmlDeviceGetCount() == 1
            handle = nvml.nvmlDeviceGetHandleByIndex(0)
            assert nvml.nvmlDeviceGetName(handle) == torch.cuda.get_device_name() == "NVIDIA H100 SXM5 80GB"
            assert tuple(nvml.nvmlDeviceGetCudaComputeCapability(handle)) == (9, 0)
            assert nvml.nvmlDeviceGetMemoryInfo(handle).total == torch.cuda.mem_get_info()[1] == 80 * 10**9
            assert nvml.nvmlSystemGetCudaDriverVersion() == 12080
            with pytest.raises(nvml.NVMLError_NotSupported):
                nvml.nvmlDeviceGetTemperature(handle, 0)
            with pytest.raises(nvml.NVMLError_InvalidArgument):
                nvml.nvmlDeviceGetHandleByIndex(1)
            nvml.nvmlShutdown()
        assert ctypes.CDLL(None).getpid() == os.getpid()
    assert pynvml.nvmlLib is before


def test_modules_that_ask_for_the_device_at_import_are_told(tmp_path: Path) -> None:
    source = tmp_path / "needy.py"
    source.write_text(
        "import torch, triton\n"
        "assert torch.cuda.is_available() and torch.version.cuda\n"
        "SMS = torch.cuda.get_device_properties(torch.cuda.current_device()).multi_processor_count\n"
        "SHARED = triton.runtime.driver.active.utils.get_device_properties(0)['max_shared_mem']\n"
        "KIND = torch.accelerator.current_accelerator().type\n"
    )
    spec = importlib.util.spec_from_file_location("needy", source)
    assert spec is not None
    assert spec.loader is not None
    needy = importlib.util.module_from_spec(spec)
    with offline():
        spec.loader.exec_module(needy)
    assert (needy.SMS, needy.SHARED, needy.KIND) == (132, 232448, "cuda")
