"""What all tests of offline sessions share: fusion is chosen, so that Triton warns of no change to come."""

import pytest


@pytest.fixture(autouse=True)
def fusion_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_DEFAULT_FP_FUSION", "1")
