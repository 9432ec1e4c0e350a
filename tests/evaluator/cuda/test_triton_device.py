"""What a plan asks for arrives at the CUDA driver's door, through Triton's own launcher."""

import contextlib
import os
import struct
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from avo.evaluator.cuda.device import NotRecorded, Took
from avo.evaluator.cuda.triton_device import TritonDevice, launcher_type, placed
from avo.evaluator.plan import Argument, Descriptor, Pointer, Scalar
from tests.evaluator.cuda.launch_once import SIZES


@pytest.mark.long
@pytest.mark.skipif(
    not Path(sysconfig.get_path("include"), "Python.h").exists(),
    reason="Triton's launcher is compiled: needs Python's headers",
)
def test_a_launch_reaches_the_driver_with_every_argument_in_its_place(tmp_path: Path, libcuda: Path) -> None:
    environment = os.environ | {
        "TRITON_LIBCUDA_PATH": str(libcuda.parent),
        "LD_LIBRARY_PATH": str(libcuda.parent),
        "TRITON_CACHE_DIR": str(tmp_path / "cache"),
        "TRITON_DEFAULT_FP_FUSION": "1",
        "STUB_SIZES": ",".join(map(str, SIZES)),
    }
    command = [sys.executable, "-m", "tests.evaluator.cuda.launch_once"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    said = dict(line.split(" ", 1) for line in done.stdout.splitlines() if not line.startswith("param"))
    held = [bytes.fromhex(line.split()[2]) for line in done.stdout.splitlines() if line.startswith("param")]
    first, second = map(int, said["addresses"].split())
    assert (said["image"], said["function"]) == ("ELF", "probe")
    assert said["launch"].startswith("grid 5 6 7 block 128 shared ")
    assert said["launch"].endswith("stream 77 attributes 0")
    # CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 is 9; innermost first; NaN fill is 1; rows of 80 bytes; 64-byte swizzle is 2
    assert said["map"] == f"type 9 rank 2 address {first + 32} dims 33 60 stride 80 box 32 64 swizzle 2 fill 1"
    formats = ("Q", None, "i", "i", "q", "q", "f", "d", "H", "B", "q", "b", "Q", "Q", "Q")
    values = [
        None if form is None else struct.unpack("<" + form, raw)[0] for form, raw in zip(formats, held, strict=True)
    ]
    one_in_bfloat16 = 0x3F80
    scalars = [60, 33, 40, 1, 0.5, 2.0, one_in_bfloat16, 1, -2, -3]
    assert values == [first + 16, None, *scalars, second + 4, 0, 0]
    assert held[1][:8] == b"\xab" * 8  # Triton mends a bit further on


@pytest.mark.parametrize(
    ("kind", "launcher"),
    [
        ("*bf16", "*i8"),
        ("!tt.tensordesc<64x64xbf16>", "nvTmaDesc"),
        ("!tt.tensordesc<tensor<64x64xbf16>>", "nvTmaDesc"),
        ("f64", "fp64"),
        ("f32", "f32"),
        ("i32", "i32"),
    ],
)
def test_types_of_the_ir_are_named_as_the_launcher_names_them(kind: str, launcher: str) -> None:
    assert launcher_type(kind) == launcher


@pytest.mark.parametrize(
    ("value", "kind", "given"),
    [(2**32 - 1, "i32", -1), (2**31 - 1, "i32", 2**31 - 1), (True, "i1", 1), (-1, "i8", 255), (3, "f32", 3.0)],
)
def test_scalars_have_the_parameters_type(value: int, kind: str, given: float) -> None:
    (placed_value,) = placed([Scalar(value)], [kind], [], [])
    assert placed_value == given
    assert type(placed_value) is type(given)


@pytest.mark.parametrize(
    ("arguments", "types", "message"),
    [
        ([], ["i32"], "zip"),
        ([Scalar(1)], ["*i8"], "a scalar for a pointer"),
        ([Pointer(0, 0)], ["i64"], "a pointer for a scalar"),
        ([Pointer(0, 0)], ["nvTmaDesc"], "a pointer for a descriptor"),
        ([Descriptor(0, 0, (8, 8), (8, 1), (8, 8), "zero")], ["nvTmaDesc"], "a kind that plans do not have"),
        ([Scalar(float("nan"))], ["i32"], "cannot convert float NaN"),
        ([Scalar(float("inf"))], ["i32"], "cannot convert float infinity"),
    ],
)
def test_arguments_that_do_not_fit_their_parameters_are_refused(
    arguments: list[Argument], types: list[str], message: str
) -> None:
    with pytest.raises((TypeError, ValueError, OverflowError), match=message):
        placed(arguments, types, [torch.zeros(64)], [])


def test_pointers_are_addresses_into_their_buffers() -> None:
    buffer = torch.zeros(4)
    assert placed([Pointer(0, 8)], ["*i8"], [buffer], []) == [buffer.data_ptr() + 8]


class Event:
    """An event of a device that takes two seconds for everything."""

    def record(self) -> None:
        """Nothing is enqueued."""

    def synchronize(self) -> None:
        """Nothing is waited for."""

    def elapsed_time(self, end: "Event") -> float:
        """Return milliseconds."""
        return 2000.0


def test_memory_that_a_kernel_could_keep_something_in_is_overwritten_before_every_timed_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    device: Any = TritonDevice.__new__(TritonDevice)
    device.place = torch.device("cpu")
    device._flushed = torch.zeros(4, dtype=torch.int32)
    device._driver = SimpleNamespace(cuCtxResetPersistingL2Cache=lambda: 0)
    device._events, device._scratch, device._nvml, device._empty_s = [Event(), Event()], [], None, 1e9
    monkeypatch.setattr(torch.cuda, "synchronize", lambda place: None)
    monkeypatch.setattr(torch.cuda.nvtx, "range", lambda name: contextlib.nullcontext())
    capturing = True
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: capturing)
    kept = device._allocate(8, 1, None)
    capturing = False
    assert device._allocate(8, 1, None).tolist() == [0xFF] * 8
    seen = []

    def run() -> None:
        seen.append((kept.tolist(), device._flushed.tolist()))
        kept.fill_(len(seen))
        device._flushed.add_(len(seen))

    took = [device.time(run), device.time(run)]
    assert seen[0] == seen[1]
    assert seen[0][0] == [0xFF] * 8
    assert all(isinstance(each, Took) and each.seconds == 2.0 for each in took)
    assert all(each.wall_s < 0 for each in took)  # less what a run of nothing takes


