"""What no driver would launch is a value that says who refuses it, and in which words."""

from dataclasses import replace
from typing import Any

import pytest

from avo.evaluator.binary import Binary
from avo.evaluator.compiling.limits import fit, fit_grid, fit_together
from avo.evaluator.evaluation import Fault, Status
from avo.evaluator.plan import KernelIR
from avo.evaluator.targets import get_target

SMALL = Binary("small", "h100", b"", "", threads=128, registers=64, spill_bytes=0, shared_bytes=32768,
               tensor_memory_columns=0)  # fmt: skip
COOPERATIVE = KernelIR("small", "", (("launch_cooperative_grid", True),))


def clustered(ctas: int) -> Binary:
    return replace(SMALL, ptx=f".reqnctapercluster {ctas}, 1, 1\n")


def refused(fault: Fault | None) -> str:
    assert fault is not None
    assert fault.status is Status.DOES_NOT_FIT
    return fault.message


@pytest.mark.parametrize(
    ("target", "need", "words"),
    [
        ("h100", {"shared_bytes": 232449}, "232449 bytes of shared memory per CTA, h100 has 232448"),
        ("h100", {"shared_bytes": 232449}, "Triton: out of resource: shared memory"),
        ("b200", {"tensor_memory_columns": 1024}, "1024 columns of tensor memory, b200 has 512"),
        ("h100", {"threads": 1056}, "1056 threads a CTA, h100 has 1024"),
        (
            "h100",
            {"registers": 136, "threads": 512},
            "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES: too many resources requested",
        ),
    ],
)
def test_what_exceeds_a_limit_of_the_target_does_not_fit(target: str, need: dict[str, Any], words: str) -> None:
    assert words in refused(fit(replace(SMALL, **need), get_target(target)))


@pytest.mark.parametrize("need", [{"shared_bytes": 232448}, {"threads": 1024}, {"registers": 128, "threads": 512}])
def test_what_just_reaches_a_limit_fits(need: dict[str, int]) -> None:
    assert fit(replace(SMALL, **need), get_target("h100")) is None


@pytest.mark.parametrize(
    ("target", "ctas", "fits"),
    [("h100", 8, True), ("h100", 12, False), ("h100", 16, True), ("b200", 16, True), ("rtx5090", 8, True),
     ("rtx5090", 16, False), ("h100", 32, False)],
)  # fmt: skip
def test_clusters_have_at_most_as_many_ctas_as_the_target_takes(target: str, ctas: int, fits: bool) -> None:
    fault = fit(clustered(ctas), get_target(target))
    assert fits if fault is None else "CUDA_ERROR_INVALID_CLUSTER_SIZE" in refused(fault)


@pytest.mark.parametrize(("target", "takes"), [("h100", "at most 8, or exactly 16"), ("rtx5090", "at most 8")])
@pytest.mark.parametrize("ctas", [12, 32])
def test_the_sizes_of_clusters_that_a_target_takes_are_said(target: str, takes: str, ctas: int) -> None:
    assert f"num_ctas={ctas}: {target} takes {takes} CTAs" in refused(fit(clustered(ctas), get_target(target)))


def test_a_grid_is_short_in_y_and_z() -> None:
    assert fit_grid("small", (2**31 - 1, 1, 1)) is fit_grid("small", (1, 65535, 65535)) is None
    for grid in ((1, 65536, 1), (1, 1, 65536), (2**31, 1, 1), (-1, 1, 1)):
        assert "CUDA_ERROR_INVALID_VALUE: invalid argument" in refused(fit_grid("small", grid))


@pytest.mark.parametrize(("ctas", "resident"), [(1, 132 * 6), (2, 132 * 6 // 2)])
def test_a_cooperative_grid_is_resident_at_once(ctas: int, resident: int) -> None:
    target = get_target("h100")  # with 32 of 228 KiB of shared memory and 1 KiB of the system's for each
    assert fit_together(COOPERATIVE, resident, clustered(ctas), target) is None
    message = refused(fit_together(COOPERATIVE, resident + 1, clustered(ctas), target))
    assert "holds 792 at once, 6 on each of 132 SMs" in message
    assert "CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE: too many blocks in cooperative launch" in message


def test_another_grid_need_not_be_resident() -> None:
    assert fit_together(replace(COOPERATIVE, options=()), 10**6, SMALL, get_target("h100")) is None
