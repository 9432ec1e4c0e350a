"""What a candidate may not do is a fault with a status and a message that names the place; lies change nothing."""

import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from avo.evaluator import capture
from avo.evaluator.capture import DEFAULT_LIMITS, Capturer
from avo.evaluator.catalogue import get_problem
from avo.evaluator.evaluation import Fault, Status
from avo.evaluator.plan import LaunchPlan
from avo.evaluator.problem import Call
from avo.evaluator.sandbox.jobs import ForkServer, Limits, TimedOut
from avo.evaluator.targets import get_target
from avo.seeds import seed_source
from tests.corpus import sample
from tests.evaluator.capture.conftest import PRELUDE
from tests.oldest_triton import newer_triton

Capture = Callable[..., LaunchPlan | Fault]

FIRST_LINE = 11
"""Line of the first line of a body in the candidate that ``capture`` makes of it."""


def fault(outcome: LaunchPlan | Fault) -> Fault:
    assert isinstance(outcome, Fault), outcome
    return outcome


@pytest.mark.parametrize(
    ("body", "operator"),
    [
        ("torch.mm(x, x.t())", "aten.mm"),
        ("y.copy_(x)", "aten.copy_"),
        ("y[:] = x", "aten.copy_"),
        ("x + 1", "aten.add"),
        ("y += x", "aten.add_"),
        ("torch.add(x, x, out=y)", "aten.add"),
        ("x.t().contiguous()", "aten.clone"),
        ("x.t().reshape(-1)", "aten.clone"),
        ("x.clone()", "aten.clone"),
        ("x.half()", "aten._to_copy"),
        ("torch.softmax(x, -1)", "aten._softmax"),
        ("torch.nn.functional.scaled_dot_product_attention(x, x, x)", "aten"),
        ("index.sort()", "aten.sort"),
        ("index.cumsum(0)", "aten.cumsum"),
        ("x[index]", "aten.index"),
        ("x > 0", "aten.gt"),
        ("torch.arange(4, device=x.device)", "aten.arange"),
        ("torch.rand(4, device=x.device)", "aten.rand"),
        ("torch.ops.aten.mm(x, x.t())", "aten.mm"),
        ("getattr(torch._C._VariableFunctions, 'm' + 'm')(x, x.t())", "aten.mm"),
        ("y.resize_(3)", "aten.resize_"),
        ("y.set_(x.untyped_storage())", "aten.set_"),
        ("torch.nonzero(index)", "aten.nonzero"),
    ],
)
def test_computing_in_torch_is_forbidden_by_name(capture: Capture, body: str, operator: str) -> None:
    found = fault(capture(f"pass\n{body}"))
    assert found.status is Status.FORBIDDEN
    assert operator in found.message
    assert f"at line {FIRST_LINE + 1}" in found.message


@pytest.mark.parametrize(
    "body",
    [
        "x[0, 0].item()",
        "float(x[0, 0])",
        "int(index[0, 0])",
        "bool(x[0, 0])",
        "if x[0, 0]: pass",
        "range(index[0, 0])",
        "x.tolist()",
        "x.cpu()",
        "x.to('cpu')",
        "x.numpy()",
        "import numpy; numpy.asarray(x)",
        "torch.equal(x, x)",
        "import pickle; pickle.dumps(x)",
        "f'{x[0, 0]:.3f}'",
        "print(x)",
    ],
)
def test_reading_contents_is_refused_with_the_line(capture: Capture, body: str) -> None:
    found = fault(capture(f"pass\n{body}"))
    assert found.status is Status.READS_CONTENTS, found
    assert f"at line {FIRST_LINE + 1}" in found.message


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("x.zero_()", "writes to the input 'x'"),
        ("x[3] = 1", "writes to the input 'x'"),
        ("y.view(torch.int32).fill_(1)", "view of another dtype"),
        ("torch.empty(3)", "on the CPU"),
        ("torch.tensor([1.0, 2.0])", "aten.lift_fresh"),
        ("copy[(1,)](torch.tensor([1.0], device=x.device), y, 9, BLOCK=16)", "not allocated in this call at line 11"),
        ("torch.empty(3, dtype=torch.complex64, device=x.device)", "complex64"),
        ("torch.empty(2**31 + 1, dtype=torch.int8, device=x.device)", "2147483649 bytes of scratch"),
        ("for _ in range(65): y.zero_()", "more than 64 fills"),
        ("for _ in range(65): copy[(1,)](x, y, 9, BLOCK=16)", "more than 64 launches"),
        ("copy[(1,)](x, y, 9, BLOCK=16, ptx_options='-O0')", "option ptx_options"),
        ("copy[(1,)](x, y, 9, BLOCK=16, ir_override='/tmp/other.ptx')", "option ir_override"),
        ("copy[(1,)](x, y, 9, BLOCK=16, arch='sm80')", "launched with the option"),
        ("copy[(-1,)](x, y, 9, BLOCK=16)", "invalid launch plan"),
    ],
)
def test_asking_for_too_much_is_forbidden(capture: Capture, body: str, message: str) -> None:
    found = fault(capture(body))
    assert found.status is Status.FORBIDDEN
    assert message in found.message


