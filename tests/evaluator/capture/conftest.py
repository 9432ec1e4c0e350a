"""A capturer shared by the tests of this folder, and a call with two inputs and an output to try it on."""

from collections.abc import Callable, Iterator, Sequence

import pytest

from evaluator.capture import Capturer
from evaluator.evaluation import Fault
from evaluator.plan import LaunchPlan, Role
from evaluator.problem import Call, TensorSpec
from evaluator.target import get_target

Capture = Callable[..., LaunchPlan | Fault]

PRELUDE = """\
import torch
import triton
import triton.language as tl

@triton.jit
def copy(src, dst, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(dst + i, tl.load(src + i, mask=i < n), mask=i < n)

"""


def make_call(rows: int = 64, columns: int = 32, case: str = "case") -> Call:
    """x and index are inputs, y the output, all [rows, columns]; index is int32, the others float32."""

    def spec(name: str, dtype: str, role: Role) -> TensorSpec:
        return TensorSpec(name, dtype, (rows, columns), (columns, 1), rows * columns, role)

    tensors = (
        spec("x", "float32", Role.INPUT),
        spec("index", "int32", Role.INPUT),
        spec("y", "float32", Role.OUTPUT),
    )
    return Call(case, tensors, (("scale", 0.5),))


@pytest.fixture(scope="session")
def capturer() -> Iterator[Capturer]:
    capturer = Capturer()
    yield capturer
    capturer.close()


@pytest.fixture
def capture(capturer: Capturer) -> Capture:
    """Capture ``PRELUDE`` and an entry ``run(x, index, y, *, scale)`` with the given body, or a whole given source."""

    def capture(
        body: str = "", *, source: str | None = None, target: str = "h100", calls: Sequence[Call] = (make_call(),)
    ) -> LaunchPlan | Fault:
        lines = "\n".join(f"    {line}" for line in body.splitlines())
        whole = f"{PRELUDE}def run(x, index, y, *, scale):\n{lines}\n" if source is None else source
        plans = capturer.capture(whole, "run", calls, get_target(target))
        return plans if isinstance(plans, Fault) else plans[-1]

    return capture
