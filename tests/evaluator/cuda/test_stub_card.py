"""The path that measures on a GPU, up to the driver's door and back: workers, Triton's launcher, graphs, verification.

Kernels are executed from the parameters that the driver is given (``stub_card/launches.py``), which must be the plan's.
"""

import json
import os
import re
from contextlib import closing
from pathlib import Path

import pytest
from triton import knobs
from triton.backends.nvidia.compiler import get_ptxas

from avo.evaluator.binary import Binary
from avo.evaluator.candidate import Candidate
from avo.evaluator.catalogue import get_problem
from avo.evaluator.compiling.compiler import Compiler
from avo.evaluator.cuda import adopted, contender
from avo.evaluator.cuda.contender import Contender
from avo.evaluator.cuda.device import Clocks, Timed
from avo.evaluator.cuda.measured import clocks_in_words, conditions
from avo.evaluator.errors import EvaluatorUnavailable
from avo.evaluator.evaluation import CaseResult, Fault, Status
from avo.evaluator.judging.speed import CompiledPlan
from avo.evaluator.plan import Argument, Buffer, Descriptor, Fill, KernelIR, Launch, LaunchPlan, Pointer, Role, Scalar
from avo.evaluator.problem import Case
from avo.evaluator.problems.mha import MHA
from avo.evaluator.sandbox.jobs import ForkServer
from avo.evaluator.targets import get_target
from avo.seeds import KINDS, fitting, seed_source
from bench.first_contact.faulty import FAULTS
from tests.corpus import sample
from tests.evaluator.cuda import gpu_attacks
from tests.evaluator.cuda.conftest import Start
from tests.evaluator.cuda.on_gpu import compiled, plans
from tests.evaluator.cuda.stub_card.tiny import SMALL
from tests.kernels import stored

LIMIT_S = 600.0
Probe = tuple[KernelIR, Binary]
CARDS = {"h100": "card", "b200": "blackwell"}
"""Targets, with the fixtures that are workers on them."""
QUICK = [("mha", "plain", "h100"), ("fsa", "kv_outer", "h100")]
SEEDS = [(kind, name, target) for target in CARDS for kind in KINDS for name in fitting(kind, get_target(target))]
SAME = "tl.store(Out + tl.arange(0, 256), tl.load(Out + tl.arange(0, 256)))"
COUNTS_FROM_ZERO = """
i = tl.arange(0, 4)
zeros, others = tl.load(Scratch + 1 + 2 * i), tl.load(Scratch + 2 * i)
tl.store(Out + i, tl.load(Out + i) + zeros + tl.where(others == 0x55555555, 0, 1))  # the poison of integers
tl.store(Scratch + 1 + 2 * i, 1)
"""
LONG = Case("1k-causal", 1, 1, 1, 1024, 1024, 128, True)
_PARAMETERS = "%s0: i32, %s1: i32, %t0: i64, %t1: i64, %f: f32, %g: f64, %h: bf16, %b: i1, %l: i64, %u: i8"
PROBE = f"""
module {{
  tt.func public @probe(%a: !tt.ptr<bf16>, %d: !tt.tensordesc<BLOCK>, {_PARAMETERS}, %p: !tt.ptr<f32>) {{
    %c0 = arith.constant 0 : i32
    %x = tt.descriptor_load %d[%c0, %c0] : !tt.tensordesc<BLOCK> -> tensor<64x32xbf16>
    tt.descriptor_store %d[%c0, %c0], %x : !tt.tensordesc<BLOCK>, tensor<64x32xbf16>
    tt.return
  }}
}}
"""
SCALARS = (60, 33, 40, 1, 0.1, 0.1, 0.1, True, 2**64 - 2, -3)
VIEW = Descriptor(0, 32, (60, 33), (40, 1), (64, 32), "nan")


@pytest.mark.parametrize(
    ("kind", "name", "target"),
    [pytest.param(*each, marks=() if each in QUICK else pytest.mark.corpus) for each in SEEDS],
)
def test_a_seed_is_right_and_timed_in_a_graph(
    kind: str, name: str, target: str, request: pytest.FixtureRequest, fork_server: ForkServer
) -> None:
    problem, worker = get_problem(kind), request.getfixturevalue(CARDS[target])
    case = problem.correctness_cases[0]
    (plan,) = compiled(fork_server, Candidate(kind, seed_source(kind, name)), get_target(target), [case])
    assert worker.open(problem, plan) is None
    checked = worker.check(case.name, 7, LIMIT_S)
    assert isinstance(checked, CaseResult), checked
    timed = worker.time(case.name, [1, 2], LIMIT_S, stretch_s=1e-3)
    worker.forget(case.name)
    assert isinstance(timed, Timed), timed
    assert timed.ungraphed == ""
    assert all(run.seconds > 0 for run in timed.runs)


