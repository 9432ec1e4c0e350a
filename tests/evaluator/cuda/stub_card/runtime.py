"""What ``avo.evaluator.cuda.runtime.Cuda`` offers, on the driver of ``libcuda.c`` and tensors in the host's memory."""

import contextlib
import ctypes
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from triton.backends.nvidia.driver import CudaDriver
from triton.runtime import driver

STREAM, CAPTURING = 0x77, 0x88
"""Streams: torch's current one, and the one that a graph is captured on."""
_ATTRIBUTES = {"multi_processor_count": 16, "L2_cache_size": 38, "major": 75, "minor": 76}
"""By their numbers in cuda.h."""


class StubCuda:
    """The first visible card. Torch's work is done at once, as launches are; in a graph, when that is replayed."""

    index = 0
    place = torch.device("cpu")

    def __init__(self) -> None:
        self.driver = ctypes.CDLL("libcuda.so.1")
        self.graph: list[Callable[[], object]] | None = None
        """What is captured so far; None where nothing is."""
        self.left_within = False
        """A capture has failed, so that torch's stream and allocator are as within (``torch.cuda.graph.__exit__``)."""
        count, self._card = ctypes.c_int(), ctypes.c_int()
        self.driver.cuDeviceGetCount(ctypes.byref(count))
        if not count.value:
            raise RuntimeError("No CUDA GPUs are available")
        self.driver.cuDeviceGet(ctypes.byref(self._card), self.index)
        made = CudaDriver()
        made.get_current_device = lambda: self.index
        made.get_device_capability = lambda device: (self._attribute("major"), self._attribute("minor"))
        made.get_current_stream = lambda device: self.stream()
        driver.set_active(made)

    def _attribute(self, name: str) -> int:
        value = ctypes.c_int()
        self.driver.cuDeviceGetAttribute(ctypes.byref(value), _ATTRIBUTES[name], self._card)
        return value.value

    def properties(self) -> Any:
        """Return what the driver says of the card."""
        name = ctypes.create_string_buffer(64)
        self.driver.cuDeviceGetName(name, len(name), self._card)
        uuid = f"{self._card.value:08d}-0000-0000-0000-{os.environ.get('STUB_UUID', ''):0>12}"
        return SimpleNamespace(
            name=name.value.decode(), uuid=uuid, **{each: self._attribute(each) for each in _ATTRIBUTES}
        )

    def synchronize(self) -> None:
        """Report errors of kernels as torch does."""
        if code := self.driver.cuCtxSynchronize():
            text = ctypes.c_char_p()
            self.driver.cuGetErrorString(code, ctypes.byref(text))
            raised = torch.AcceleratorError(f"CUDA error: {text.value.decode()}\nCompile with `TORCH_USE_CUDA_DSA`")
            raised.error_code = code
            raise raised

    def stream(self) -> int:
        """Return the current stream."""
        return STREAM if self.graph is None else CAPTURING

    def event(self) -> "Event":
        """Return an event by the host's clock."""
        return Event(self)

    def range(self, name: str) -> contextlib.AbstractContextManager[None]:
        """Return a context that does nothing."""
        return contextlib.nullcontext()

    def capture(self, enqueue: Callable[[], None]) -> Callable[[], None]:
        """Return what does all that ``enqueue`` enqueues."""
        self.left_within = True
        with self._capture() as steps:
            enqueue()
        self.left_within = False
        return lambda: [step() for step in steps] and None

    @contextlib.contextmanager
    def _capture(self) -> Iterator[list[Callable[[], object]]]:
        self.graph = []
        try:
            with Recorder(self.graph):
                yield self.graph
        finally:
            self.graph = None

    def capturing(self) -> bool:
        """Return whether a graph is captured."""
        return self.graph is not None


class Recorder(TorchDispatchMode):
    """Keeps operations for later: those that change a tensor, and those that make one, which are done now too."""

    def __init__(self, steps: list[Callable[[], object]]) -> None:
        super().__init__()
        self._steps = steps

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Keep the operation, or do it."""
        if func is torch.ops.aten._local_scalar_dense.default:  # the host waits for a number
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing")
        if not func._schema.is_mutable:
            made = func(*args, **(kwargs or {}))
            given = {each.untyped_storage().data_ptr() for each in _tensors(args)}
            if given and not any(each.untyped_storage().data_ptr() in given for each in _tensors(made)):
                self._steps.append(partial(_again, made, func, args, kwargs or {}))
            return made
        self._steps.append(partial(func, *args, **(kwargs or {})))
        return args[0]


def _tensors(values: Any) -> list[torch.Tensor]:
    return [each for each in (values if isinstance(values, tuple) else (values,)) if isinstance(each, torch.Tensor)]


def _again(made: Any, func: Any, args: Any, kwargs: Any) -> None:
    """Make the same tensors again, in the same memory."""
    for former, new in zip(_tensors(made), _tensors(func(*args, **kwargs)), strict=True):
        former.copy_(new)


class Event:
    """When the host reached it."""

    def __init__(self, cuda: StubCuda) -> None:
        self._cuda, self.at_s = cuda, 0.0

    def record(self) -> None:
        """Note the time."""
        assert not self._cuda.left_within, "no time of this process means anything"
        self.at_s = time.perf_counter()

    def synchronize(self) -> None:
        """Wait for the device."""
        self._cuda.synchronize()

    def elapsed_time(self, end: "Event") -> float:
        """Return milliseconds."""
        return (end.at_s - self.at_s) * 1e3
