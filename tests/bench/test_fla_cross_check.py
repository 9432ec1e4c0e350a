"""The kernel that fla-core has for the same computation agrees with the reference of ``fsa``."""

import pytest


@pytest.mark.filterwarnings("ignore")
def test_the_nsa_kernel_of_fla_core_agrees_with_the_reference() -> None:
    pytest.importorskip("fla", reason="fla-core is not installed")

    from bench.fla_cross_check import CASES, cross_check

    found = list(cross_check())
    assert [each.case for each in found if each.agrees] == [case.name for case in CASES]
