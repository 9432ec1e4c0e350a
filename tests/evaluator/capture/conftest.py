"""A capturer shared by the tests of this folder, and a call with two inputs and an output to try it on."""

from collections.abc import Callable, Sequence

import pytest

from avo.evaluator.capture import Capturer
from avo.evaluator.evaluation import Fault
from avo.evaluator.plan import LaunchPlan, Role
from avo.evaluator.problem import Call, TensorSpec
from avo.evaluator.sandbox.jobs import ForkServer
from avo.evaluator.targets import get_target

Capture = Callable[..., LaunchPlan | Fault]
Alternatives = Callable[..., tuple[LaunchPlan, ...] | Fault]

PRELUDE = """\
import torch
import triton
import triton.language as tl

@triton.jit
def copy(src, dst, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(dst + i, tl.load(src + i, mask=i < n), mask=i < n)

"""


def with_entry(body: str) -> str:
    """Return ``PRELUDE`` and an entry ``run(x, index, y, *, scale)`` with the given body."""
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    return f"{PRELUDE}def run(x, index, y, *, scale):\n{lines}\n"


def make_call(rows: int = 64, columns: int = 32, case: str = "case") -> Call:
    """x and index are inputs, y the output, all [rows, columns]; index is int32, the others float32."""

    def spec(name: str, dtype: str, role: Role) -> TensorSpec:
        return TensorSpec(name, dtype, (rows, columns), (columns, 1), rows * columns, role)

    tensors = (spec("x", "float32", Role.INPUT), spec("index", "int32", Role.INPUT), spec("y", "float32", Role.OUTPUT))
    return Call(case, tensors, (("scale", 0.5),))


@pytest.fixture(scope="session")
def capturer(fork_server: ForkServer) -> Capturer:
    return Capturer(fork_server)


@pytest.fixture
def calls() -> Callable[..., Call]:
    """``make_call``."""
    return make_call


@pytest.fixture
def capture(capturer: Capturer) -> Capture:
    """Capture an entry with the given body, see ``with_entry``, or a whole given source."""

    def capture(
        body: str = "", *, source: str | None = None, target: str = "h100", calls: Sequence[Call] = (make_call(),)
    ) -> LaunchPlan | Fault:
        whole = with_entry(body) if source is None else source
        plans = capturer.capture(whole, "run", calls, get_target(target))
        return plans if isinstance(plans, Fault) else plans[-1]

    return capture


@pytest.fixture
def alternatives(capturer: Capturer) -> Alternatives:
    """Capture all configurations of a kernel ``tuned`` that is autotuned over ``configs``, launched by ``body``."""

    def alternatives(
        configs: str,
        *,
        arguments: str = "key=['n']",
        inside: str = "",
        body: str = "tuned[lambda meta: (meta['BLOCK'],)](y, 100)",
    ) -> tuple[LaunchPlan, ...] | Fault:
        kernel = (
            f"@triton.autotune([{configs}], {arguments})\n@triton.jit\n"
            f"def tuned(dst, n, BLOCK: tl.constexpr):\n    {inside or 'pass'}\n"
            "    tl.store(dst + tl.arange(0, BLOCK), 1.0)\n\n"
        )
        source = with_entry(body).replace("def run(", f"{kernel}def run(")
        plans = capturer.alternatives(source, "run", [make_call()], get_target("h100"))
        return plans if isinstance(plans, Fault) else plans[0]

    return alternatives
