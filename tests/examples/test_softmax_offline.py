"""The example of the executor prints the fault of the wrong kernel, and what the right one takes."""

import pytest

from examples import softmax_offline


def test_the_missing_mask_is_found(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_DEFAULT_FP_FUSION", "1")  # Triton 3.9 warns where it is not set
    softmax_offline.main()
    wrong, right = capsys.readouterr().out.split("with a mask: ")
    assert wrong.startswith("without a mask: wrong\n")
    assert "read out of bounds in softmax_kernel at softmax_offline.py:" in wrong
    assert "element 800 of 'x', which has 800, program (7, 0, 0)" in wrong
    assert right.startswith("right\n")
    assert "no faults" in right
    assert "registers per thread, 0 bytes spilled" in right
