"""Torch's own state: set aside while the executor computes, and left eager while a session is open."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils._python_dispatch import _disable_current_modes


def leave_eager(model: Any = None, **options: Any) -> Any:
    """Stand in for ``torch.compile``: what it would make for the CPU is not what a GPU would run either."""
    return model if model is not None else lambda function: function


@contextlib.contextmanager
def plain_torch() -> Iterator[None]:
    """Torch without gradients and without anybody's modes: what the executor computes is nobody's business."""
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
    """Let torch use so many threads; None leaves them alone."""
    before = torch.get_num_threads()
    if count is None or count == before:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
