"""Kernels that are compiled together are what they are alone, but for the numbers of labels."""

import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from triton import knobs

from avo.evaluator.binary import Binary
from avo.evaluator.capture import Capturer
from avo.evaluator.compiling import compile_job, cubins
from avo.evaluator.compiling.compiler import Compiler
from avo.evaluator.judging.refusal import passed
from avo.evaluator.performance.sass import parse
from avo.evaluator.plan import KernelIR
from avo.evaluator.sandbox.jobs import ForkServer
from avo.evaluator.target import ScoreKind, Target
from avo.evaluator.targets import get_target
from tests.evaluator.compiling.test_compiler import ASM, CALL, GEMM, SMALL, compiled, fault

CALLING = """\
import triton
import triton.language as tl

@triton.jit(noinline=True)
def scaled(x, times):
    for _ in range(times):
        x = x * 3 + times
    return x

@triton.jit
def gemm(a, steps, M: tl.constexpr):
    m = tl.arange(0, M)
    tl.store(a + m, scaled(steps, steps).to(tl.bfloat16))

def attention(q, k, v, out, lse, *, causal, scale):
    gemm[(1,)](q, 64, M=128)
"""
ABORTING = KernelIR("k", ASM.format(asm="mov.u32 $0, 1;", constraints="=no-such-constraint"), ())
REFUSED = KernelIR("k", ASM.format(asm="no.such.instruction $0;", constraints="=r"), ())


def branching(arch: str, ways: int) -> str:
    """Return the PTX of a kernel that goes one of many ways."""
    labels = ", ".join(f"$L{way}" for way in range(ways))
    parts = "".join(
        f"$L{way}: ld.global.u32 %r2, [%rd0+{way * 8}]; mad.lo.u32 %r1, %r2, %r1, {way}; bra $end;\n"
        for way in range(ways)
    )
    return (
        f".version 8.6\n.target {arch}\n.address_size 64\n.visible .entry k(.param .u64 p, .param .u32 n) {{\n"
        ".reg .b32 %r<4>; .reg .b64 %rd<2>;\nld.param.u64 %rd0, [p]; ld.param.u32 %r0, [n]; mov.u32 %r1, %tid.x;\n"
        f"ways: .branchtargets {labels};\nbrx.idx %r0, ways;\n{parts}$end: st.global.u32 [%rd0], %r1; ret;\n}}\n"
    )


def led(listing: str) -> list[int]:
    """Return the addresses that the table of a listing leads to."""
    (targets,) = re.findall(r'BRXU .*BRANCH_TARGETS ([^"]+)"', listing)
    return [parse(listing).labels[label] for label in targets.split(",")]


def kernels(server: ForkServer, target: Target) -> list[KernelIR]:
    """Return kernels of one name: two products, and one that calls a function."""
    sources = GEMM.format(**SMALL), GEMM.format(**{**SMALL, "m": 128, "warps": 8}), CALLING
    plans = [Capturer(server).capture(source, "attention", [CALL], target) for source in sources]
    return [plan.kernels[0] for made in plans for plan in passed(made)]


def with_plain_labels(binary: Binary) -> Binary:
    """Return the binary with labels numbered in the order in which they are met, and its code alone."""
    numbers: dict[str, str] = {}
    code = binary.listing.partition("//--------------------- SYMBOLS")[0]
    code = code[code.index(".section") :]
    lines = [line for line in code.splitlines() if line.strip() and not line.startswith("//---")]
    listing = re.sub(r"\.L_x_\d+", lambda label: numbers.setdefault(label[0], f".L{len(numbers)}"), "\n".join(lines))
    return replace(binary, listing=listing, cubin=b"")


class Jobs:
    """A compiler with a cache, and what it asks of its server."""

    def __init__(self, server: ForkServer, folder: Path) -> None:
        self.asked: list[str] = []
        self.compiler = Compiler(folder, server=server)
        run = server.run

        def noted(job: str, *arguments: object) -> object:
            self.asked.append(job.partition(":")[2])
            return run(job, *arguments)  # type: ignore[arg-type]

        self.compiler._server = type("Noting", (), {"run": staticmethod(noted), "processor_s": 0.0})()


@pytest.mark.long
@pytest.mark.parametrize("name", ["h100", "a100", "b200"])
def test_kernels_are_what_they_are_alone(server: ForkServer, tmp_path: Path, name: str) -> None:
    target = get_target(name)
    wanted, jobs = kernels(server, target), Jobs(server, tmp_path)
    jobs.compiler.prepare(wanted, target)
    together = [compiled(jobs.compiler.compile(kernel, target)) for kernel in wanted]
    assert jobs.asked == ["run_together"]
    alone = [compiled(Compiler(None, server=server).compile(kernel, target)) for kernel in wanted]
    assert [with_plain_labels(binary) for binary in together] == [with_plain_labels(binary) for binary in alone]
    for one, other in zip(together, alone, strict=True):
        code, same = parse(one.listing), parse(other.listing)
        assert (code.entry, sorted(code.labels.values())) == (same.entry, sorted(same.labels.values()))


@pytest.mark.long
@pytest.mark.parametrize(("failing", "asked"), [(REFUSED, 2), (ABORTING, 3)], ids=["refused", "aborting"])
def test_what_fails_together_is_compiled_alone_with_its_own_fault(
    server: ForkServer, tmp_path: Path, failing: KernelIR, asked: int
) -> None:
    target = get_target("h100")
    first, *_ = kernels(server, target)
    jobs = Jobs(server, tmp_path)
    jobs.compiler.prepare([first, failing], target)
    assert isinstance(jobs.compiler.compile(first, target), Binary)
    found = fault(jobs.compiler.compile(failing, target))
    assert [job for job in jobs.asked if job != "trace"] == ["run_together"] + ["run"] * (asked - 1)
    assert found == fault(Compiler(None, server=server).compile(failing, target))


@pytest.mark.parametrize("arch", ["sm_80", "sm_90", "sm_100"])
def test_branches_lead_through_a_table_where_they_do_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arch: str
) -> None:
    monkeypatch.chdir(tmp_path)
    made = []
    for ways in (5, 9):
        ptx = branching(arch, ways)
        (tmp_path / "k.ptx").write_text(ptx)
        subprocess.run([knobs.nvidia.ptxas.path, f"-arch={arch}", "k.ptx", "-o", "k.cubin"], check=True)
        made.append(((tmp_path / "k.cubin").read_bytes(), ptx))
    together = compile_job._listings(made)
    for listing, (cubin, ptx) in zip(together, made, strict=True):
        (tmp_path / "k.cubin").write_bytes(cubin)
        alone = compile_job.listing(tmp_path / "k.cubin", ptx)
        assert led(listing) == led(alone)
        assert len(led(alone)) == ptx.count("bra $end")


def test_on_a_gpu_each_is_compiled_alone(server: ForkServer, tmp_path: Path) -> None:
    target = get_target("h100")
    jobs = Jobs(server, tmp_path)
    jobs.compiler.prepare([REFUSED, ABORTING], replace(target, kind=ScoreKind.MEASURED))
    assert jobs.asked == []


@pytest.mark.parametrize("content", [b"", b"\x7fELF", b"\x7fELF" + bytes(60)], ids=len)
def test_what_is_no_cubin_is_not_put_together(content: bytes) -> None:
    with pytest.raises(ValueError, match="no cubin"):
        cubins.together([content])
