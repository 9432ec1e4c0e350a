"""IR that breaks the compiler, or its limits, is the candidate's fault, and the compiler is there for the next one."""

import re
from collections.abc import Iterator
from dataclasses import replace

import pytest

from avo.evaluator.compiling.compiler import Compiler
from avo.evaluator.evaluation import Fault, Status
from avo.evaluator.plan import DEFAULT_LIMITS, KernelIR, LaunchPlan
from avo.evaluator.sandbox.jobs import Finished, ForkServer
from avo.evaluator.targets import get_target

H100 = get_target("h100")


@pytest.fixture
def compiler(fork_server: ForkServer) -> Iterator[Compiler]:
    """A compiler that, after the test, still reads IR, in the process it had before."""
    compiler = Compiler(None, server=fork_server)
    assert not isinstance(compiler.canonical([plan(kernel(""))], H100), Fault)
    pid = fork_server.pid
    yield compiler
    assert not isinstance(Compiler(None, server=fork_server).canonical([plan(kernel(""))], H100), Fault)
    assert fork_server.pid == pid


def kernel(body: str) -> KernelIR:
    head = "module { tt.func public @k(%a: !tt.ptr<f32>, %c: i1) attributes {noinline = false} {"
    return KernelIR("k", f"{head}\n{body}\ntt.return\n}} }}", ())


def plan(*kernels: KernelIR) -> LaunchPlan:
    return LaunchPlan("case", (), kernels, ())


def copy(items: int) -> KernelIR:
    """A kernel that copies this many elements at once."""
    return kernel(f"""
%0 = tt.make_range {{end = {items} : i32, start = 0 : i32}} : tensor<{items}xi32>
%1 = tt.splat %a : !tt.ptr<f32> -> tensor<{items}x!tt.ptr<f32>>
%2 = tt.addptr %1, %0 : tensor<{items}x!tt.ptr<f32>>, tensor<{items}xi32>
%3 = tt.load %2 : tensor<{items}x!tt.ptr<f32>>
tt.store %2, %3 : tensor<{items}x!tt.ptr<f32>>""")


def nested(depth: int) -> KernelIR:
    return kernel("scf.if %c {\n" * depth + "}\n" * depth)


def fault(outcome: object) -> Fault:
    assert isinstance(outcome, Fault), outcome
    assert len(outcome.message) < 2000
    return outcome


@pytest.mark.parametrize(
    "broken",
    [nested(50_000), KernelIR("k", f"module attributes {{a = {'[' * 100_000}{']' * 100_000}}} {{}}", ())],
    ids=["regions", "attributes"],
)
def test_nesting_that_overflows_the_compilers_stack_has_crashed_it(compiler: Compiler, broken: KernelIR) -> None:
    for outcome in (compiler.canonical([plan(broken)], H100), compiler.compile(broken, H100)):
        assert fault(outcome).status is Status.CRASHED
        assert "was ended by signal SIGSEGV" in fault(outcome).message


def test_text_that_grows_beyond_the_limit_when_printed_is_refused(compiler: Compiler) -> None:
    deep = nested(1600)
    assert len(deep.ttir) < DEFAULT_LIMITS.ttir_chars / 100
    found = fault(compiler.canonical([plan(deep)], H100))
    assert found.status is Status.FORBIDDEN
    assert "characters, the limit is" in found.message


def test_more_memory_than_the_limit_is_the_fault_of_the_ir(compiler: Compiler) -> None:
    compiler._limits = replace(compiler._limits, memory_bytes=16 * 2**20)
    found = fault(compiler.compile(copy(2**20), H100))
    assert found.status in (Status.CRASHED, Status.COMPILE_ERROR)
    # Whose allocation fails first is chance: LLVM says so and aborts, the loader of a library ends the process itself.
    assert re.search(r"kernel k\b.*(before giving a result|was ended by|memory)", found.message)


@pytest.mark.long
def test_more_time_than_the_limit_is_the_fault_of_the_ir(compiler: Compiler) -> None:
    compiler._limits = replace(compiler._limits, cpu_s=1)
    found = fault(compiler.compile(copy(2**19), H100))
    assert found.status is Status.TIMED_OUT
    assert "used up 1 s of processor time" in found.message


@pytest.mark.parametrize(
    "reply", [b"", b"[]", b"{}", b"null", b"[" * 100_000, b'{"error": "x", "index": 9}', b'{"texts": [1]}', b"\xff"]
)
def test_a_reply_that_is_none_is_the_fault_of_the_ir(monkeypatch: pytest.MonkeyPatch, reply: bytes) -> None:
    monkeypatch.setattr(ForkServer, "run", lambda *_: Finished(reply, ""))
    compiler = Compiler(None)
    for outcome in (compiler.canonical([plan(kernel(""))], H100), compiler.compile(kernel(""), H100)):
        assert fault(outcome).status is Status.CRASHED
        assert "answer cannot be read, for" in fault(outcome).message
