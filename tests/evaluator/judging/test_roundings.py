"""Memory narrower than float32 is not added to, however it is done; what is rounded a few times on its way may be."""

from typing import Any

import pytest
import torch
import triton
import triton.language as tl

from avo.evaluator.evaluation import Fault, Status
from avo.evaluator.judging.buffers import Buffers
from avo.evaluator.judging.execution import PlanRun
from avo.evaluator.judging.refusal import outcome
from avo.evaluator.judging.roundings import MOST_ROUNDINGS, check_roundings
from avo.evaluator.plan import Buffer, KernelIR, Launch, LaunchPlan, Pointer, Role
from tests.evaluator.executor.conftest import NAMES, lower_to_ttir

HALF, FLOAT = torch.bfloat16, torch.float32


@triton.jit
def _parts(pairs, new):
    """Add to both bfloat16 numbers in each integer."""
    low, high = (pairs << 16).to(tl.float32, bitcast=True), (pairs & -65536).to(tl.float32, bitcast=True)
    return low + new, high + new


@triton.jit
def step(x, y, z, KIND: tl.constexpr):
    i = tl.arange(0, 16)
    new = tl.load(x + i).to(tl.float32)
    old = tl.load(y + i)
    if KIND == "atomic":
        tl.atomic_add(y + i, new.to(y.dtype.element_ty))
    elif KIND == "descriptor":
        tl.make_tensor_descriptor(y, [16], [1], [16]).atomic_add([0], new.to(y.dtype.element_ty))
    elif KIND == "swap":
        sums = old.to(tl.bfloat16, bitcast=True) + new.to(tl.bfloat16)
        tl.atomic_cas(y + i, old, sums.to(tl.int16, bitcast=True))
    elif KIND == "pairs of bits":
        low, high = _parts(old, new)
        low, high = low.to(tl.uint32, bitcast=True) >> 16, high.to(tl.uint32, bitcast=True) & 0xFFFF0000
        tl.atomic_cas(y + i, old, (low | high).to(tl.int32, bitcast=True))
    elif KIND == "pairs of numbers":
        low, high = _parts(old, new)
        low, high = low.to(tl.bfloat16).to(tl.uint16, bitcast=True), high.to(tl.bfloat16).to(tl.uint16, bitcast=True)
        tl.store(y + i, (low.to(tl.uint32) | (high.to(tl.uint32) << 16)).to(tl.int32, bitcast=True))
    elif KIND == "swap of whole numbers":
        tl.atomic_cas(y + i, old, (old.to(tl.float32, bitcast=True) + new).to(tl.int32, bitcast=True))
    elif KIND == "pairs of counts":
        tl.store(y + i, ((old >> 16) + 1 << 16) | (old & 0xFFFF))
    elif KIND == "loop":
        for _ in range(4):
            old = (old.to(tl.float32) + new).to(y.dtype.element_ty)
        tl.store(y + i, old)
    elif KIND == "there and back":
        tl.store(z + i, old.to(tl.float32) + new)
        tl.debug_barrier()
        tl.store(y + i, tl.load(z + i).to(tl.bfloat16))
    elif KIND == "some":
        tl.store(y + i, tl.where(new > 0, new, old.to(tl.float32)))
    elif KIND == "scale":
        tl.store(y + i, old.to(tl.float32) / new)
    elif KIND == "copy":
        tl.store(y + i, new + 2)


def found(steps: list[tuple[int, int, int, str]], *dtypes: torch.dtype) -> Fault | None:
    """What is wrong with launches of ``step`` on buffers of these types."""
    buffers = tuple(Buffer(f"b{i}", str(kind).split(".")[1], 16, Role.SCRATCH) for i, kind in enumerate(dtypes))
    kernels, launches = [], []
    for place, (*at, kind) in enumerate(steps):
        signature: dict[str, Any] = {name: f"*{NAMES[dtypes[i]]}" for name, i in zip("xyz", at, strict=True)}
        kernels.append(KernelIR("step", lower_to_ttir(step, signature, {"KIND": kind}), ()))
        launches.append(Launch(place, (1, 1, 1), tuple(Pointer(i, 0) for i in at)))
    plan = LaunchPlan("case", buffers, tuple(kernels), tuple(launches))
    return outcome(lambda: check_roundings(PlanRun(plan, Buffers((), {}), 0.0)))


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        *((kind, HALF) for kind in ("atomic", "descriptor", "loop", "there and back")),
        ("swap", torch.int16),
        ("pairs of bits", torch.int32),
        ("pairs of numbers", torch.int32),
    ],
)
def test_narrow_memory_is_not_added_to(kind: str, dtype: torch.dtype) -> None:
    fault = found([(0, 1, 2, kind)], HALF, dtype, FLOAT)
    assert fault is not None
    assert (fault.status, "adds to 'b" in fault.message) == (Status.INCORRECT, True)
    assert "test_roundings.py:" in fault.message


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        *((kind, FLOAT) for kind in ("atomic", "descriptor", "loop")),
        *((kind, HALF) for kind in ("some", "scale", "copy")),
        *((kind, torch.int32) for kind in ("swap of whole numbers", "pairs of counts")),
    ],
)
def test_sums_in_float32_and_choices_between_narrow_values_are_right(kind: str, dtype: torch.dtype) -> None:
    assert found([(0, 1, 2, kind)] * 8, HALF, dtype, FLOAT) is None


def test_what_is_rounded_on_its_way_more_often_than_that_is_a_sum_in_parts() -> None:
    for length in (MOST_ROUNDINGS, MOST_ROUNDINGS + 1):
        chain = found([(i, i + 1, 0, "copy") for i in range(length)], *[HALF] * (length + 1))
        assert (chain is None) == (length == MOST_ROUNDINGS)
    assert found([(0, 1, 2, "copy"), (1, 0, 2, "copy")] * 3, HALF, HALF, FLOAT) is not None
