"""What the launcher is given of a plan, and what surrounds a timed run; ``test_stub_card.py`` has the launches."""

import contextlib
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from avo.evaluator.cuda.device import MachineFault, NotRecorded, Took
from avo.evaluator.cuda.triton_device import TritonDevice, launcher_type, placed
from avo.evaluator.plan import Argument, Descriptor, Pointer, Scalar


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


def timing(did: Callable[[str], Callable[..., int]], capturing: Callable[[], bool] = bool) -> Any:
    """A device on CUDA that does nothing, and says so to ``did``."""
    device: Any = TritonDevice.__new__(TritonDevice)
    device.place = torch.device("cpu")
    device._cuda = SimpleNamespace(
        driver=SimpleNamespace(cuCtxResetPersistingL2Cache=did("reset")),
        synchronize=lambda: None,
        range=lambda name: contextlib.nullcontext(),
        capturing=capturing,
    )
    event = SimpleNamespace(record=did("event"), synchronize=did("wait"), elapsed_time=lambda end: 2.0)
    device._events, device._scratch, device._nvml, device._empty_s = [event, event], [], None, 1e9
    device._sm_clock = SimpleNamespace(read=did("clock"))
    return device


def test_memory_that_a_kernel_could_keep_something_in_is_overwritten_before_every_timed_run() -> None:
    capturing = True
    device = timing(lambda what: lambda *_: 0, capturing=lambda: capturing)
    device._flushed = torch.zeros(4, dtype=torch.int32)
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
    assert all(isinstance(each, Took) and each.seconds == 2e-3 for each in took)
    assert all(each.wall_s < 0 for each in took)  # less what a run of nothing takes


def test_each_timed_run_finds_the_cache_overwritten_and_read() -> None:
    order: list[str] = []

    def did(what: str) -> Callable[..., int]:
        return lambda *_: order.append(what) or 0

    device = timing(did)
    device._flushed = SimpleNamespace(fill_=did("write"), sum=did("read"))
    device.time(did("run"))
    assert order == ["reset", "write", "read", "clock", "event", "run", "event", "clock", "wait"]


def test_what_an_empty_graph_takes_is_the_median_of_its_runs_and_a_card_without_graphs_is_refused(
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
    with pytest.raises(MachineFault, match="CUDA does not even record an empty graph: not permitted"):
        device._overhead_s()
