"""What all tests of kernels in Gluon share: fusion is chosen, so that Triton warns of no change to come."""

import pytest
from triton.experimental.gluon.language.nvidia.hopper import mbarrier

# Triton 3.6 has other names in Gluon, and 3.9 refuses these.
_OF_3_9 = [
    f"test_chip_{each}.py"
    for each in ("barriers", "clusters", "execution", "findings", "layouts", "lockstep", "notes", "operations")
]
collect_ignore_glob = [] if hasattr(mbarrier, "allocate_mbarrier") else [*_OF_3_9, "test_sanitiser_*.py"]


@pytest.fixture(autouse=True)
def fusion_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_DEFAULT_FP_FUSION", "1")
