"""Marks the tests that the oldest Triton served, 3.6, cannot pass, with the reason."""

import pytest
import triton

IS_OLDEST = triton.__version__.startswith("3.6.")


def newer_triton(reason: str) -> pytest.MarkDecorator:
    """Return a mark that skips a test on Triton 3.6; ``reason`` says in a sentence what that does."""
    return pytest.mark.skipif(IS_OLDEST, reason=reason)
