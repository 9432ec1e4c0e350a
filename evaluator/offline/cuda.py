"""Functions and classes of ``torch.cuda`` and ``torch.accelerator`` for a GPU on which all work is done at once."""

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

import torch

DEVICE = torch.device("cuda", 0)
_MILLISECONDS = 1.0
"""The time that benchmarks are given for every call: nothing is timed here, and all configurations are equal."""


def untimed() -> float:
    """Return the time that benchmarks are given, in milliseconds, and warn whoever called their function."""
    text = "nothing is timed without a GPU: do_bench and CUDA events answer 1 ms whatever runs"
    warnings.warn(text, stacklevel=3)
    return _MILLISECONDS


class _Device(contextlib.nullcontext[None]):
    """Stands in for ``torch.cuda.device`` and other contexts; entering it changes nothing."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__()


class _Stream:
    """Stands in for ``torch.cuda.Stream``. All work is done at once, so every stream is idle."""

    cuda_stream = stream_id = 0
    device = DEVICE

    def __init__(self, *args: object, **kwargs: object) -> None:
        pass

    def query(self) -> bool:
        """All work is done."""
        return True

    def is_capturing(self) -> bool:
        """No graph is captured."""
        return False

    def record_event(self, event: "_Event | None" = None) -> "_Event":
        """Return the event."""
        return event or _Event()

    def _nothing(self, *args: object) -> None:
        """There is nothing to wait for."""

    synchronize = wait_event = wait_stream = _nothing

    def __enter__(self) -> "_Stream":
        return self

    def __exit__(self, *exc: object) -> None:
        pass


class _Event:
    """Stands in for ``torch.cuda.Event``; any two events are one millisecond apart."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        pass

    def query(self) -> bool:
        """All work is done."""
        return True

    def elapsed_time(self, end: "_Event") -> float:
        """Nothing is timed."""
        return untimed()

    def _nothing(self, *args: object) -> None:
        """There is nothing to wait for."""

    record = wait = synchronize = _nothing


def cuda_idle(memory: int) -> dict[str, Any]:
    """Return functions and classes of ``torch.cuda`` by name, in addition to those that answer from a target, of which
    ``memory`` bytes are free.
    """
    stream = _Stream()

    def seed(value: int) -> None:
        torch.default_generator.manual_seed(int(value))

    @contextlib.contextmanager
    def using(stream: object) -> Iterator[None]:
        yield

    zeros = dict.fromkeys(
        ("memory_allocated", "max_memory_allocated", "memory_reserved", "max_memory_reserved"), lambda device=None: 0
    )
    nothing = dict.fromkeys(
        ("empty_cache", "reset_peak_memory_stats", "reset_max_memory_allocated", "ipc_collect", "set_stream"),
        lambda *args: None,
    )
    return {
        **zeros,
        **nothing,
        "device": _Device,
        "device_of": _Device,
        "stream": using,
        "Stream": _Stream,
        "ExternalStream": _Stream,
        "Event": _Event,
        "current_stream": lambda device=None: stream,
        "default_stream": lambda device=None: stream,
        "manual_seed": seed,
        "manual_seed_all": seed,
        "seed": lambda: None,
        "seed_all": lambda: None,
        "initial_seed": torch.initial_seed,
        "get_rng_state": lambda device=None: torch.get_rng_state(),
        "set_rng_state": lambda state, device=None: torch.set_rng_state(state),
        "is_bf16_supported": lambda including_emulation=True: True,
        "is_current_stream_capturing": lambda: False,
        "mem_get_info": lambda device=None: (memory, memory),
        "can_device_access_peer": lambda device, peer: False,
    }


def accelerator_answers() -> dict[str, Any]:
    """Return functions of ``torch.accelerator`` by name."""
    stream = _Stream()
    return {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "current_accelerator": lambda check_available=False: torch.device("cuda"),
        "current_device_index": lambda: DEVICE.index,
        "current_device_idx": lambda: DEVICE.index,
        "set_device_index": lambda device: None,
        "set_device_idx": lambda device: None,
        "device_index": _Device,
        "current_stream": lambda device=None: stream,
        "set_stream": lambda stream: None,
        "synchronize": lambda device=None: None,
        "empty_cache": lambda: None,
    }
