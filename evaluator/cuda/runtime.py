"""CUDA as this process reaches it: what is asked of ``torch.cuda`` and the driver's library goes through one object.

Whoever starts a worker with another object gives it another card.
"""

import ctypes
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch

from avo.evaluator.cuda.device import Enqueue, MachineFault


class Cuda:
    """The current device of ``torch.cuda``. Raises ``MachineFault`` where there is none."""

    def __init__(self) -> None:
        try:
            torch.cuda.init()  # which says why there is none, where ``is_available`` only denies it
        except (RuntimeError, AssertionError) as error:
            why = str(error).strip().splitlines()[0]
            raise MachineFault(f"torch finds no CUDA GPU: {why:.300} (torch {torch.__version__})") from None
        self.index = torch.cuda.current_device()
        """The device's number in this process."""
        self.place = torch.device("cuda", self.index)
        """Where its tensors are."""
        self.driver = ctypes.CDLL("libcuda.so.1")

    def properties(self) -> Any:
        """Return the device's name, compute capability, number of SMs, L2 cache and uuid, as torch names them."""
        return torch.cuda.get_device_properties(self.index)

    def synchronize(self) -> None:
        """Wait for everything enqueued."""
        torch.cuda.synchronize(self.place)

    def stream(self) -> int:
        """Return the driver's handle of the stream that work is enqueued on."""
        return torch.cuda.current_stream(self.place).cuda_stream

    def event(self) -> Any:
        """Return an event that takes the time."""
        return torch.cuda.Event(enable_timing=True)

    def range(self, name: str) -> AbstractContextManager[None]:
        """Return a context by which profilers find what is enqueued in it."""
        return torch.cuda.nvtx.range(name)

    def capture(self, enqueue: Enqueue) -> Callable[[], None]:
        """Return the replay of a graph that has the work of ``enqueue``. Raises ``RuntimeError``."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            enqueue()
        return graph.replay

    def capturing(self) -> bool:
        """Return whether what is enqueued now becomes part of a graph."""
        return torch.cuda.is_current_stream_capturing()
