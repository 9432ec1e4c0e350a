"""Chooses, among many kernels that are judged alike, those that belong to every run of the tests."""

from collections.abc import Iterable
from typing import Any

import pytest


def sample(names: Iterable[Any], every: int) -> list[Any]:
    """Return parameters for a test of all of them; all but one in ``every`` are marked ``corpus``."""
    return [
        pytest.param(*(name if isinstance(name, tuple) else (name,)), marks=pytest.mark.corpus if place % every else ())
        for place, name in enumerate(names)
    ]
