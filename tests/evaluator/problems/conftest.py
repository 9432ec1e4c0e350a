"""Kernels of these tests are executed as the judge executes them."""

import pytest


@pytest.fixture(autouse=True)
def fusion_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let multiplications and additions be fused, as the compiler does by default."""
    monkeypatch.setenv("TRITON_DEFAULT_FP_FUSION", "1")
