"""Whether results depend on the order of programs is found by running them in another one."""

import pytest
import torch
import triton
import triton.language as tl

from avo.evaluator.executor import View
from avo.evaluator.executor.order import Difference, differences

ORACLE = "the definition of the operation"


@triton.jit
def reduced(X, Y, Count, WHAT: tl.constexpr, N: tl.constexpr):
    p = tl.program_id(0)
    i = tl.arange(0, N)
    x = tl.load(X + p * N + i)
    if WHAT == "own":
        tl.store(Y + p * N + i, tl.exp(x))
    elif WHAT == "integers":
        tl.atomic_add(Count + i % 4, (x * 100).to(tl.int32))
    elif WHAT == "floats":
        tl.atomic_add(Y + 8 + i % 4, x)
    elif WHAT == "last":
        tl.store(Y + 8 + p % 3, p.to(tl.float32))
    elif WHAT == "ticket":
        tl.store(Y + 8 + tl.atomic_add(Count, 1), p.to(tl.float32))


@pytest.mark.parametrize(("what", "count"), [("own", 0), ("integers", 0), ("floats", 4), ("last", 3), ("ticket", 16)])
def test_results_that_depend_on_the_order_of_programs_are_found(executor, what, count):
    x = torch.randn(16 * 32, generator=torch.Generator().manual_seed(1)) * 10.0 ** torch.arange(16).repeat(32)
    y, counts = torch.zeros(16 * 32), torch.zeros(4, dtype=torch.int32)
    launch = executor.prepare(reduced, x, y, counts, grid=(16,), readonly=(0,), WHAT=what, N=32)
    launch.memory[1].views = (View((64, 8), (8, 1)),)
    found = [difference for seed in (1, 2, 3) for difference in differences(launch.kernel, launch, seed)]
    assert not y.any()
    assert not counts.any()
    assert {difference.tensor for difference in found} == ({"Y"} if count else set())
    assert all(difference.index[0] >= 1 and difference.elements <= count for difference in found)
    if what == "last":
        assert Difference("Y", (1, 0), 3) in found
