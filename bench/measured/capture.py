"""Records what host code launches, and counts the work of it, without computing anything."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from unittest.mock import patch

import torch
from triton.tools.tensor_descriptor import TensorDescriptor

from avo.evaluator.offline import Launch, offline

_DEFAULTS = {"TRITON_DEFAULT_FP_FUSION": "1"}
"""Defaults of the Tritons that the kernels were timed with; 3.9 warns where this one is not set."""


@contextmanager
def recorded(card: str) -> Iterator[list[Launch]]:
    """Yield the list of what is launched in this context, for the target called ``card``.

    Tensors that are made in it take no memory. Those of integers have contents, which may decide what programs do.
    """
    with patch.dict(os.environ, _DEFAULTS), torch.no_grad(), offline(card, execute=False) as session:
        yield session.launches


def empty(shape: Sequence[int], dtype: str) -> torch.Tensor:
    """Return a contiguous tensor."""
    return torch.empty(*shape, dtype=getattr(torch, dtype))


def descriptor(tensor: torch.Tensor, block_shape: list[int]) -> TensorDescriptor:
    """Return a tensor descriptor as host code makes it."""
    return TensorDescriptor.from_tensor(tensor, block_shape)
