"""What all tests of kernels in Gluon share: fusion is chosen, so that Triton warns of no change to come."""

import pytest
from triton.experimental.gluon.language.nvidia.hopper import mbarrier

# Triton 3.6 has other names in Gluon, and 3.9 refuses these.
_OF_3_9 = ("clusters", "execution", "findings", "layouts", "operations")
collect_ignore = [] if hasattr(mbarrier, "allocate_mbarrier") else [f"test_chip_{each}.py" for each in _OF_3_9]


@pytest.fixture(autouse=True)
def fusion_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_DEFAULT_FP_FUSION", "1")