@pytest.mark.long
def test_a_shared_worker_that_a_test_has_ended_is_replaced(cards: Start) -> None:
    first = cards("STUB_ARCH=80")
    assert cards("STUB_ARCH=80") is first
    first.kill()
    assert cards("STUB_ARCH=80") is not first


def test_a_fill_sets_its_view_of_a_buffer_and_nothing_else_before_every_run(
    card: Contender, fork_server: ForkServer
) -> None:
    source = gpu_attacks.then(COUNTS_FROM_ZERO).replace("torch.zeros(", "torch.empty(")
    source = source.replace("    honest(", "    scratch[1:9:2].zero_()\n    honest(")
    (plan,) = compiled(fork_server, Candidate("mha", source), get_target("h100"), [SMALL])
    assert [step.strides for step in plan.plan.steps if isinstance(step, Fill)] == [(2,)]
    assert card.open(MHA, plan) is None
    assert isinstance(checked := card.check(SMALL.name, 7, LIMIT_S), CaseResult), checked
    assert isinstance(timed := card.time(SMALL.name, [1, 2], LIMIT_S), Timed), timed
    card.forget(SMALL.name)


@pytest.mark.parametrize(
    ("source", "field", "least"),
    [
        (gpu_attacks.then(SAME).replace("WHAT=1", "WHAT=1, num_ctas=2"), "num_ctas", 2),
        (gpu_attacks.STARTS_EARLY, "launch_pdl", True),
        (stored("honest/mha/persistent"), "global_scratch_size", 1),
    ],
    ids=["clusters", "early start", "scratch"],
)
@pytest.mark.long
def test_a_launch_with_more_than_arguments_is_right(
    source: str, field: str, least: int, card: Contender, fork_server: ForkServer
) -> None:
    (plan,) = compiled(fork_server, Candidate("mha", source), get_target("h100"), [SMALL])
    *_, binary = plan.binaries.values()
    assert json.loads(binary.launch)[field] >= least
    assert card.open(MHA, plan) is None
    assert isinstance(card.check(SMALL.name, 7, LIMIT_S), CaseResult)
    assert isinstance(card.time(SMALL.name, [1, 2], LIMIT_S), Timed)
    card.forget(SMALL.name)


@pytest.mark.parametrize(("name", "source", "status"), sample([(name, *each) for name, each in FAULTS.items()], 7))
def test_a_fault_that_only_a_gpu_shows_is_found(
    name: str, source: str, status: str, start_card: Start, fork_server: ForkServer
) -> None:
    (plan,) = compiled(fork_server, Candidate("mha", source), get_target("h100"), [LONG])
    with closing(start_card()) as worker:
        found = worker.open(MHA, plan) or worker.check(LONG.name, 7, 1.0 if name == "hangs" else LIMIT_S)
    assert isinstance(found, Fault)
    assert found.status == status, found.message


@pytest.mark.long
def test_a_worker_is_on_the_card_that_it_is_told(start_card: Start) -> None:
    with closing(start_card(device="GPU-00000001")) as worker:
        assert worker.card.uuid == "00000001-0000-0000-0000-000000000000"
    with closing(start_card(device="GPU-7")) as none, pytest.raises(EvaluatorUnavailable, match="No CUDA GPUs"):
        _ = none.card


def test_a_run_has_the_clock_temperature_and_power_of_its_card(card: Contender, right: CompiledPlan) -> None:
    assert (card.card.driver, card.card.max_clock_ghz, card.setup.power_limit_w) == ("550.54.15", 1.995, 700)
    assert card.open(MHA, right) is None
    timed = card.time(SMALL.name, [1, 2], LIMIT_S)
    card.forget(SMALL.name)
    assert isinstance(timed, Timed), timed
    assert timed.clocks == (Clocks(1755, 4, 61, 350.5, pytest.approx(1600, rel=1e-3)),) * 2
    assert clocks_in_words(timed.clocks) == (
        "SM clock 1600 to 1600 MHz, held down by: software power cap, 61 to 61 C, 350 to 350 W"
    )


