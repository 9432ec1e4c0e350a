"""Chooses, among many that are tested alike, those that belong to every run of the tests, or to CI's."""

from collections.abc import Container, Iterable
from typing import Any

import pytest


def sample(names: Iterable[Any], every: int, of_ci: int = 1) -> list[Any]:
    """Return parameters for a test of all of them. All but one in ``every`` are marked ``corpus``; CI runs one in
    ``of_ci``, and the others are marked ``soak`` too.
    """
    return [
        _parameters(name, *[pytest.mark.corpus] * bool(place % every), *[pytest.mark.soak] * bool(place % of_ci))
        for place, name in enumerate(names)
    ]


def soaked(names: Iterable[Any], left_out: Container[Any]) -> list[Any]:
    """Return parameters for a test of all of them; those ``left_out`` by CI are marked ``soak``."""
    return [_parameters(name, *[pytest.mark.soak] * (name in left_out)) for name in names]


def _parameters(name: Any, *marks: pytest.MarkDecorator) -> Any:
    return pytest.param(*(name if isinstance(name, tuple) else (name,)), marks=marks)