def test_fallbacks_do_not_swallow_a_refusal(capture: Capture) -> None:
    found = fault(capture("try:\n    x[0, 0].item()\nexcept Exception:\n    pass"))
    assert found.status is Status.READS_CONTENTS


def test_memory_kept_from_before_the_call_is_refused(capture: Capture) -> None:
    kept = "global kept\ntry: kept\nexcept NameError: kept = torch.empty(64, device=x.device)\n"
    body = kept + "copy[(1,)](x, kept, 9, BLOCK=16)"
    from_call = Call("case", (), ())
    assert isinstance(capture(body), LaunchPlan)
    source = "import torch\nkept = torch.empty(9, device='cuda')\ndef run(): kept.zero_()"
    found = fault(capture(source=source, calls=[from_call]))
    assert found.status is Status.FORBIDDEN
    assert "was not allocated in this call at line 3" in found.message


@pytest.mark.parametrize(
    ("source", "status", "message"),
    [
        ("def run(:", Status.PARSE_ERROR, "line 1: invalid syntax"),
        ("\0", Status.PARSE_ERROR, "null bytes"),
        ("\n\n1 / 0", Status.PARSE_ERROR, "raises at import: ZeroDivisionError: division by zero at line 3"),
        ("raise SystemExit(0)", Status.PARSE_ERROR, "SystemExit"),
        ("import no_such_module", Status.PARSE_ERROR, "at line 1: a candidate is one file"),
        (
            "import torch\ntorch.rand(3)",
            Status.FORBIDDEN,
            "at import, computes with torch operator aten.rand at line 2",
        ),
        ("walk = 1", Status.NO_ENTRY, "defines no function run(x, index, y, *, scale)"),
        ("run = 1", Status.NO_ENTRY, "defines no function run"),
        ("def run(q): pass", Status.NO_ENTRY, "run must take (x, index, y, *, scale)"),
        (
            "def run(*a, **k):\n  assert len(a) > 3, 'unsupported'",
            Status.NO_ENTRY,
            "AssertionError: unsupported at line 2",
        ),
        ("def run(*a, **k): exit()", Status.NO_ENTRY, "case case: run() raised"),
    ],
)
def test_host_code_that_fails_is_told_where(capture: Capture, source: str, status: Status, message: str) -> None:
    found = fault(capture(source=source))
    assert found.status is status
    assert message in found.message


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("tl.nothing(dst)", "line 5: `tl.nothing(dst)`"),
        ("x = undefined", "line 5: `x = undefined`: NameError"),
        ("tl.dot(tl.zeros([16, 16], tl.float32), tl.zeros([32, 16], tl.float32))", "line 5"),
        ("helper(dst)", "line 10: `tl.load(dst + [1])`"),
        ("tl.static_assert(False, 'tiles must divide')", "tiles must divide"),
    ],
)
def test_a_kernel_that_does_not_lower_is_told_where(capture: Capture, line: str, message: str) -> None:
    source = f"""import triton
import triton.language as tl
@triton.jit
def kernel(dst):
    {line}


@triton.jit
def helper(dst):
    tl.load(dst + [1])

def run(x, index, y, *, scale):
    kernel[(1,)](y)
"""
    found = fault(capture(source=source))
    assert found.status is Status.LOWERING_ERROR
    assert message in found.message
    assert "\n" not in found.message


def test_a_name_that_triton_does_not_take_is_told(capture: Capture) -> None:
    source = (
        PRELUDE.replace("copy", "größer") + "def run(x, index, y, *, scale):\n    größer[(1,)](x, y, 9, BLOCK=16)\n"
    )
    found = fault(capture(source=source))
    assert (found.status, found.message) == (
        Status.LOWERING_ERROR,
        "case case: kernel größer: invalid function identifier: größer",
    )


def test_the_authors_own_words_are_not_taken_for_the_compilers(capture: Capture) -> None:
    source = """import sys
import triton
import triton.language as tl

@triton.jit
def tmem_copy(dst):
    tl.static_assert(False, "kernel x: RuntimeError: no ttng.tmem_load")

def run(x, index, y, *, scale):
    print("error: wgmma.mma_async", file=sys.stderr)
    tmem_copy[(1,)](y)
"""
    assert fault(capture(source=source)).message.endswith("kernel x: RuntimeError: no ttng.tmem_load")