@pytest.mark.long
def test_who_else_is_on_the_card_is_said_and_other_workers_are_not(
    card: Contender, start_card: Start, right: CompiledPlan
) -> None:
    others = []
    for pid in (card._child.pid, os.getpid()):  # type: ignore[attr-defined]
        with closing(start_card(f"NVML_STUB_PID={pid}")) as worker:
            assert worker.open(MHA, right) is None
            timed = worker.time(SMALL.name, [1], LIMIT_S)
            assert isinstance(timed, Timed), timed
            others.append(timed.clocks[0].others)
    here = f"{Path('/proc/self/comm').read_text().strip()} ({os.getpid()})"
    assert others == [(), (here,)]
    assert clocks_in_words(timed.clocks).endswith(f", others on the card: {here}")


@pytest.mark.long
def test_on_a_part_of_a_card_it_is_said_what_cannot_be_read(start_card: Start, right: CompiledPlan) -> None:
    with closing(start_card("STUB_MIG=1", "NVML_STUB_FAILS=power,limit")) as worker:
        assert worker.open(MHA, right) is None
        timed = worker.time(SMALL.name, [1], LIMIT_S)
        assert isinstance(timed, Timed), timed
        said = conditions(worker.card, worker.setup, timed.clocks, sustained=True, ungraphed="")
    assert "SM clock 1600 to 1600 MHz, held down by: software power cap, 61 to 61 C, power not readable; " in said
    assert "power limit not readable" in said


