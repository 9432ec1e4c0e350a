"""Division of integers by one number, which torch does many times as slowly as numpy, and shifts do faster still."""

import torch


def quotient(numbers: torch.Tensor, divisor: int) -> torch.Tensor:
    """Return ``numbers // divisor``, rounded down, for a positive divisor."""
    if not divisor & (divisor - 1):
        return numbers >> (divisor.bit_length() - 1)
    import numpy as np  # a machine that only measures need not have it

    return torch.as_tensor(np.floor_divide(numbers.numpy(), divisor))


def remainder(numbers: torch.Tensor, divisor: int) -> torch.Tensor:
    """Return ``numbers % divisor``, from 0 on, for a positive divisor."""
    if not divisor & (divisor - 1):
        return numbers & (divisor - 1)
    import numpy as np

    return torch.as_tensor(np.remainder(numbers.numpy(), divisor))
