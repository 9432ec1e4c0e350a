"""The IR of a plan compiles to what Triton's normal path makes; what does not compile or fit is a value."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from avo.evaluator.binary import Binary
from avo.evaluator.capture import Capturer
from avo.evaluator.compiling import compiler as compiler_module
from avo.evaluator.compiling.compiler import Compiler
from avo.evaluator.compiling.limits import fit
from avo.evaluator.compiling.passes import Trace, shown
from avo.evaluator.evaluation import Fault, Status
from avo.evaluator.locations import without_locations
from avo.evaluator.plan import KernelIR, LaunchPlan, Level, Role
from avo.evaluator.problem import Call, TensorSpec
from avo.evaluator.sandbox.jobs import Finished, ForkServer, Limits
from avo.evaluator.target import TARGETS
from avo.evaluator.targets import get_target
from avo.seeds import seed_source
from tests.corpus import sample
from tests.kernels import stored

Compile = Callable[[str, str], Binary | Fault]

GEMM = """\
import triton
import triton.language as tl

@triton.jit
def gemm(a, b, c, steps, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr, STAGES: tl.constexpr):
    m, n, k = tl.arange(0, M), tl.arange(0, N), tl.arange(0, K)
    acc = tl.zeros([M, N], tl.float32)
    for step in tl.range(steps, num_stages=STAGES):
        left = tl.load(a + m[:, None] * 4096 + (step * K + k)[None, :])
        right = tl.load(b + (step * K + k)[:, None] * 4096 + n[None, :])
        acc = tl.dot(left, right, acc)
    tl.store(c + m[:, None] * 4096 + n[None, :], acc.to(tl.bfloat16))

def attention(q, k, v, out, lse, *, causal, scale):
    gemm[(1,)](q, k, out, 64, M={m}, N={n}, K={k}, STAGES={stages}, num_warps={warps})
"""
WARP_SPECIALISED = """\
import triton
import triton.language as tl

@triton.jit
def gemm(a, b, c, steps, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr):
    left = tl.make_tensor_descriptor(a, [4096, 4096], [4096, 1], [M, K])
    right = tl.make_tensor_descriptor(b, [4096, 4096], [4096, 1], [K, N])
    m, n = tl.arange(0, M), tl.arange(0, N)
    acc = tl.zeros([M, N], tl.float32)
    for step in tl.range(steps, warp_specialize=True):
        acc = tl.dot(left.load([0, step * K]), right.load([step * K, 0]), acc)
    tl.store(c + m[:, None] * 4096 + n[None, :], acc.to(tl.bfloat16))

def attention(q, k, v, out, lse, *, causal, scale):
    gemm[(1,)](q, k, out, 64, M=128, N=64, K=64, num_warps=4)