@pytest.mark.long
@pytest.mark.skipif(not get_ptxas(90).version.startswith("13"), reason="this Triton's assembler is old enough")
def test_for_an_older_driver_the_judge_assembles_with_what_the_worker_found(
    start_card: Start, right: CompiledPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRITON_PTXAS_BLACKWELL_PATH", "")  # for pytest to restore it
    monkeypatch.delenv("TRITON_PTXAS_BLACKWELL_PATH")
    with closing(start_card("STUB_CUDA=12080")) as worker:
        assert f"ptxas {knobs.nvidia.ptxas.version}" in worker.setup.versions
        with pytest.raises(EvaluatorUnavailable, match=r"is not loaded: .*device kernel image is invalid"):
            worker.open(MHA, right)
    adopted(worker.card)
    (plan,) = plans(seed_source("mha"), get_target("h100"), SMALL)
    with closing(start_card("STUB_CUDA=12080")) as worker:
        assert worker.card.assembler == {}
        assert worker.open(MHA, plan) is None
        assert isinstance(worker.check(SMALL.name, 7, LIMIT_S), CaseResult)


@pytest.fixture(scope="module")
def probe(fork_server: ForkServer) -> Probe:
    """A kernel with parameters of all types, as the judge compiles it."""
    for block in ("64x32xbf16", "tensor<64x32xbf16>"):  # how the type is written changed after Triton 3.6
        ir = KernelIR("probe", PROBE.replace("BLOCK", block), (("num_warps", 4),))
        binary = Compiler(None, server=fork_server).compile(ir, get_target("h100"))
        if isinstance(binary, Binary):
            return ir, binary
    raise AssertionError(binary)


def probing(probe: Probe, *arguments: Argument, grid: tuple[int, int, int] = (5, 6, 7)) -> CompiledPlan:
    """A plan with scratch alone, so that what a kernel does to it is never right."""
    buffers = (Buffer("a", "bfloat16", 64 * 40, Role.SCRATCH), Buffer("b", "float32", 8, Role.SCRATCH))
    plan = LaunchPlan(SMALL.name, buffers, probe[:1], (Launch(0, grid, arguments),))
    return CompiledPlan(SMALL, plan, dict([probe]), ())


def launched(card: Contender, plan: CompiledPlan) -> Fault:
    """What comes of a plan that leaves all outputs out."""
    assert card.open(MHA, plan) is None
    found = card.check(SMALL.name, 1, LIMIT_S)
    assert isinstance(found, Fault)
    return found


@pytest.fixture(scope="module")
def right(fork_server: ForkServer) -> CompiledPlan:
    """The seed's plan."""
    return compiled(fork_server, Candidate("mha", seed_source("mha")), get_target("h100"), [SMALL])[0]


ILLEGAL, ECC = (
    "an illegal memory access was encountered",
    "uncorrectable ECC error encountered: no kernel brings that about",
)
BUSY = r"CUDA-capable device\(s\) is/are busy or unavailable"
TORCH, TRITON = "the GPU reports: CUDA error: ", r"the GPU reports: Triton Error \[CUDA\]: "
ERRORS = [
    ("kernel:2=214", None, f"{TORCH}{ECC}"),
    ("kernel:1=700", Status.CRASHED, f"{TORCH}{ILLEGAL}$"),
    ("kernel:2=719", Status.CRASHED, f"{TORCH}unspecified launch failure$"),
    ("cuLaunchKernelEx:2=700", Status.CRASHED, f"{TRITON}{ILLEGAL}$"),
    ("cuLaunchKernelEx:1=2", Status.DOES_NOT_FIT, r"kernels ask for more memory at launch than .*: out of memory$"),
    ("kernel:3=hang", Status.TIMED_OUT, r"a run did not end on the GPU within 0.3 s$"),
    ("cuLaunchKernelEx:2=214", None, TRITON + ECC),
    ("kernel:1=220", None, f"{TORCH}uncorrectable NVLink error detected during the execution: no"),
    ("kernel:2=226", None, f"{TORCH}Invalid access of peer GPU memory over nvlink or a hardware error: no"),
    ("kernel:3=999", None, f"{TORCH}unknown error: no"),
    ("cuLaunchKernelEx:1=46", None, f"{TRITON}{BUSY}: no"),
    ("cuCtxResetPersistingL2Cache:19=46", None, f"the GPU reports: cuCtxResetPersistingL2Cache: {BUSY}: no"),
    ("kernel:2=719 NVML_STUB_XID=95", None, rf"{TORCH}unspecified launch failure \(Xid 95\): no kernel"),
    ("kernel:2=719 NVML_STUB_XID=31", Status.CRASHED, f"{TORCH}unspecified launch failure$"),
    ("kernel:2=700 NVML_STUB_ECC=2", None, rf"{TORCH}{ILLEGAL} \(2 uncorrected ECC errors\): no kernel"),
    ("cuModuleLoadData:3=999", None, r"kernel \w+ is not loaded: .* unknown error"),
    ("cuModuleLoadData:2=999", None, "the kernel that reads the SM clock is not loaded: unknown error"),
    ("cuModuleLoadData:1=46", None, f"driver .* does not run an empty kernel made by .*: {BUSY}"),
]
"""Injected errors, by what becomes of the candidate; None: there is no verdict, as the fault is the machine's."""


@pytest.mark.parametrize(("error", "status", "message"), sample(ERRORS, len(ERRORS)))
def test_an_error_is_blamed_on_who_can_have_caused_it(
    error: str,
    status: Status | None,
    message: str,
    start_card: Start,
    right: CompiledPlan,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(contender, "GRACE_S", 0.2)
    limit_s = 0.3 if "hang" in error else LIMIT_S
    with closing(start_card(*f"STUB_ERRORS={error}".split())) as worker:
        try:
            found = worker.open(MHA, right) or worker.check(SMALL.name, 1, LIMIT_S)
            found = found if isinstance(found, Fault) else worker.time(SMALL.name, [2], limit_s)
        except EvaluatorUnavailable as machine:
            found = machine
    assert getattr(found, "status", None) is status, found
    said = found.message if isinstance(found, Fault) else str(found)
    assert re.match(message if status is None else f"case {SMALL.name}: {message}", said), said
    with pytest.raises(ProcessLookupError):  # it has ended, and was killed where it hung
        os.killpg(worker._child.pid, 0)  # type: ignore[attr-defined]


@pytest.mark.long
def test_a_capture_that_fails_ends_the_worker_without_a_fault(start_card: Start, right: CompiledPlan) -> None:
    with closing(start_card("STUB_ERRORS=cuLaunchKernelEx:2=801")) as worker:  # after the first launch
        assert worker.open(MHA, right) is None
        timed = worker.time(SMALL.name, [1, 2], LIMIT_S)
        assert isinstance(timed, Timed), timed
        assert not timed.runs
        assert timed.ungraphed.startswith("Triton Error [CUDA]: ")
        assert worker._child.last_words()  # type: ignore[attr-defined]
        after = worker.time(SMALL.name, [1], LIMIT_S, graph=False)
    assert isinstance(after, Fault), "no process is left to run it"


def test_every_argument_arrives_in_its_place(card: Contender, probe: Probe) -> None:
    found = launched(card, probing(probe, Pointer(0, 16), VIEW, *map(Scalar, SCALARS), Pointer(1, 4)))
    assert found == Fault(Status.UNWRITTEN, "case small-causal: the launch plan leaves out out")