@newer_triton("Triton 3.6 lowers it, and refuses it when compiling")
@pytest.mark.parametrize("target", sample(["h100", "a100", "rtx5090"], 3))
def test_a_blackwell_kernel_for_another_target_is_told_what_it_is(capturer: Capturer, target: str) -> None:
    problem = get_problem("mha")
    calls = [problem.call(problem.correctness_cases[0])]
    found = capturer.capture(seed_source("mha", "blackwell"), problem.entry, calls, get_target(target))
    assert isinstance(found, Fault)
    assert "'ttng.tc_gen5_mma' op requires tcgen05 support; this is a Blackwell kernel: tensor memory" in found.message


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("import os; os._exit(0)", Status.CRASHED),
        ("import ctypes; ctypes.string_at(0)", Status.CRASHED),
        ("while True: pass", Status.TIMED_OUT),
        ("import signal; signal.pause()", Status.TIMED_OUT),
        ("bytearray(1 << 40)", Status.CRASHED),
        ("with open('residue', 'w') as f: f.write('x')", Status.NO_ENTRY),
        ("import socket; socket.create_connection(('127.0.0.1', 80))", Status.NO_ENTRY),
        ("import subprocess; subprocess.run(['true'])", Status.NO_ENTRY),
        ("import os\nwhile True: os.fork()", Status.NO_ENTRY),
    ],
)
def test_attacks_on_the_process_end_with_it(fork_server: ForkServer, body: str, status: Status) -> None:
    limits = replace(DEFAULT_LIMITS, wall_s=1 if "pause" in body else 600, cpu_s=1)
    body = "\n".join(f"  {line}" for line in body.splitlines())
    source = f"def run():\n{body}\n"
    found = Capturer(fork_server, limits).capture(source, "run", [Call("case", (), ())], get_target("h100"))
    assert isinstance(found, Fault)
    assert found.status is status


@pytest.mark.parametrize("spin", ["pass", "exec('try: sum(range(10**8))\\nexcept BaseException: pass')"])
def test_a_module_that_spins_at_import_is_given_up_long_before_a_call_would_be(
    fork_server: ForkServer, monkeypatch: pytest.MonkeyPatch, spin: str
) -> None:
    monkeypatch.setattr(capture, "_IMPORT_S", 0.5)
    source = f"while True: {spin}\ndef run(): ..."
    found = Capturer(fork_server).capture(source, "run", [Call("case", (), ())], get_target("h100"))
    assert found == Fault(
        Status.TIMED_OUT,
        "the candidate's module used up 0.5 s of processor time at import: does it loop without end? Compute in run() "
        "or in a kernel",
    )


def test_the_limit_of_an_import_is_none_of_the_calls_that_follow(
    fork_server: ForkServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capture, "_IMPORT_S", 0.2)
    source = "def run(): sum(range(5 * 10**7))"
    assert not isinstance(
        Capturer(fork_server).capture(source, "run", [Call("case", (), ())], get_target("h100")), Fault
    )


def test_the_limit_of_an_import_ends_with_it_when_it_raises(
    fork_server: ForkServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capture, "_IMPORT_S", 0.2)
    source = """
class Late(Exception):
    def __str__(self):
        sum(range(5 * 10**7))
        return "late"
raise Late
"""
    found = Capturer(fork_server).capture(source, "run", [Call("case", (), ())], get_target("h100"))
    assert (fault(found).status, fault(found).message) == (
        Status.PARSE_ERROR, "raises at import: Late: late at line 6",
    )  # fmt: skip


def test_many_calls_may_take_more_than_few() -> None:
    """The examination before acceptance calls a candidate for dozens of cases."""
    given: list[Limits] = []

    class Server:
        def run(self, job: str, request: bytes, limits: Limits) -> TimedOut:
            given.append(limits)
            return TimedOut("was told to")

    for number in (1, 20, 41):
        calls = [Call(f"case {i}", (), ()) for i in range(number)]
        Capturer(Server()).capture("", "run", calls, get_target("h100"))  # type: ignore[arg-type]
    few, usual, many = given
    assert few == usual == DEFAULT_LIMITS
    assert (many.cpu_s, many.result_bytes) == (3 * few.cpu_s, 3 * few.result_bytes)


FORGE = "import os\nforged = {!r}.encode()\nos.write(3, len(forged).to_bytes(8, 'big') + forged)\nos._exit(0)"
BUFFER = {"name": "out", "dtype": "float32", "size": 1 << 30, "role": "output"}


@pytest.mark.parametrize(
    "reply",
    [
        {"status": "correct", "message": "trust me"},
        {"status": "incorrect", "message": "blame the judge"},
        {"status": "forbidden", "message": ""},
        {"verdict": "correct"},
        [],
        [{}],
        [{"case": "another", "buffers": [], "kernels": [], "steps": []}],
        [{"case": "case", "buffers": [BUFFER], "kernels": [], "steps": []}],
        "[" * 100_000,
    ],
)
def test_a_forged_reply_can_only_be_a_fault_or_a_plan(capture: Capture, reply: object) -> None:
    text = reply if isinstance(reply, str) else json.dumps(reply)
    found = fault(capture(source=FORGE.format(text)))
    assert found.status is Status.FORBIDDEN
    assert "invalid launch plan" in found.message