"""
SMALL = {"m": 64, "n": 64, "k": 32, "stages": 2, "warps": 4}


def make_call(head_dim: int) -> Call:
    shape = (1, 2, 256, head_dim)
    strides = (512 * head_dim, 256 * head_dim, head_dim, 1)

    def spec(name: str, role: Role) -> TensorSpec:
        return TensorSpec(name, "bfloat16", shape, strides, 512 * head_dim, role)

    lse = TensorSpec("lse", "float32", (1, 2, 256), (512, 256, 1), 512, Role.OUTPUT)
    tensors = (*(spec(name, Role.INPUT) for name in "qkv"), spec("out", Role.OUTPUT), lse)
    return Call("case", tensors, (("causal", True), ("scale", 0.125)))


CALL = make_call(64)


@pytest.fixture(scope="module")
def normal_path() -> Iterator[ForkServer]:
    """Compiles as Triton does when a kernel is launched."""
    with ForkServer(("normal_path",), path=[Path(__file__).parents[1]]) as server:
        yield server


@pytest.fixture(scope="module")
def compiler(server: ForkServer) -> Compiler:
    return Compiler(None, server=server)


@pytest.fixture(scope="module")
def kernel(server: ForkServer) -> Callable[..., KernelIR]:
    def kernel(source: str, target: str = "h100") -> KernelIR:
        plans = Capturer(server).capture(source, "attention", [CALL], get_target(target))
        assert not isinstance(plans, Fault), plans
        return plans[0].kernels[0]

    return kernel


@pytest.fixture(scope="module")
def small(kernel: Callable[..., KernelIR]) -> KernelIR:
    return kernel(GEMM.format(**SMALL))


@pytest.fixture(scope="module")
def small_binary(compiler: Compiler, small: KernelIR) -> Binary:
    return compiled(compiler.compile(small, get_target("h100")))


def compiled(outcome: Binary | Fault) -> Binary:
    assert isinstance(outcome, Binary), outcome
    return outcome


def same(one: Binary | Fault, other: Binary) -> bool:
    """Whether two compilations gave the same code; Triton 3.6 has the names of temporary files in a cubin."""
    return replace(compiled(one), cubin=b"") == replace(other, cubin=b"")


def fault(outcome: Binary | Fault | None) -> Fault:
    assert isinstance(outcome, Fault), outcome
    return outcome


def canonical(compiler: Compiler, kernels: list[KernelIR], target: str = "h100") -> tuple[LaunchPlan, ...]:
    plans = compiler.canonical([LaunchPlan("case", (), (kernel,), ()) for kernel in kernels], get_target(target))
    assert not isinstance(plans, Fault), plans
    return plans


@pytest.mark.corpus
@pytest.mark.parametrize(
    ("source", "level", "target"),
    [
        (seed_source("mha"), Level.TTIR, "h100"),
        (seed_source("mha"), Level.TTIR, "a100"),
        (seed_source("mha"), Level.TTIR, "b200"),
        (stored("gluon/hopper_product"), Level.TTGIR, "h100"),
        (stored("gluon/blackwell_product"), Level.TTGIR, "b200"),
    ],
    ids=lambda value: value if len(value) < 10 else "",
)
def test_the_text_of_a_plan_compiles_to_the_ptx_of_the_normal_path(
    normal_path: ForkServer, compiler: Compiler, kernel: Callable[..., KernelIR], source: str, level: Level, target: str
) -> None:
    limits = Limits(
        wall_s=600,
        cpu_s=120,
        memory_bytes=8 * 2**30,
        file_bytes=2**30,
        open_files=128,
        processes=64,
        result_bytes=2**26,
        confined=False,
    )
    request = {"source": source, "entry": "attention", "call": asdict(CALL), "target": target}
    normal = normal_path.run("normal_path:run", json.dumps(request).encode(), limits)
    assert isinstance(normal, Finished), normal
    (plan,) = canonical(compiler, [kernel(source, target)], target)
    assert plan.kernels[0].level is level
    binary = compiled(compiler.compile(plan.kernels[0], get_target(target)))
    assert [instructions(binary.ptx)] == list(map(instructions, json.loads(normal.result)))
    assert f".target sm_{get_target(target).arch}{'' if target == 'a100' else 'a'}" in binary.ptx
    assert binary.cubin.startswith(b"\x7fELF")


def test_a_binary_says_what_it_needs(small_binary: Binary) -> None:
    assert small_binary.name == "gemm"
    assert small_binary.target == "h100"
    assert small_binary.threads == 128
    assert 0 < small_binary.registers <= 255
    assert small_binary.spill_bytes == 0
    assert small_binary.shared_bytes >= 2 * (64 * 32 + 32 * 64) * 2
    assert fit(small_binary, get_target("h100")) is None


@pytest.mark.long
def test_a_register_cap_shows_as_spills(compiler: Compiler, kernel: Callable[..., KernelIR]) -> None:
    source = GEMM.format(m=128, n=128, k=32, stages=2, warps=4).replace("num_warps=4", "num_warps=4, maxnreg=64")
    binary = compiled(compiler.compile(kernel(source, "a100"), get_target("a100")))
    assert binary.registers <= 64
    assert binary.spill_bytes > 0


@pytest.mark.long
def test_tensor_memory_is_counted_on_blackwell(compiler: Compiler, kernel: Callable[..., KernelIR]) -> None:
    source = GEMM.format(m=128, n=64, k=64, stages=2, warps=4)
    binary = compiled(compiler.compile(kernel(source, "b200"), get_target("b200")))
    assert binary.tensor_memory_columns == 64


@pytest.mark.long
def test_the_threads_of_warp_specialisation_are_counted(compiler: Compiler, kernel: Callable[..., KernelIR]) -> None:
    binary = compiled(compiler.compile(kernel(WARP_SPECIALISED), get_target("h100")))
    assert binary.threads == 128 * 3
    assert binary.registers * binary.threads <= get_target("h100").registers_per_sm
    assert fit(binary, get_target("h100")) is None


@pytest.mark.long
@pytest.mark.parametrize("how", [", warp_specialize=True", ""])
def test_a_compiler_that_aborts_on_a_warp_specialised_loop_beside_another_is_told_the_rule(
    compiler: Compiler, kernel: Callable[..., KernelIR], how: str
) -> None:
    loop = re.search(r"    for .*\n .*\n", WARP_SPECIALISED)
    assert loop is not None
    source = WARP_SPECIALISED.replace(loop[0], loop[0] + loop[0].replace(", warp_specialize=True", how))
    message = fault(compiler.compile(kernel(source), get_target("h100"))).message
    assert re.search(
        r"kernel gemm .*h100: Triton's pass `nvgpu-warp-specialization` failed.*; for Hopper, .*"
        r"NVGPUWarpSpecialization .* here 2 in all: make it the only loop of the kernel",
        message,
    )


@pytest.mark.long
def test_the_ir_before_any_pass_can_be_read(compiler: Compiler, small: KernelIR) -> None:
    trace = compiler.trace(small, get_target("h100"), "tritongpu-pipeline")
    assert isinstance(trace, Trace)
    assert (trace.failed, trace.finished) == (False, True)
    assert trace.passes.index("tritongpu-coalesce") < trace.passes.index("tritongpu-pipeline")
    text = shown("gemm", trace, "tritongpu-pipeline")
    assert re.match(r"kernel gemm: \d+ passes; the IR before pass \d+, tritongpu-pipeline:\n#blocked", text)
    assert "loc(" not in text
    assert "ttng.warp_group_dot" in text


@pytest.mark.long
def test_too_much_tensor_memory_does_not_fit(compiler: Compiler, kernel: Callable[..., KernelIR]) -> None:
    zeros = "    acc = tl.zeros([M, N], tl.float32)\n"
    more = "        second = tl.dot(left * 2, right, second)\n        third = tl.dot(left + left, right, third)\n"
    source = GEMM.format(m=128, n=256, k=32, stages=1, warps=8)
    source = source.replace(zeros, zeros + zeros.replace("acc", "second") + zeros.replace("acc", "third"))
    source = source.replace("    tl.store", f"{more}    tl.store").replace("acc.to", "(acc + second * third).to")
    binary = compiled(compiler.compile(kernel(source, "b200"), get_target("b200")))
    assert "columns of tensor memory, b200 has 512" in fault(fit(binary, get_target("b200"))).message


@pytest.mark.long
def test_too_much_shared_memory_does_not_fit(compiler: Compiler, kernel: Callable[..., KernelIR]) -> None:
    source = GEMM.format(m=128, n=128, k=128, stages=6, warps=4)
    binary = compiled(compiler.compile(kernel(source), get_target("h100")))
    found = fault(fit(binary, get_target("h100")))
    assert found.status is Status.DOES_NOT_FIT
    assert re.search(r"needs \d{6} bytes of shared memory per CTA, h100 has 232448: use smaller tiles", found.message)


@pytest.mark.long
def test_too_many_warps_do_not_fit(compiler: Compiler, kernel: Callable[..., KernelIR]) -> None:
    outcome = compiler.compile(kernel(GEMM.format(**{**SMALL, "warps": 64})), get_target("h100"))
    found = outcome if isinstance(outcome, Fault) else fit(outcome, get_target("h100"))
    assert fault(found).status in (Status.DOES_NOT_FIT, Status.COMPILE_ERROR)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shared_bytes": 232449}, "needs 232449 bytes of shared memory per CTA, h100 has 232448"),
        ({"tensor_memory_columns": 1}, "needs 1 columns of tensor memory, h100 has 0"),
        ({"threads": 1056}, "needs 1056 threads a CTA, h100 has 1024"),
        ({"registers": 256}, "needs 256 registers per thread, h100 has 255"),
        ({"registers": 121, "threads": 544}, "needs 69632 registers a CTA, h100 has 65536"),
    ],
)
def test_every_resource_has_its_limit(small_binary: Binary, change: dict[str, Any], message: str) -> None:
    found = fault(fit(replace(small_binary, **change), get_target("h100")))
    assert found.status is Status.DOES_NOT_FIT
    assert message in found.message


@pytest.mark.parametrize("target", TARGETS)
def test_exactly_the_limit_fits(small_binary: Binary, target: str) -> None:
    known = get_target(target)
    binary = replace(
        small_binary,
        shared_bytes=known.shared_bytes_per_cta,
        tensor_memory_columns=known.tensor_memory_columns,
        threads=256,
        registers=255,
    )
    assert fit(binary, known) is None


@pytest.mark.parametrize(
    "ttir",
    [
        "",
        "garbage",
        "module {}",
        "module { tt.func public @k() attributes {noinline = false} { tt.nothing } }",
        "module { tt.func public @k(%a: i32) { %b = arith.addf %a, %a : i32\n tt.return } }",
    ],
)
def test_ir_that_is_none_is_a_compile_error(compiler: Compiler, ttir: str) -> None:
    outcome = compiler.compile(KernelIR("k", ttir, (("num_warps", 4),)), get_target("h100"))
    assert fault(outcome).status in (Status.COMPILE_ERROR, Status.CRASHED)
    assert "kernel k" in fault(outcome).message


def test_a_parse_error_names_the_reason(compiler: Compiler) -> None:
    ttir = "module { tt.func public @k() attributes {noinline = false} { tt.nothing } }"
    found = fault(compiler.compile(KernelIR("k", ttir, ()), get_target("h100")))
    assert found.status is Status.COMPILE_ERROR
    assert "tt.nothing" in found.message


ASM = """
module {{
  tt.func public @k(%a: !tt.ptr<i32>) attributes {{noinline = false}} {{
    %0 = tt.elementwise_inline_asm "{asm}" {{constraints = "{constraints}", packed_element = 1 : i32,
      pure = false}} -> i32
    tt.store %a, %0 : !tt.ptr<i32>
    tt.return
  }}
}}
"""


def test_an_instruction_that_ptxas_refuses_is_quoted(compiler: Compiler) -> None:
    ttir = ASM.format(asm="no.such.instruction $0;", constraints="=r")
    found = fault(compiler.compile(KernelIR("k", ttir, ()), get_target("h100")))
    assert found.status is Status.COMPILE_ERROR
    assert re.search(r"line \d+; error   : Not a name of any known instruction: 'no'", found.message)
    assert "/tmp" not in found.message


@pytest.mark.long
def test_a_compiler_that_aborts_is_a_value(compiler: Compiler, server: ForkServer, small: KernelIR) -> None:
    pid = server.pid
    ttir = ASM.format(asm="mov.u32 $0, 1;", constraints="=no-such-constraint")
    found = fault(compiler.compile(KernelIR("k", ttir, ()), get_target("h100")))
    assert found.status is Status.CRASHED
    assert "the compiler aborted on kernel k for h100" in found.message
    assert server.pid == pid
    assert isinstance(compiler.compile(small, get_target("h100")), Binary)


def test_a_compiler_that_takes_too_long_is_a_value(server: ForkServer, small: KernelIR) -> None:
    found = fault(Compiler(None, wall_s=0.01, server=server).compile(small, get_target("h100")))
    assert found.status is Status.TIMED_OUT


def test_all_compilations_of_a_candidate_have_one_budget(
    server: ForkServer, kernel: Callable[..., KernelIR], small: KernelIR, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiler_module, "COMPILING_S", 1)
    source = seed_source("mha").replace(" range(0, kv_len,", " tl.range(0, kv_len, loop_unroll_factor=32, step=")
    compiler, target = Compiler(None, server=server), get_target("h100")
    compiler.begin(closely=False)
    found, jobs = fault(compiler.compile(kernel(source), target)), server.jobs
    assert found.status is Status.TIMED_OUT
    assert "for h100: used up 1 s of processor time: 121 s for one kernel, 1 s for all of a candidate" in found.message
    assert "no processor time is left: 121 s" in fault(compiler.compile(small, target)).message
    assert server.jobs == jobs
    compiler.begin(closely=True)
    assert isinstance(compiler.compile(small, target), Binary)


@pytest.mark.parametrize(
    ("option", "status"),
    [
        (("ptx_options", "-o /tmp/elsewhere"), Status.FORBIDDEN),
        (("ir_override", "/etc/passwd"), Status.FORBIDDEN),
        (("instrumentation_mode", "consan"), Status.FORBIDDEN),
        (("arch", "sm80"), Status.FORBIDDEN),
        (("no_such_option", 1), Status.FORBIDDEN),
        (("num_warps", "4"), Status.COMPILE_ERROR),
        (("num_warps", True), Status.COMPILE_ERROR),
        (("num_warps", 3), Status.COMPILE_ERROR),
        (("num_warps", -4), Status.COMPILE_ERROR),
    ],
)
def test_hostile_options_go_nowhere(
    compiler: Compiler, small: KernelIR, option: tuple[str, str | int], status: Status
) -> None:
    found = fault(compiler.compile(KernelIR("k", small.ttir, (option,)), get_target("h100")))
    assert found.status is status


@pytest.mark.parametrize("text", ["nop; // end inline asm", "\\0A.loc 1 3 0\\0A"])
def test_assembly_cannot_have_lines_of_its_own(compiler: Compiler, small: KernelIR, text: str) -> None:
    asm = (
        f'%a = tt.elementwise_inline_asm "{text}" {{constraints = "=r", packed_element = 1 : i32, pure = true}} -> i32'
    )
    found = fault(compiler.compile(KernelIR("k", f"{small.ttir}\n{asm}", small.options), get_target("h100")))
    assert (found.status, "inline assembly with lines of its own" in found.message) == (Status.FORBIDDEN, True)


@pytest.mark.long
def test_a_kernel_is_compiled_once_for_a_target(server: ForkServer, small: KernelIR, tmp_path: Path) -> None:
    compiler, jobs = Compiler(tmp_path, server=server), server.jobs
    first = compiled(compiler.compile(small, get_target("h100")))
    assert Compiler(tmp_path, server=server).compile(small, get_target("h100")) == first
    assert server.jobs == jobs + 1
    assert compiled(compiler.compile(small, get_target("h200"))).target == "h200"
    assert server.jobs == jobs + 1, "the same architecture"
    assert ".target sm_80" in compiled(compiler.compile(small, get_target("a100"))).ptx
    assert server.jobs == jobs + 2
    options = tuple((name, 8 if name == "num_warps" else value) for name, value in small.options)
    assert compiled(compiler.compile(KernelIR(small.name, small.ttir, options), get_target("h100"))).threads == 256
    assert server.jobs == jobs + 3


@pytest.mark.long
def test_no_more_binaries_are_kept_than_are_asked_for(server: ForkServer, small: KernelIR, tmp_path: Path) -> None:
    compiler, jobs = Compiler(tmp_path, server=server, most_kept=1), server.jobs
    for target, compilations in (("h100", 1), ("h100", 1), ("a100", 2), ("a100", 2), ("h100", 3)):
        compiler.compile(small, get_target(target))
        assert server.jobs == jobs + compilations
        assert len(list(tmp_path.rglob("*.json"))) == 1


@pytest.mark.long
def test_the_lines_of_a_binary_are_those_of_the_ir_wherever_that_says_it_was_written(
    small: KernelIR, small_binary: Binary, tmp_path: Path, server: ForkServer
) -> None:
    compiler = Compiler(tmp_path, server=server)
    made = compiled(compiler.compile(small, get_target("h100")))
    assert same(made, small_binary)
    jobs = server.jobs
    moved = KernelIR(small.name, small.ttir.replace("candidate.py", "another.py"), small.options)
    assert compiler.compile(moved, get_target("h100")) == made
    assert server.jobs == jobs
    number, *_ = [number for number, line in enumerate(small.ttir.splitlines(), 1) if "tt.dot" in line]
    assert re.search(rf"\.loc\s+1 {number} ", small_binary.ptx)
    assert re.findall(r'\.file\s+1 .*"(.*?)"', small_binary.ptx)[-1] == "kernel.ttir"


@pytest.mark.parametrize("damage", sample([b"{", b"", b"[]", b'{"name": "gemm"}', b"\xff\xfe"], 5))
def test_a_damaged_cache_entry_is_replaced(
    server: ForkServer, small: KernelIR, small_binary: Binary, tmp_path: Path, damage: bytes
) -> None:
    compiler = Compiler(tmp_path, server=server)
    path = compiler._cache_path(small, without_locations(small.ttir), get_target("h100"))
    assert path is not None
    path.parent.mkdir()
    path.write_bytes(damage)
    assert same(compiler.compile(small, get_target("h100")), small_binary)
    assert json.loads(path.read_bytes())["name"] == "gemm"
    assert [file.suffix for file in path.parent.iterdir()] == [".json"]


def instructions(ptx: str) -> list[str]:
    code = ptx.partition(".section")[0]
    plain = (re.sub(r"//.*", "", line).strip() for line in code.splitlines())
    return [line for line in plain if line and not re.match(r"\.(loc|file)\b|\$L__(tmp|func|info|dwarf)\w*:|,", line)]


HIDDEN = """\
module {
  tt.func public @k(%a: !tt.ptr<i32>) attributes {noinline = false} { %0 = arith.constant 1 : i32
    gpu.barrier tt.store %a, %0 : !tt.ptr<i32>
    tt.return } }