def test_each_timed_run_finds_the_cache_overwritten_and_read(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []

    def did(what: str) -> Callable[..., int]:
        return lambda *_: order.append(what) or 0

    device: Any = TritonDevice.__new__(TritonDevice)
    device.place = torch.device("cpu")
    device._flushed = SimpleNamespace(fill_=did("write"), sum=did("read"))
    device._driver = SimpleNamespace(cuCtxResetPersistingL2Cache=did("reset"))
    event = SimpleNamespace(record=did("event"), synchronize=did("wait"), elapsed_time=lambda end: 2.0)
    device._events, device._scratch, device._nvml, device._empty_s = [event, event], [], None, 0.0
    monkeypatch.setattr(torch.cuda, "synchronize", lambda place: None)
    monkeypatch.setattr(torch.cuda.nvtx, "range", lambda name: contextlib.nullcontext())
    device.time(did("run"))
    assert order == ["reset", "write", "read", "event", "run", "event", "wait"]


def test_what_an_empty_graph_takes_is_the_median_of_its_runs_and_unknown_where_there_is_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    device: Any = TritonDevice.__new__(TritonDevice)
    seconds = iter((3e-6, 9.0, *[3e-6] * 100))
    monkeypatch.setattr(device, "record", lambda enqueue: enqueue)
    monkeypatch.setattr(device, "time", lambda enqueue: Took(next(seconds), 0.0))
    assert device._overhead_s() == 3e-6

    def refused(enqueue: object) -> None:
        raise NotRecorded("not permitted")

    monkeypatch.setattr(device, "record", refused)
    assert device._overhead_s() is None
