"""Torch's global state: suspended while the executor computes, and eager while a session is open."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils._python_dispatch import _disable_current_modes


def leave_eager(model: Any = None, **options: Any) -> Any:
    """Stand in for ``torch.compile``: leave functions alone, as compiled code for the CPU is not what a GPU runs."""
    return model if model is not None else lambda function: function


@contextlib.contextmanager
def plain_torch() -> Iterator[None]:
    """Return a context without gradients and without dispatch modes of others, for the executor's own computations."""
    default = torch.get_default_dtype()
    with (
        _disable_current_modes(),
        torch._C.DisableTorchFunction(),
        torch.inference_mode(False),
        torch.no_grad(),
    ):
        torch.set_default_dtype(torch.float32)
        try:
            yield
        finally:
            torch.set_default_dtype(default)


@contextlib.contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Return a context in which torch uses the given number of threads; None leaves it as it is."""
    before = torch.get_num_threads()
    if count is None or count == before:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