"""


def test_canonical_text_has_one_operation_a_line_whatever_the_layout_was(compiler: Compiler) -> None:
    (plan,) = canonical(compiler, [KernelIR("k", HIDDEN, ())])
    lines = [line.split()[0] for line in without_locations(plan.kernels[0].ttir).splitlines() if line.strip()]
    assert lines == ["module", "tt.func", "%c1_i32", "gpu.barrier", "tt.store", "tt.return", "}", "}"]


def test_canonical_text_stays_as_it_is(server: ForkServer, compiler: Compiler, small: KernelIR) -> None:
    jobs = server.jobs
    once = [plan.kernels[0] for plan in canonical(compiler, [small, KernelIR("k", HIDDEN, ()), small])]
    assert server.jobs == jobs + 1
    assert once[0] == once[2]
    assert [(kernel.name, kernel.options) for kernel in once[:2]] == [("gemm", small.options), ("k", ())]
    assert [plan.kernels[0] for plan in canonical(compiler, once)] == once
    assert compiler.canonical([], get_target("h100")) == ()


def test_text_of_one_level_is_no_text_of_another(compiler: Compiler, small: KernelIR) -> None:
    found = fault(compiler.compile(replace(small, level=Level.TTGIR), get_target("h100")))
    assert found.status in (Status.COMPILE_ERROR, Status.CRASHED)


@pytest.mark.parametrize("ttir", ["garbage", "module { tt.func public @bad() { tt.nothing } }", "\ud800"])
def test_text_that_does_not_parse_is_the_fault_of_its_kernel(compiler: Compiler, ttir: str) -> None:
    plans = [LaunchPlan("case", (), (KernelIR("good", HIDDEN, ()), KernelIR("bad", ttir, ())), ())]
    outcome = compiler.canonical(plans, get_target("h100"))
    assert isinstance(outcome, Fault)
    assert outcome.status is Status.COMPILE_ERROR
    assert "kernel bad is not valid Triton IR" in outcome.message
